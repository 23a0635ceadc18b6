"""The control API of the Cloud API, under `/control/cloud`: see `service.simulator.control`.

`{user}` is a number or a user id; a body may name the business `number` by its phone_number_id, by
default the first, and the time `at` in Unix seconds, by default now.
"""

from dataclasses import asdict
from typing import Any, Literal

from aiohttp import web
from pydantic import Field

from service.simulator import control
from service.simulator.cloud.answers import CLOUD
from service.simulator.cloud.cloud import Cloud
from service.simulator.control import API, COUNTS, SHOWN, Body, pending_of, read, read_as, shown

SECRETS = {"app_secret", "access_token"}
MESSAGE_COUNTS = ("accepted", "refused", "delivered", "mismatch", "undeliverable")

routes = web.RouteTableDef()


class _User(Body):
    wa_id: str | None = None
    user_id: str = Field(default="", min_length=1)
    parent_user_id: str | None = None
    hash: str = Field(default="", min_length=1)
    name: str = ""
    username: str | None = None
    hidden: bool = False


class _Context(Body):
    number: str | None = None
    at: float | None = None


class _Text(_Context):
    text: str


class _Hash(Body):
    hash: str | None = None


class _Number(_Context):
    new: str
    spelling: Literal["user", "customer"] = "user"


class _Announced(_Context):
    spelling: Literal["customer", "sibling"] = "customer"


class _Error(Body):
    code: int
    title: str
    details: str = ""
    number: str | None = None


class _Webhook(Body):
    url: str
    verify_token: str


def application(cloud: Cloud) -> web.Application:
    """Return the application that is mounted under `/control/cloud`."""
    app = web.Application()
    app[CLOUD] = app[API] = cloud
    app.add_routes([*routes, *control.routes])
    return app


@routes.get("/state")
async def get_state(request: web.Request) -> web.Response:
    """Show users, numbers, accounts, calls, messages, callbacks, faults and settings."""
    cloud = request.app[CLOUD]
    keys = ("id", "phone_number_id", "to", "hash", "at", "outcome")
    latest = list(cloud.messages)[-SHOWN:]
    return shown(
        users=[asdict(user) for user in cloud.users],
        numbers={
            key: {
                **number.config.model_dump(),
                "identity_check": number.identity_check,
                "webhook_url": number.webhook_url,
            }
            for key, number in cloud.business.numbers.items()
        },
        accounts={key: asdict(account) for key, account in cloud.business.accounts.items()},
        calls=dict(cloud.calls.counts),
        messages={
            **{key: cloud.counts[key] for key in MESSAGE_COUNTS},
            "latest": [{key: getattr(message, key) for key in keys} for message in latest],
        },
        callbacks={
            "updates": cloud.webhooks.counts["updates"],
            "unsubscribed": cloud.webhooks.counts["unsubscribed"],
            **{key: cloud.delivery.counts[key] for key in COUNTS},
            "answers": dict(cloud.delivery.answers),
            "pending": pending_of(cloud.delivery),
        },
        faults=list(cloud.faults),
        settings=_settings(cloud),
    )


def _settings(cloud: Cloud) -> dict[str, Any]:
    return cloud.options.model_dump(mode="json", exclude=SECRETS | {"faults", "numbers"})


@routes.put("/users/{user}")
async def put_user(request: web.Request) -> web.Response:
    """Add or change a user silently: the fields of `CloudUser`; the others stay, or are random."""
    values = _User.model_validate(await read(request)).model_dump(exclude_unset=True)
    return shown(**asdict(request.app[CLOUD].set_user(request.match_info["user"], **values)))


@routes.delete("/users/{user}")
async def delete_user(request: web.Request) -> web.Response:
    """Forget a user."""
    if not request.app[CLOUD].users.remove(request.match_info["user"]):
        raise web.HTTPNotFound(reason="no such user")
    return shown()


@routes.post("/users/{user}/write")
async def post_write(request: web.Request) -> web.Response:
    """Let the user write to the business: `text`."""
    values = await read_as(request, _Text)
    return shown(**asdict(request.app[CLOUD].write(request.match_info["user"], **values)))


@routes.post("/users/{user}/reinstall")
async def post_reinstall(request: web.Request) -> web.Response:
    """Give the user another identity, by default a random `hash`; no webhook reports it."""
    values = await read_as(request, _Hash)
    return shown(hash=request.app[CLOUD].reinstall(request.match_info["user"], **values))


@routes.post("/users/{user}/number")
async def post_number(request: web.Request) -> web.Response:
    """Let the user take the number `new`; `spelling`."""
    values = await read_as(request, _Number)
    return shown(**asdict(request.app[CLOUD].change_number(request.match_info["user"], **values)))


@routes.post("/users/{user}/user-id")
async def post_user_id(request: web.Request) -> web.Response:
    """Let the user get another user id."""
    values = await read_as(request, _Context)
    return shown(**asdict(request.app[CLOUD].change_user_id(request.match_info["user"], **values)))


@routes.post("/users/{user}/announce")
async def post_announce(request: web.Request) -> web.Response:
    """Report the identity that the user has in an older `spelling`."""
    values = await read_as(request, _Announced)
    user = request.match_info["user"]
    return shown(hash=request.app[CLOUD].announce_identity(user, **values))


@routes.post("/callbacks")
async def post_callback(request: web.Request) -> web.Response:
    """Deliver this very body, whatever it is, signed unless `?signed=false`."""
    signed = request.query.get("signed") != "false"
    callback = request.app[CLOUD].send_callback(await request.read(), signed=signed)
    return shown(callback=callback.number)


@routes.post("/errors")
async def post_error(request: web.Request) -> web.Response:
    """Report an error that belongs to no message: `code`, `title`, `details`."""
    request.app[CLOUD].report_error(**await read_as(request, _Error))
    return shown()


@routes.put("/webhook")
async def put_webhook(request: web.Request) -> web.Response:
    """Make `url` the app's, as the App Dashboard does, after its verification."""
    values = await read_as(request, _Webhook)
    await request.app[CLOUD].register(**values)
    return shown(url=values["url"])


@routes.patch("/settings")
async def patch_settings(request: web.Request) -> web.Response:
    """Change options, and show them."""
    cloud = request.app[CLOUD]
    cloud.change_settings(**await read(request))
    return shown(**_settings(cloud))
