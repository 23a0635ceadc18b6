"""The identity of a user as the On-Premises API shows it, over accounts of either kind.

Code written for that client keeps working, also where an account has moved to the Cloud API. Shapes
follow Meta's page on the contacts node, "Retrieve the latest identity hash for a user".
"""

from functools import partial

from aiohttp import web
from pydantic import BaseModel, ConfigDict

from service.api.context import app_context
from service.api.gate import alias_to_show
from service.api.identities import DecisionBody, Hash, decide, wait_for
from service.api.params import need_account, read_body
from service.api.problems import ProblemError
from service.api.serializers import identity
from service.model.decisions import Verb
from service.model.users import OPEN_STATES, State
from service.store.users import find_user

WAIT_SECONDS = 10


class HashBody(BaseModel):
    """The hash to acknowledge; whatever else a client of the On-Premises API sends is ignored."""

    model_config = ConfigDict(extra="ignore")
    hash: Hash | None


async def show(request: web.Request) -> web.Response:
    """Return the latest identity of a user in the On-Premises shape."""
    account = need_account(request)
    alias = await alias_to_show(request, account, request.match_info["wa_id"])
    user = await app_context(request).database.read(
        partial(find_user, account=account, alias=alias)
    )
    if user is None or user.identity.latest is None:
        raise ProblemError(404, "there is no identity of this user", kind="no_identity")
    return web.json_response(
        {
            "contacts": {
                "hash": user.hash,
                "created_timestamp": user.identity.latest.changed.at,
                "acknowledged": user.identity.state is State.ACKNOWLEDGED,
            }
        }
    )


async def acknowledge(request: web.Request) -> web.Response:
    """Acknowledge the latest identity of a user, as a client of the On-Premises API asks to."""
    body = DecisionBody(hash=(await read_body(request, HashBody)).hash)
    user = await decide(request, request.match_info["wa_id"], Verb.ACKNOWLEDGE, body)
    if user.identity.state not in OPEN_STATES:
        user = await wait_for(app_context(request), user, WAIT_SECONDS)
    if user.identity.state not in {*OPEN_STATES, State.ACKNOWLEDGING}:
        detail = "it was not acknowledged"
        raise ProblemError(409, detail, kind="not_acknowledged", identity=identity(user))
    return web.json_response({})
