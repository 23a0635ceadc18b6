"""The operator's commands, against a running service, and the service as a command."""

import asyncio
import json
import signal
import socket
from pathlib import Path

import pytest
from aiohttp import web

from service.simulator import certificate
from tests.acceptance.commands import answers, parsed, refused, run, serving
from tests.acceptance.conftest import (
    HASH_A,
    HASH_B,
    USER_ID,
    WA_ID,
    Install,
    Installation,
    Spawn,
    Start,
    digest_of,
    notice,
    tree_for,
)

KEY = "a-key-that-only-tests-know"
CRM = {"api": {"keys": {"crm": {"role": "operator", "sha256": digest_of(KEY)}}}}


async def test_an_operator_finds_looks_at_and_acknowledges_an_identity(
    manual: Installation,
) -> None:
    hash_ = await manual.change(hash_=HASH_A)
    listed = await run("identities", "list", "--state", "pending", url=manual.base)
    [row] = [line for line in listed.stdout.splitlines() if WA_ID in line]
    assert "pending" in row
    assert hash_ in row
    shown = await run("identities", "show", "main", WA_ID, url=manual.base)
    assert "Audit trail" in shown.stdout
    closed = await run("gate", "main", WA_ID, url=manual.base, expect=1)
    assert closed.stdout.startswith(f"{WA_ID} must not be written to")
    assert "identity_pending" in closed.stdout
    done = await run(
        *("acknowledge", "main", WA_ID, "--hash", hash_, "--wait", "10", "--note", "called"),
        *("--method", "call", "--reference", "ticket 7", "--on-behalf-of", "ann"),
        url=manual.base,
    )
    assert "acknowledged" in done.stdout
    opened = await run("gate", "main", WA_ID, url=manual.base)
    assert opened.stdout.startswith(f"{WA_ID} may be written to")
    [decided] = await manual.audit(event="decided")
    assert decided["note"] == "called"
    assert decided["evidence"] == {"method": "call", "reference": "ticket 7"}
    assert decided["by"] == {"kind": "key", "name": "local", "on_behalf_of": "ann"}
    shown = await run("identities", "show", "main", WA_ID, url=manual.base)
    assert "key local for ann" in shown.stdout
    assert "call ticket 7" in shown.stdout


async def test_programs_get_the_json_of_the_api(manual: Installation) -> None:
    hash_ = await manual.change()
    for words, path in (
        (("status",), "/status"),
        (("accounts",), "/accounts"),
        (("gate", "main", WA_ID), f"/accounts/main/recipients/{WA_ID}"),
        (("identities", "list"), "/identities"),
        (("identities", "show", "main", WA_ID), f"/accounts/main/identities/{WA_ID}"),
    ):
        _, answer = await manual.api("GET", path)
        closed = int(words[0] == "gate")
        printed = parsed(await run(*words, "--json", url=manual.base, expect=closed))
        assert printed.keys() == answer.keys()
    held = await run(
        "identities", "hold", "main", WA_ID, "--hash", hash_, "--json", url=manual.base
    )
    assert parsed(held)["state"] == "held"
    refreshed = await run("identities", "refresh", "main", WA_ID, "--json", url=manual.base)
    assert parsed(refreshed)["hash"] == hash_


async def test_people_see_how_things_stand(manual: Installation) -> None:
    await manual.change()
    assert "counts.pending" in (await run("status", url=manual.base)).stdout
    accounts = (await run("accounts", url=manual.base)).stdout
    assert "login.state" in accounts
    assert "main" in accounts


async def test_a_decision_about_a_hash_that_changed_shows_the_identity_as_it_is(
    manual: Installation,
) -> None:
    await manual.change(hash_=HASH_B)
    for verb in (("acknowledge",), ("identities", "hold")):
        words = (*verb, "main", WA_ID, "--hash", HASH_A)
        result = await run(*words, url=manual.base, expect=1)
        assert result.stderr == "ackgate: 409 Conflict: another hash is the latest\n"
        assert HASH_B in result.stdout
        problem = parsed(await run(*words, "--json", url=manual.base, expect=1))
        assert problem["identity"]["hash"] == HASH_B


async def test_what_the_service_refuses_is_one_line_with_status_and_reason(
    manual: Installation,
) -> None:
    for words, line in (
        (("identities", "show", "main", WA_ID), "404 Not Found: there is no identity of this user"),
        (("identities", "list", "--state", "odd"), "422 Unprocessable"),
    ):
        assert line in await refused(*words, url=manual.base)


async def test_an_odd_user_or_account_stays_one_part_of_the_path(manual: Installation) -> None:
    for odd in ("../../status", "a/b?c#d", "+1 631", "%2F", "\udcff", "é"):
        for words in (("identities", "show", "main", odd), ("identities", "show", odd, WA_ID)):
            assert (await refused(*words, url=manual.base)).startswith("404")


async def test_without_waiting_it_is_decided_and_with_waiting_it_must_be_done(
    manual: Installation,
) -> None:
    hash_ = await manual.change()
    manual.sim.fault("identity_put", latency=5.0)
    words = ("acknowledge", "main", WA_ID, "--hash", hash_)
    waited = await run(*words, "--wait", "0.2", url=manual.base, expect=1)
    assert "not acknowledged within 0.2 s; it goes on" in waited.stderr
    decided = await run(*words, url=manual.base)
    assert "acknowledging" in decided.stdout


async def test_a_refusal_by_the_client_is_told() -> None:
    async with serving(answers({"state": "failed", "last_error": "404"})) as url:
        words = ("acknowledge", "main", WA_ID, "--hash", HASH_A, "--wait", "5")
        result = await run(*words, url=url, expect=1)
    assert result.stderr == "ackgate: the WhatsApp client refused it: 404\n"


async def test_a_hash_that_nobody_knows_is_approved_by_saying_so() -> None:
    bodies = []

    async def take(request: web.Request) -> web.Response:
        bodies.append(await request.json())
        return web.json_response({"state": "awaiting_hash"})

    async with serving(take) as url:
        await run("acknowledge", "shop", WA_ID, "--no-hash", "--wait", "5", url=url)
    assert bodies == [{"hash": None}]


@pytest.mark.parametrize("said", [(), ("--hash", HASH_A, "--no-hash")])
async def test_a_decision_names_a_hash_or_says_that_there_is_none(said: tuple[str, ...]) -> None:
    assert "--no-hash" in await refused("acknowledge", "main", WA_ID, *said, expect=2)


async def test_half_an_evidence_is_refused_before_anything_is_sent() -> None:
    words = ("acknowledge", "main", WA_ID, "--hash", HASH_A, "--method", "call")
    assert "give both, or none" in await refused(*words, expect=2)


async def test_a_key_is_taken_from_the_environment_or_a_file(
    install: Install, tmp_path: Path
) -> None:
    made = await install(**CRM)
    assert "401" in await refused("status", url=made.base)
    assert "ACKGATE_KEY" in await refused("status", url=made.base, key="wrong")
    await run("status", url=made.base, key=KEY)
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    await run("status", "--key-file", str(file), url=made.base, key="wrong")
    none = ("status", "--key-file", f"{file}.none")
    assert "can't be read" in await refused(*none, url=made.base, expect=2)
    assert "no key has" in await refused("status", url=made.base, key="two words", expect=2)


async def test_a_list_follows_the_pages_as_far_as_wanted(manual: Installation) -> None:
    users = [f"1631555{n:04}" for n in range(5)]
    await manual.deliver(
        *(notice(user, HASH_A, 1_700_000_000_000 + n) for n, user in enumerate(users))
    )
    words = ("identities", "list", "--account", "main", "--json")
    first = parsed(await run(*words, "--limit", "2", url=manual.base))
    assert [one["wa_id"] for one in first["items"]] == users[:2]
    rest = parsed(await run(*words, "--cursor", first["next_cursor"], url=manual.base))
    assert [one["wa_id"] for one in rest["items"]] == users[2:]
    assert rest["next_cursor"] is None
    some = await run("identities", "list", "--limit", "2", url=manual.base)
    assert some.stderr == "ackgate: there are more: --limit, or --all\n"
    none = await run("identities", "list", "--state", "held,failed", url=manual.base)
    assert none.stderr == "ackgate: no identity is like that\n"


async def test_all_means_all_pages() -> None:
    sizes: list[int] = []

    async def handler(request: web.Request) -> web.Response:
        start, size = int(request.query.get("cursor", "0")), int(request.query["limit"])
        sizes.append(size)
        items = [{"wa_id": str(n)} for n in range(start, min(start + size, 2500))]
        cursor = str(start + size) if start + size < 2500 else None
        return web.json_response({"items": items, "next_cursor": cursor})

    async with serving(handler) as url:
        every = parsed(await run("identities", "list", "--all", "--json", url=url))
        assert [one["wa_id"] for one in every["items"]] == [str(n) for n in range(2500)]
        assert sizes == [1000, 1000, 1000]
        sizes.clear()
        some = parsed(await run("identities", "list", "--limit", "1200", "--json", url=url))
        assert len(some["items"]) == 1200
        assert sizes == [1000, 200]
        assert some["next_cursor"] == "1200"


@pytest.mark.parametrize(
    ("body", "status"),
    [("<html>", 502), ("<html>", 200), ("[1]", 200), ("[" * 100_000, 200), ("{}", 302)],
)
async def test_what_is_not_ackgate_is_told_as_that(body: str, status: int) -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(text=body, status=status, headers={"Location": "/elsewhere"})

    async with serving(handler) as url:
        assert (
            await refused("status", url=url) == f"{url} answers {status}, but not as Ackgate does"
        )


async def test_no_answer_names_the_url() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        line = await refused("status", url=url)
    assert line.startswith(f"no answer from {url}: Connection refused")


async def test_an_answer_that_breaks_off_or_never_comes_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def cut(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with serving(cut) as url:
        assert (await refused("status", url=url)).startswith(f"no answer from {url}: ")

    async def hang(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(1)
        return web.Response()

    monkeypatch.setattr("service.cli.remote.ANSWER_SECONDS", 0.2)
    async with serving(hang) as url:
        assert await refused("status", url=url) == f"no answer from {url}: the time is up"


@pytest.mark.parametrize(
    "url", ["nowhere", "ftp://a", "http://", "http://u:p@a", "http://a:99999", "http://a?b=c"]
)
async def test_an_unusable_url_is_refused_without_being_echoed(url: str) -> None:
    line = await refused("status", "--url", url, expect=2)
    assert line.startswith("--url must be an http or https URL")
    assert "u:p" not in line


async def test_a_private_authority_is_trusted_when_it_is_named(
    tmp_path: Path, certificates: Path
) -> None:
    files = certificate.ensure(certificates)
    tls = certificate.server_context(files)
    async with serving(answers({"counts": {}}), tls) as url:
        assert "--ca-file" in await refused("status", url=url)
        await run("status", "--ca-file", str(files.ca), url=url)
    (tmp_path / "odd").write_text("no certificate")
    assert "PEM" in await refused("status", "--ca-file", str(tmp_path / "odd"), expect=2)
    none = ("status", "--ca-file", str(tmp_path / "none"))
    assert "No such file" in await refused(*none, expect=2)


async def test_a_key_in_the_clear_over_the_network_is_warned_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.cli.remote.CONNECT_SECONDS", 0.1)
    result = await run("status", url="http://192.0.2.1:1", key=KEY, expect=1)
    assert "the API key goes to http://192.0.2.1:1 in the clear; use https" in result.stderr
    assert KEY not in result.output


async def test_what_an_answer_holds_can_not_play_with_the_terminal() -> None:
    evil = {"wa_id": "1\x1b[31m", "state": "[red]x[/red]", "hash": "a\nb", "decided_by": "odd"}
    async with serving(answers({"items": [evil], "next_cursor": None})) as url:
        listed = (await run("identities", "list", url=url)).stdout
    assert "\x1b" not in listed
    assert "1?[31m" in listed
    assert "[red]x[/red]" in listed
    assert "a?b" in listed
    async with serving(answers({"title": "\x1b]0;", "errors": ["odd"]}, 400)) as url:
        assert await refused("status", url=url) == "400 ?]0;"


async def test_an_earlier_change_and_an_odd_audit_entry_are_shown() -> None:
    document = {
        "history": [{"hash": HASH_A, "changed_at": "2026-01-31T12:00:00.000Z"}],
        "audit": [{"at": "odd", "evidence": "odd"}],
    }
    async with serving(answers(document)) as url:
        shown = (await run("identities", "show", "main", WA_ID, url=url)).stdout
    assert "Earlier changes" in shown
    assert "2026-01-31 12:00:00" in shown


async def test_a_user_without_a_number_is_listed_by_the_user_id() -> None:
    nameless = {"wa_id": None, "user_id": USER_ID, "state": "pending"}
    async with serving(answers({"items": [nameless], "next_cursor": None})) as url:
        assert USER_ID in (await run("identities", "list", url=url)).stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_serve_runs_until_it_is_told_to_end_and_exits_with_0(
    simulate: Start, spawn: Spawn, tmp_path: Path, number: int
) -> None:
    child = await spawn(tree_for(await simulate(), tmp_path))
    child.signal(number)
    assert await child.ended() == 0


@pytest.mark.slow
@pytest.mark.sqlite
async def test_serve_says_in_one_line_why_it_can_not_start(
    simulate: Start, spawn: Spawn, tmp_path: Path
) -> None:
    tree = tree_for(await simulate(), tmp_path)
    running = await spawn(tree)
    port = int(running.base.rpartition(":")[2])
    taken = {
        "ACKGATE_DATABASE__URL": f"sqlite:///{tmp_path / 'other.db'}",
        "ACKGATE_SERVER__PORT": str(port),
    }

    async def fails(env: dict[str, str], code: int, said: str) -> None:
        child = await spawn(tree, start=False, env=env)
        await child.spawn()
        assert await child.ended() == code, child.lines
        [line] = [line for line in child.lines if line.startswith("ackgate: ")]
        assert said in line
        assert not any("Traceback" in line for line in child.lines)

    await asyncio.gather(
        fails({}, 1, "in use by another process"),
        fails(taken, 1, str(port)),
        fails({"ACKGATE_SERVER__PROT": "1"}, 2, "server.prot: unknown key"),
    )


@pytest.mark.sqlite
async def test_an_operator_can_back_up_and_check_while_the_service_runs(
    simulate: Start, spawn: Spawn, tmp_path: Path
) -> None:
    child = await spawn(tree_for(await simulate(), tmp_path))
    assert await child.post(notice(WA_ID, HASH_A, 1_700_000_000_000)) == 200
    config = ("--config", str(child.config))
    await run("db", "check", *config)
    copy = str(tmp_path / "copy")
    await run("db", "backup", copy, *config)
    for words in (("upgrade",), ("restore", copy, "--yes")):
        assert "in use by another process" in await refused("db", *words, *config)
    assert parsed(await run("policy", "explain", "main", WA_ID, "--json", *config))["meaning"]
    child.signal(signal.SIGTERM)
    assert await child.ended() == 0
    await run("db", "restore", copy, "--yes", *config)
    await child.start()
    shown = await run("identities", "show", "main", WA_ID, "--json", url=child.base)
    assert parsed(shown)["hash"] == HASH_A


def results(file: Path) -> list[list[str]]:
    return [line.split(",") for line in file.read_text().splitlines()]


async def test_the_numbers_of_a_file_are_checked_and_written_in_its_order(
    install: Install, tmp_path: Path
) -> None:
    service = await install()
    service.sim.set_contacts(unknown={"4915123456780"})
    file = tmp_path / "customers.csv"
    file.write_text("name,Phone\nA,+49 1512 3456789\nB,+4915123456780\nA again,+49 1512 3456789\n")
    done = await run("contacts", "check", str(file), url=service.base)
    assert "valid" in done.stdout
    written = tmp_path / "customers.checked.csv"
    assert [row[:3] for row in results(written)] == [
        ["input", "status", "wa_id"],
        ["+49 1512 3456789", "valid", "4915123456789"],
        ["+4915123456780", "invalid", ""],
        ["+49 1512 3456789", "valid", "4915123456789"],
    ]
    assert written.stat().st_mode & 0o777 == 0o600
    assert not await asyncio.to_thread(lambda: list(tmp_path.glob("*.part")))
    as_json = await run("contacts", "check", str(file), "--json", url=service.base)
    assert parsed(as_json)["numbers"] == 3
    items = json.loads((tmp_path / "customers.checked.json").read_text())
    assert [item["status"] for item in items] == ["valid", "invalid", "valid"]


async def test_a_check_of_a_file_goes_on_where_it_left_off(
    install: Install, tmp_path: Path
) -> None:
    service = await install(accounts={"main": {"contacts": {"free_checks": 250}}})
    file = tmp_path / "numbers.csv"
    file.write_text("\n".join(f"+1631556{n:04}" for n in range(300)))
    command = ("contacts", "check", str(file), "--account", "main")
    stopped = await run(*command, url=service.base, expect=1)
    assert "429 Too Many Requests: the budget" in stopped.stderr
    assert "run the command again to go on" in stopped.stderr
    await service.stop()
    await service.start(accounts={"main": {"contacts": {"free_checks": 300}}})
    asked = service.sim.contacts.counts["numbers"]
    await run(*command, url=service.base)
    assert len(results(tmp_path / "numbers.checked.csv")) == 301
    assert service.sim.contacts.counts["numbers"] == asked + 100


async def test_a_file_that_cannot_be_checked_is_named(install: Install, tmp_path: Path) -> None:
    service = await install()
    gone = tmp_path / "gone.csv"
    line = await refused("contacts", "check", str(gone), url=service.base, expect=2)
    assert "No such file" in line
    gone.write_text("name,phone\n")
    line = await refused(
        "contacts", "check", str(gone), "--column", "mobil", url=service.base, expect=2
    )
    assert "has no column mobil" in line
