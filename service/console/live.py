"""The stream that tells open pages that something changed, so that they repaint themselves.

It says only that: what a page then shows it asks for, with the rights of who looks at it.
"""

import asyncio
from contextlib import suppress

import structlog
from aiohttp import web

from service.console.signin import is_still_signed_in
from service.store.database import ChangeSet, UnavailableError
from service.webhooks.request_ids import HEADER, REQUEST_ID

PAUSE_SECONDS = 1.0
"""The least time between two repaints of one page."""
HEARTBEAT_SECONDS = 15.0
RETRY_MS = 2_000
CHANGED = b"event: changed\ndata: 1\n\n"
_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx passes each event on at once
}

log = structlog.get_logger(__name__)


class Live:
    """Wakes the pages that are open after each commit that changed what they may show."""

    def __init__(self) -> None:
        self._readers: set[asyncio.Event] = set()
        self.closing = False

    def notify(self, commit: ChangeSet) -> None:
        """Wake them, if anything was changed that a page shows."""
        if self._readers and (commit.users or commit.event_id or commit.told):
            for reader in self._readers:
                reader.set()

    def close(self) -> None:
        """End all streams, because the service stops."""
        self.closing = True
        for reader in self._readers:
            reader.set()

    def join(self) -> asyncio.Event:
        """Return what is set when something changed, until it leaves."""
        reader = asyncio.Event()
        self._readers.add(reader)
        return reader

    def leave(self, reader: asyncio.Event) -> None:
        """Wake a page no more."""
        self._readers.discard(reader)


LIVE = web.AppKey("console_live", Live)


async def stream(request: web.Request) -> web.StreamResponse:
    """Tell a page when to repaint, until it is closed, the sign-in ends or the service stops."""
    live = request.app[LIVE]
    response = web.StreamResponse(headers={**_HEADERS, HEADER: request[REQUEST_ID]})
    response.force_close()
    await response.prepare(request)
    if request.method == "HEAD":
        return response
    changed = live.join()
    try:
        # What was committed since the page was made, or since its last stream, it has not heard of.
        await response.write(b"retry: %d\n\n" % RETRY_MS + CHANGED)
        await _tell(request, response, live, changed)
        await response.write_eof()
    except (ConnectionError, UnavailableError):
        pass  # the page is closed; or it asks again, and is told that the database is away
    except Exception:
        # The answer has begun, so none of ours can say it.
        log.exception("a stream of the console failed")
    finally:
        live.leave(changed)
    return response


async def _tell(
    request: web.Request, response: web.StreamResponse, live: Live, changed: asyncio.Event
) -> None:
    while await _goes_on(live, changed):
        is_news = changed.is_set()
        changed.clear()
        if not await is_still_signed_in(request):
            # The page asks for its part once more, and is sent to sign in.
            await response.write(CHANGED)
            return
        await response.write(CHANGED if is_news else b":\n\n")
        if is_news:
            await asyncio.sleep(PAUSE_SECONDS)


async def _goes_on(live: Live, changed: asyncio.Event) -> bool:
    """Wait until something changed, or for a while; return whether the stream goes on then."""
    if not live.closing:
        with suppress(TimeoutError):
            async with asyncio.timeout(HEARTBEAT_SECONDS):
                await changed.wait()
    return not live.closing
