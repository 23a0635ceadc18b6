"""The control API of the On-Premises client, under `/control`: see `service.simulator.control`."""

from dataclasses import asdict

from aiohttp import web

from service.simulator import control
from service.simulator.control import API, COUNTS, SHOWN, Body, pending_of, read, read_as, shown
from service.simulator.onprem import contact_checks
from service.simulator.onprem.answers import CLIENT
from service.simulator.onprem.client import Client

routes = web.RouteTableDef()


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


def application(client: Client) -> web.Application:
    """Return the application that is mounted under `/control`."""
    app = web.Application(middlewares=[control.loopback_only, control.explained])
    app[CLIENT] = app[API] = client
    app.add_routes([*routes, *control.routes])
    return app


@routes.get("/state")
async def get_state(request: web.Request) -> web.Response:
    """Show users, counts, PUTs, logins, messages, callbacks, faults and settings."""
    client = request.app[CLIENT]
    keys = ("wa_id", "hash", "outcome", "status", "request_id", "at", "faulty")
    checks = client.contacts
    return shown(
        users={wa_id: asdict(user) for wa_id, user in client.users.items()},
        calls=dict(client.calls.counts),
        most_in_flight=dict(client.calls.most_in_flight),
        puts=[{key: getattr(call, key) for key in keys} for call in client.puts[-SHOWN:]],
        logins={
            "succeeded": client.logins.succeeded,
            "refused": client.logins.refused,
            "tokens": len(client.logins.tokens),
        },
        messages=[asdict(message) for message in list(client.messages)[-SHOWN:]],
        callbacks={
            **{key: client.delivery.counts[key] for key in COUNTS},
            "pending": pending_of(client.delivery),
        },
        contacts={
            "unknown": sorted(checks.unknown),
            "failing": sorted(checks.failing),
            "stuck": sorted(checks.stuck),
            "wa_ids": {**client.options.wa_ids, **checks.wa_ids},
            "counts": _contact_counts(client),
        },
        health=client.health,
        faults=list(client.faults),
        webhook_ca=client.webhook_ca is not None,
        settings=client.settings.model_dump(mode="json"),
    )


def _contact_counts(client: Client) -> dict[str, int]:
    return {key: client.contacts.counts[key] for key in contact_checks.COUNTS}


@routes.put("/users/{wa_id}")
async def put_user(request: web.Request) -> web.Response:
    """Add or replace a user silently: `hash`, random by default, and the fields of `User`."""
    values = await read_as(request, _User)
    return shown(**asdict(request.app[CLIENT].set_user(request.match_info["wa_id"], **values)))


@routes.delete("/users/{wa_id}")
async def delete_user(request: web.Request) -> web.Response:
    """Forget a user, whose identity is then not found."""
    if request.app[CLIENT].users.pop(request.match_info["wa_id"], None) is None:
        raise web.HTTPNotFound(reason="no such user")
    return shown()


@routes.post("/users/{wa_id}/change")
async def post_change(request: web.Request) -> web.Response:
    """Change the identity: `hash`, `at_ms`; `notify: false` is a lost notification."""
    values, wa_id = await read_as(request, _Change), request.match_info["wa_id"]
    return shown(wa_id=wa_id, hash=request.app[CLIENT].change_identity(wa_id, **values))


@routes.post("/users/{wa_id}/acknowledge")
async def post_acknowledge(request: web.Request) -> web.Response:
    """Acknowledge the identity elsewhere."""
    wa_id = request.match_info["wa_id"]
    return shown(wa_id=wa_id, hash=request.app[CLIENT].acknowledge_elsewhere(wa_id))


@routes.post("/users/{wa_id}/write")
async def post_write(request: web.Request) -> web.Response:
    """Let the user write to the business: `text`, `name`."""
    values, wa_id = await read_as(request, _Text), request.match_info["wa_id"]
    return shown(wa_id=wa_id, callback=request.app[CLIENT].write(wa_id, **values).number)


@routes.post("/users/{wa_id}/number")
async def post_number(request: web.Request) -> web.Response:
    """Let the user take the number `new`."""
    values, wa_id = await read_as(request, _Number), request.match_info["wa_id"]
    request.app[CLIENT].change_number(wa_id, **values)
    return shown(wa_id=wa_id, **values)


@routes.post("/callbacks")
async def post_callback(request: web.Request) -> web.Response:
    """Deliver this very body, whatever it is, with this Content-Type; `?wa_id=`."""
    kind = request.headers.get("Content-Type", "application/json")
    if kind == "application/octet-stream":
        kind = "application/json"  # what a program sends that names no type of its own
    callback = request.app[CLIENT].send_callback(
        await request.read(), wa_id=request.query.get("wa_id"), headers={"Content-Type": kind}
    )
    return shown(callback=callback.number)


@routes.post("/errors")
async def post_error(request: web.Request) -> web.Response:
    """Report an error that belongs to no call: `code`, `title`, `details`."""
    callback = request.app[CLIENT].report_error(**await read_as(request, _Error))
    return shown(callback=callback.number)


@routes.patch("/settings")
async def patch_settings(request: web.Request) -> web.Response:
    """Change application settings, `webhook_url`, or options; show the settings."""
    client = request.app[CLIENT]
    client.change_settings(**await read(request))
    return shown(**client.settings.model_dump(mode="json"))


@routes.get("/contacts")
async def get_contacts(request: web.Request) -> web.Response:
    """Show how many contact checks came: `requests`, `limited`, and of which numbers."""
    return shown(**_contact_counts(request.app[CLIENT]))


@routes.put("/contacts")
async def put_contacts(request: web.Request) -> web.Response:
    """Set which numbers are `unknown`, `failing`, `stuck`, or have other `wa_ids`."""
    request.app[CLIENT].set_contacts(**await read_as(request, _Contacts))
    return shown()


@routes.put("/health")
async def put_health(request: web.Request) -> web.Response:
    """Set the health of the client: the object itself, as the client would answer it."""
    request.app[CLIENT].set_health(await read(request))
    return shown()


@routes.post("/tokens/expire")
async def post_expire(request: web.Request) -> web.Response:
    """Let every token expire."""
    return shown(expired=request.app[CLIENT].expire_tokens())


@routes.put("/password")
async def put_password(request: web.Request) -> web.Response:
    """Change the `password`; the tokens expire unless `expire_tokens` is false."""
    request.app[CLIENT].change_password(**await read_as(request, _Password))
    return shown()
