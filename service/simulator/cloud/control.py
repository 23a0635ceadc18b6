"""The control routes of the Cloud API: what makes it act while it runs.

As those of the On-Premises client, under `/control/cloud`. `{user}` is a number or a user id; a
body may name the business `number` by its phone_number_id, the first unless named, and the time
`at` in Unix seconds, now unless named.

| route | does |
|---|---|
| `GET /control/cloud/state` | everything: users, numbers, calls, messages, callbacks, faults |
| `PUT /control/cloud/users/{user}` | adds or sets a user: the fields of `CloudUser` |
| `DELETE /control/cloud/users/{user}` | forgets a user |
| `POST /control/cloud/users/{user}/write` | the user writes: `text` |
| `POST /control/cloud/users/{user}/reinstall` | the user has another identity: `hash` |
| `POST /control/cloud/users/{user}/number` | the user takes the number `new`; `spelling` |
| `POST /control/cloud/users/{user}/user-id` | the user gets another user id |
| `POST /control/cloud/users/{user}/announce` | tells of the identity in an older `spelling` |
| `POST /control/cloud/callbacks` | delivers the body as it is; `?signed=false` |
| `POST /control/cloud/callbacks/retry` | sends what is gathered, tries what is pending now |
| `POST /control/cloud/errors` | reports an error: `code`, `title`, `details` |
| `PUT /control/cloud/webhook` | makes `url` the app's, after the handshake with `verify_token` |
| `GET, POST, DELETE /control/cloud/faults` | lists, switches on, switches all off |
| `DELETE /control/cloud/faults/{id}` | switches one off |
| `PATCH /control/cloud/settings` | how it behaves |
| `POST /control/cloud/reset` | forgets everything |
"""

from dataclasses import asdict
from typing import Literal

from aiohttp import web
from pydantic import Field

from service.simulator.cloud.cloud import CLOUD
from service.simulator.cloud.state import settings_of, state_of
from service.simulator.controlling import Body, Handler, done, json_of
from service.simulator.state import faults_of


class _User(Body):
    wa_id: str | None = None
    user_id: str = Field(default="", min_length=1)
    parent_user_id: str | None = None
    hash: str = Field(default="", min_length=1)
    name: str = ""
    username: str | None = None
    hidden: bool = False


class _Placed(Body):
    number: str | None = None
    at: float | None = None


class _Text(_Placed):
    text: str


class _Hash(Body):
    hash: str | None = None


class _Number(_Placed):
    new: str
    spelling: Literal["user", "customer"] = "user"


class _Announced(_Placed):
    spelling: Literal["customer", "sibling"] = "customer"


class _Error(Body):
    code: int
    title: str
    details: str = ""
    number: str | None = None


class _Webhook(Body):
    url: str
    verify_token: str


def add_cloud_control(app: web.Application) -> None:
    """Give the application that is mounted under `/control/cloud` its routes."""
    for method, path, handler in ROUTES:
        app.router.add_route(method, path, handler)


async def get_state(request: web.Request) -> web.Response:
    """Show everything: see `state_of`."""
    return web.json_response(state_of(request.app[CLOUD]))


async def put_user(request: web.Request) -> web.Response:
    """Add a user, or set one right, silently; what isn't given stays, or is random."""
    body = _User.model_validate(await json_of(request))
    values = body.model_dump(exclude_unset=True)
    return done(**asdict(request.app[CLOUD].set_user(request.match_info["user"], **values)))


async def delete_user(request: web.Request) -> web.Response:
    """Forget a user."""
    if not request.app[CLOUD].users.remove(request.match_info["user"]):
        raise web.HTTPNotFound(reason="no such user")
    return done()


async def post_write(request: web.Request) -> web.Response:
    """Let a user write to the business."""
    body = _Text.model_validate(await json_of(request))
    user = request.app[CLOUD].write(request.match_info["user"], **body.model_dump())
    return done(**asdict(user))


async def post_reinstall(request: web.Request) -> web.Response:
    """Give a user another identity, of which nothing tells by itself."""
    body = _Hash.model_validate(await json_of(request))
    return done(hash=request.app[CLOUD].reinstall(request.match_info["user"], body.hash))


async def post_number(request: web.Request) -> web.Response:
    """Let a user take another number."""
    body = _Number.model_validate(await json_of(request))
    user = request.app[CLOUD].change_number(request.match_info["user"], **body.model_dump())
    return done(**asdict(user))


async def post_user_id(request: web.Request) -> web.Response:
    """Let a user get another user id."""
    body = _Placed.model_validate(await json_of(request))
    user = request.app[CLOUD].change_user_id(request.match_info["user"], **body.model_dump())
    return done(**asdict(user))


async def post_announce(request: web.Request) -> web.Response:
    """Tell of the identity that a user has, in an older spelling."""
    body = _Announced.model_validate(await json_of(request))
    hash_ = request.app[CLOUD].announce_identity(request.match_info["user"], **body.model_dump())
    return done(hash=hash_)


async def post_callback(request: web.Request) -> web.Response:
    """Deliver this very body, whatever it is, signed unless told otherwise."""
    callback = request.app[CLOUD].send_callback(
        await request.read(), signed=request.query.get("signed") != "false"
    )
    return done(callback=callback.number)


async def post_retry(request: web.Request) -> web.Response:
    """Send what is gathered, and try what is pending now rather than at its time."""
    webhooks = request.app[CLOUD].webhooks
    webhooks.flush()
    webhooks.delivery.hurry()
    return done(pending=len(webhooks.delivery.pending))


async def post_error(request: web.Request) -> web.Response:
    """Report an error that belongs to no message."""
    body = _Error.model_validate(await json_of(request))
    request.app[CLOUD].report_error(**body.model_dump())
    return done()


async def put_webhook(request: web.Request) -> web.Response:
    """Make a URL the app's, as the App Dashboard does, once it shakes hands."""
    body = _Webhook.model_validate(await json_of(request))
    await request.app[CLOUD].register(body.url, body.verify_token)
    return done(url=body.url)


async def get_faults(request: web.Request) -> web.Response:
    """List the faults that are switched on."""
    return done(faults=faults_of(request.app[CLOUD].faults))


async def post_fault(request: web.Request) -> web.Response:
    """Switch a fault on: the fields of `Fault`."""
    return done(id=request.app[CLOUD].fault(**{"operation": "", **await json_of(request)}))


async def delete_faults(request: web.Request) -> web.Response:
    """Switch every fault off, and deliver what one of them held."""
    request.app[CLOUD].clear_faults()
    return done()


async def delete_fault(request: web.Request) -> web.Response:
    """Switch one fault off."""
    if not request.app[CLOUD].faults.remove(int(request.match_info["id"])):
        raise web.HTTPNotFound(reason="no such fault")
    return done()


async def patch_settings(request: web.Request) -> web.Response:
    """Change how it behaves, and show it."""
    cloud = request.app[CLOUD]
    cloud.change_settings(**await json_of(request))
    return done(**settings_of(cloud))


async def post_reset(request: web.Request) -> web.Response:
    """Forget everything, and begin again as it was started."""
    await request.app[CLOUD].reset()
    return done()


ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "/state", get_state),
    ("PUT", "/users/{user}", put_user),
    ("DELETE", "/users/{user}", delete_user),
    ("POST", "/users/{user}/write", post_write),
    ("POST", "/users/{user}/reinstall", post_reinstall),
    ("POST", "/users/{user}/number", post_number),
    ("POST", "/users/{user}/user-id", post_user_id),
    ("POST", "/users/{user}/announce", post_announce),
    ("POST", "/callbacks", post_callback),
    ("POST", "/callbacks/retry", post_retry),
    ("POST", "/errors", post_error),
    ("PUT", "/webhook", put_webhook),
    ("GET", "/faults", get_faults),
    ("POST", "/faults", post_fault),
    ("DELETE", "/faults", delete_faults),
    ("DELETE", r"/faults/{id:\d+}", delete_fault),
    ("PATCH", "/settings", patch_settings),
    ("POST", "/reset", post_reset),
)
