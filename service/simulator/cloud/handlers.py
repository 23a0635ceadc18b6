"""What Graph answers: messages, numbers and their settings, and the app's subscriptions.

Follows Meta's pages on messages, user ids, the identity change check, and webhook overrides.
"""

from typing import Any

from aiohttp import BodyPartReader, web

from service.simulator.api import Media
from service.simulator.cloud import bodies
from service.simulator.cloud.answers import (
    INVALID,
    GraphError,
    invalid,
    mismatch,
    no_object,
    read_object,
)
from service.simulator.cloud.cloud import Cloud, CloudMessage
from service.simulator.cloud.webhooks import Account, PhoneNumber, VerificationError

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
OPAQUE = "biz_opaque_callback_data"
"""The business's own data, which each status repeats."""
VERIFICATION_FAILED = 2200
UNKNOWN_PATH = 2500


def _number_of(cloud: Cloud, request: web.Request) -> PhoneNumber:
    number = cloud.business.numbers.get(request.match_info["id"])
    if number is None:
        raise no_object(request)
    return number


def _account_of(cloud: Cloud, request: web.Request) -> Account:
    account = cloud.business.accounts.get(request.match_info["id"])
    if account is None:
        raise no_object(request)
    return account


async def unknown_path(_: Cloud, request: web.Request) -> Any:
    """Refuse a path that has no route."""
    path = request.match_info["rest"]
    raise GraphError(400, UNKNOWN_PATH, f"Unknown path components: /{path}")


async def send_message(cloud: Cloud, request: web.Request) -> Any:
    """Accept a message, and report its outcome afterwards; GraphError when it can't be read.

    The hash that it is sent with is checked only while the number's identity change check is on.
    """
    number, body = _number_of(cloud, request), await read_object(request)
    if "status" in body:
        return _mark_as_read(cloud, body)
    to, by_number = recipient(body)
    hash_ = _text(body, "recipient_identity_key_hash")
    if by_number and to not in cloud.users.given_up:
        cloud.users.get_or_add(to)
    user = cloud.users.get(to)
    outcome = "delivered"
    if user is None:
        outcome = "undeliverable"
    elif number.identity_check and hash_ is not None and hash_ != user.hash:
        if cloud.options.refuse_mismatch:
            raise mismatch()
        outcome = "mismatch"
    message = CloudMessage(
        id=bodies.outbound_id(to),
        phone_number_id=number.config.phone_number_id,
        to=to,
        hash=hash_,
        at=cloud.now(),
        outcome=outcome,
        by_number=by_number,
        body=body,
        more={OPAQUE: body[OPAQUE]} if OPAQUE in body else {},
    )
    cloud.messages.append(message)
    cloud.counts.update(("accepted", message.outcome))
    cloud.report(message)
    contact = {"input": body["to"], "wa_id": to} if by_number else {"input": to, "user_id": to}
    if by_number and "recipient" in body:
        contact["user_id"] = body["recipient"]
    return {
        "messaging_product": "whatsapp",
        "contacts": [contact],
        "messages": [{"id": message.id}],
    }


def _mark_as_read(cloud: Cloud, body: dict[str, Any]) -> Any:
    """Mark a user's message as read, and perhaps show that the business is writing."""
    if body.get("messaging_product") != "whatsapp" or body["status"] != "read":
        raise invalid("messaging_product is not whatsapp, or status not read")
    if _text(body, "message_id") is None:
        raise invalid("The parameter message_id is required.")
    cloud.marks.append(body)
    return {"success": True}


async def upload_media(cloud: Cloud, request: web.Request) -> Any:
    """Take a file: a form with `messaging_product`, `type` and `file`, in whatever order."""
    _number_of(cloud, request)
    if request.content_type != "multipart/form-data":
        raise invalid("The body is not multipart/form-data.")
    fields: dict[str, str] = {}
    file: Media | None = None
    async for part in await request.multipart():
        if not isinstance(part, BodyPartReader):
            raise invalid("A part is multipart itself.")
        if part.name == "file":
            kind = part.headers.get("Content-Type", "")
            file = await Media.receive(kind, part)
        elif part.name is not None:
            fields[part.name] = await part.text()
    if fields.get("messaging_product") != "whatsapp" or file is None or "type" not in fields:
        raise invalid("messaging_product, type or file is missing, or wrong")
    cloud.media.append(file)
    return {"id": file.id}


def recipient(body: dict[str, Any]) -> tuple[str, bool]:
    """Return whom a message is for, and whether that is a number; `to` goes before `recipient`."""
    if body.get("messaging_product") != "whatsapp":
        raise invalid("messaging_product is not whatsapp")
    kind = body.get("type", "text")
    if not isinstance(kind, str) or not isinstance(body.get(kind), dict | list):
        raise invalid("the message lacks the object that its type names")
    to = _text(body, "to")
    if to is not None:
        digits = "".join(digit for digit in to if digit.isascii() and digit.isdigit())
        if not digits or set(to) - set("+0123456789 -()."):
            raise invalid("to is not a phone number")
        return digits, True
    user_id = _text(body, "recipient")
    if user_id is None:
        raise invalid("The parameter to is required.")
    return user_id, False


def _text(body: dict[str, Any], key: str) -> str | None:
    text = body.get(key)
    if text is not None and (not isinstance(text, str) or not text):
        raise invalid(f"{key} is not a string, or empty")
    return text


async def get_settings(cloud: Cloud, request: web.Request) -> Any:
    """Return the settings, of which the identity change check is not one."""
    _number_of(cloud, request)
    return {"storage_configuration": {"status": "DEFAULT"}}


async def post_settings(cloud: Cloud, request: web.Request) -> Any:
    """Change one setting."""
    number, body = _number_of(cloud, request), await read_object(request)
    if len(body) != 1 or not body.keys() <= SETTINGS:
        raise invalid("Exactly one setting can be changed at a time.")
    change = body.get("user_identity_change")
    if change is not None:
        is_on = change.get("enable_identity_key_check") if isinstance(change, dict) else None
        if not isinstance(is_on, bool):
            raise invalid("user_identity_change.enable_identity_key_check is not a boolean")
        number.identity_check = is_on
    return {"success": True}


async def get_number(cloud: Cloud, request: web.Request) -> Any:
    """Return the fields of a number that are asked for, else the usual ones."""
    number = _number_of(cloud, request)
    asked = [field for field in request.query.get("fields", "").split(",") if field]
    return _fields(cloud, number, tuple(asked) or USUAL_FIELDS)


async def get_numbers(cloud: Cloud, request: web.Request) -> Any:
    """Return the numbers of an account."""
    account = _account_of(cloud, request)
    found = [
        _fields(cloud, number, USUAL_FIELDS)
        for number in cloud.business.numbers.values()
        if number.config.waba_id == account.waba_id
    ]
    return {"data": found}


def _fields(cloud: Cloud, number: PhoneNumber, fields: tuple[str, ...]) -> dict[str, Any]:
    urls = {
        "phone_number": number.webhook_url,
        "whatsapp_business_account": cloud.business.account_of(number).webhook_url,
        "application": cloud.options.webhook_url,
    }
    known = {
        "id": number.config.phone_number_id,
        "verified_name": number.config.verified_name,
        "display_phone_number": number.config.display_phone_number,
        "code_verification_status": "VERIFIED",
        "quality_rating": "GREEN",
        "name_status": "APPROVED",
        "platform_type": "CLOUD_API",
        "status": "CONNECTED",
        "throughput": {"level": "STANDARD"},
        "webhook_configuration": {level: url for level, url in urls.items() if url is not None},
    }
    for field in fields:
        if field not in known.keys() | FIELDS_UNSET:
            raise GraphError(
                400,
                INVALID,
                f"(#100) Tried accessing nonexisting field ({field}) on node type "
                "(WhatsAppBusinessPhoneNumber)",
            )
    return {field: known[field] for field in (*fields, "id") if field in known}


async def post_number(cloud: Cloud, request: web.Request) -> Any:
    """Set a number's own callback URL, or remove it with an empty one."""
    number, body = _number_of(cloud, request), await read_object(request)
    configuration = body.get("webhook_configuration")
    if not isinstance(configuration, dict) or "override_callback_uri" not in configuration:
        raise invalid("webhook_configuration.override_callback_uri is required")
    number.webhook_url = await _override(cloud, configuration)
    cloud.delivery.hurry()
    return {"success": True}


async def _override(cloud: Cloud, body: dict[str, Any]) -> str | None:
    """Verify another callback URL, and return it; None when there is to be none."""
    url, token = body.get("override_callback_uri"), body.get("verify_token")
    if not url:
        return None
    if not isinstance(url, str) or not isinstance(token, str) or not token:
        raise invalid("override_callback_uri and verify_token go together")
    try:
        await cloud.webhooks.verify(url, token)
    except VerificationError as error:
        raise GraphError(
            400,
            VERIFICATION_FAILED,
            f"(#2200) Callback verification failed with the following errors: {error}",
        ) from None
    return url


async def get_subscribed(cloud: Cloud, request: web.Request) -> Any:
    """Return the apps that get the account's webhooks: this one, or none."""
    account, options = _account_of(cloud, request), cloud.options
    if not account.subscribed:
        return {"data": []}
    app: dict[str, Any] = {
        "whatsapp_business_api_data": {
            "id": options.app_id,
            "link": f"https://www.facebook.com/games/?app_id={options.app_id}",
            "name": options.app_name,
        }
    }
    if account.webhook_url is not None:
        app["override_callback_uri"] = account.webhook_url
    return {"data": [app]}


async def post_subscribed(cloud: Cloud, request: web.Request) -> Any:
    """Subscribe the app to an account, to a URL of the account's own when one is given."""
    account, body = _account_of(cloud, request), await read_object(request)
    account.webhook_url = await _override(cloud, body)
    account.subscribed = True
    cloud.delivery.hurry()
    return {"success": True}


async def delete_subscribed(cloud: Cloud, request: web.Request) -> Any:
    """Unsubscribe the app from an account."""
    account = _account_of(cloud, request)
    account.subscribed, account.webhook_url = False, None
    return {"success": True}
