"""The id of a request: in each log line about it, in journal and audit trail, and in its answer."""

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from service.observability.logging import request_id

HEADER = "X-Request-ID"
REQUEST_ID = web.RequestKey("request_id", str)


@web.middleware
async def identified(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Take the id that a request brings, or make one, and give it back with the answer."""
    id_ = request[REQUEST_ID] = request_id(request.headers.get(HEADER))
    # For this request alone: aiohttp answers each in an asyncio task of its own.
    structlog.contextvars.bind_contextvars(request_id=id_)
    response = await handler(request)
    response.headers[HEADER] = id_
    return response
