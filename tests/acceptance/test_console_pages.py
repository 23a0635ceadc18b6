"""The console's pages about accounts, relays, contacts, activity and audit, over HTTP."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.console.accounts import condition
from service.console.titles import ISSUES
from service.model.account_checks import CURES
from service.workers import points
from tests.acceptance.conftest import (
    HASH_A,
    WA_ID,
    CloudInstallation,
    Install,
    Installation,
    OpenShop,
    digest_of,
    hour_ago,
    notice,
    until,
)
from tests.acceptance.sinks import Sink, sink
from tests.acceptance.webhooks import wrote

KEYS = {"ana": "operator", "ron": "reader", "mia": "operator"}
PATHS = ("accounts", "relays", "relays/crm", "contacts/main", "charts", "audit")


def keys(**accounts: Sequence[str]) -> dict[str, Any]:
    made: dict[str, dict[str, Any]] = {}
    for name, role in KEYS.items():
        made[name] = {"role": role, "sha256": digest_of(f"key-of-{name}")}
        if name in accounts:
            made[name]["accounts"] = [*accounts[name]]
    return {"keys": made}


class Person:
    """Somebody with a browser who is signed in."""

    def __init__(self, made: Installation, cookies: Mapping[str, str]) -> None:
        self._made = made
        self._cookies = dict(cookies)

    async def see(self, path: str, status: int = 200, *, part: bool = False) -> str:
        """Open a page, or the part of it that htmx asks for; give its text."""
        url = f"{self._made.base}/console/{path}"
        headers = {"HX-Request": "true"} if part else {}
        async with self._made.http.get(url, cookies=self._cookies, headers=headers) as answer:
            text = await answer.text()
            assert answer.status == status, (path, text)
            return text

    async def send(
        self, page: str, action: str, fields: Mapping[str, str] | None = None, status: int = 303
    ) -> str:
        """Send a form of a page; give where it leads, or the problem."""
        token = re.search(r'name="form_token" value="([^"]+)"', await self.see(page))
        assert token is not None
        url, origin = f"{self._made.base}/console/{action}", {"Origin": self._made.base}
        form = {"form_token": token[1], **(fields or {})}
        sent = self._made.http.post(
            url, data=form, cookies=self._cookies, headers=origin, allow_redirects=False
        )
        async with sent as answer:
            assert answer.status == status, await answer.text()
            return answer.headers.get("Location", "") or await answer.text()


@pytest.fixture
async def crm() -> AsyncIterator[Sink]:
    async with sink() as made:
        yield made


async def signed_in(made: Installation, name: str) -> Person:
    form, origin = {"api_key": f"key-of-{name}"}, {"Origin": made.base}
    sent = made.http.post(
        f"{made.base}/console/sign-in", data=form, headers=origin, allow_redirects=False
    )
    async with sent as answer:
        assert answer.status == 303
        return Person(made, {one: morsel.value for one, morsel in answer.cookies.items()})


async def test_a_relay_is_paused_resumed_and_its_deliveries_tried_again(
    install: Install, crm: Sink
) -> None:
    crm.answer = lambda _: 422
    relay = {"url": crm.url, "give_up_after_hours": 0.0001}
    made = await install(api=keys(), relays={"crm": relay})
    made.key = "key-of-ana"
    ana, ron = await signed_in(made, "ana"), await signed_in(made, "ron")
    assert "Nothing: every delivery was taken." in await ana.see("relays/crm")
    await made.deliver(notice(WA_ID, HASH_A, hour_ago()))

    async def given_up() -> bool:
        return "Given up</span>" in await ana.see("relays/crm?state=dead")

    await until(given_up)
    assert "Deliveries given up" in await ron.see("relays")
    text = await ron.see("relays/crm")
    assert "Try all" not in text
    assert "retry-" not in text
    assert await ana.send("relays/crm", "relays/crm/pause") == "/console/relays/crm?done=paused"
    text = await ana.see("relays/crm?done=paused")
    assert "Nothing is sent, and nothing is lost" in text
    assert 'action="/console/relays/crm/resume"' in text
    crm.answer = lambda _: 200
    assert (await ana.send("relays/crm", "relays/crm/resume")).endswith("?done=resumed")
    assert (await ana.send("relays/crm", "relays/crm/retry")).endswith("?done=retried")

    async def delivered() -> bool:
        return "Nothing: every delivery was taken." in await ana.see("relays/crm")

    await until(delivered)
    text = await ana.see("audit?event=deliveries_retried")
    assert "the key ana" in text
    assert "crm: 1" in text
    await ana.send("relays/crm", "relays/crm/deliveries/99/retry", status=404)
    await ana.send("relays/crm", "relays/another/pause", status=404)


async def test_a_reader_sees_and_does_nothing(install: Install, crm: Sink) -> None:
    made = await install(api=keys(), relays={"crm": {"url": crm.url}})
    ron = await signed_in(made, "ron")
    for page in PATHS:
        text = await ron.see(page)
        assert 'method="post" action="/console/sign-out"' in text
        assert text.count('method="post"') == 1, page
    for action in ("relays/crm/pause", "contacts/main/check", "issues/dismiss"):
        problem = await ron.send("relays", action, status=403)
        assert "the role operator is needed" in problem.lower()


async def test_a_key_of_one_account_sees_nothing_of_another(
    open_shop: OpenShop, crm: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(points, "EVERY_SECONDS", 0.05)
    relays = {"crm": {"url": crm.url}, "till": {"url": crm.url, "accounts": ["shop"]}}
    made: CloudInstallation = await open_shop(api=keys(mia=["shop"]), relays=relays)
    made.account = "main"
    await made.deliver(notice(WA_ID, HASH_A, hour_ago()))
    ana, mia = await signed_in(made, "ana"), await signed_in(made, "mia")

    async def charted() -> bool:
        return "<dt>Changes</dt><dd>1</dd>" in await ana.see("charts?account=main")

    await until(charted)
    assert "<dt>Changes</dt><dd>0</dd>" in await mia.see("charts")
    assert f"+{WA_ID}" in await ana.see("audit")
    assert WA_ID not in await mia.see("audit")
    assert WA_ID not in await mia.see("audit?account=main")
    text = await mia.see("accounts")
    assert 'id="account-shop"' in text
    assert 'id="account-main"' not in text
    text = await mia.see("relays")
    assert "till" in text
    assert "crm" not in text
    for page in ("relays/crm", "contacts/main", "charts?account=main"):
        await mia.see(page, status=404)
    assert "no account whose numbers can be checked" in await mia.see("contacts")


async def test_a_number_is_checked_and_found_in_any_spelling(install: Install) -> None:
    made = await install(
        api=keys(),
        accounts={"main": {"contacts": {"free_checks": 1}, "phone_number": "+16315550000"}},
    )
    ana = await signed_in(made, "ana")

    async def check(number: str, status: int = 303) -> str:
        fields = {"number": number}
        return await ana.send("contacts/main", "contacts/main/check", fields, status)

    assert "No number was checked yet." in await ana.see("contacts/main")
    shown = await check("+1 631 555 1001")
    text = await ana.see(shown.removeprefix("/console/"))
    assert "On WhatsApp" in text
    assert "<strong>0</strong> of 1 checks are left" in text
    assert "On WhatsApp" in await ana.see("contacts/main?number=%28631%29+555-1001")
    assert "Nothing is known of this number" in await ana.see("contacts/main?number=16315551002")
    text = await check("+1 631 555 1002", 429)
    assert "budget" in text
    await check(" ", 422)


async def test_an_issue_is_shown_with_its_cure_and_dismissed_once_it_is_past(
    open_shop: OpenShop,
) -> None:
    made = await open_shop(api=keys())
    ana = await signed_in(made, "ana")
    stranger = json.dumps(wrote(number="111")).encode()
    assert await made.deliver_signed(stranger) == 200

    async def told() -> bool:
        return ISSUES["unknown_number"] in await ana.see("accounts")

    await until(told)
    text = await ana.see("accounts")
    assert "What to do:" in text
    which = {"code": "unknown_number", "account": "", "subject": "111"}
    assert (await ana.send("accounts", "issues/dismiss", which)).endswith("?done=dismissed")

    async def gone() -> bool:
        return ISSUES["unknown_number"] not in await ana.see("accounts")

    await until(gone)
    await ana.send("accounts", "issues/dismiss", which, status=404)


async def test_the_audit_trail_is_read_newest_first_page_by_page(install: Install) -> None:
    made = await install(api=keys())
    for number in range(60):
        await made.deliver(notice(f"1631555{number:04}", HASH_A, hour_ago()))
    ana = await signed_in(made, "ana")
    await made.settled()
    text = await ana.see("audit?event=changed&account=")
    assert re.findall(r"\+1631555(\d{4})<", text) == [f"{n:04}" for n in range(59, 9, -1)]
    more = re.search(r'href="/console/(audit\?[^"]*cursor=[^"]*)"', text)
    assert more is not None
    text = await ana.see(more[1].replace("&amp;", "&"))
    assert re.findall(r"\+1631555(\d{4})<", text) == [f"{n:04}" for n in range(9, -1, -1)]
    assert "Nothing like that happened" in await ana.see("audit?event=failed")


async def test_htmx_is_given_the_part_that_changes(install: Install, crm: Sink) -> None:
    made = await install(api=keys(), relays={"crm": {"url": crm.url}})
    ana = await signed_in(made, "ana")
    for page in PATHS:
        text = await ana.see(page, part=True)
        assert "<html" not in text
        assert "</div>" in text


async def test_no_query_is_answered_by_a_failure(install: Install, crm: Sink) -> None:
    made = await install(api=keys(), relays={"crm": {"url": crm.url}})
    ana = await signed_in(made, "ana")
    loop = asyncio.get_running_loop()
    names = st.sampled_from(
        ["state", "cursor", "limit", "account", "event", "order", "span", "number", "input", "done"]
    )
    known = st.sampled_from(["dead", "main", "held", "week", "newest", "Mg", "", "-1", "\0", "+1"])
    query = st.lists(st.tuples(names, known | st.text(max_size=20)), max_size=4)

    @settings(
        max_examples=40,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(st.sampled_from(PATHS), query)
    def ask(path: str, pairs: list[tuple[str, str]]) -> None:
        asked = urlencode(pairs, errors="replace")
        asyncio.run_coroutine_threadsafe(_is_answered(made, ana, f"{path}?{asked}"), loop).result()

    await asyncio.to_thread(ask)


async def _is_answered(made: Installation, person: Person, path: str) -> None:
    url = f"{made.base}/console/{path}"
    async with made.http.get(url, cookies=person._cookies) as answer:
        assert answer.status in {200, 404, 422}, (path, await answer.text())


def test_every_issue_has_a_title() -> None:
    assert {*ISSUES} == {*CURES}


def test_what_is_worst_about_an_account_is_said() -> None:
    well: dict[str, Any] = {
        "account": "main",
        "health": {"reachable": True},
        "login": {"state": "ok"},
    }
    well |= {"unverified": None, "last_callback_at": "2026-11-23T05:21:50.893Z"}
    issue = {"account": "main", "severity": "warning"}
    assert condition(well, []).words == "Works"
    assert condition(well, [issue | {"severity": "notice"}]).level == "good"
    assert condition(well, [issue, issue]).words == "2 to look at"
    assert condition(well | {"login": {"state": "refused"}}, [issue]).words == "Login refused"
    away = {"health": {"reachable": False}, "last_callback_at": None}
    assert condition(well | away, [issue]).words == "Does not answer"
    assert condition(well | {"last_callback_at": None}, []).words == "No callback yet"
