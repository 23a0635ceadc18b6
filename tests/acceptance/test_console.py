"""The console's door: who comes in, for how long, and what it keeps out."""

import pytest

from tests.acceptance.conftest import HASH_A, WA_ID, Install, Installation, hour_ago, merge, notice
from tests.acceptance.consoling import Browser, encoded, keys

MINUTE, HOUR = 60, 3_600
IDENTITY = f"/console/accounts/main/identities/{WA_ID}"


@pytest.fixture
async def made(install: Install) -> Installation:
    """An installation with a key of each role, and somebody who waits."""
    made = await install(**keys("gate", "reader", "operator", "admin"))
    made.key = "key-admin"
    await made.deliver(notice(WA_ID, HASH_A, hour_ago()))
    return made


@pytest.fixture
def browser(made: Installation) -> Browser:
    return Browser.of(made)


async def test_who_is_not_signed_in_is_sent_to_sign_in_and_back(browser: Browser) -> None:
    page = await browser.get(IDENTITY)
    assert page.url.startswith("/console/sign-in?next=")
    page = await browser.sign_in("key-operator", IDENTITY)
    assert (page.status, page.url) == (200, IDENTITY)
    assert "Sign out" in page.text
    page = await browser.get("/console", follow=False)
    assert page.headers["Location"] == "/console/"


@pytest.mark.parametrize(
    "next_",
    [
        "//evil.example/",
        "https://evil.example",
        "/console/../api",
        "/console/decide",
        "/console/sign-out",
        "/console/stream",
        "/console/nothing",
    ],
)
async def test_signing_in_leads_to_no_other_site(browser: Browser, next_: str) -> None:
    page = await browser.get("/console/sign-in")
    page = await browser.submit(page.form("/sign-in"), api_key="key-reader", next=next_)
    assert page.url == "/console/"


@pytest.mark.parametrize("key", ["", "wrong", "key-gate", "ключ", "\N{GRINNING FACE}" * 100])
async def test_a_key_that_is_wrong_or_not_for_people_is_refused(browser: Browser, key: str) -> None:
    page = await browser.sign_in(key)
    assert page.status == 403
    assert "This API key is" in page.text
    assert not browser.cookies
    assert (await browser.get(IDENTITY)).url.startswith("/console/sign-in")


async def test_a_session_ends_when_nothing_is_done_and_pages_repaint_alone(
    made: Installation, browser: Browser
) -> None:
    await browser.sign_in("key-reader")
    for _ in range(2):
        made.pass_time(20 * MINUTE)
        assert (await browser.get("/console/")).url == "/console/"  # which is doing something
    for _ in range(2):
        made.pass_time(14 * MINUTE)
        live = {"HX-Request": "true", "Ackgate-Live": "1"}
        page = await browser.send("GET", "/console/", headers=live)
        assert "HX-Redirect" not in page.headers
    made.pass_time(3 * MINUTE)
    page = await browser.send("GET", "/console/", headers=live)
    assert page.headers["HX-Redirect"].startswith("/console/sign-in")
    assert (await browser.get("/console/")).url.startswith("/console/sign-in")


async def test_a_session_ends_in_any_case_after_its_hours(
    made: Installation, browser: Browser
) -> None:
    await browser.sign_in("key-reader")
    for _ in range(35):
        made.pass_time(20 * MINUTE)
        assert (await browser.get("/console/")).url == "/console/"
    made.pass_time(20 * MINUTE)
    assert (await browser.get("/console/")).url.startswith("/console/sign-in")


async def test_a_key_that_is_removed_or_changed_ends_its_sessions(
    made: Installation, browser: Browser
) -> None:
    await browser.sign_in("key-operator")
    assert made.service is not None
    context = made.service.context
    assert context is not None
    settings = context.settings
    other = settings.api.keys["reader"].sha256
    changed = settings.api.keys["operator"].model_copy(update={"sha256": other})
    for others in ({"operator": changed}, {}):
        kept = {name: key for name, key in settings.api.keys.items() if name != "operator"}
        api = settings.api.model_copy(update={"keys": kept | others})
        context.settings = settings.model_copy(update={"api": api})
        assert (await browser.get("/console/")).url.startswith("/console/sign-in")
    context.settings = settings
    assert (await browser.get("/console/")).url == "/console/"


async def test_a_cookie_is_as_strict_as_it_can_be(browser: Browser) -> None:
    page = await browser.get("/console/sign-in")
    form = encoded([*page.form("/sign-in").fields[:1], ("api_key", "key-reader")])
    page = await browser.send("POST", "/console/sign-in", form, follow=False)
    plain = page.headers["Set-Cookie"]
    assert plain.startswith("ackgate_session=")
    assert all(word in plain for word in ("HttpOnly", "SameSite=Strict", "Path=/"))
    form = encoded([("api_key", "key-reader")])
    behind = {"X-Forwarded-Proto": "https, http"}
    page = await browser.send("POST", "/console/sign-in", form, behind, follow=False)
    secure = page.headers["Set-Cookie"]
    assert secure.startswith("__Host-ackgate_session=")
    assert "Secure" in secure
    assert "Strict-Transport-Security" in page.headers


async def test_a_cookie_that_was_made_up_is_none(browser: Browser) -> None:
    await browser.sign_in("key-reader")
    [(name, value)] = browser.cookies.items()
    raised = value.replace("reader~", "admin~")
    for forged in (raised, value[:-2], "admin~", "~", "x" * 5000, "admin~W10.AAAA"):
        browser.cookies = {name: forged}
        assert (await browser.get("/console/")).url.startswith("/console/sign-in")


async def test_a_form_of_another_site_or_sign_in_does_nothing(
    made: Installation, browser: Browser
) -> None:
    await browser.sign_in("key-operator")
    form = (await browser.get(IDENTITY)).form("/decide")
    fields = [("verb", "acknowledge"), ("hash", HASH_A)]
    own = next(pair for pair in form.fields if pair[0] == "form_token")
    refused: list[tuple[list[tuple[str, str]], dict[str, str]]] = [
        (fields, {}),
        ([("form_token", "0" * 64), *fields], {}),
        ([own, *fields], {"Origin": "https://evil.example"}),
        ([own, *fields], {"Origin": "null"}),
        ([own, *fields], {"Sec-Fetch-Site": "cross-site"}),
        ([own, *fields], {"Sec-Fetch-Site": "same-site"}),
    ]
    other = Browser.of(made)
    await other.sign_in("key-operator")
    other_form = (await other.get(IDENTITY)).form("/decide")
    refused.append(([next(p for p in other_form.fields if p[0] == "form_token"), *fields], {}))
    for sent, headers in refused:
        page = await browser.send("POST", form.action, encoded(sent), headers)
        assert page.status == 403, headers
    form = (await browser.get("/console/")).form("/sign-out")
    evil = {"Origin": "https://evil.example"}
    page = await browser.send("POST", "/console/sign-in", encoded(form.fields), evil)
    assert page.status == 403
    assert await made.state() == "pending"


async def test_an_ended_session_decides_nothing_and_says_so(
    made: Installation, browser: Browser
) -> None:
    await browser.sign_in("key-operator")
    form = (await browser.get(IDENTITY)).form("/decide")
    made.pass_time(HOUR)
    page = await browser.submit(form, "acknowledge")
    assert "what you sent last was not done" in page.text
    assert await made.state() == "pending"


async def test_signing_out_ends_the_session_in_the_browser(browser: Browser) -> None:
    page = await browser.sign_in("key-reader")
    page = await browser.submit(page.form("/sign-out"))
    assert page.url == "/console/sign-in"
    assert not browser.cookies


async def test_a_cookie_that_was_signed_out_is_refused_and_after_a_start_as_well(
    made: Installation, browser: Browser
) -> None:
    page = await browser.sign_in("key-reader")
    copied = dict(browser.cookies)
    await browser.submit(page.form("/sign-out"))
    other = Browser.of(made)
    await other.sign_in("key-reader")
    stays = dict(other.cookies)

    async def leads_to(cookies: dict[str, str]) -> str:
        browser = Browser.of(made)
        browser.cookies = dict(cookies)
        return (await browser.get("/console/")).url

    assert (await leads_to(copied)).startswith("/console/sign-in")
    assert await leads_to(stays) == "/console/"
    await made.stop()
    await made.start()
    assert (await leads_to(copied)).startswith("/console/sign-in")
    assert await leads_to(stays) == "/console/"


async def test_a_problem_as_a_page_has_the_headers_of_the_problem(browser: Browser) -> None:
    await browser.sign_in("key-reader")
    page = await browser.send("DELETE", "/console/recipients")
    assert page.status == 405
    assert page.headers["Allow"] == "GET,HEAD"
    assert page.headers["Content-Type"].startswith("text/html")


async def test_what_a_person_looks_up_is_no_question_to_the_gate(
    made: Installation, browser: Browser
) -> None:
    await browser.sign_in("key-reader")

    async def counted() -> list[str]:
        _, text = await made.api("GET", "/metrics")
        names = "ackgate_gate_", "ackgate_answers"
        return [line for line in text.splitlines() if line.startswith(names)]

    before = await counted()
    assert before
    page = await browser.get(f"/console/recipients?number={WA_ID}")
    assert f"open-{WA_ID}" in page.text or WA_ID in page.text
    assert await counted() == before
    await made.api("GET", f"/accounts/main/recipients/{WA_ID}")
    assert await counted() != before


async def test_a_reader_sees_and_does_not_decide(made: Installation, browser: Browser) -> None:
    page = await browser.sign_in("key-reader", IDENTITY)
    assert not page.has_form("/decide")
    token = page.form("/sign-out").fields
    for path in (
        f"{IDENTITY}/decide",
        "/console/decide",
        "/console/accounts/main/recipients/block",
    ):
        sent = encoded([*token, ("verb", "acknowledge"), ("hash", HASH_A), ("number", WA_ID)])
        page = await browser.send("POST", path, sent)
        assert page.status == 403
        assert "This is not allowed" in page.text
    assert await made.state() == "pending"


async def test_a_key_for_some_accounts_sees_only_those(install: Install) -> None:
    some = {"role": "admin", "accounts": ["main"], **keys("admin")["api"]["keys"]["admin"]}
    made = await install(**keys("reader", some=some))
    other = {**made.tree["accounts"]["main"], "webhook_token": "another-token-of-the-tests"}
    await made.stop()
    await made.start(accounts={"other": other})
    made.key = "key-reader"
    await made.deliver(notice(WA_ID, HASH_A, hour_ago()))
    path = "/webhooks/other/another-token-of-the-tests"
    assert await made.post(notice("16315559999", HASH_A, hour_ago()), path=path) == 200
    browser = Browser.of(made)
    page = await browser.sign_in("key-admin")
    assert WA_ID in page.text
    assert "16315559999" not in page.text
    for path in (
        "/console/accounts/other/identities/16315559999",
        "/console/?account=other",
        "/console/recipients?number=1&account=other",
    ):
        assert (await browser.get(path)).status == 404
    page = await browser.get("/console/recipients?number=16315559999")
    assert "other" not in page.text


async def test_a_proxy_is_believed_from_its_addresses_alone(made: Installation) -> None:
    proxy = {
        "addresses": ["127.0.0.0/8"],
        "role": "none",
        "roles": {"Ana@Shop.example": "operator"},
    }
    await made.stop()
    await made.start(console={"proxy": proxy}, server={"internal": {"port": 0}})
    ana = Browser.of(made)
    ana.headers = {"X-Forwarded-Email": "ana@shop.example"}
    page = await ana.get(IDENTITY)
    page = await ana.submit(page.form("/decide"), "hold", note="not picking up")
    assert "Held" in page.text
    assert (await made.identity())["decided_by"] == {"kind": "person", "name": "ana@shop.example"}
    for name in ("lee@shop.example", "", "a" * 300, "ana@shop.example\u2028"):
        ana.headers = {"X-Forwarded-Email": name.encode().decode("latin-1")}
        assert (await ana.get(IDENTITY)).url.startswith("/console/sign-in")
    await made.stop()
    await made.start(console={"proxy": {"addresses": ["10.1.2.3"]}})
    ana = Browser.of(made)
    ana.headers = {"X-Forwarded-Email": "ana@shop.example"}
    assert (await ana.get(IDENTITY)).url.startswith("/console/sign-in")


async def test_without_a_key_this_machine_alone_is_let_in(install: Install) -> None:
    made = await install()
    await made.deliver(notice(WA_ID, HASH_A, hour_ago()))
    browser = Browser.of(made)
    page = await browser.get(IDENTITY)
    page = await browser.submit(page.form("/decide"), "hold")
    assert page.status == 200
    assert await made.state() == "held"
    browser.headers = {"X-Forwarded-For": "10.0.0.1"}
    assert (await browser.get("/console/")).status == 403


async def test_every_page_forbids_what_it_does_not_need(made: Installation) -> None:
    browser = Browser.of(made)
    for path in ("/console/sign-in", "/console/nothing", "/console/"):
        page = await browser.get(path)
        policy = page.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert page.headers["Cache-Control"] == "no-store"
        assert page.headers["X-Content-Type-Options"] == "nosniff"
        if not browser.cookies:
            await browser.sign_in("key-reader")


async def test_what_pages_load_is_there_and_kept_by_browsers(browser: Browser) -> None:
    page = await browser.get("/console/sign-in")
    attributes = (have.get("src") or have.get("href", "") for _, have in page.tags)
    loaded = {url for url in attributes if "/static/" in url}
    assert len(loaded) >= 5
    for url in loaded:
        page = await browser.get(url)
        assert page.status == 200
        assert "immutable" in page.headers["Cache-Control"]
    assert (await browser.get("/console/static/x/../signin.py")).status == 404


async def test_the_console_is_at_the_internal_address_where_there_is_one(
    made: Installation,
) -> None:
    await made.stop()
    made.tree = merge(made.tree, {"server": {"internal": {"port": 0}}})
    await made.start()
    assert (await Browser(made.http, made.base).get("/console/sign-in")).status == 404
    assert (await Browser.of(made).get("/console/sign-in")).status == 200
