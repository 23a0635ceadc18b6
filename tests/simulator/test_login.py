"""Logins, tokens, and calls that aren't let in."""

import base64
import re
import time
from datetime import UTC, datetime

import pytest

from service.simulator import Simulator
from tests.simulator.conftest import WA_ID, Business


class Clock:
    """Time that a test moves on."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.5

    def __call__(self) -> float:
        return self.now


CLOCK = Clock()


async def test_a_login_answers_a_token_and_its_expiry_as_metas_page_shows_it(
    business: Business,
) -> None:
    body = await (await business.login()).json()
    (user,) = body["users"]
    assert user["token"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\+00:00", user["expires_after"])
    until = datetime.fromisoformat(user["expires_after"])
    assert abs((until - datetime.now(UTC)).total_seconds() - 7 * 86400) < 60
    assert body["meta"] == {"api_status": "stable", "version": "v2.41.3"}


async def test_a_wrong_password_gets_401_without_a_body(sim: Simulator, business: Business) -> None:
    answer = await business.login("wrong")
    assert (answer.status, await answer.read()) == (401, b"")
    assert (sim.logins.refused, sim.logins.succeeded) == (1, 0)
    assert sim.calls.of("login")[0].outcome == "refused"


@pytest.mark.parametrize(
    "header",
    ["", "Basic", "Basic !!!", "Bearer x", "Basic " + base64.b64encode(b"\xff").decode()],
)
async def test_a_login_without_readable_credentials_gets_401(
    business: Business, header: str
) -> None:
    answer = await business.session.post("/v1/users/login", headers={"Authorization": header})
    assert answer.status == 401


async def test_several_tokens_live_at_once(sim: Simulator, business: Business) -> None:
    sim.set_user(WA_ID)
    await business.login()
    first = business.token
    await business.login()
    assert business.token != first
    await business.identity()
    business.token = first
    await business.identity()
    assert sim.logins.succeeded == 2


@pytest.mark.parametrize("sim", [{"max_wrong_logins": 2, "clock": CLOCK}], indirect=True)
async def test_too_many_wrong_logins_get_429_until_a_minute_has_passed(
    sim: Simulator, business: Business
) -> None:
    assert [(await business.login("wrong")).status for _ in range(3)] == [401, 401, 429]
    refused = await business.login()
    assert (refused.status, (await refused.json())["errors"][0]["code"]) == (429, 1015)
    CLOCK.now += 61
    assert (await business.login()).status == 200
    assert sim.calls["login"] == 5


async def test_a_right_login_forgets_the_wrong_ones(business: Business) -> None:
    for password in ("wrong", "development-only") * 12:
        await business.login(password)
    assert (await business.login()).status == 200


@pytest.mark.parametrize("sim", [{"token_seconds": 5, "clock": CLOCK}], indirect=True)
async def test_an_expired_token_gets_401_with_code_1005(sim: Simulator, business: Business) -> None:
    sim.set_user(WA_ID)
    await business.identity()
    CLOCK.now += 5
    status, body = await business.call("GET", f"/v1/contacts/{WA_ID}/identity")
    assert status == 401
    assert body["errors"] == [
        {"code": 1005, "title": "Access denied", "details": "Invalid credentials."}
    ]
    await business.login()
    assert len(sim.logins.tokens) == 1


async def test_a_call_without_a_token_or_with_an_unknown_one_gets_401(
    sim: Simulator, business: Business
) -> None:
    hash_ = sim.change_identity(WA_ID)
    for header in ("", "Bearer", "Bearer unknown", "Basic abc"):
        answer = await business.session.put(
            f"/v1/contacts/{WA_ID}/identity",
            json={"hash": hash_},
            headers={"Authorization": header},
        )
        assert answer.status == 401
    assert {put.outcome for put in sim.puts} == {"no_effect"}
    assert sim.users[WA_ID].acknowledged is False


async def test_every_token_can_be_made_to_expire(sim: Simulator, business: Business) -> None:
    await business.login()
    assert sim.expire_tokens() == 1
    assert (await business.call("GET", "/v1/health"))[0] == 401


async def test_a_changed_password_ends_the_tokens_and_the_old_password(
    sim: Simulator, business: Business
) -> None:
    await business.login()
    sim.change_password("new", expire_tokens=False)
    assert (await business.call("GET", "/v1/health"))[0] == 200
    sim.change_password("newer")
    assert (await business.call("GET", "/v1/health"))[0] == 401
    assert (await business.login()).status == 401
    assert (await business.login("newer")).status == 200


async def test_an_unknown_path_or_method_gets_the_clients_envelope(business: Business) -> None:
    status, body = await business.call("GET", "/v1/nothing")
    assert (status, body["errors"][0]["code"]) == (404, 1006)
    assert "meta" in body
    status, body = await business.call("DELETE", "/v1/contacts")
    assert (status, body["errors"][0]["code"]) == (405, 1006)


async def test_time_is_the_real_one_by_default(sim: Simulator) -> None:
    assert abs(sim.now() - time.time()) < 5
