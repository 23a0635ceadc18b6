"""Graph's routes under `/vNN.N`, and what surrounds each call.

From the outside in: the call is recorded; a fault strikes, if one is switched on; an error becomes
Graph's JSON; the access token is checked; the route answers.

| route | does |
|---|---|
| `GET`, `POST /{phone_number_id}` | what the number is; sets its own webhook |
| `POST /{phone_number_id}/messages` | sends a message |
| `GET`, `POST /{phone_number_id}/settings` | settings, one a call; no read-back of the check |
| `GET`, `POST`, `DELETE /{waba_id}/subscribed_apps` | whether, and where, the app gets webhooks |
| `GET /{waba_id}/phone_numbers` | the account's numbers |
"""

import hmac
import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from service.simulator.calls import Call
from service.simulator.cloud import messages
from service.simulator.cloud.answers import GraphError, invalid, no_object, no_token, of_status
from service.simulator.cloud.cloud import CLOUD, Cloud
from service.simulator.cloud.lines import Account, Line
from service.simulator.cloud.webhooks import HandshakeError
from service.simulator.striking import Strike

Route = Callable[[Cloud, web.Request], Awaitable[Any]]

SETTINGS = frozenset(
    {"calling", "payload_encryption", "storage_configuration", "user_identity_change"}
)
USUAL_FIELDS = (
    "verified_name",
    "code_verification_status",
    "display_phone_number",
    "quality_rating",
    "webhook_configuration",
)
FIELDS_UNSET = frozenset(
    {
        "account_mode",
        "certificate",
        "conversational_automation",
        "country_code",
        "country_dial_code",
        "eligibility_for_api_business_global_search",
        "health_status",
        "is_official_business_account",
        "is_on_biz_app",
        "is_pin_enabled",
        "is_preverified_number",
        "last_onboarded_time",
        "messaging_limit_tier",
        "new_certificate",
        "new_name_status",
        "quality_score",
        "search_visibility",
        "username",
        "whatsapp_business_manager_messaging_limit",
    }
)
"""Fields that a number has by Meta's page, and this one has no value for."""
HANDSHAKE_FAILED = 2200
UNKNOWN_PATH = 2500


def add_cloud_routes(app: web.Application) -> None:
    """Give the application the routes of every version, such as `/v25.0`."""
    for method, path, operation, route in ROUTES:
        app.router.add_route(method, VERSION + path + "{slash:/?}", _surrounded(operation, route))
    app.router.add_route("*", VERSION + "/{rest:.*}", _surrounded("unknown", unknown_path))


VERSION = r"/{version:v\d+\.\d+}"


def _surrounded(
    operation: str, route: Route
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        cloud = request.app[CLOUD]
        call = await _call(cloud, request, operation)
        cloud.calls.begin(call)
        try:
            fault = cloud.faults.take(operation, call.wa_id)
            strike = Strike(request, call, fault, cloud.pause)
            return await strike.answer(lambda: _answer(cloud, request, call, route), _false_answer)
        finally:
            cloud.calls.end(call)

    return handle


async def _call(cloud: Cloud, request: web.Request, operation: str) -> Call:
    try:
        body = await _object(request)
    except GraphError:
        body = {}
    to, hash_ = body.get("to") or body.get("recipient"), body.get("recipient_identity_key_hash")
    return Call(
        operation=operation,
        method=request.method,
        path=request.path,
        request_id=cloud.request_id(),
        at=cloud.now(),
        wa_id=to.lstrip("+") if isinstance(to, str) else None,
        hash=hash_ if isinstance(hash_, str) else None,
    )


async def _answer(
    cloud: Cloud, request: web.Request, call: Call, route: Route
) -> web.StreamResponse:
    try:
        _check_token(cloud, request)
        answer = web.json_response(await route(cloud, request))
    except GraphError as error:
        call.outcome = "refused"
        if call.operation == "messages":
            cloud.counts["refused"] += 1
        return error.answer()
    call.outcome = "accepted"
    return answer


def _check_token(cloud: Cloud, request: web.Request) -> None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    is_right = hmac.compare_digest(token.encode(), cloud.options.access_token.encode())
    if scheme != "Bearer" or not is_right:
        raise no_token()


def _false_answer(status: int) -> web.Response:
    return of_status(status).answer() if status >= 400 else web.json_response({}, status=status)  # noqa: PLR2004 - HTTP's errors begin there


async def _object(request: web.Request) -> dict[str, Any]:
    """Read a JSON object; none at all is an empty one."""
    raw = await request.read()
    try:
        body = json.loads(raw) if raw else {}
    except (ValueError, RecursionError):
        raise invalid("The body is not JSON.") from None
    if not isinstance(body, dict):
        raise invalid("The body is not a JSON object.")
    return body


def _line(cloud: Cloud, request: web.Request) -> Line:
    line = cloud.lines.numbers.get(request.match_info["id"])
    if line is None:
        raise no_object(request.method, request.match_info["id"])
    return line


def _account(cloud: Cloud, request: web.Request) -> Account:
    account = cloud.lines.accounts.get(request.match_info["id"])
    if account is None:
        raise no_object(request.method, request.match_info["id"])
    return account


async def unknown_path(_: Cloud, request: web.Request) -> Any:
    """Refuse a path that has no route."""
    path = request.match_info["rest"]
    raise GraphError(400, UNKNOWN_PATH, f"Unknown path components: /{path}")


async def post_messages(cloud: Cloud, request: web.Request) -> Any:
    """Send a message."""
    return messages.send(cloud, _line(cloud, request), await _object(request))


async def get_settings(cloud: Cloud, request: web.Request) -> Any:
    """Show the settings, without the identity change check."""
    _line(cloud, request)
    return {"storage_configuration": {"status": "DEFAULT"}}


async def post_settings(cloud: Cloud, request: web.Request) -> Any:
    """Change one setting."""
    line, body = _line(cloud, request), await _object(request)
    if len(body) != 1 or not body.keys() <= SETTINGS:
        raise invalid("Exactly one setting can be changed at a time.")
    change = body.get("user_identity_change")
    if change is not None:
        is_on = change.get("enable_identity_key_check") if isinstance(change, dict) else None
        if not isinstance(is_on, bool):
            raise invalid("user_identity_change.enable_identity_key_check is not a boolean")
        line.identity_check = is_on
    return {"success": True}


async def get_number(cloud: Cloud, request: web.Request) -> Any:
    """Show what a number is: the fields asked for, else the usual ones."""
    line = _line(cloud, request)
    asked = [field for field in request.query.get("fields", "").split(",") if field]
    return _number(cloud, line, tuple(asked) or USUAL_FIELDS)


def _number(cloud: Cloud, line: Line, fields: tuple[str, ...]) -> dict[str, Any]:
    number = line.number
    known = {
        "id": number.phone_number_id,
        "verified_name": number.verified_name,
        "display_phone_number": number.display_phone_number,
        "code_verification_status": "VERIFIED",
        "quality_rating": "GREEN",
        "name_status": "APPROVED",
        "platform_type": "CLOUD_API",
        "status": "CONNECTED",
        "throughput": {"level": "STANDARD"},
        "webhook_configuration": _configuration(cloud, line),
    }
    for field in fields:
        if field not in known.keys() | FIELDS_UNSET:
            raise GraphError(
                400,
                100,
                f"(#100) Tried accessing nonexisting field ({field}) on node type "
                "(WhatsAppBusinessPhoneNumber)",
            )
    return {field: known[field] for field in (*fields, "id") if field in known}


def _configuration(cloud: Cloud, line: Line) -> dict[str, str]:
    urls = {
        "phone_number": line.webhook_url,
        "whatsapp_business_account": cloud.lines.account_of(line).webhook_url,
        "application": cloud.options.webhook_url,
    }
    return {level: url for level, url in urls.items() if url is not None}


async def post_number(cloud: Cloud, request: web.Request) -> Any:
    """Set a number's own webhook, or take it away with an empty one."""
    line, body = _line(cloud, request), await _object(request)
    configuration = body.get("webhook_configuration")
    if not isinstance(configuration, dict) or "override_callback_uri" not in configuration:
        raise invalid("webhook_configuration.override_callback_uri is required")
    line.webhook_url = await _override(cloud, configuration)
    cloud.webhooks.delivery.hurry()
    return {"success": True}


async def _override(cloud: Cloud, body: dict[str, Any]) -> str | None:
    """Shake hands with another callback URL, and return it; None when there is to be none."""
    url, token = body.get("override_callback_uri"), body.get("verify_token")
    if not url:
        return None
    if not isinstance(url, str) or not isinstance(token, str) or not token:
        raise invalid("override_callback_uri and verify_token go together")
    try:
        await cloud.webhooks.verify(url, token)
    except HandshakeError as error:
        raise GraphError(
            400,
            HANDSHAKE_FAILED,
            f"(#2200) Callback verification failed with the following errors: {error}",
        ) from None
    return url


async def get_subscribed(cloud: Cloud, request: web.Request) -> Any:
    """List the apps that get the account's webhooks: this one, or none."""
    account = _account(cloud, request)
    if not account.subscribed:
        return {"data": []}
    options = cloud.options
    link = f"https://www.facebook.com/games/?app_id={options.app_id}"
    app: dict[str, Any] = {
        "whatsapp_business_api_data": {
            "id": options.app_id,
            "link": link,
            "name": options.app_name,
        }
    }
    if account.webhook_url is not None:
        app["override_callback_uri"] = account.webhook_url
    return {"data": [app]}


async def post_subscribed(cloud: Cloud, request: web.Request) -> Any:
    """Subscribe the app to an account, to a URL of the account's own when one is given."""
    account, body = _account(cloud, request), await _object(request)
    account.webhook_url = await _override(cloud, body)
    account.subscribed = True
    cloud.webhooks.delivery.hurry()
    return {"success": True}


async def delete_subscribed(cloud: Cloud, request: web.Request) -> Any:
    """Unsubscribe the app from an account."""
    account = _account(cloud, request)
    account.subscribed, account.webhook_url = False, None
    return {"success": True}


async def get_numbers(cloud: Cloud, request: web.Request) -> Any:
    """List the numbers of an account."""
    account = _account(cloud, request)
    found = [
        _number(cloud, line, USUAL_FIELDS)
        for line in cloud.lines.numbers.values()
        if line.number.waba_id == account.waba_id
    ]
    return {"data": found}


ROUTES: tuple[tuple[str, str, str, Route], ...] = (
    ("GET", "/{id:[0-9]+}", "number", get_number),
    ("POST", "/{id:[0-9]+}", "number", post_number),
    ("POST", "/{id:[0-9]+}/messages", "messages", post_messages),
    ("GET", "/{id:[0-9]+}/settings", "settings", get_settings),
    ("POST", "/{id:[0-9]+}/settings", "settings", post_settings),
    ("GET", "/{id:[0-9]+}/subscribed_apps", "subscribed_apps", get_subscribed),
    ("POST", "/{id:[0-9]+}/subscribed_apps", "subscribed_apps", post_subscribed),
    ("DELETE", "/{id:[0-9]+}/subscribed_apps", "subscribed_apps", delete_subscribed),
    ("GET", "/{id:[0-9]+}/phone_numbers", "number", get_numbers),
)
