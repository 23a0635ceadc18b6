"""The control routes: what a person or a program makes the simulator do while it runs.

No authentication; callers from this machine alone. JSON in and out; a mistake gets 400 and
`{"error": "…"}`, an unknown user or fault 404. Every route has its twin on `Simulator`.

| route | does |
|---|---|
| `GET /control/state` | everything: users, counts, PUTs, logins, messages, callbacks, faults |
| `PUT /control/users/{wa_id}` | adds or sets a user: `hash`, `acknowledged`, `created_timestamp` |
| `DELETE /control/users/{wa_id}` | forgets a user |
| `POST /control/users/{wa_id}/change` | changes the identity: `hash`, `at_ms`, `notify` |
| `POST /control/users/{wa_id}/acknowledge` | acknowledges elsewhere |
| `POST /control/users/{wa_id}/write` | the user writes: `text`, `name` |
| `POST /control/users/{wa_id}/number` | the user takes the number `new` |
| `POST /control/callbacks` | delivers the body as it is, with its Content-Type; `?wa_id=` |
| `POST /control/errors` | reports an error: `code`, `title`, `details` |
| `POST /control/callbacks/retry` | tries what is pending now |
| `GET, POST, DELETE /control/faults` | lists, switches on, switches all off |
| `DELETE /control/faults/{id}` | switches one off |
| `PATCH /control/settings` | application settings, `webhook_url`, and how it behaves |
| `GET /control/contacts` | counts `requests`, `limited`, `numbers`, `looked_up`, `forced` |
| `PUT /control/contacts` | numbers that are `unknown`, `failing`, `stuck`, or have other `wa_ids` |
| `PUT /control/health` | what the health of the client is |
| `POST /control/tokens/expire` | lets every token expire |
| `PUT /control/password` | changes the `password`; `expire_tokens` |
| `POST /control/reset` | forgets everything |

Those of the Cloud API are under `/control/cloud`: see `service.simulator.cloud.control`.
"""

import ipaddress
from dataclasses import asdict
from typing import Any

from aiohttp import web
from pydantic import ValidationError

from service.simulator.acts import Acts
from service.simulator.controlling import Body, Handler, done, json_of
from service.simulator.state import contact_counts, faults_of, state_of
from service.simulator.wire.keys import ACTS


class _User(Body):
    hash: str | None = None
    acknowledged: bool = True
    created_timestamp: int | None = None


class _Change(Body):
    hash: str | None = None
    at_ms: int | None = None
    notify: bool = True


class _Text(Body):
    text: str
    name: str = "A user"


class _Number(Body):
    new: str


class _Error(Body):
    code: int
    title: str
    details: str | None = None


class _Contacts(Body):
    unknown: set[str] | None = None
    failing: set[str] | None = None
    stuck: set[str] | None = None
    wa_ids: dict[str, str] | None = None


class _Password(Body):
    password: str
    expire_tokens: bool = True


def add_control(app: web.Application) -> None:
    """Give the application that is mounted under `/control` its routes."""
    for method, path, handler in ROUTES:
        app.router.add_route(method, path, handler)
    app.middlewares.extend([_loopback_only, _explained])


@web.middleware
async def _loopback_only(request: web.Request, handler: Handler) -> web.StreamResponse:
    if not is_loopback(request.remote):
        return _failure(403, "control routes answer callers from this machine alone")
    return await handler(request)


def is_loopback(remote: str | None) -> bool:
    """Tell whether a peer's address is of this machine."""
    try:
        return ipaddress.ip_address(remote or "").is_loopback
    except ValueError:
        return False


@web.middleware
async def _explained(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except ValidationError as error:
        return _failure(400, "; ".join(map(_line, error.errors())))
    except (ValueError, RecursionError) as error:
        return _failure(400, str(error))
    except web.HTTPError as error:
        return _failure(error.status, error.reason)


def _line(error: Any) -> str:
    place = ".".join(map(str, error["loc"]))
    return f"{place}: {error['msg']}" if place else str(error["msg"])


def _failure(status: int, why: str) -> web.Response:
    return web.json_response({"error": why}, status=status)


def _acts(request: web.Request) -> Acts:
    return request.app[ACTS]


async def get_state(request: web.Request) -> web.Response:
    """Show everything: see `state_of`."""
    return web.json_response(state_of(_acts(request)))


async def put_user(request: web.Request) -> web.Response:
    """Add a user, or set one right, silently; a random hash unless given."""
    body = _User.model_validate(await json_of(request))
    user = _acts(request).set_user(request.match_info["wa_id"], **body.model_dump())
    return done(**asdict(user))


async def delete_user(request: web.Request) -> web.Response:
    """Forget a user, whose identity is then not found."""
    if _acts(request).users.pop(request.match_info["wa_id"], None) is None:
        raise web.HTTPNotFound(reason="no such user")
    return done()


async def post_change(request: web.Request) -> web.Response:
    """Change a user's identity; `notify: false` is a lost notification."""
    body = _Change.model_validate(await json_of(request))
    wa_id = request.match_info["wa_id"]
    hash_ = _acts(request).change_identity(wa_id, **body.model_dump())
    return done(wa_id=wa_id, hash=hash_)


async def post_acknowledge(request: web.Request) -> web.Response:
    """Acknowledge a user's identity elsewhere."""
    wa_id = request.match_info["wa_id"]
    return done(wa_id=wa_id, hash=_acts(request).acknowledge_elsewhere(wa_id))


async def post_write(request: web.Request) -> web.Response:
    """Let a user write to the business."""
    body = _Text.model_validate(await json_of(request))
    wa_id = request.match_info["wa_id"]
    callback = _acts(request).write(wa_id, body.text, name=body.name)
    return done(wa_id=wa_id, callback=callback.number)


async def post_number(request: web.Request) -> web.Response:
    """Let a user take another number."""
    body = _Number.model_validate(await json_of(request))
    wa_id = request.match_info["wa_id"]
    _acts(request).change_number(wa_id, body.new)
    return done(wa_id=wa_id, new=body.new)


async def post_callback(request: web.Request) -> web.Response:
    """Deliver this very body, whatever it is, with this Content-Type."""
    kind = request.headers.get("Content-Type", "application/json")
    if kind == "application/octet-stream":
        kind = "application/json"  # what a program sends that names no type of its own
    callback = _acts(request).send_callback(
        await request.read(), wa_id=request.query.get("wa_id"), headers={"Content-Type": kind}
    )
    return done(callback=callback.number)


async def post_error(request: web.Request) -> web.Response:
    """Report an error that belongs to no call."""
    body = _Error.model_validate(await json_of(request))
    return done(callback=_acts(request).report_error(**body.model_dump()).number)


async def post_retry(request: web.Request) -> web.Response:
    """Try what is pending now rather than at its time."""
    delivery = _acts(request).client.delivery
    delivery.hurry()
    return done(pending=len(delivery.pending))


async def get_faults(request: web.Request) -> web.Response:
    """List the faults that are switched on."""
    return done(faults=faults_of(_acts(request).client.faults))


async def post_fault(request: web.Request) -> web.Response:
    """Switch a fault on: the fields of `Fault`."""
    return done(id=_acts(request).fault(**{"operation": "", **await json_of(request)}))


async def delete_faults(request: web.Request) -> web.Response:
    """Switch every fault off, and deliver what one of them held."""
    _acts(request).clear_faults()
    return done()


async def delete_fault(request: web.Request) -> web.Response:
    """Switch one fault off."""
    if not _acts(request).client.faults.remove(int(request.match_info["id"])):
        raise web.HTTPNotFound(reason="no such fault")
    return done()


async def patch_settings(request: web.Request) -> web.Response:
    """Change application settings, `webhook_url`, or how it behaves; show the settings."""
    acts = _acts(request)
    acts.change_settings(**await json_of(request))
    return done(**acts.settings.model_dump(mode="json"))


async def get_contacts(request: web.Request) -> web.Response:
    """Show how many contact checks came, and how many were beyond the rate limit."""
    return done(**contact_counts(_acts(request)))


async def put_contacts(request: web.Request) -> web.Response:
    """Say what contact checks answer; a key left out stays as it was."""
    body = _Contacts.model_validate(await json_of(request))
    _acts(request).set_contacts(**body.model_dump())
    return done()


async def put_health(request: web.Request) -> web.Response:
    """Say what the health of the client is: the object itself, as the client would answer it."""
    _acts(request).set_health(await json_of(request))
    return done()


async def post_expire(request: web.Request) -> web.Response:
    """Let every token expire."""
    return done(expired=_acts(request).expire_tokens())


async def put_password(request: web.Request) -> web.Response:
    """Change the password, and let the tokens expire unless told not to."""
    body = _Password.model_validate(await json_of(request))
    _acts(request).change_password(body.password, expire_tokens=body.expire_tokens)
    return done()


async def post_reset(request: web.Request) -> web.Response:
    """Forget everything, and begin again as it was started."""
    await _acts(request).reset()
    return done()


ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "/state", get_state),
    ("PUT", "/users/{wa_id}", put_user),
    ("DELETE", "/users/{wa_id}", delete_user),
    ("POST", "/users/{wa_id}/change", post_change),
    ("POST", "/users/{wa_id}/acknowledge", post_acknowledge),
    ("POST", "/users/{wa_id}/write", post_write),
    ("POST", "/users/{wa_id}/number", post_number),
    ("POST", "/callbacks", post_callback),
    ("POST", "/errors", post_error),
    ("POST", "/callbacks/retry", post_retry),
    ("GET", "/faults", get_faults),
    ("POST", "/faults", post_fault),
    ("DELETE", "/faults", delete_faults),
    ("DELETE", r"/faults/{id:\d+}", delete_fault),
    ("PATCH", "/settings", patch_settings),
    ("GET", "/contacts", get_contacts),
    ("PUT", "/contacts", put_contacts),
    ("PUT", "/health", put_health),
    ("POST", "/tokens/expire", post_expire),
    ("PUT", "/password", put_password),
    ("POST", "/reset", post_reset),
)
