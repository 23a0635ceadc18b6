"""The charts: drawn from their figures, drawn anew at news, and no less without scripts."""

import pytest
from playwright.async_api import expect

from service.workers import points
from tests.acceptance.conftest import WA_ID, Installation
from tests.browser.conftest import Browse

pytestmark = pytest.mark.tools

PATH = "/console/charts"


async def test_charts_are_drawn_anew_at_news_and_open_figures_stay_open(
    manual: Installation, browse: Browse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(points, "EVERY_SECONDS", 0.2)
    await manual.stop()
    await manual.start()
    tab = await browse(manual)
    await tab.sign_in(path=PATH)
    await expect(tab.page.locator("canvas")).to_have_count(3)
    changes = tab.page.get_by_role("figure", name="Changes of identity")
    await changes.get_by_text("Figures", exact=True).click()
    total = tab.page.locator("#totals > div", has_text="Changes").locator("dd")
    await expect(total).to_have_text("0")
    await manual.change(WA_ID)
    await expect(total).to_have_text("1", timeout=30_000)
    await expect(changes.get_by_role("cell", name="1", exact=True).first).to_be_visible()
    await expect(tab.page.locator("canvas")).to_have_count(3)
    assert await tab.faults() == []


async def test_without_scripts_there_are_the_figures(manual: Installation, browse: Browse) -> None:
    tab = await browse(manual, java_script_enabled=False)
    await tab.sign_in(path=f"{PATH}?span=week")
    await tab.page.get_by_role("figure", name="Callbacks").get_by_text("Figures").last.click()
    rows = tab.page.get_by_role("figure", name="Callbacks").get_by_role("row")
    await expect(rows).to_have_count(1 + 168)
