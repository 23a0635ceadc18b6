"""What people see in the console and decide there, by forms and without JavaScript."""

import json
import re
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.console import identities
from tests.acceptance.conftest import (
    HASH_A,
    HASH_B,
    OTHER_ID,
    WA_ID,
    Install,
    Installation,
    OpenShop,
    callback_bodies,
    hour_ago,
    notice,
    until,
)
from tests.acceptance.consoling import Browser, Form, Page, keys
from tests.acceptance.webhooks import wrote as wrote_on_cloud

HOSTILE = "</td><script>alert(1)</script>\"' onload=x {{7*7}} \u202e"


def path_of(wa_id: str = WA_ID) -> str:
    return f"/console/accounts/main/identities/{wa_id}"


@pytest.fixture
async def made(install: Install) -> Installation:
    made = await install(**keys("reader", "operator", "admin"))
    made.key = "key-admin"
    return made


@pytest.fixture
async def browser(made: Installation) -> Browser:
    browser = Browser.of(made)
    await browser.sign_in("key-operator")
    return browser


async def said(made: Installation, wa_id: str, hash_: str, name: str, seconds: float = 0) -> None:
    """Let somebody with a name write, whose identity is a new one."""
    at = hour_ago(seconds)
    made.sim.change_identity(wa_id, hash_, at, notify=False)
    user = made.sim.users[wa_id]
    await made.deliver(callback_bodies.text_message(user, "Hello", name, at, with_identity=True))


def items_of(form: Form) -> list[str]:
    return [value for name, value in form.boxes if name == "item"]


async def test_who_waits_is_listed_the_longest_first_with_name_and_reason(
    made: Installation, browser: Browser
) -> None:
    assert "Nobody waits" in (await browser.get("/console/")).text
    await said(made, WA_ID, HASH_A, "Maria", 5)
    await said(made, OTHER_ID, HASH_B, "Amina", 0)
    page = await browser.get("/console/")
    assert page.text.index(OTHER_ID) < page.text.index(WA_ID)
    for shown in ("Maria", "Amina", "Waits for you", HASH_A, "New phone", "Waiting 2"):
        assert shown in page.text
    # How long the tests have been running comes on top of the hour.
    assert re.search(r"1 h (\d+ min )?ago", page.text)
    reader = Browser.of(made)
    page = await reader.sign_in("key-reader")
    assert WA_ID in page.text
    assert "Maria" not in page.html


async def test_an_acknowledgement_is_decided_explained_and_told(
    made: Installation, browser: Browser
) -> None:
    await said(made, WA_ID, HASH_A, "Maria")
    form = (await browser.get(path_of())).form("/decide")
    page = await browser.submit(
        form, "acknowledge", note="voice known", method="phone call", reference="T-17"
    )
    assert page.url == f"{path_of()}?done=acknowledged"
    await made.becomes("acknowledged")
    page = await browser.get(path_of())
    for shown in ("voice known", "phone call", "T-17", "by the key operator", "in the journal"):
        assert shown in page.text
    assert not page.has_form("/decide")
    [entry] = await made.audit(event="decided")
    assert entry["by"] == {"kind": "key", "name": "operator"}
    assert entry["evidence"] == {"method": "phone call", "reference": "T-17"}
    assert WA_ID in (await browser.get("/console/?show=done")).text


async def test_a_mistaken_hold_is_undone(made: Installation, browser: Browser) -> None:
    await made.change()
    page = await browser.get(path_of())
    page = await browser.submit(page.form("/decide"), "hold", note="wrong line")
    assert "Held" in page.text
    assert "hold" not in dict(page.form("/decide").buttons).values()
    page = await browser.submit(page.form("/decide"), "acknowledge")
    await made.becomes("acknowledged")


async def test_what_changed_meanwhile_is_not_decided_and_shown(
    made: Installation, browser: Browser
) -> None:
    await made.deliver(notice(WA_ID, HASH_A, hour_ago()))
    form = (await browser.get(path_of())).form("/decide")
    await made.deliver(notice(WA_ID, HASH_B, hour_ago(5)))
    page = await browser.submit(form, "acknowledge", note="kept in the form")
    assert page.status == 409
    assert "Nothing was decided" in page.text
    assert HASH_B in page.text
    assert ("note", "kept in the form") in page.form("/decide").fields
    assert ("hash", HASH_B) in page.form("/decide").fields
    assert (await made.identity())["state"] == "pending"
    live = {"HX-Request": "true"}
    page = await browser.send("GET", f"{path_of()}?seen={HASH_A}", headers=live)
    assert "changed since you opened" in page.text


async def test_half_an_evidence_is_asked_for_again(made: Installation, browser: Browser) -> None:
    await made.change()
    form = (await browser.get(path_of())).form("/decide")
    page = await browser.submit(form, "hold", method="phone call")
    assert page.status == 422
    assert "say both how, and where it is recorded" in page.text
    assert ("method", "phone call") in page.form("/decide").fields
    assert await made.state() == "pending"


async def test_many_are_decided_in_steps_and_a_conflict_stops_no_other(
    made: Installation, browser: Browser
) -> None:
    for number in range(45):
        await made.deliver(notice(f"163155560{number:02}", HASH_A, hour_ago(number)))
    page = await browser.get("/console/")
    form = page.form("/decide")
    ticked = items_of(form)
    assert len(ticked) == 45
    await made.deliver(notice("16315556030", HASH_B, hour_ago(3000)))
    page = await browser.submit(form, "hold", ticked=ticked, note="all of them")
    assert "20 of 45" in page.text
    steps = 1
    while page.has_form("/decide"):
        page = await browser.submit(page.form("/decide"))
        steps += 1
    assert steps == 3
    assert "Done: 44 of 45 held" in page.text
    assert "16315556030" in page.text
    assert "changed again meanwhile" in page.text
    status, listed = await made.api("GET", "/identities?state=held")
    assert (status, len(listed["items"])) == (200, 44)
    [entry] = await made.audit("16315556000", "held")
    assert entry["note"] == "all of them"


async def test_a_tick_is_about_the_hash_that_was_shown(
    made: Installation, browser: Browser
) -> None:
    async def ticks() -> set[str]:
        page = await browser.get("/console/")
        return {have["id"] for tag, have in page.tags if have.get("name") == "item"}

    await made.deliver(notice(WA_ID, HASH_A, hour_ago()))
    before = await ticks()
    assert before == await ticks()
    await made.deliver(notice(WA_ID, HASH_B, hour_ago(5)))
    assert not before & await ticks()


async def test_nothing_ticked_decides_nothing(made: Installation, browser: Browser) -> None:
    await made.change()
    page = await browser.submit((await browser.get("/console/")).form("/decide"), "acknowledge")
    assert page.status == 422
    assert "tick at least one" in page.text


async def test_a_long_list_has_pages_and_can_be_of_one_state(
    made: Installation, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identities, "PAGE", 50)
    for number in range(60):
        await made.deliver(notice(f"163155560{number:02}", HASH_A, hour_ago(number)))
    await made.decide("hold", HASH_A, "16315556059")
    first = await browser.get("/console/")
    [next_] = [link for link in first.links() if "after=" in link]
    second = await browser.get(next_)
    shown = [{link for link in page.links() if "/identities/" in link} for page in (first, second)]
    assert [len(links) for links in shown] == [50, 10]
    assert not shown[0] & shown[1]
    held = await browser.get("/console/?show=held")
    assert [link for link in held.links() if "/identities/" in link] == [path_of("16315556059")]


async def test_a_number_is_found_in_any_spelling_and_the_gate_explained(
    made: Installation, browser: Browser
) -> None:
    await made.deliver(notice(WA_ID, HASH_A, hour_ago()))
    page = await browser.get("/console/recipients?number=%2B1+(631)+555-3601")
    assert "write to +1 (631) 555-3601 now" in page.text
    assert "nobody has decided yet" in page.text
    assert path_of() in page.links()
    page = await browser.get("/console/recipients?number=%2B1+631+555+9999")
    assert "You may write" in page.text
    assert "can't be a phone number" in (await browser.get("/console/recipients?number=%25")).text


async def test_a_block_by_hand_and_a_mistaken_one_undone(
    made: Installation, browser: Browser
) -> None:
    found = f"/console/recipients?number=%2B{OTHER_ID}"
    page = await browser.get(found)
    page = await browser.submit(
        page.form("/block"), reason="asked to stop", until="2099-01-01T00:00"
    )
    assert "asked to stop" in page.text
    assert "Until 2099-01-01 00:00 UTC" in page.text
    assert await made.reasons(OTHER_ID) == ["blocked"]
    page = await browser.submit(page.form("/unblock"))
    assert "The block is ended" in page.text
    assert await made.reasons(OTHER_ID) == []
    page = await browser.submit(page.form("/block"), reason="x", until="1999-01-01T00:00")
    assert page.status == 422
    assert "in the future" in page.text


async def test_on_the_cloud_api_too_names_are_found_and_a_missing_hash_decided(
    open_shop: OpenShop,
) -> None:
    shop = await open_shop(**keys("admin"), accounts={"shop": {"trust_first_use": False}})
    shop.key = "key-admin"
    assert await shop.deliver_signed(json.dumps(wrote_on_cloud(HASH_A)).encode()) == 200
    browser = Browser.of(shop)
    page = await browser.sign_in("key-admin")
    assert "Sheena" in page.text
    [link] = [link for link in page.links() if "/identities/" in link]
    page = await browser.get(link)
    page = await browser.submit(page.form("/decide"), "acknowledge")
    assert "Let through" in page.text


async def test_what_people_call_themselves_and_write_is_shown_as_text(
    made: Installation, browser: Browser
) -> None:
    await said(made, WA_ID, HASH_A, HOSTILE)
    form = (await browser.get(path_of())).form("/decide")
    await browser.submit(form, "hold", note=HOSTILE, method=HOSTILE, reference=HOSTILE)
    for page in (
        await browser.get("/console/"),
        await browser.get(path_of()),
        await browser.get("/console/recipients?number=" + "%3Cscript%3E1"),
    ):
        scripts = [have for tag, have in page.tags if tag == "script"]
        assert all(have.get("src", "").startswith("/console/static/") for have in scripts)
        assert not any(name.startswith("on") for _, have in page.tags for name in have)
    assert HOSTILE.split(maxsplit=1)[0] in (await browser.get(path_of())).text


async def test_an_open_page_is_told_of_a_change_and_repaints_itself(
    made: Installation, browser: Browser
) -> None:
    url = f"{made.base}/console/stream"
    async with made.http.get(url, cookies=browser.cookies) as stream:
        assert stream.status == 200
        await stream.content.readuntil(b"\n\n")
        # What came between the page and its stream is told at once.
        assert await stream.content.readuntil(b"\n\n") == b"event: changed\ndata: 1\n\n"
        await made.change()
        assert await stream.content.readuntil(b"\n\n") == b"event: changed\ndata: 1\n\n"
    live = {"HX-Request": "true", "Ackgate-Live": "1"}
    page = await browser.send("GET", "/console/", headers=live)
    assert WA_ID in page.text
    assert "<html" not in page.html
    async with made.http.get(url) as refused:
        assert refused.status == 401


async def test_a_stream_ends_with_the_service(made: Installation, browser: Browser) -> None:
    url = f"{made.base}/console/stream"
    async with made.http.get(url, cookies=browser.cookies) as stream:
        await stream.content.readuntil(b"changed\ndata: 1\n\n")
        await made.stop()
        assert await stream.content.read() == b""


TEXT = st.text(max_size=40) | st.sampled_from(
    ["", "\0", "\ud800", "a" * 3000, HASH_A, WA_ID, f"main {WA_ID} {HASH_A}", "main x",
     "acknowledge", "hold", "2026-01-01T00:00", "9999-12-31T23:59+00:00:01", "0001-01-01", "%",
     "=&;", "999999"]
)  # fmt: skip
NAMES = (
    "form_token", "verb", "hash", "note", "method", "reference", "item", "refused", "done",
    "number", "reason", "until", "next", "api_key",
)  # fmt: skip
FORMS = (
    f"{path_of()}/decide", "/console/decide", "/console/accounts/main/recipients/block",
    "/console/accounts/main/recipients/unblock", "/console/sign-in", path_of("%00") + "/decide",
)  # fmt: skip
PAGES = ("/console/", path_of(), "/console/recipients", "/console/sign-in")
QUERIES = ("show", "account", "after", "number", "done", "seen", "next", "ended")


async def test_whatever_a_form_holds_is_answered_and_no_error_of_ours(
    made: Installation, browser: Browser
) -> None:
    await made.change()
    token = dict((await browser.get(path_of())).form("/decide").fields)["form_token"]
    sent: list[tuple[str, list[tuple[str, str]]]] = []

    @settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        st.sampled_from([*FORMS, *PAGES]),
        st.lists(st.tuples(st.sampled_from([*NAMES, *QUERIES]), TEXT), max_size=8),
    )
    def collect(path: str, fields: list[tuple[str, str]]) -> None:
        sent.append((path, fields))

    collect()
    for path, fields in sent:
        page = await _sent(browser, path, fields, token)
        assert page.status < 500, (path, fields)
    for raw in (
        b"\xff",
        b"%ff=%zz",
        b"a=1&" * 5000,
        b"=",
        b"verb=%00&form_token=" + token.encode(),
    ):
        for path in FORMS:
            form = {"Content-Type": "application/x-www-form-urlencoded"}
            page = await browser.send("POST", path, raw, form)
            assert page.status < 500, (path, raw[:20])
        assert (await browser.send("POST", path, b"{}")).status in {400, 403}


async def _sent(browser: Browser, path: str, fields: list[tuple[str, str]], token: str) -> Page:
    if path in PAGES:
        return await browser.get(f"{path}?{urlencode(fields, errors='replace')}")
    whole = urlencode([("form_token", token), *fields], errors="replace").encode()
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    return await browser.send("POST", path, whole, form)


async def test_a_change_that_comes_while_a_page_is_open_is_listed_by_itself(
    made: Installation, browser: Browser
) -> None:
    live = {"HX-Request": "true", "Ackgate-Live": "1"}
    await made.change(OTHER_ID)

    async def is_there() -> bool:
        return OTHER_ID in (await browser.send("GET", "/console/", headers=live)).text

    await until(is_there)
