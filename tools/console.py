"""The console with many who wait, and in a browser while much changes.

`python -m tools.console pages` compares the first page with 100 and with 100,000 who wait.
`python -m tools.console live --minutes 10` lets 500 identities a second change before an open page,
and prints each ten seconds how often it repainted, what memory it takes after a garbage collection,
and how long a decision made elsewhere took to be seen on it. It needs Chromium.
"""

import argparse
import asyncio
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path

import aiohttp
from playwright.async_api import CDPSession, Page, async_playwright

from tools.bench.servers import Server, ackgate, seed
from tools.bodies import hash_of, identity_change, wa_id
from tools.installation import AUTHORIZATION, KEY, Installation

FEW, MANY = 100, 100_000
READS = 30
BUSY, MARKED = 1_000, 150
"""Users whose identities change all the time, and older ones, about whom is decided."""
RATE = 500
SENDERS = 64
EVERY_SECONDS = 10
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
COUNT_REPAINTS = """
window.repaints = 0;
document.addEventListener('htmx:afterSwap', () => { window.repaints += 1; });
"""


@contextmanager
def waiting(users: int) -> Iterator[tuple[Server, Installation]]:
    """Run Ackgate on a database where so many identities wait for a person."""
    with tempfile.TemporaryDirectory() as folder:
        installation = Installation(Path(folder))
        seed(installation, users, entries=0)
        with closing(sqlite3.connect(installation.database)) as database:
            database.execute("UPDATE users SET state = 'pending'")
            database.execute("UPDATE changes SET acknowledged_at = NULL")
            database.commit()
        with ackgate(installation, core=None) as server:
            yield server, installation


async def first_page(server: Server) -> tuple[float, int]:
    """Return the median time (ms) of the first page, and its size."""
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(server.url, cookie_jar=jar) as session:
        origin = {"Origin": server.url}
        async with session.post("/console/sign-in", data={"api_key": KEY}, headers=origin) as done:
            done.raise_for_status()
        times, size = [], 0
        for _ in range(READS):
            began = time.perf_counter()
            async with session.get("/console/") as page:
                size = len(await page.read())
            times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times), size


def pages() -> None:
    """Print how long the first page takes with few and with many who wait."""
    found = {}
    for users in (FEW, MANY):
        with waiting(users) as (server, _):
            found[users], size = asyncio.run(first_page(server))
        print(f"{users:>7,} waiting: first page {found[users]:.1f} ms, {size:,} bytes")
    print(f"ratio {found[MANY] / found[FEW]:.2f}")


async def change(server: Server, ends_at: float, sent: list[int]) -> None:
    """Let identities change at the rate, until a time."""
    numbers = count()
    began = time.monotonic()
    media_type = {"Content-Type": "application/json"}
    async with aiohttp.ClientSession(server.url, headers=media_type) as session:

        async def send() -> None:
            while time.monotonic() < ends_at:
                nth = next(numbers)
                await asyncio.sleep(max(0.0, began + nth / RATE - time.monotonic()))
                user = MARKED + nth % BUSY
                hash_ = hash_of(user, 1 + nth // BUSY)
                body = identity_change(wa_id(user), hash_, int(time.time() * 1000))
                async with session.post(server.path, data=body) as answer:
                    answer.raise_for_status()
                sent[0] += 1

        await asyncio.gather(*(send() for _ in range(SENDERS)))


async def hold(server: Server, page: Page, user: int) -> float:
    """Hold a user by the API, and return how long (s) it takes until the page shows it."""
    path = f"/api/v1/accounts/main/identities/{wa_id(user)}/hold"
    async with (
        aiohttp.ClientSession(server.url, headers=AUTHORIZATION) as session,
        session.post(path, json={"hash": hash_of(user)}) as answer,
    ):
        answer.raise_for_status()
    began = time.monotonic()
    row = page.locator("tr", has=page.get_by_role("link", name=f"+{wa_id(user)}"))
    await row.locator(".state.held").wait_for(timeout=60_000)
    return time.monotonic() - began


async def memory(devtools: CDPSession) -> tuple[float, int]:
    """Return the page's memory (MB) after a collection, and how many nodes it has."""
    await devtools.send("HeapProfiler.collectGarbage")
    told = await devtools.send("Performance.getMetrics")
    found = {one["name"]: one["value"] for one in told["metrics"]}
    return found["JSHeapUsedSize"] / 1e6, int(found["Nodes"])


async def live(minutes: float) -> None:
    """Print how an open page fares."""
    with waiting(BUSY + MARKED) as (server, _):
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(
                executable_path="/usr/bin/chromium", args=OPTIONS
            )
            page = await browser.new_page()
            await page.add_init_script(COUNT_REPAINTS)
            await page.goto(f"{server.url}/console/")
            await page.get_by_label("API key").fill(KEY)
            await page.get_by_role("button", name="Sign in").click()
            await page.get_by_role("heading", name="Who waits").wait_for()
            devtools = await page.context.new_cdp_session(page)
            await devtools.send("Performance.enable")
            await watch(server, page, devtools, minutes)
            await browser.close()


async def watch(server: Server, page: Page, devtools: CDPSession, minutes: float) -> None:
    """Print a line each ten seconds, and the worst in the end."""
    sent = [0]
    began = time.monotonic()
    changing = asyncio.create_task(change(server, began + 60 * minutes, sent))
    repaints, changes, at = 0, 0, began
    latencies, heaps = [], []
    for user in range(int(60 * minutes / EVERY_SECONDS)):
        await asyncio.sleep(began + (user + 1) * EVERY_SECONDS - time.monotonic())
        latencies.append(await hold(server, page, user % MARKED))
        heap, nodes = await memory(devtools)
        heaps.append(heap)
        now, painted = time.monotonic(), await page.evaluate("window.repaints")
        print(
            f"{now - began:5.0f} s: {(sent[0] - changes) / (now - at):4.0f} changes/s, "
            f"{(painted - repaints) / (now - at):.2f} repaints/s, seen after {latencies[-1]:.2f} s,"
            f" heap {heap:.1f} MB, {nodes:,} nodes, service {server.process.memory_mb():.0f} MB",
            flush=True,
        )
        repaints, changes, at = painted, sent[0], now
    await changing
    print(
        f"seen after {statistics.median(latencies):.2f} s, at worst {max(latencies):.2f} s; heap "
        f"{statistics.mean(heaps[:3]):.1f} MB at first, {statistics.mean(heaps[-3:]):.1f} MB last"
    )


def main() -> int:
    """Do what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("pages", "live"))
    parser.add_argument("--minutes", type=float, default=10)
    asked = parser.parse_args()
    if asked.what == "pages":
        pages()
    else:
        asyncio.run(live(asked.minutes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
