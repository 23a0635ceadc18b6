"""How the real command starts, refuses to start, and stops."""

import asyncio
import json
import os
import signal
import socket
import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from tests.acceptance.conftest import (
    HASH_A,
    OTHER_ID,
    TOKEN,
    WA_ID,
    Child,
    Json,
    Spawn,
    Start,
    digest_of,
    hour_ago,
    merge,
    notice,
    rows_of,
    tree_for,
    until,
)

KEYS = {"crm": {"role": "admin", "sha256": digest_of("the-key")}}
OTHER_TOKEN = "the-token-of-another-account"


def database_files(folder: Path) -> list[Path]:
    return list(folder.glob("ackgate.db*"))


async def refused(child: Child) -> str:
    """Give the one line with which the command refused to start."""
    await child.spawn()
    assert await child.ended() not in {0, -9}
    assert len(child.lines) == 1, child.lines
    return child.lines[0]


WRONG: dict[str, tuple[Json, Json, str]] = {
    "unknown key": ({"server": {"prot": 1}}, {}, "server.prot"),
    "unknown table": ({"sever": {"port": 1}}, {}, "sever"),
    "bad value": ({"server": {"port": "http"}}, {}, "server.port"),
    "bad policy": ({"policy": {"mode": "perhaps"}}, {}, "policy.mode"),
    "short token": ({"accounts": {"main": {"webhook_token": "short"}}}, {}, "webhook_token"),
    "open to all": ({"server": {"host": "0.0.0.0"}}, {}, "server.host"),
    "a public URL without a key": (
        {"server": {"public_url": "https://hooks.example.com"}},
        {},
        "server.public_url: needs a key of the API: set api.keys.NAME",
    ),
    "an account without token in public": (
        {"api": {"keys": KEYS}, "accounts": {"main": {"webhook_token": None}}},
        {},
        "callbacks; set it, or webhook_auth = 'proxy'",
    ),
    "unknown by environment": ({}, {"ACKGATE_SERVER__PROT": "1"}, "ACKGATE_SERVER__PROT"),
    "bad by environment": ({}, {"ACKGATE_SERVER__PORT": "http"}, "ACKGATE_SERVER__PORT"),
    "cloud": ({"accounts": {"main": {"kind": "cloud"}}}, {}, "main.username: unknown key where"),
    "no database": (
        {"database": {"url": "postgresql://a@b"}},
        {},
        "database.url: names no database",
    ),
    "no CA file": (
        {"accounts": {"main": {"ca_file": "no/such.pem"}}},
        {},
        "accounts.main.ca_file",
    ),
}


@pytest.mark.parametrize(("over", "env", "named"), WRONG.values(), ids=WRONG)
async def test_a_wrong_configuration_is_one_line_that_names_it_and_nothing_is_started(
    simulate: Start, spawn: Spawn, tmp_path: Path, over: Json, env: Json, named: str
) -> None:
    sim = await simulate()
    child = await spawn(merge(tree_for(sim, tmp_path), over), start=False, env=env)
    assert named in await refused(child)
    assert database_files(tmp_path) == []
    assert len(sim.calls) == 0


async def test_a_taken_port_is_one_line_that_names_it_and_the_file_is_let_go(
    simulate: Start, spawn: Spawn, tmp_path: Path
) -> None:
    sim = await simulate()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        tree = merge(tree_for(sim, tmp_path), {"server": {"port": port}})
        child = await spawn(tree, start=False)
        assert str(port) in await refused(child)
    assert len(sim.calls) == 0
    await child.start()
    assert child.base.endswith(f":{port}")


async def test_a_taken_internal_port_leaves_the_endpoint_closed_too(
    simulate: Start, spawn: Spawn, tmp_path: Path
) -> None:
    sim = await simulate()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        tree = merge(tree_for(sim, tmp_path), {"server": {"internal": {"port": port}}})
        child = await spawn(tree, start=False)
        assert str(port) in await refused(child)
    assert child.base == ""
    assert len(sim.calls) == 0


@pytest.mark.sqlite
async def test_a_file_in_use_is_one_line_that_names_it_and_harms_nobody(
    simulate: Start, spawn: Spawn, tmp_path: Path
) -> None:
    sim = await simulate()
    tree = tree_for(sim, tmp_path)
    first = await spawn(tree)
    second = await spawn(tree, start=False)
    line = await refused(second)
    assert "ackgate.db" in line
    assert "in use" in line
    await first.deliver(notice(WA_ID, HASH_A, hour_ago()))
    first.signal(signal.SIGTERM)
    assert await first.ended() == 0
    await second.start()
    assert (await second.identity())["hash"] == HASH_A


@pytest.mark.slow
@pytest.mark.sqlite
async def test_a_newer_database_is_one_line_that_names_it_and_is_left_as_it_was(
    simulate: Start, spawn: Spawn, tmp_path: Path
) -> None:
    sim = await simulate()
    child = await spawn(tree_for(sim, tmp_path))
    child.signal(signal.SIGTERM)
    assert await child.ended() == 0
    file = tmp_path / "ackgate.db"
    with sqlite3.connect(file) as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
        database.execute("UPDATE installation SET value = '9999' WHERE key = 'oldest_migration'")
    database.close()
    calls = len(sim.calls)
    line = await refused(child)
    assert "newer" in line
    assert "ackgate.db" in line or "database" in line
    assert len(sim.calls) == calls
    database = sqlite3.connect(file)
    assert database.execute("SELECT version_num FROM alembic_version").fetchone() == ("9999",)
    database.execute("UPDATE installation SET value = '0001' WHERE key = 'oldest_migration'")
    database.commit()
    database.close()
    await child.start()


@pytest.mark.sqlite
@pytest.mark.parametrize("content", [b"this is no database, but some other file\n" * 100, None])
async def test_a_file_that_is_no_database_is_one_line_that_names_it(
    simulate: Start, spawn: Spawn, tmp_path: Path, content: bytes | None
) -> None:
    sim = await simulate()
    file = tmp_path / "ackgate.db"
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    child = await spawn(tree_for(sim, tmp_path), start=False)
    assert "ackgate.db" in await refused(child)
    if content is not None:
        assert file.read_bytes() == content


async def test_a_value_of_the_environment_outdoes_the_file(
    simulate: Start, spawn: Spawn, tmp_path: Path
) -> None:
    sim = await simulate()
    child = await spawn(tree_for(sim, tmp_path), env={"ACKGATE_POLICY__MODE": "auto"})
    sim.webhook_url = f"{child.base}/webhooks/main/{TOKEN}"
    hash_ = sim.change_identity(WA_ID)
    await child.becomes("acknowledged", hash_=hash_)


async def test_without_a_key_one_warning_says_that_only_this_machine_is_answered(
    simulate: Start, spawn: Spawn, tmp_path: Path
) -> None:
    sim = await simulate()
    child = await spawn(tree_for(sim, tmp_path))
    warnings = [line for line in child.lines if "only requests from this machine" in line]
    assert len(warnings) == 1
    assert '"warning"' in warnings[0]


async def test_a_key_without_effect_is_one_warning_that_names_it(
    simulate: Start, spawn: Spawn, tmp_path: Path
) -> None:
    sim = await simulate()
    tree = merge(tree_for(sim, tmp_path), {"server": {"max_connections": 1}})
    child = await spawn(tree)
    [warning] = [line for line in child.lines if "no effect" in line]
    assert '"warning"' in warning
    assert "server.max_connections" in warning
    async with child.http.get(f"{child.base}/health/live") as first:
        assert first.status == 200
    assert await child.post(notice(WA_ID, HASH_A, hour_ago())) == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_with_0_and_soon(
    simulate: Start, spawn: Spawn, tmp_path: Path, number: int
) -> None:
    sim = await simulate()
    child = await spawn(tree_for(sim, tmp_path))
    began = time.monotonic()
    child.signal(number)
    assert await child.ended() == 0
    assert time.monotonic() - began < 5


async def test_while_it_drains_it_is_not_ready_and_takes_callbacks_all_the_same(
    simulate: Start, spawn: Spawn, tmp_path: Path
) -> None:
    sim = await simulate()
    server = {"drain_seconds": 2}
    child = await spawn(merge(tree_for(sim, tmp_path), {"server": server}))
    assert (await child.api("GET", "/health/ready"))[0] == 200
    child.signal(signal.SIGTERM)

    async def not_ready() -> bool:
        return (await child.api("GET", "/health/ready"))[0] == 503

    await until(not_ready, 2)
    assert (await child.api("GET", "/health/live"))[0] == 200
    await child.deliver(notice(WA_ID, HASH_A, hour_ago()))
    assert await child.ended() == 0
    await child.start()
    assert (await child.identity())["hash"] == HASH_A


async def test_while_it_drains_kept_connections_are_ended_by_their_next_answer(
    simulate: Start, spawn: Spawn, tmp_path: Path
) -> None:
    sim = await simulate()
    child = await spawn(merge(tree_for(sim, tmp_path), {"server": {"drain_seconds": 3}}))
    body = json.dumps(notice(WA_ID, HASH_A, hour_ago())).encode()
    post = f"POST /webhooks/main/{TOKEN} HTTP/1.1\r\nHost: localhost\r\n".encode()
    callback = post + f"Content-Length: {len(body)}\r\n\r\n".encode() + body
    asked = b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\n\r\n"
    wrong = callback.replace(TOKEN.encode(), b"another-token")
    kept = [await asyncio.open_connection("127.0.0.1", URL(child.base).port) for _ in range(3)]
    for (reader, writer), sent in zip(kept, (callback, asked, wrong), strict=True):
        writer.write(sent)
        assert b"Connection: close" not in await reader.readuntil(b"\r\n\r\n")
    child.signal(signal.SIGTERM)

    async def drains() -> bool:
        return (await child.api("GET", "/health/ready"))[0] == 503

    await until(drains, 3)
    for (reader, writer), sent in zip(kept, (callback, asked, wrong), strict=True):
        writer.write(sent)
        async with asyncio.timeout(2):
            answer = await reader.read()  # to the end of the connection
        assert b"\r\nConnection: close\r\n" in answer
        writer.close()
    assert await child.ended() == 0


async def load(child: Child, name: str, taken: dict[str, str]) -> None:
    """Deliver callbacks one after another until the endpoint is closed; note which got a 200."""
    for number in range(100_000):
        wa_id = f"1631{name}{number}"
        try:
            status = await child.post(notice(wa_id, f"hash {wa_id}", hour_ago()))
        except (aiohttp.ClientError, ConnectionError):
            return
        if status == 200:
            taken[wa_id] = f"hash {wa_id}"


async def test_a_sigterm_under_load_loses_nothing_that_got_a_200(
    simulate: Start, spawn: Spawn, tmp_path: Path
) -> None:
    sim = await simulate()
    server = {"drain_seconds": 0.3, "shutdown_seconds": 4}
    child = await spawn(
        merge(tree_for(sim, tmp_path), {"server": server, "policy": {"mode": "auto"}})
    )
    taken: dict[str, str] = {}
    senders = [asyncio.create_task(load(child, f"{n:02}", taken)) for n in range(16)]
    await until(lambda: len(taken) > 200)
    began = time.monotonic()
    child.signal(signal.SIGTERM)
    assert await child.ended() == 0
    assert time.monotonic() - began < 0.3 + 4 + 1
    await asyncio.wait_for(asyncio.gather(*senders), 10)
    stored = dict(await rows_of(child.database_url, "SELECT wa_id, hash FROM users"))
    assert {wa_id: stored.get(wa_id) for wa_id in taken} == taken


async def test_a_put_under_way_is_finished_before_it_ends(
    simulate: Start, spawn: Spawn, tmp_path: Path
) -> None:
    sim = await simulate()
    sim.fault("identity_put", latency=0.7, times=1)
    child = await spawn(merge(tree_for(sim, tmp_path), {"policy": {"mode": "auto"}}))
    sim.webhook_url = f"{child.base}/webhooks/main/{TOKEN}"
    sim.change_identity(WA_ID)
    await until(lambda: sim.calls.in_flight["identity_put"] == 1)
    child.signal(signal.SIGTERM)
    assert await child.ended() == 0
    assert [call.outcome for call in sim.puts] == ["acknowledged"]
    await child.start()
    assert await child.state() == "acknowledged"
    assert [call.operation for call in sim.calls if call.wa_id == WA_ID] == ["identity_put"]


@pytest.mark.slow
async def test_a_put_that_takes_too_long_is_cut_and_settled_by_a_get_after_the_start(
    simulate: Start, spawn: Spawn, tmp_path: Path
) -> None:
    sim = await simulate()
    sim.fault("identity_put", hang=60, effect=True, times=1)
    over = {"policy": {"mode": "auto"}, "server": {"shutdown_seconds": 0.6}}
    child = await spawn(merge(tree_for(sim, tmp_path), over))
    sim.webhook_url = f"{child.base}/webhooks/main/{TOKEN}"
    sim.change_identity(WA_ID)
    await until(lambda: sim.calls.in_flight["identity_put"] == 1)
    began = time.monotonic()
    child.signal(signal.SIGTERM)
    assert await child.ended() == 0
    assert time.monotonic() - began < 3
    await child.start()
    await child.becomes("acknowledged")
    own = [call.operation for call in sim.calls if call.wa_id == WA_ID]
    assert own == ["identity_put", "identity_get"]


async def test_who_waits_for_an_acknowledgement_is_answered_before_it_ends(
    simulate: Start, spawn: Spawn, tmp_path: Path
) -> None:
    sim = await simulate()
    sim.fault("identity_put", hang=60, times=1)
    child = await spawn(merge(tree_for(sim, tmp_path), {"server": {"shutdown_seconds": 1}}))
    sim.webhook_url = f"{child.base}/webhooks/main/{TOKEN}"
    hash_ = sim.change_identity(WA_ID)
    await sim.settled()
    waiting = asyncio.create_task(child.acknowledge(hash_, query="?wait=60"))
    await until(lambda: sim.calls.in_flight["identity_put"] == 1)
    child.signal(signal.SIGTERM)
    status, shown = await waiting
    assert (status, shown["state"]) == (202, "acknowledging")
    assert await child.ended() == 0


@pytest.mark.slow
async def test_an_account_that_was_removed_is_paused_and_its_rows_stay(
    simulate: Start, spawn: Spawn, tmp_path: Path
) -> None:
    sim = await simulate()
    tree = tree_for(sim, tmp_path)
    second: dict[str, Any] = {
        **tree["accounts"]["main"],
        "webhook_token": OTHER_TOKEN,
        "policy": {"mode": "auto", "delay_seconds": 0.1},
    }
    both = merge(tree, {"accounts": {"second": second}})
    child = await spawn(both)
    sim.fault("identity_put", status=503)
    sim.set_user(WA_ID, hash=HASH_A, acknowledged=False)
    endpoint = f"/webhooks/second/{OTHER_TOKEN}"
    body = notice(WA_ID, HASH_A, hour_ago())
    assert await child.post(body, path=endpoint) == 200
    await until(lambda: len(sim.puts) == 1)
    child.signal(signal.SIGTERM)
    assert await child.ended() == 0
    sim.clear_faults()
    puts = len(sim.puts)

    without = await spawn(tree)
    assert len([line for line in without.lines if "second" in line]) == 1
    assert await without.post(body, path=endpoint) == 404
    assert await without.post(body, path=f"/webhooks/second/{TOKEN}") == 404
    user = f"/accounts/second/identities/{WA_ID}"
    for method, path, sent in (
        ("GET", "/accounts/second", None),
        ("GET", user, None),
        ("POST", f"{user}/acknowledge", {"hash": HASH_A}),
        ("POST", f"{user}/hold", {"hash": HASH_A}),
        ("POST", f"{user}/refresh", None),
        ("GET", f"/accounts/second/recipients/{WA_ID}", None),
        ("POST", "/accounts/second/recipients/lookup", {"recipients": [WA_ID]}),
        ("GET", "/accounts/second/contacts", None),
    ):
        assert (await without.api(method, path, sent))[0] == 404, path
    await without.deliver(notice(OTHER_ID, HASH_A, hour_ago()))
    began = time.monotonic()
    await until(lambda: time.monotonic() - began > 1.3)
    assert len(sim.puts) == puts
    without.signal(signal.SIGTERM)
    assert await without.ended() == 0

    again = await spawn(both)

    async def acknowledged() -> bool:
        return bool((await again.identity(account="second"))["state"] == "acknowledged")

    await until(acknowledged)
    assert (await again.identity(OTHER_ID))["hash"] == HASH_A


def full_pipe() -> tuple[int, int]:
    """Make a pipe that takes nothing more until somebody reads it."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"." * 512)
    os.set_blocking(writing, True)
    return reading, writing


async def test_a_log_that_nobody_reads_holds_up_neither_callbacks_nor_the_stop(
    simulate: Start, spawn: Spawn, tmp_path: Path
) -> None:
    sim = await simulate()
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    tree = merge(tree_for(sim, tmp_path), {"server": {"port": port}})
    child = await spawn(tree, start=False)
    reading, writing = full_pipe()
    await child.spawn(stderr=writing)
    os.close(writing)
    child.base = f"http://127.0.0.1:{port}"

    async def lives() -> bool:
        with suppress(aiohttp.ClientError):
            return (await child.api("GET", "/health/live"))[0] == 200
        return False

    await until(lives, 30)
    await child.deliver(notice(WA_ID, HASH_A, hour_ago()))
    assert await child.state() == "pending"
    child.signal(signal.SIGTERM)
    assert await child.ended(15) == 0
    os.close(reading)
