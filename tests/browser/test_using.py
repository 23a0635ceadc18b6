"""Whoever uses the console, and with whatever: a phone, the keyboard, no scripts, no rights."""

import re

import pytest
from playwright.async_api import expect

from tests.acceptance.conftest import HASH_A, WA_ID, Installation
from tests.browser.conftest import IDENTITY, KEYS, PHONE, SHOWN, Browse, Tab, change_many

pytestmark = pytest.mark.tools


async def test_ticks_and_typed_text_stay_while_the_page_repaints(
    manual: Installation, browse: Browse
) -> None:
    tab = await browse(manual)
    await manual.change()
    await tab.sign_in()
    await tab.page.get_by_label(f"Tick {SHOWN}").check()
    await tab.page.get_by_label("Note").fill("half a sen")
    await manual.change("16315553602")
    await tab.page.get_by_role("link", name="+16315553602").wait_for()
    await expect(tab.page.get_by_label(f"Tick {SHOWN}")).to_be_checked()
    await expect(tab.page.get_by_label("Note")).to_have_value("half a sen")
    await expect(tab.page.get_by_label("Note")).to_be_focused()
    await manual.change()
    await expect(tab.page.get_by_label(f"Tick {SHOWN}")).not_to_be_checked()


async def test_who_may_read_only_is_offered_no_decision_and_can_make_none(
    manual: Installation, browse: Browse
) -> None:
    tab = await browse(manual)
    hash_ = await manual.change()
    await tab.sign_in("reader")
    await tab.lists(SHOWN)
    assert await tab.page.get_by_role("checkbox").count() == 0
    await tab.open(IDENTITY)
    await tab.page.get_by_role("heading", name=SHOWN).wait_for()
    assert await tab.page.get_by_role("button", name="Acknowledge").count() == 0
    form = (
        "([path, hash]) => { const form = document.createElement('form'); form.method = 'post';"
        "form.action = path; for (const [name, value] of [['hash', hash], ['verb', 'acknowledge'],"
        "['form_token', document.querySelector('[name=form_token]').value]]) { const input ="
        "document.createElement('input'); input.name = name; input.value = value;"
        "form.append(input); } document.body.append(form); form.submit(); }"
    )
    await tab.page.evaluate(form, [f"{IDENTITY}/decide", hash_])
    await tab.shows(re.compile("the role operator is needed", re.IGNORECASE))
    assert await tab.faults() == []
    assert await manual.state() == "pending"


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_a_phone_shows_every_page_without_scrolling_sideways(
    manual: Installation, browse: Browse, scheme: str
) -> None:
    tab = await browse(manual, viewport=PHONE, color_scheme=scheme, is_mobile=True, has_touch=True)
    await tab.open()
    assert (await tab.overflow(), await tab.faults()) == (0, [])
    await manual.change(hash_=HASH_A)
    await manual.change()
    await tab.sign_in()
    await tab.lists(SHOWN)
    pages = await tab.page.get_by_role("navigation", name="Pages").get_by_role("link").all()
    paths = [await link.get_attribute("href") for link in pages]
    for path in [*paths, IDENTITY, f"/console/recipients?number={WA_ID}", "/console/nothing"]:
        await tab.open(str(path))
        assert (await tab.overflow(), await tab.faults()) == (0, []), path


async def test_the_keyboard_alone_suffices(manual: Installation, browse: Browse) -> None:
    tab = await browse(manual)
    hash_ = await manual.change()
    keyboard = tab.page.keyboard
    await tab.open()
    await expect(tab.page.get_by_label("API key")).to_be_focused()
    await keyboard.type(KEYS["operator"])
    await keyboard.press("Enter")
    await tab.lists(SHOWN)
    await keyboard.press("Tab")
    await expect(tab.page.get_by_role("link", name="Skip to the content")).to_be_focused()
    await keyboard.press("Enter")
    await reach(tab, SHOWN)
    await keyboard.press("Enter")
    await tab.page.wait_for_url(re.compile("identities"))
    await reach(tab, "Acknowledge")
    await keyboard.press("Enter")
    await manual.becomes("acknowledged", hash_=hash_)


async def reach(tab: Tab, name: str) -> None:
    """Press the tab key until something is focused, which has to be seen each time."""
    for _ in range(40):
        await tab.page.keyboard.press("Tab")
        text, outline = await tab.page.evaluate(
            "(() => { const one = document.activeElement, style = getComputedStyle(one);"
            "return [one.textContent.trim(), style.outlineStyle !== 'none'"
            " || style.boxShadow !== 'none']; })()"
        )
        assert outline, text
        if text == name:
            return
    pytest.fail(f"{name} can't be reached by the keyboard")


async def test_everything_can_be_done_without_scripts(manual: Installation, browse: Browse) -> None:
    tab = await browse(manual, java_script_enabled=False)
    await change_many(manual, 25)
    hash_ = await manual.change()
    await tab.sign_in()
    for tick in await tab.page.get_by_label(re.compile(r"Tick \+163155500")).all():
        await tick.check()
    await tab.page.locator("#hold-selected").click()
    await tab.page.get_by_role("button", name="Continue").click()
    await tab.shows("Done: 25 of 25 held")
    await tab.page.get_by_role("link", name="Back to who waits").click()
    await tab.page.get_by_role("link", name=SHOWN).click()
    await tab.decide()
    await tab.shows("Acknowledged. Messages pass as soon as WhatsApp agrees")
    await manual.becomes("acknowledged", hash_=hash_)
