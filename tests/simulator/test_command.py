"""The commands: serving as a process of its own, and acting on a running simulator."""

import asyncio
import json
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from service.simulator import Simulator, certificate
from service.simulator.command import app
from tests.simulator.conftest import WA_ID, Serve, Webhook

Run = Callable[..., Awaitable[Result]]


@pytest.fixture
def run(sim: Simulator) -> Run:
    """Run a command against the simulator, in a thread, as the simulator runs in this one."""

    async def run(*words: str, url: str | None = None) -> Result:
        where = {"ACKGATE_SIMULATOR_URL": url or sim.base_url, "COLUMNS": "200"}
        if sim.options.tls:
            where["ACKGATE_SIMULATOR_CA_FILE"] = str(sim.ca_file)
        return await asyncio.to_thread(CliRunner().invoke, app, list(words), env=where)

    return run


@pytest.mark.parametrize("sim", [{"tls": True}], indirect=True)
async def test_a_change_blocks_the_next_message_until_it_is_acknowledged(
    sim: Simulator, run: Run
) -> None:
    sent = await run("send", WA_ID, "Hello")
    assert (sent.exit_code, sent.stdout.split()[0]) == (0, "accepted")
    changed = await run("change", WA_ID)
    assert changed.stdout == f"{WA_ID} has the identity {sim.users[WA_ID].hash} now\n"
    refused = await run("send", WA_ID, "Hello")
    assert refused.exit_code == 1
    assert refused.stdout.startswith("refused 1028: A user_identity_changed system notification")
    assert (await run("acknowledge", WA_ID)).exit_code == 0
    assert (await run("send", WA_ID, "Hello")).exit_code == 0


async def test_programs_get_json(sim: Simulator, run: Run, webhook: Webhook) -> None:
    changed = await run("change", WA_ID, "--hash", "abc", "--silent", "--json")
    assert json.loads(changed.stdout) == {"wa_id": WA_ID, "hash": "abc"}
    refused = json.loads((await run("send", WA_ID, "Hello", "--json")).stdout)
    assert (refused["accepted"], refused["code"]) == (False, 1028)
    state = json.loads((await run("state", "--json")).stdout)
    assert state["users"][WA_ID]["hash"] == "abc"
    assert json.loads((await run("faults", "--json")).stdout) == {"faults": []}
    await sim.settled()
    assert webhook.raw == []


async def test_users_write_and_move_and_a_file_is_called_back(
    sim: Simulator, run: Run, webhook: Webhook, tmp_path: Path
) -> None:
    body = tmp_path / "body"
    body.write_bytes(b'{"odd":')
    for words in (("write", WA_ID, "Hello"), ("number", WA_ID, "16315550009")):
        assert (await run(*words)).exit_code == 0
    assert (await run("callback", str(body))).exit_code == 0
    await sim.settled()
    assert len(webhook.raw) == 3
    assert b'{"odd":' in webhook.raw


async def test_faults_are_switched_on_listed_and_cleared(sim: Simulator, run: Run) -> None:
    assert (await run("faults")).stdout == "no fault is on\n"
    assert (await run("fault", "identity_put", "status=500", "times=2")).exit_code == 0
    assert (await run("fault", "health", "hang")).exit_code == 0
    listed = (await run("faults")).stdout
    assert "status=500" in listed
    assert "without end" in listed
    assert (await run("clear")).exit_code == 0
    assert len(sim.faults) == 0


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("fault", "login", "status=99"), "status: "),
        (("fault", "bogus", "status=500"), "operation: Input should be 'login', "),
        (("fault", "login", "times=3"), "something to do"),
        (("settings", "colour"), "colour is no key=value"),
        (("settings", "colour=red"), "no such setting: colour"),
        (("send", WA_ID, "x", "--password", "wrong"), "the login was refused with 401"),
    ],
)
async def test_a_mistake_ends_with_one_line_and_exit_1(
    run: Run, words: tuple[str, ...], line: str
) -> None:
    result = await run(*words)
    assert result.exit_code == 1
    assert line in result.stderr
    assert result.stderr.count("\n") == 1


async def test_settings_are_shown_and_changed(sim: Simulator, run: Run) -> None:
    shown = await run("settings", "blocked_send=fail", "show_security_notifications=false")
    assert "show_security_notifications" in shown.stdout
    assert sim.options.blocked_send == "fail"
    assert (
        json.loads((await run("settings", "--json")).stdout)["show_security_notifications"] is False
    )


async def test_the_state_is_shown_in_tables_and_reset(sim: Simulator, run: Run) -> None:
    await run("change", WA_ID)
    await run("send", WA_ID, "Hello")
    shown = (await run("state")).stdout
    for part in (WA_ID, sim.users[WA_ID].hash, "1028", "Callbacks", "Logins", "Contact checks"):
        assert part in shown
    assert (await run("reset")).exit_code == 0
    assert not sim.users


async def test_a_simulator_that_is_not_there_is_one_line(
    run: Run, unused_tcp_port: int, tmp_path: Path
) -> None:
    result = await run("state", url=f"http://127.0.0.1:{unused_tcp_port}")
    assert result.exit_code == 1
    assert result.stderr.startswith("no simulator answers at http://127.0.0.1:")
    missing = str(tmp_path / "missing.pem")
    result = await run("state", "--ca-file", missing, url="https://127.0.0.1:1")
    assert result.stderr.startswith(f"{missing} can't be read")


@pytest.mark.parametrize("sim", [{"tls": True}], indirect=True)
async def test_a_simulator_that_another_ca_vouches_for_is_not_trusted(
    run: Run, tmp_path: Path
) -> None:
    other = certificate.ensure(tmp_path / "another")
    result = await run("state", "--ca-file", str(other.ca))
    assert "isn't trusted" in result.stderr


async def test_an_answer_that_is_no_json_is_reported_by_its_status(
    webhook: Webhook, run: Run
) -> None:
    result = await run("state", url=webhook.url)
    assert result.stderr == "the simulator answered 405\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_serves_until_a_signal_ends_it_and_exits_0(
    serve: Serve, run: Run, webhook: Webhook, tmp_path: Path, number: signal.Signals
) -> None:
    (tmp_path / "password").write_text("from a file\n")
    process = await serve(
        *("--port", "0", "--webhook", webhook.url, "--retry-base", "0.05"),
        *("--password-file", "password", "--fault", "callback:repeat=2"),
    )
    assert process.stdout is not None
    url = (await process.stdout.readline()).decode().split()[-1]
    assert url.startswith("https://127.0.0.1:")
    printed = (await process.stdout.readuntil(b"is on\n")).decode()
    assert f"callbacks go to {webhook.url}" in printed
    ca_file = str(tmp_path / "var" / "simulator-ca.pem")
    assert (await run("change", WA_ID, "--ca-file", ca_file, url=url)).exit_code == 0
    where = ("--ca-file", ca_file, "--password", "from a file")
    assert "refused 1028" in (await run("send", WA_ID, "Hello", *where, url=url)).stdout
    process.send_signal(number)
    assert await asyncio.wait_for(process.wait(), 5) == 0
    assert len(webhook.raw) == 2


async def test_a_taken_port_is_one_line_and_exit_1(serve: Serve, sim: Simulator) -> None:
    process = await serve("--port", str(sim.port), "--no-tls")
    output, errors = await process.communicate()
    assert process.returncode == 1
    assert output == b""
    assert errors.count(b"\n") == 1
    assert str(sim.port).encode() in errors
    assert b"address already in use" in errors


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--fault", "login:colour=red"), "colour: "),
        (("--port", "70000"), "port: "),
        (("--password-file", "missing"), "missing"),
        (("--token-seconds", "0"), "token_seconds: "),
        (("--client-version", "2.43"), "version: "),
    ],
)
async def test_an_option_that_can_not_be_is_one_line_and_exit_1(
    run: Run, words: tuple[str, ...], line: str
) -> None:
    result = await run("serve", *words)
    assert result.exit_code == 1
    assert line in result.stderr
    assert result.stderr.count("\n") == 1


def test_without_the_extra_the_certificate_is_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "trustme", None)
    words = ["serve", "--port", "0", "--var", str(tmp_path)]
    result = CliRunner().invoke(app, words)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "The simulator can't start: its certificate needs trustme, which is in the extra "
        "ackgate[simulator]; install that, or serve with --no-tls\n"
    )
