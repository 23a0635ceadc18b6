"""Each thing that a person does, once; with ACKGATE_IMAGES=docs/images it makes the pictures."""

import os
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import Installation, callback_bodies, hour_ago
from tests.browser.conftest import API, KEYS, SHOWN, WA_ID, Browse, Tab

pytestmark = pytest.mark.tools

PEOPLE = {
    WA_ID: ("Sheena Nelson", "Rc/eg9Rl0JA="),
    "16315553602": ("Pablo Morales", "Sjvjlx8G6Z0="),
    "4915113245678": ("Jonas Weber", "UKD6Y/5SqDU="),
    "447700900123": ("Amina Diallo", "lUlaODbGhPY="),
}
LARGEST = 150_000
PAGES = ("Accounts", "Relays", "Contacts", "Activity", "Audit")


@pytest.fixture
async def shop(install: Any) -> Installation:
    """An installation with four people who wait, and a relay that nobody takes."""
    relays = {"crm": {"url": "http://127.0.0.1:9/whatsapp"}}
    made: Installation = await install(api=API, relays=relays)
    made.key = KEYS["admin"]
    for minutes, (wa_id, (name, hash_)) in enumerate(PEOPLE.items()):
        at = hour_ago(60 * 11 * minutes)
        made.sim.change_identity(wa_id, hash_, at, notify=False)
        user = made.sim.users[wa_id]
        body = callback_bodies.text_message(user, "Hello", name, at, with_identity=True)
        await made.deliver(body)
    return made


async def picture(tab: Tab, name: str) -> None:
    """Keep what the page shows, where the environment asks for it."""
    folder = os.environ.get("ACKGATE_IMAGES")
    if folder is None:
        return
    file = Path(folder) / f"{name}.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    # Playwright hides the caret by a style of its own, which the policy blocks.
    await tab.page.screenshot(path=file, caret="initial")
    assert file.stat().st_size < LARGEST


async def test_a_tour_of_every_page(shop: Installation, browse: Browse) -> None:
    tab = await browse(shop, color_scheme="light")
    await tab.sign_in()
    await tab.lists(SHOWN)
    await tab.page.get_by_label(f"Tick {SHOWN}").check()
    await picture(tab, "waiting")
    await tab.page.get_by_role("link", name=SHOWN).click()
    await tab.page.get_by_label("Note").fill("on the phone with her")
    await tab.decide("Hold")
    await tab.shows("on the phone with her")
    await picture(tab, "identity")
    await tab.open("/console/recipients?number=%2B1+(631)+555-3601")
    await tab.page.get_by_role("button", name="Block").wait_for()
    await picture(tab, "search")
    for page in PAGES:
        await (
            tab.page.get_by_role("navigation", name="Pages").get_by_role("link", name=page).click()
        )
        await tab.page.get_by_role("heading", level=1).wait_for()
        assert (await tab.faults(), await tab.overflow()) == ([], 0), page
        if page == "Relays":
            await tab.shows("crm")
            await picture(tab, "relays")
