"""The control API: what a person or a program makes the simulator do while it runs.

No authentication; callers from this machine alone. JSON in and out; a mistake gets 400 and
`{"error": "…"}`, an unknown user or fault 404. This module has what both APIs share: reading
bodies, errors, and the routes of faults, retries and resets. Those of one API are in
`onprem/control.py`, under `/control`, and `cloud/control.py`, under `/control/cloud`.
"""

import ipaddress
import json
from collections.abc import Iterable
from dataclasses import asdict
from functools import partial
from inspect import isawaitable, signature
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import ConfigDict, ValidationError, create_model

from service.simulator.api import Api
from service.simulator.delivery import Callback, Delivery
from service.simulator.users import CloudUser, User

API = web.AppKey("api", Api)
SHOWN = 1000
"""How many of the latest messages and PUTs are shown; the counts cover all."""
COUNTS = ("accepted", "delivered", "failed_attempts", "lost", "given_up")

routes = web.RouteTableDef()


async def read(request: web.Request) -> dict[str, Any]:
    """Read a JSON object, `{}` when the body is empty; ValueError when it is none."""
    raw = await request.read()
    body = json.loads(raw) if raw else {}
    if not isinstance(body, dict):
        raise ValueError("the body is not a JSON object")  # noqa: TRY004 - the caller's mistake
    return body


def action_routes(table: Iterable[tuple[str, str, str, str | None]]) -> list[web.RouteDef]:
    """Return the routes that perform an action each, by method, path, action and key.

    The JSON object of a request has to fit the action's parameters; the first of these come from
    the path. What the action returns is the answer's value at the key; without a key the answer is
    the user that it returns, or empty.
    """
    return [web.route(method, path, _handler(name, key)) for method, path, name, key in table]


def _handler(name: str, key: str | None) -> Handler:
    async def handle(request: web.Request) -> web.Response:
        action = partial(getattr(request.app[API], name), *request.match_info.values())
        fields: dict[str, Any] = {
            each.name: (each.annotation, ... if each.default is each.empty else each.default)
            for each in signature(action).parameters.values()
        }
        body = create_model("Body", __config__=ConfigDict(extra="forbid"), **fields)
        given = body.model_validate(await read(request) if fields else {})
        result = action(**given.model_dump())
        if isawaitable(result):
            result = await result
        if key is None:
            return shown(**(asdict(result) if isinstance(result, User | CloudUser) else {}))
        result = result.number if isinstance(result, Callback) else result
        wa_id = {name: text for name, text in request.match_info.items() if name == "wa_id"}
        return shown(**wa_id, **{key: result})

    return handle


def shown(**values: Any) -> web.Response:
    """Answer a JSON object."""
    return web.json_response(values)


def pending_of(delivery: Delivery) -> list[dict[str, Any]]:
    """Return the oldest callbacks that aren't delivered yet."""
    keys = ("number", "kind", "wa_id", "attempts", "problem", "created_at")
    pending = list(delivery.pending.values())[:SHOWN]
    return [{key: getattr(callback, key) for key in keys} for callback in pending]


@web.middleware
async def loopback_only(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse callers from other machines."""
    if not is_loopback(request.remote):
        return _error(403, "control routes answer callers from this machine alone")
    return await handler(request)


def is_loopback(remote: str | None) -> bool:
    """Return whether a peer's address is of this machine."""
    try:
        return ipaddress.ip_address(remote or "").is_loopback
    except ValueError:
        return False


@web.middleware
async def explained(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn a mistake of the caller's into JSON that says what is wrong."""
    try:
        return await handler(request)
    except ValidationError as error:
        places = ((".".join(map(str, each["loc"])), each["msg"]) for each in error.errors())
        lines = (f"{place}: {message}" if place else message for place, message in places)
        return _error(400, "; ".join(lines))
    except (ValueError, RecursionError) as error:
        return _error(400, str(error))
    except web.HTTPError as error:
        return _error(error.status, error.reason)


def _error(status: int, why: str) -> web.Response:
    return web.json_response({"error": why}, status=status)


@routes.get("/faults")
async def get_faults(request: web.Request) -> web.Response:
    """List the faults that are switched on."""
    return shown(faults=list(request.app[API].faults))


@routes.post("/faults")
async def post_fault(request: web.Request) -> web.Response:
    """Switch a fault on: the fields of `Fault`."""
    return shown(id=request.app[API].fault(**{"operation": "", **await read(request)}))


@routes.delete(r"/faults/{id:\d+}")
async def delete_fault(request: web.Request) -> web.Response:
    """Switch one fault off."""
    if not request.app[API].faults.remove(int(request.match_info["id"])):
        raise web.HTTPNotFound(reason="no such fault")
    return shown()


ROUTES = (
    *routes,
    *action_routes(
        [
            ("DELETE", "/faults", "clear_faults", None),
            ("POST", "/callbacks/retry", "retry_now", "pending"),
            ("POST", "/reset", "reset", None),
        ]
    ),
)
