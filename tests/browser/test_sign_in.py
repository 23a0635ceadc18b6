"""Signing in, staying signed in, and what nobody gets to see without."""

import pytest

from tests.acceptance.conftest import Installation
from tests.browser.conftest import Browse

pytestmark = pytest.mark.tools

HALF_AN_HOUR = 30 * 60


async def test_a_person_signs_in_and_out(manual: Installation, browse: Browse) -> None:
    tab = await browse(manual)
    await tab.open()
    assert await tab.faults() == []
    await tab.page.get_by_label("API key").fill("a key that nobody has")
    await tab.page.get_by_role("button", name="Sign in").click()
    await tab.shows("This API key is not known.")
    assert await tab.faults() == []
    await tab.sign_in("operator")
    [cookie] = await tab.page.context.cookies()
    assert (cookie["name"], cookie["httpOnly"]) == ("ackgate_session", True)
    assert cookie["sameSite"] == "Strict"
    assert await tab.page.evaluate("document.cookie") == ""
    await tab.page.get_by_role("button", name="Sign out").click()
    await tab.page.get_by_label("API key").wait_for()
    await tab.open()
    await tab.page.get_by_label("API key").wait_for()


async def test_a_session_ends_after_half_an_hour_without_a_person(
    manual: Installation, browse: Browse
) -> None:
    tab = await browse(manual)
    await tab.sign_in()
    manual.pass_time(HALF_AN_HOUR - 60)
    await tab.open()
    await tab.page.get_by_role("heading", level=1, name="Who waits").wait_for()
    manual.pass_time(HALF_AN_HOUR + 60)
    await tab.open()
    await tab.page.get_by_label("API key").fill("")
    await tab.sign_in()
    await tab.page.get_by_role("heading", level=1, name="Who waits").wait_for()
