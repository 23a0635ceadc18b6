"""What an operator does all day, in a browser, on either database."""

import re

import pytest
from playwright.async_api import expect

from tests.acceptance.conftest import HASH_A, Installation, until
from tests.browser.conftest import IDENTITY, SHOWN, Browse, change_many
from tests.storing import url_on

pytestmark = pytest.mark.tools

MANY = 200


@pytest.fixture(
    params=[
        pytest.param("sqlite", marks=pytest.mark.sqlite),
        pytest.param("postgresql", marks=pytest.mark.postgres),
    ]
)
def database_url(request: pytest.FixtureRequest) -> str:
    """The database of a test: each runs on both, whatever `--database` names."""
    return url_on(request.param, request)


async def test_a_change_appears_by_itself_is_acknowledged_and_messages_pass(
    manual: Installation, browse: Browse
) -> None:
    tab = await browse(manual)
    await tab.sign_in()
    await tab.shows("Nobody waits.")
    assert await tab.faults() == []
    hash_ = await manual.change()
    await tab.lists(SHOWN)
    assert await tab.faults() == []
    await tab.page.get_by_role("link", name=SHOWN).click()
    await expect(tab.page.locator("#hash")).to_have_text(hash_)
    assert await tab.faults() == []
    await tab.page.get_by_label("How did you recognise the person?").fill("phone call")
    await tab.page.get_by_label("Where is that recorded?").fill("ticket T-17")
    await tab.page.get_by_label("Note").fill("she has a new phone")
    await tab.decide()
    await tab.shows("WhatsApp agreed")
    await tab.shows("she has a new phone")
    assert await tab.faults() == []
    assert await manual.reasons() == []
    [decision] = await manual.audit(event="decided")
    assert decision["by"]["name"] == "operator"
    await tab.page.get_by_label("Search for a phone number").fill("+1 (631) 555-3601")
    await tab.page.get_by_role("button", name="Search").click()
    await tab.shows(re.compile("You may write to"))
    assert await tab.faults() == []


async def test_a_decision_about_what_changed_meanwhile_decides_nothing(
    manual: Installation, browse: Browse
) -> None:
    tab = await browse(manual)
    await manual.change(hash_=HASH_A)
    await tab.sign_in(path=IDENTITY)
    newer = await manual.change()
    await tab.shows("The identity changed since you opened this page.")
    await tab.decide()
    await tab.shows("Nothing was decided.")
    await expect(tab.page.locator("#hash")).to_have_text(newer)
    assert await tab.faults() == []
    assert (await manual.state(), manual.puts()) == ("pending", [])
    await tab.decide("Hold")
    await tab.shows("Held. The number stays blocked until somebody acknowledges it.")
    assert await manual.state() == "held"
    await tab.decide()
    await manual.becomes("acknowledged", hash_=newer)


async def test_two_hundred_are_decided_about_at_once_with_progress(
    manual: Installation, browse: Browse
) -> None:
    tab = await browse(manual)
    await change_many(manual, MANY)
    await tab.sign_in()
    await tab.page.get_by_label("Tick all on this page").check()
    seen: list[str] = []
    tab.page.on("request", lambda request: seen.append(request.method))
    await tab.page.locator("#acknowledge-selected").click()
    await tab.shows(re.compile(rf"^\d+ of {MANY}$"))
    await tab.shows(f"Done: {MANY} of {MANY} acknowledged")
    assert seen.count("POST") == MANY / 20
    assert await tab.faults() == []
    await until(lambda: len(manual.sim.puts) == MANY, 60)
    await tab.shows("Nobody waits.")
