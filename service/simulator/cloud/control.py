"""The control API of the Cloud API, under `/control/cloud`: see `service.simulator.control`.

`{user}` is a number or a user id; a body may name the business `number` by its phone_number_id, by
default the first, and the time `at` in Unix seconds, by default now.
"""

from dataclasses import asdict
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from service.simulator import control
from service.simulator.cloud.answers import CLOUD
from service.simulator.cloud.cloud import Cloud
from service.simulator.control import API, COUNTS, SHOWN, action_routes, pending_of, read, shown

SECRETS = {"app_secret", "access_token"}
MESSAGE_COUNTS = ("accepted", "refused", "delivered", "mismatch", "undeliverable")

routes = web.RouteTableDef()


class _User(BaseModel):
    model_config = ConfigDict(extra="forbid")

    wa_id: str | None = None
    user_id: str = Field(default="", min_length=1)
    parent_user_id: str | None = None
    hash: str = Field(default="", min_length=1)
    name: str = ""
    username: str | None = None
    hidden: bool = False


ACTIONS = (
    ("POST", "/users/{user}/write", "write", None),
    ("POST", "/users/{user}/reinstall", "reinstall", "hash"),
    ("POST", "/users/{user}/number", "change_number", None),
    ("POST", "/users/{user}/user-id", "change_user_id", None),
    ("POST", "/users/{user}/announce", "announce_identity", "hash"),
    ("POST", "/errors", "report_error", None),
    ("PUT", "/webhook", "register", "url"),
)
"""The actions of `Cloud` that have a route: method, path, action, and the key of its result."""


def application(cloud: Cloud) -> web.Application:
    """Return the application that is mounted under `/control/cloud`."""
    app = web.Application()
    app[CLOUD] = app[API] = cloud
    app.add_routes([*routes, *action_routes(ACTIONS), *control.ROUTES])
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


@routes.post("/callbacks")
async def post_callback(request: web.Request) -> web.Response:
    """Deliver this very body, whatever it is, signed unless `?signed=false`."""
    signed = request.query.get("signed") != "false"
    callback = request.app[CLOUD].send_callback(await request.read(), signed=signed)
    return shown(callback=callback.number)


@routes.patch("/settings")
async def patch_settings(request: web.Request) -> web.Response:
    """Change options, and show them."""
    cloud = request.app[CLOUD]
    cloud.change_settings(**await read(request))
    return shown(**_settings(cloud))
