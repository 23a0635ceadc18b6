"""The identity of a user: read and acknowledge it (Meta's page on the contacts node)."""

from aiohttp import web

from service.simulator.answers import WireError, invalid, required
from service.simulator.users import User
from service.simulator.wire.keys import CALL, answered, client_of, json_object


async def get_identity(request: web.Request) -> web.Response:
    """Answer a user's latest identity; `contacts` is an object here."""
    user = _user(request)
    identity = {
        "hash": user.hash,
        "created_timestamp": user.created_timestamp,
        "acknowledged": user.acknowledged,
    }
    return answered(request, {"contacts": identity})


async def put_identity(request: web.Request) -> web.Response:
    """Acknowledge the latest hash: 200 and `{}`; 409 for any other, 404 for an unknown user."""
    call = request[CALL]
    call.outcome = "unreadable"
    wanted = (await json_object(request)).get("hash")
    if wanted is None:
        raise required("hash")
    if not isinstance(wanted, str):
        raise invalid("hash", "not a string")
    call.outcome = "unknown_user"
    user = _user(request)
    if user.hash != wanted:
        call.outcome = "stale"
        status = client_of(request).options.stale_hash_status
        error = WireError(409)
        raise WireError(status, error.code, error.title, error.details)
    call.outcome = "already" if user.acknowledged else "acknowledged"
    user.acknowledged = True
    return web.json_response({})


def _user(request: web.Request) -> User:
    user = client_of(request).users.get(request.match_info["wa_id"])
    if user is None:
        raise WireError(404, details="Identity was not found")
    return user
