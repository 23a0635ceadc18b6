"""A person's browser, Debian's Chromium, before a service with its simulated client."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import (
    BrowserContext,
    ConsoleMessage,
    Locator,
    Page,
    Request,
    async_playwright,
)

from tests.acceptance.conftest import (
    WA_ID,
    Installation,
    certificates,
    digest_of,
    http,
    install,
    notice,
    prepare,
    simulate,
    stack,
    toml,
)
from tests.conftest import installed

__all__ = ["certificates", "http", "install", "prepare", "simulate", "stack", "toml"]

ROOT = Path(__file__).parents[2]
AXE = ROOT / "tests/clients/node_modules/axe-core/axe.min.js"
OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WAITS_MS = 15_000
PHONE, DESK = {"width": 360, "height": 740}, {"width": 1280, "height": 800}
LOCAL = "127.0.0.1"

KEYS = {role: f"the-key-of-the-{role}-in-the-browser" for role in ("reader", "operator", "admin")}
API: dict[str, Any] = {
    "keys": {role: {"role": role, "sha256": digest_of(key)} for role, key in KEYS.items()}
}


SHOWN = f"+{WA_ID}"
IDENTITY = f"/console/accounts/main/identities/{WA_ID}"


async def change_many(made: Installation, count: int) -> None:
    """Let the identities of so many users change, which one callback tells."""
    users = [str(16315550000 + number) for number in range(count)]
    notices = []
    for wa_id in users:
        made.sim.change_identity(wa_id, notify=False)
        user = made.sim.users[wa_id]
        notices += notice(wa_id, user.hash, user.created_timestamp)["messages"]
    await made.deliver({"messages": notices})


@dataclass
class Tab:
    """A page in a browser, and what nobody wants to happen there."""

    page: Page
    base: str
    elsewhere: list[str] = field(default_factory=list)
    """Requests that would have left this machine, or gone to another program on it."""
    complaints: list[str] = field(default_factory=list)
    """What the browser's console says: errors of scripts, and what the policy has blocked."""

    def watch(self) -> None:
        self.page.on("request", self._requested)
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _requested(self, request: Request) -> None:
        if not request.url.startswith((f"{self.base}/", "data:")):
            self.elsewhere.append(request.url)

    def _said(self, message: ConsoleMessage) -> None:
        # A status that a test provokes is shown on the page; the browser notes it too.
        if message.type in {"error", "warning"} and "the server responded with" not in message.text:
            self.complaints.append(message.text)

    async def open(self, path: str = "/console/") -> None:
        await self.page.goto(self.base + path)

    async def sign_in(self, role: str = "operator", path: str = "/console/") -> None:
        """Sign in as a person does who was sent a link."""
        await self.open(path)
        await self.page.get_by_label("API key").fill(KEYS[role])
        await self.page.get_by_role("button", name="Sign in").click()
        await self.page.wait_for_url(self.base + path)

    async def lists(self, shown: str) -> None:
        """Wait until the page lists a user."""
        await self.page.get_by_role("link", name=shown).wait_for()

    async def decide(self, verb: str = "Acknowledge") -> None:
        """Decide about the one identity that the page shows."""
        await self.page.get_by_role("button", name=verb, exact=True).click()

    async def shows(self, text: str | re.Pattern[str]) -> Locator:
        """Wait until the page shows a text somewhere."""
        found = self.page.get_by_text(text).first
        await found.wait_for()
        return found

    async def faults(self) -> list[str]:
        """Return what axe finds serious or critical on the page as it is.

        The browser runs it as a tool of its own, so the page's policy need not allow it.
        """
        if not await self.page.evaluate("typeof axe === 'object'"):
            await self.page.evaluate(AXE.read_text(encoding="utf-8"))
        found = await self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        return [
            f"{one['id']} ({one['impact']}): {node['html'][:200]} {node['failureSummary']}"
            for one in found["violations"]
            if one["impact"] in {"serious", "critical"}
            for node in one["nodes"]
        ]

    async def overflow(self) -> int:
        """Return by how many pixels the page is wider than the window."""
        return int(
            await self.page.evaluate(
                "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            )
        )


Browse = Callable[..., Awaitable[Tab]]


@pytest.fixture
async def browse() -> AsyncIterator[Browse]:
    """Open the browser before a service; options are those of a browser context of Playwright.

    In the end no page may have asked anything of anybody else, or have had an error.
    """
    tabs: list[Tab] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=installed("chromium"), args=OPTIONS
        )

        async def open_tab(made: Installation, **options: Any) -> Tab:
            context: BrowserContext = await browser.new_context(**{"viewport": DESK, **options})
            context.set_default_timeout(WAITS_MS)
            tab = Tab(await context.new_page(), made.inside or made.base)
            assert urlsplit(tab.base).hostname == LOCAL
            tab.watch()
            tabs.append(tab)
            return tab

        yield open_tab
        await browser.close()
    assert not [url for tab in tabs for url in tab.elsewhere]
    assert not [line for tab in tabs for line in tab.complaints]


@pytest.fixture
async def manual(install: Any) -> Installation:
    """An installation where a person decides, with a key for each role."""
    made: Installation = await install(api=API)
    made.key = KEYS["admin"]
    return made
