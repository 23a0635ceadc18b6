"""What a person has a right to: to be erased, and to be told all that is kept of them."""

import structlog
from aiohttp import web

from service.api import schemas
from service.api.asked import heed
from service.api.auth import CALLER, CALLER_BY
from service.api.context import app_context
from service.api.gate import GATE, alias_to_erase
from service.api.params import need_account
from service.api.problems import ProblemError
from service.ledger.erasing import NoteExport
from service.store.database import UnavailableError
from service.webhooks.incoming import share_of
from service.webhooks.request_ids import REQUEST_ID
from service.workers.erasing import UnfinishedError, Whom
from service.workers.exporting import Exporter

log = structlog.get_logger(__name__)

BEGUN = "the erasure has begun, and the leader finishes it"
STILL_OPEN = f"{BEGUN}: a transaction of before it is still open in the database"
CUT = f"{BEGUN}: the database can't be used right now"
RETRY_SECONDS = 60
HEADERS = {"Content-Type": "application/json", "Cache-Control": "no-store"}


async def erase(request: web.Request) -> web.Response:
    """Erase a user, also one who is not known; done again it erases what has come since.

    A 503 says whether it has begun: then the leader finishes it.
    """
    account, text = need_account(request), request.match_info["user"]
    context = app_context(request)
    alias = await alias_to_erase(request, account, text)
    closed = await request.app[GATE].is_closed(account, alias)
    whom = Whom(alias, share_of(context.settings, account), closed)
    begun = await context.eraser.begin(whom, request[CALLER_BY], request[REQUEST_ID])
    log.info("decision", account=account, decision="erase", caller=request[CALLER])
    try:
        found = await context.eraser.finish(begun.user_id, whom.share, begun.linked)
    except UnfinishedError:
        raise ProblemError(503, STILL_OPEN, retry_after=RETRY_SECONDS) from None
    except UnavailableError:
        raise ProblemError(503, CUT, retry_after=RETRY_SECONDS) from None
    await heed(context)
    answer: schemas.Erased = {
        "account": account,
        "erased": found.counts,
        "backups": [*found.backups],
        "linked": [*found.linked],
    }
    return web.json_response(answer)


async def export(request: web.Request) -> web.StreamResponse:
    """Tell all that is kept of a user, as one JSON object, which is sent as it is found."""
    account, text = need_account(request), request.match_info["user"]
    context = app_context(request)
    alias = await alias_to_erase(request, account, text)
    if request.method == "HEAD":
        return web.Response(headers=HEADERS)
    whom = Whom(alias, share_of(context.settings, account), closed=False)
    command = NoteExport(account, alias, request[CALLER_BY], request[REQUEST_ID])
    await context.ledger.submit(command)
    log.info("decision", account=account, decision="export", caller=request[CALLER])
    response = web.StreamResponse(headers=HEADERS)
    async for piece in Exporter(context.database).export(whom):
        if not response.prepared:
            await response.prepare(request)
        await response.write(piece)
    await response.write_eof()
    return response
