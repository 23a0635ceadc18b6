"""The walk through the main job, against a stand-in of Ackgate on a real socket."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from typer.testing import CliRunner, Result

from service.simulator import Simulator
from service.simulator.command import app
from service.simulator.demo import BY_A_PERSON, fresh_wa_id


class StandIn:
    """What the walk needs of Ackgate: notices a change, and acknowledges it after 0.3 s."""

    def __init__(self, sim: Simulator) -> None:
        self.sim = sim
        self.url = ""
        self.ready = True
        self.blind = False
        self.decider = "policy"
        self.outcome = self.decided = "acknowledged"
        self.refusal = ""
        self.identities: dict[str, dict[str, Any]] = {}
        self.decisions: list[Any] = []
        self.keys: set[str | None] = set()
        self.kinds = {"main": "onprem"}

    async def webhook(self, request: web.Request) -> web.Response:
        for message in (await request.json()).get("messages", []):
            if message["type"] == "system" and not self.blind:
                self._change(message["from"], message["system"]["identity"])
        return web.json_response({})

    def _change(self, wa_id: str, hash_: str) -> None:
        manual = wa_id.startswith(BY_A_PERSON)
        state = "pending" if manual else "scheduled"
        self.identities[wa_id] = {"hash": hash_, "state": state, "decided_by": None}
        if not manual:
            asyncio.get_running_loop().call_later(0.3, self._acknowledge, wa_id, self.decider)

    def _acknowledge(self, wa_id: str, kind: str) -> None:
        self.sim.acknowledge_elsewhere(wa_id)
        self.identities[wa_id] |= {
            "state": self.outcome,
            "decided_by": {"kind": kind, "name": "some"},
        }

    async def health(self, _: web.Request) -> web.Response:
        return web.json_response({}, status=200 if self.ready else 503)

    async def accounts(self, _: web.Request) -> web.Response:
        items = [{"account": name, "kind": kind} for name, kind in self.kinds.items()]
        return web.json_response({"items": items, "next_cursor": None})

    async def gate(self, request: web.Request) -> web.Response:
        self.keys.add(request.headers.get("Authorization"))
        identity = self.identities.get(request.match_info["wa_id"], {"state": "acknowledged"})
        sendable = identity["state"] == "acknowledged"
        reasons = [] if sendable else [{"code": f"identity_{identity['state']}"}]
        return web.json_response({"sendable": sendable, "reasons": reasons})

    async def identity(self, request: web.Request) -> web.Response:
        found = self.identities.get(request.match_info["wa_id"])
        if found is None:
            return web.json_response({"detail": "no identity"}, status=404)
        return web.json_response(found)

    async def acknowledge(self, request: web.Request) -> web.Response:
        self.decisions.append(await request.json())
        if self.refusal:
            return web.json_response({"detail": self.refusal}, status=409)
        self.outcome = self.decided
        self._acknowledge(request.match_info["wa_id"], "key")
        return web.json_response(self.identities[request.match_info["wa_id"]])


@pytest.fixture
async def stand_in(sim: Simulator) -> AsyncIterator[StandIn]:
    ackgate = StandIn(sim)
    web_app = web.Application()
    account = "/api/v1/accounts/main"
    web_app.router.add_post("/webhooks/main/secret", ackgate.webhook)
    web_app.router.add_get("/health/ready", ackgate.health)
    web_app.router.add_get("/api/v1/accounts", ackgate.accounts)
    web_app.router.add_get(account + "/recipients/{wa_id}", ackgate.gate)
    web_app.router.add_get(account + "/identities/{wa_id}", ackgate.identity)
    web_app.router.add_post(account + "/identities/{wa_id}/acknowledge", ackgate.acknowledge)
    runner = web.AppRunner(web_app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    ackgate.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    sim.webhook_url = f"{ackgate.url}/webhooks/main/secret"
    yield ackgate
    await runner.cleanup()


Demo = Callable[..., Awaitable[Result]]


@pytest.fixture
def demo(sim: Simulator, stand_in: StandIn) -> Demo:
    """Run the demo in a thread."""

    async def demo(*words: str) -> Result:
        where = {"ACKGATE_SIMULATOR_URL": sim.base_url, "ACKGATE_URL": stand_in.url}
        return await asyncio.to_thread(
            CliRunner().invoke, app, ["demo", "--seconds", "1", *words], env=where
        )

    return demo


async def test_both_cases_are_shown_step_by_step(demo: Demo, stand_in: StandIn) -> None:
    result = await demo("--key", "secret")
    assert result.exit_code == 0, result.output
    lines = [line.strip() for line in result.stdout.splitlines()]
    assert lines[:2] == ["main, an account of the On-Premises API", "1. Policy decides"]
    assert lines[-1] == "Everything went as promised."
    assert sum(line.startswith("the next message: refused 1028") for line in lines) == 2
    assert sum(line.startswith("the next message: accepted") for line in lines) == 2
    assert "Ackgate's gate: not sendable, because identity_scheduled" in lines
    assert "Ackgate's gate: not sendable, because identity_pending" in lines
    assert "Ackgate's state of this identity: scheduled" in lines
    assert stand_in.keys == {"Bearer secret"}
    ((wa_id, identity),) = [
        each for each in stand_in.identities.items() if each[0].startswith(BY_A_PERSON)
    ]
    assert len(wa_id) == 11
    (decision,) = stand_in.decisions
    assert decision["hash"] == identity["hash"]
    assert decision["evidence"] == {"method": "phone_call", "reference": "demo"}


async def test_it_can_be_walked_again_and_again_and_as_json(demo: Demo) -> None:
    for _ in range(2):
        result = await demo("--json")
        assert json.loads(result.stdout)["steps"][-1] == "Everything went as promised."


async def test_a_step_that_is_not_as_promised_ends_it_with_a_line_and_exit_1(
    demo: Demo, stand_in: StandIn
) -> None:
    stand_in.blind = True
    result = await demo()
    assert result.exit_code == 1
    assert result.stderr == "That was not as promised: waited 1 s for the gate to close, in vain\n"


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        ({"ready": False}, "Ackgate is not ready"),
        ({"url": "http://127.0.0.1:1"}, "Ackgate does not answer at http://127.0.0.1:1"),
        ({"decider": "key"}, "decided by policy, but was by {'kind': 'key'"),
        ({"decided": "failed"}, "after the decision the state is failed"),
        ({"refusal": "another hash"}, "Ackgate answered 409 to /api/v1/accounts/main/identities/"),
        ({"outcome": "failed"}, "waited 1 s for the policy's acknowledgement"),
    ],
)
async def test_it_says_what_is_wrong_with_ackgate(
    demo: Demo, stand_in: StandIn, spoil: dict[str, Any], line: str
) -> None:
    for name, value in spoil.items():
        setattr(stand_in, name, value)
    result = await demo()
    assert result.exit_code == 1
    assert line in result.stderr


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"show_security_notifications": False}, "show_security_notifications is off"),
        ({"webhook_url": None}, "the simulator has no webhook"),
    ],
)
async def test_it_says_what_is_wrong_with_the_simulator(
    sim: Simulator, demo: Demo, settings: dict[str, Any], line: str
) -> None:
    sim.change_settings(**settings)
    result = await demo()
    assert result.exit_code == 1
    assert line in result.stderr


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        ({"body": '{"messages":[{"id":"x"}]}'}, "should be refused with 1028, but was"),
        ({"status": 500}, "was refused: 1014 Internal error"),
        ({"body": "{}"}, "was refused: None no error given"),
    ],
)
async def test_it_says_what_became_of_a_message(
    sim: Simulator, demo: Demo, fault: dict[str, Any], line: str
) -> None:
    sim.fault("messages", **fault)
    result = await demo()
    assert result.exit_code == 1
    assert line in result.stderr


async def test_an_account_that_ackgate_does_not_have_is_said_to_be_none(
    demo: Demo, stand_in: StandIn
) -> None:
    result = await demo("--account", "other")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Ackgate has no account other; it has main" in result.stderr
    stand_in.kinds.clear()
    assert "Ackgate has no account" in (await demo()).stderr


async def test_the_account_of_the_cloud_api_comes_first(demo: Demo, stand_in: StandIn) -> None:
    stand_in.kinds = {"main": "onprem", "shop": "cloud", "outlet": "cloud"}
    result = await demo()
    assert result.exit_code == 1
    assert result.stdout == "shop, an account of the Cloud API\n"
    assert "the identity change check is off" in result.stderr


@pytest.mark.parametrize(
    ("settings", "words", "line"),
    [
        ({}, [], "the identity change check is off: ackgate simulate cloud settings"),
        ({"identity_check": True}, [], "the simulator has no webhook for the Cloud API"),
        ({}, ["--on", "1"], "the simulator has no number 1; it has 106540352242922"),
    ],
)
async def test_it_says_what_is_wrong_with_the_simulators_cloud_api(
    sim: Simulator,
    demo: Demo,
    stand_in: StandIn,
    settings: dict[str, Any],
    words: list[str],
    line: str,
) -> None:
    stand_in.kinds = {"shop": "cloud"}
    sim.cloud.change_settings(**settings)
    result = await demo(*words)
    assert result.exit_code == 1
    assert line in result.stderr


def test_users_are_made_up_afresh() -> None:
    made = {fresh_wa_id("1631555") for _ in range(50)}
    assert len(made) > 40
    assert {len(wa_id) for wa_id in made} == {11}
