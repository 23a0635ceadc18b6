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
from service.webhooks.incoming import share_of
from service.webhooks.request_ids import REQUEST_ID
from service.workers.erasing import UnfinishedError, Whom
from service.workers.exporting import Exporter

log = structlog.get_logger(__name__)

UNFINISHED = (
    "the erasure has begun, and goes on in the background: a transaction of before it is still open"
)
RETRY_SECONDS = 60
HEADERS = {"Content-Type": "application/json", "Cache-Control": "no-store"}


async def erase(request: web.Request) -> web.Response:
    """Erase a user, also one who is not known; done again it erases what has come since."""
    account, text = need_account(request), request.match_info["user"]
    context = app_context(request)
    alias = await alias_to_erase(request, account, text)
    closed = await request.app[GATE].is_closed(account, alias)
    whom = Whom(alias, share_of(context.settings, account), closed)
    try:
        found = await context.eraser.erase(whom, request[CALLER_BY], request[REQUEST_ID])
    except UnfinishedError:
        raise ProblemError(503, UNFINISHED, retry_after=RETRY_SECONDS) from None
    await heed(context)
    log.info("decision", account=account, decision="erase", caller=request[CALLER])
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
