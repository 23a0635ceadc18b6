"""The control routes and the commands of the Cloud API."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from typer.testing import CliRunner, Result

from service.simulator import Number, Simulator
from service.simulator.cloud import bodies
from service.simulator.cloud.cloud import Cloud
from service.simulator.command import app
from tests.simulator.conftest import (
    NUMBER,
    SECRET,
    SHEENA,
    TOKEN,
    VERIFY_TOKEN,
    WABA,
    Endpoint,
    Graph,
    Serve,
)

USER_ID = "US.13491208655302741918"
OTHER = Number(phone_number_id="200000000000001")
Act = Callable[..., Awaitable[Any]]
Run = Callable[..., Awaitable[Result]]


@pytest.fixture
def act(graph: Graph) -> Act:
    """Call a control route."""

    async def act(method: str, path: str, body: Any = None, expected: int = 200) -> Any:
        async with graph.session.request(method, f"/control/cloud{path}", json=body) as answer:
            assert answer.status == expected, await answer.text()
            return await answer.json()

    return act


@pytest.fixture
def run(graph_sim: Simulator) -> Run:
    """Run a command against the simulator, in a thread, as the simulator runs in this one."""

    async def run(*words: str, url: str | None = None, **where: str) -> Result:
        where = {
            "ACKGATE_SIMULATOR_URL": url or graph_sim.base_url,
            "ACKGATE_SIMULATOR_ACCESS_TOKEN": TOKEN,
            "COLUMNS": "200",
            **where,
        }
        return await asyncio.to_thread(CliRunner().invoke, app, ["cloud", *words], env=where)

    return run


async def test_the_state_shows_users_numbers_messages_and_answers_but_no_secret(
    cloud: Cloud, graph: Graph, act: Act, endpoint: Endpoint
) -> None:
    endpoint.statuses = [503]
    await graph.check(is_on=True)
    await graph.send("another hash")
    await graph.send()
    await graph.send(to="nobody")
    await cloud.settled()
    state = await act("GET", "/state")
    (user,) = state["users"]
    assert (user["wa_id"], user["hash"]) == (SHEENA, cloud.users[SHEENA].hash)
    assert state["numbers"][NUMBER]["identity_check"] is True
    assert state["accounts"][WABA] == {"waba_id": WABA, "subscribed": True, "webhook_url": None}
    assert state["calls"] == {"settings": 1, "messages": 3}
    latest = state["messages"].pop("latest")
    assert [message["outcome"] for message in latest] == ["mismatch", "delivered"]
    assert state["messages"] == {
        "accepted": 2,
        "refused": 1,
        "delivered": 1,
        "mismatch": 1,
        "undeliverable": 0,
    }
    assert state["callbacks"]["updates"] == state["callbacks"]["delivered"] == 3
    assert state["callbacks"]["answers"] == {"503": 1, "200": 3}
    assert state["callbacks"]["pending"] == []
    assert SECRET not in json.dumps(state)
    assert TOKEN not in json.dumps(state)


async def test_a_user_is_set_and_forgotten(cloud: Cloud, act: Act) -> None:
    user = {"user_id": USER_ID, "parent_user_id": "US.ENT.1", "hash": "h", "name": "Sheena"}
    shown = await act("PUT", f"/users/{SHEENA}", {**user, "username": "@s", "hidden": True})
    assert shown == {"wa_id": SHEENA, "username": "@s", "hidden": True, **user}
    assert cloud.users[USER_ID] is cloud.users["US.ENT.1"] is cloud.users[SHEENA]
    assert (await act("PUT", f"/users/{USER_ID}", {"hash": "i"}))["name"] == "Sheena"
    await act("PUT", f"/users/{USER_ID}", {"hash": ""}, expected=400)
    await act("PUT", f"/users/{USER_ID}", {"colour": "red"}, expected=400)
    await act("DELETE", f"/users/{USER_ID}")
    await act("DELETE", f"/users/{SHEENA}", expected=404)
    assert cloud.callbacks == []


async def test_a_number_that_changes_hands_is_the_later_users(cloud: Cloud) -> None:
    first = cloud.set_user(SHEENA, user_id=USER_ID)
    second = cloud.set_user("US.2", wa_id=SHEENA)
    assert cloud.users[SHEENA] is second
    assert cloud.users[USER_ID] is first
    assert (first.wa_id, first.key) == (None, USER_ID)
    assert {user.key for user in cloud.users} == {USER_ID, SHEENA}
    with pytest.raises(ValueError, match="no such value of a user: colour"):
        cloud.set_user(SHEENA, colour="red")


@pytest.mark.parametrize("graph_sim", [{"numbers": (Number(), OTHER)}], indirect=True)
async def test_users_write_reinstall_and_move(cloud: Cloud, act: Act, endpoint: Endpoint) -> None:
    other = OTHER.phone_number_id
    await act("POST", f"/users/{SHEENA}/write", {"text": "Hello", "number": other, "at": 5})
    assert (await act("POST", f"/users/{SHEENA}/reinstall", {"hash": "h"})) == {"hash": "h"}
    await act("POST", f"/users/{SHEENA}/announce", {"spelling": "sibling"})
    moved = await act("POST", f"/users/{SHEENA}/number", {"new": "12195555358"})
    renamed = await act("POST", f"/users/{moved['user_id']}/user-id")
    assert renamed["user_id"] != moved["user_id"]
    await act("POST", "/errors", {"code": 1, "title": "Odd"})
    await cloud.settled()
    values = {next(reversed(value)): value for value in endpoint.values if "errors" in value}
    assert values["errors"]["errors"][0]["code"] == 1
    messages = [message for value in endpoint.values for message in value.get("messages", [])]
    kinds = sorted(message.get("system", message).get("type") for message in messages)
    assert kinds == [
        "customer_identity_changed",
        "text",
        "user_changed_number",
        "user_changed_user_id",
    ]
    (written,) = (value for value in endpoint.values if "contacts" in value)
    assert written["metadata"]["phone_number_id"] == other
    assert written["messages"][0]["timestamp"] == "5"
    unknown = await act("POST", f"/users/{SHEENA}/write", {"text": "x", "number": "9"}, 400)
    assert unknown == {"error": "no business number has the id 9"}


async def test_any_body_is_called_back_signed_or_not(
    cloud: Cloud, graph: Graph, endpoint: Endpoint
) -> None:
    for query in ("", "?signed=false"):
        async with graph.session.post(f"/control/cloud/callbacks{query}", data=b"odd") as answer:
            assert answer.status == 200
    await cloud.settled()
    signatures = {headers.get("X-Hub-Signature-256") for headers in endpoint.headers}
    assert signatures == {None, bodies.signature(SECRET, b"odd")}


@pytest.mark.parametrize(
    "graph_sim",
    [{"retry_base_seconds": 600, "retry_cap_seconds": 600, "batch": 9, "batch_seconds": 60}],
    indirect=True,
)
async def test_pending_webhooks_are_tried_at_once(
    cloud: Cloud, act: Act, endpoint: Endpoint
) -> None:
    endpoint.statuses = [500]
    cloud.write(SHEENA, "Hello")
    assert (await act("POST", "/callbacks/retry"))["pending"] == 1
    while not cloud.webhooks.delivery.counts["failed_attempts"]:
        await asyncio.sleep(0.005)
    await act("POST", "/callbacks/retry")
    await cloud.settled()
    assert len(endpoint.raw) == 2


async def test_faults_are_switched_on_listed_and_off(cloud: Cloud, act: Act) -> None:
    made = await act("POST", "/faults", {"operation": "callback", "again": 5})
    await act("POST", "/faults", {"operation": "settings", "again": 5}, expected=400)
    await act("POST", "/faults", {"operation": "messages", "status": 503})
    listed = (await act("GET", "/faults"))["faults"]
    assert listed[0] == {"id": made["id"], "left": None, "operation": "callback", "again": 5}
    await act("DELETE", f"/faults/{made['id']}")
    await act("DELETE", f"/faults/{made['id']}", expected=404)
    await act("DELETE", "/faults")
    assert len(cloud.faults) == 0


async def test_settings_are_changed_and_shown_without_secrets(cloud: Cloud, act: Act) -> None:
    shown = await act("PATCH", "/settings", {"batch": 1000, "app_secret": "new", "absent": "empty"})
    assert (shown["batch"], shown["absent"]) == (1000, "empty")
    assert "app_secret" not in shown
    assert cloud.options.app_secret == "new"
    await act("PATCH", "/settings", {"identity_check": True})
    assert cloud.business.numbers[NUMBER].identity_check is True
    for wrong in ({"batch": 1001}, {"colour": "red"}, {"numbers": []}, {"statuses": ["lost"]}):
        assert (await act("PATCH", "/settings", wrong, expected=400))["error"]


async def test_a_reset_begins_again_as_it_was_started(
    cloud: Cloud, graph: Graph, act: Act, endpoint: Endpoint
) -> None:
    cloud.change_settings(batch=5, identity_check=True)
    cloud.fault("any", status=500)
    cloud.write(SHEENA, "lost")
    await act("POST", "/reset")
    assert (await graph.send())[0] == 200
    await cloud.settled()
    assert len(endpoint.status_updates) == 2
    assert cloud.options.batch == 1
    assert cloud.business.numbers[NUMBER].identity_check is False
    assert (await act("GET", "/state"))["callbacks"]["updates"] == 2


async def test_control_routes_answer_this_machine_alone(
    graph_sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.simulator.control.is_loopback", lambda _: False)
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{graph_sim.base_url}/control/cloud/state") as answer,
    ):
        assert answer.status == 403


async def test_commands_let_a_user_write_reinstall_and_get_messages(
    cloud: Cloud, run: Run, endpoint: Endpoint
) -> None:
    await run("settings", "identity_check=true")
    assert (await run("write", SHEENA, "Hello", "--on", NUMBER)).stdout == f"{SHEENA} wrote\n"
    before = cloud.users[SHEENA].hash
    sent = await run("send", SHEENA, "Hello", "--hash", before)
    assert (sent.exit_code, sent.stdout.split()[0]) == (0, "delivered")
    printed = await run("reinstall", SHEENA, "--hash", "new")
    assert printed.stdout == f"{SHEENA} has the identity new now\n"
    refused = await run("send", SHEENA, "Hello", "--hash", before, "--json")
    assert (refused.exit_code, json.loads(refused.stdout)["outcome"]) == (1, "mismatch")
    user_id = cloud.users[SHEENA].user_id
    assert (await run("send", user_id, "Hello", "--on", NUMBER)).exit_code == 0
    await cloud.settled()
    failed = [status for status in endpoint.status_updates if status["status"] == "failed"]
    assert [status["errors"][0]["code"] for status in failed] == [137000]


async def test_commands_move_users_and_tell_of_them(
    cloud: Cloud, run: Run, endpoint: Endpoint
) -> None:
    moved = await run("number", SHEENA, "12195555358")
    assert moved.stdout.startswith(f"{SHEENA} has the number 12195555358 and the user id US.")
    await run("number", "12195555358", "12195555359", "--old-spelling")
    assert "has the user id US." in (await run("user-id", "12195555359")).stdout
    for words in ((), ("--sibling",)):
        assert "is told to have the identity" in (await run("announce", "1", *words)).stdout
    await cloud.settled()
    messages = [value["messages"][0] for value in endpoint.values]
    assert sorted(message["system"]["type"] for message in messages) == [
        "customer_changed_number",
        "customer_identity_changed",
        "customer_identity_changed",
        "user_changed_number",
        "user_changed_user_id",
    ]


async def test_commands_set_the_webhook_and_deliver_files(
    cloud: Cloud, run: Run, endpoint: Endpoint, tmp_path: Path
) -> None:
    cloud.webhook_url = None
    wrong = await run("webhook", endpoint.url, "--verify-token", "wrong")
    assert (wrong.exit_code, wrong.stderr) == (
        1,
        "HTTP Status Code = 403; HTTP Message = Forbidden\n",
    )
    set_ = await run("webhook", endpoint.url, "--verify-token", VERIFY_TOKEN)
    assert set_.stdout == f"webhooks go to {endpoint.url}\n"
    body = tmp_path / "body"
    body.write_bytes(b'{"odd":')
    assert "is on its way" in (await run("callback", str(body))).stdout
    assert (await run("callback", str(body), "--unsigned")).exit_code == 0
    await cloud.settled()
    assert endpoint.raw == [b'{"odd":'] * 2


async def test_commands_switch_faults_show_the_state_and_reset(
    cloud: Cloud, graph: Graph, run: Run
) -> None:
    assert (await run("faults")).stdout == "no fault is on\n"
    assert (await run("fault", "callback_batch", "again=5", "rate=0.5")).exit_code == 0
    assert "again=5" in (await run("faults")).stdout
    assert json.loads((await run("faults", "--json")).stdout)["faults"][0]["rate"] == 0.5
    assert (await run("clear")).stdout == "no fault is on\n"
    assert len(cloud.faults) == 0
    await graph.send()
    await cloud.settled()
    shown = (await run("state")).stdout
    for part in (SHEENA, cloud.users[SHEENA].user_id, NUMBER, "Latest messages", "Answers"):
        assert part in shown
    assert json.loads((await run("state", "--json")).stdout)["messages"]["accepted"] == 1
    assert "batch" in (await run("settings")).stdout
    assert json.loads((await run("settings", "--json")).stdout)["batch"] == 1
    assert (await run("reset")).stdout == "everything is forgotten\n"
    assert list(cloud.users) == []


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("fault", "callback", "colour=red"), "colour: "),
        (("settings", "batch"), "batch is no key=value"),
        (("send", SHEENA, "x", "--access-token", "wrong"), "refused: Invalid OAuth access token"),
        (("send", SHEENA, "x", "--on", "9"), "refused: Unsupported post request"),
        (("write", SHEENA, "x", "--on", "9"), "no business number has the id 9"),
    ],
)
async def test_a_mistake_ends_with_one_line_and_exit_1(
    run: Run, words: tuple[str, ...], line: str
) -> None:
    result = await run(*words)
    assert result.exit_code == 1
    assert line in result.stderr
    assert result.stderr.count("\n") == 1


async def test_one_process_serves_both_kinds(serve: Serve, run: Run, endpoint: Endpoint) -> None:
    process = await serve(
        *("--port", "0", "--no-tls", "--cloud-webhook", endpoint.url),
        *("--cloud-number", "5=15550000005@7", "--cloud-number", "6", "--cloud-identity-check"),
        *("--cloud-app-secret", SECRET, "--cloud-access-token", TOKEN),
        *("--cloud-fault", "callback:repeat=2"),
    )
    assert process.stdout is not None
    url = (await process.stdout.readline()).decode().split()[-1]
    printed = (await process.stdout.readuntil(endpoint.url.encode())).decode()
    assert f"The Cloud API is at {url}/v25.0" in printed
    assert (await run("send", SHEENA, "Hello", "--on", "6", url=url)).exit_code == 0
    assert (await run("write", SHEENA, "Hello", url=url)).exit_code == 0
    while len(endpoint.raw) < 6:
        await asyncio.sleep(0.01)
    written = next(value for value in endpoint.values if "messages" in value)
    metadata = {"display_phone_number": "15550000005", "phone_number_id": "5"}
    assert written["metadata"] == metadata
    assert written["contacts"][0]["identity_key_hash"]
    assert {entry["id"] for body in endpoint.bodies for entry in body["entry"]} == {"7", WABA}
    for raw, headers in zip(endpoint.raw, endpoint.headers, strict=True):
        assert headers["X-Hub-Signature-256"] == bodies.signature(SECRET, raw)
    process.terminate()
    assert await asyncio.wait_for(process.wait(), 5) == 0


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--cloud-number", "five"), "phone_number_id: "),
        (("--cloud-fault", "callback:colour=red"), "colour: "),
        (("--cloud-app-secret", ""), "app_secret: "),
    ],
)
async def test_an_option_that_can_not_be_is_one_line_and_exit_1(
    words: tuple[str, ...], line: str
) -> None:
    result = await asyncio.to_thread(CliRunner().invoke, app, ["serve", *words])
    assert result.exit_code == 1
    assert line in result.stderr
    assert result.stderr.count("\n") == 1
