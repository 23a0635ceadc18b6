"""The control API of the On-Premises client, under `/control`: see `service.simulator.control`."""

from dataclasses import asdict

from aiohttp import web

from service.simulator import control
from service.simulator.control import API, COUNTS, SHOWN, action_routes, pending_of, read, shown
from service.simulator.onprem import contact_checks
from service.simulator.onprem.answers import CLIENT
from service.simulator.onprem.client import Client

routes = web.RouteTableDef()


ACTIONS = (
    ("PUT", "/users/{wa_id}", "set_user", None),
    ("POST", "/users/{wa_id}/change", "change_identity", "hash"),
    ("POST", "/users/{wa_id}/acknowledge", "acknowledge_elsewhere", "hash"),
    ("POST", "/users/{wa_id}/write", "write", "callback"),
    ("POST", "/users/{wa_id}/number", "change_number", "new"),
    ("POST", "/errors", "report_error", "callback"),
    ("PUT", "/contacts", "set_contacts", None),
    ("POST", "/tokens/expire", "expire_tokens", "expired"),
    ("PUT", "/password", "change_password", None),
)
"""The actions of `Client` that have a route: method, path, action, and the key of its result."""


def application(client: Client) -> web.Application:
    """Return the application that is mounted under `/control`."""
    app = web.Application(middlewares=[control.loopback_only, control.explained])
    app[CLIENT] = app[API] = client
    app.add_routes([*routes, *action_routes(ACTIONS), *control.ROUTES])
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
        messages=[
            {key: value for key, value in asdict(message).items() if key != "body"}
            for message in list(client.messages)[-SHOWN:]
        ],
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


@routes.delete("/users/{wa_id}")
async def delete_user(request: web.Request) -> web.Response:
    """Forget a user, whose identity is then not found."""
    if request.app[CLIENT].users.pop(request.match_info["wa_id"], None) is None:
        raise web.HTTPNotFound(reason="no such user")
    return shown()


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


@routes.put("/health")
async def put_health(request: web.Request) -> web.Response:
    """Set the health of the client: the object itself, as the client would answer it."""
    request.app[CLIENT].set_health(await read(request))
    return shown()
