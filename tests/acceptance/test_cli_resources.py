"""What the API can do, from a terminal: blocks, lookups, issues, the journal, the audit trail."""

from pathlib import Path

import pytest

from tests.acceptance.commands import answers, parsed, refused, run, serving
from tests.acceptance.conftest import (
    HASH_A,
    OTHER_ID,
    SHEENA,
    STRANGE_NUMBER,
    TOKEN,
    USER_ID,
    WA_ID,
    CloudInstallation,
    Install,
    Installation,
    digest_of,
    notice,
)
from tests.acceptance.webhooks import wrote

KEYS = {role: {"role": role, "sha256": digest_of(f"key-of-{role}")} for role in ("reader", "admin")}


# Recipients


async def test_a_user_is_blocked_until_a_time_and_unblocked(manual: Installation) -> None:
    words = ("recipients", "block", "main", WA_ID, "--reason", "asked us to stop")
    shown = await run(*words, "--until", "2100-01-02T03:04:05+01:00", url=manual.base)
    assert "must not be written to" in shown.stdout
    assert "asked us to stop" in shown.stdout
    [reason] = (await manual.gate())["reasons"]
    assert (reason["code"], reason["until"]) == ("blocked", "2100-01-02T02:04:05.000Z")
    answer = parsed(await run(*words, "--json", url=manual.base))
    assert "until" not in answer["reasons"][0]
    ended = await run("recipients", "unblock", "main", WA_ID, url=manual.base)
    assert "may be written to" in ended.stdout
    again = ("recipients", "unblock", "main", WA_ID)
    assert "the user is not blocked" in await refused(*again, url=manual.base)


async def test_a_time_that_is_none_is_refused_before_anything_is_sent() -> None:
    for words in (
        ("recipients", "block", "main", WA_ID, "--reason", "x", "--until", "noon"),
        ("identities", "list", "--updated-since", "noon"),
    ):
        assert "must be a time" in await refused(*words, expect=2)


async def test_the_gate_is_asked_about_a_file_of_numbers_in_its_order(
    manual: Installation, tmp_path: Path
) -> None:
    await manual.acknowledged()
    await manual.change(OTHER_ID)
    file = tmp_path / "customers.csv"
    file.write_text(f"Name,Phone\nAnn,{OTHER_ID}\nBob,+1 631 555 3601\nEve,\nDan,no number\n")
    shown = await run("recipients", "lookup", "main", str(file), url=manual.base)
    lines = shown.stdout.splitlines()
    inputs = (OTHER_ID, "+1 631 555 3601", "no number")
    rows = [next(line for line in lines if line.startswith(text)) for text in inputs]
    assert rows == sorted(rows, key=lines.index)
    assert [("yes" in row, "identity_pending" in row) for row in rows] == [
        (False, True),
        (True, False),
        (False, False),
    ]
    assert WA_ID in rows[1]
    typed = f"{WA_ID}\n{OTHER_ID}\n"
    found = parsed(
        await run("recipients", "lookup", "main", "--json", url=manual.base, typed=typed)
    )
    assert [(one["input"], one["sendable"]) for one in found["items"]] == [
        (WA_ID, True),
        (OTHER_ID, False),
    ]


async def test_a_lookup_may_be_longer_than_the_api_takes_at_once(manual: Installation) -> None:
    typed = "".join(f"1631555{n:04}\n" for n in range(1001))
    words = ("recipients", "lookup", "main", "-", "--json")
    found = parsed(await run(*words, url=manual.base, typed=typed))
    assert [one["input"] for one in found["items"]] == typed.split()


async def test_a_lookup_of_nothing_or_of_no_such_column_is_a_wrong_command() -> None:
    for words, typed in ((("-",), ""), (("-", "--column", "mobil"), "phone\n1\n")):
        result = await run("recipients", "lookup", "main", *words, typed=typed, expect=2)
        assert result.stderr.count("\n") == 1


async def test_the_hash_to_send_along_stands_beside_each_that_is_sendable(
    shop: CloudInstallation,
) -> None:
    await shop.come(wrote(HASH_A, wa_id=SHEENA, user_id=USER_ID))
    shown = await run("recipients", "lookup", "shop", url=shop.base, typed=f"user_id\n{USER_ID}\n")
    assert HASH_A in shown.stdout
    assert USER_ID in shown.stdout


# Issues, journal and audit


async def test_issues_are_listed_and_dismissed(shop: CloudInstallation) -> None:
    await shop.come(wrote(HASH_A, number=STRANGE_NUMBER, wa_id=SHEENA))
    for words in (("issues",), ("issues", "list")):
        listed = (await run(*words, url=shop.base)).stdout
        assert "unknown_number" in listed
        assert STRANGE_NUMBER in listed
        items = parsed(await run(*words, "--json", url=shop.base))["items"]
        assert "unknown_number" in {issue["code"] for issue in items}
    dismissed = ("issues", "dismiss", "unknown_number", "--subject", STRANGE_NUMBER)
    assert "dismissed: 1" in (await run(*dismissed, url=shop.base)).stderr
    assert STRANGE_NUMBER not in (await run("issues", url=shop.base)).stdout


async def test_callbacks_are_listed_shown_and_replayed(install: Install) -> None:
    made = await install(api={"keys": KEYS})
    await made.deliver(notice(WA_ID, HASH_A, 1_700_000_000_000), b"no JSON")
    admin = {"url": made.base, "key": "key-of-admin"}
    every = parsed(await run("journal", "--json", **admin))["items"]
    assert [entry["state"] for entry in every] == ["applied", "quarantined"]
    words = ("journal", "list", "--state", "quarantined", "--account", "main")
    listed = (await run(*words, **admin)).stdout
    assert "applied" not in listed
    first, second = (str(entry["id"]) for entry in every)
    shown = (await run("journal", "show", first, **admin)).stdout
    assert HASH_A in shown
    assert "no JSON" in (await run("journal", "show", second, **admin)).stdout
    to_readers = await run("journal", "show", first, "--json", url=made.base, key="key-of-reader")
    assert "body" not in parsed(to_readers)
    again = parsed(await run("journal", "replay", first, "--json", **admin))
    assert (again["state"], again["replayed_at"] is None) == ("applied", False)
    still = await run("journal", "replay", second, **admin, expect=1)
    assert "quarantined still" in still.stderr
    assert "403" in await refused("journal", "replay", first, url=made.base, key="key-of-reader")
    assert "404" in await refused("journal", "show", "99", **admin)
    assert TOKEN not in shown


async def test_a_body_is_readable_and_can_not_play_with_the_terminal() -> None:
    for body, line in (('{"text":"für\x9b31m"}', '  "text": "für?31m"'), ("für\x1b[", "für?[")):
        async with serving(answers({"id": 1, "body": body})) as url:
            shown = (await run("journal", "show", "1", url=url)).stdout
        assert line in shown.splitlines()


async def test_the_audit_trail_is_listed_with_who_decided(manual: Installation) -> None:
    hash_ = await manual.change()
    words = ("acknowledge", "main", WA_ID, "--hash", hash_, "--wait", "10", "--note", "called")
    await run(*words, "--on-behalf-of", "ann", url=manual.base)
    listed = (await run("audit", "--event", "decided", url=manual.base)).stdout
    assert "key local for ann" in " ".join(listed.split())
    assert hash_ in listed
    assert WA_ID in listed
    page = parsed(await run("audit", "--limit", "1", "--json", url=manual.base))
    rest = parsed(await run("audit", "--cursor", page["next_cursor"], "--json", url=manual.base))
    assert [one["event"] for one in page["items"]] == ["changed"]
    assert rest["items"][0]["event"] == "decided"
    none = await run("audit", "--account", "other", url=manual.base)
    assert none.stderr == "ackgate: no entry is like that\n"


# Contacts


async def test_contacts_are_listed_as_the_client_last_said(manual: Installation) -> None:
    body = {"contacts": ["+1 631 555 3601", "+49 1512 3456789"], "blocking": "wait"}
    assert (await manual.api("POST", "/accounts/main/contacts", body))[0] == 200
    listed = (await run("contacts", "list", url=manual.base)).stdout
    [row] = [line for line in listed.splitlines() if "+1 631 555 3601" in line]
    assert "valid" in row
    assert WA_ID in row
    words = ("contacts", "list", "--account", "main", "--json")
    some = parsed(await run(*words, "--wa-id", WA_ID, url=manual.base))["items"]
    assert [one["input"] for one in some] == ["+1 631 555 3601"]
    both = ("--input", "+49 1512 3456789", "--input", "+1 631 555 3601")
    assert len(parsed(await run(*words, *both, url=manual.base))["items"]) == 2
    none = await run("contacts", "list", "--input", "1", url=manual.base)
    assert none.stderr == "ackgate: no number is like that\n"


async def test_the_account_is_named_where_there_are_several(shop: CloudInstallation) -> None:
    assert "--account" in await refused("contacts", "list", url=shop.base, expect=2)


@pytest.mark.parametrize(
    "words",
    [("journal", "list"), ("audit",), ("contacts", "list", "--account", "main")],
    ids=" ".join,
)
async def test_a_list_says_that_there_are_more(words: tuple[str, ...]) -> None:
    async with serving(answers({"items": [{"id": 1}], "next_cursor": "x"})) as url:
        result = await run(*words, "--limit", "1", url=url)
    assert result.stderr == "ackgate: there are more: --limit, or --all\n"
