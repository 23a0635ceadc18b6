"""Running the client: its health, its application settings, the webhook's authority."""

import ssl

from aiohttp import web
from pydantic import ValidationError

from service.simulator.answers import WireError, invalid, unreadable
from service.simulator.application import CONCURRENCIES
from service.simulator.wire.keys import answered, client_of, json_object


async def get_health(request: web.Request) -> web.Response:
    """Answer the health that the control routes set; ten times a minute (Meta's page on health)."""
    client = client_of(request)
    if not client.health_limit.allows():
        raise WireError(429)
    return answered(request, {"health": client.health})


async def get_settings(request: web.Request) -> web.Response:
    """Answer the application settings (Meta's page on the settings)."""
    application = client_of(request).settings.model_dump(mode="json")
    return answered(request, {"settings": {"application": application}})


async def patch_settings(request: web.Request) -> web.Response:
    """Change a part of the application settings; the rest stays."""
    client = client_of(request)
    values = await json_object(request)
    webhooks = values.get("webhooks", {})
    if not isinstance(webhooks, dict):
        raise invalid("webhooks", "not an object")
    if webhooks.get("max_concurrent_requests", CONCURRENCIES[0]) not in CONCURRENCIES:
        raise invalid("webhooks.max_concurrent_requests", f"not one of {CONCURRENCIES}")
    try:
        client.settings = client.settings.changed(values)
    except ValidationError as error:
        at_fault = error.errors()[0]
        raise invalid(".".join(map(str, at_fault["loc"])), at_fault["msg"]) from None
    client.delivery.hurry()
    return answered(request, {})


async def put_webhook_ca(request: web.Request) -> web.Response:
    """Keep the authority that verifies the webhook's certificate: text/plain, PEM."""
    if request.content_type != "text/plain":
        raise unreadable("Content-Type is not text/plain.")
    try:
        client_of(request).trust_webhook(await request.text())
    except (ssl.SSLError, ValueError):
        raise invalid("certificate", "not PEM") from None
    return answered(request, {})
