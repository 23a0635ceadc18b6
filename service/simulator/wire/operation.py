"""Running the client: its health, its application settings, the webhook's authority."""

import ssl

from aiohttp import web
from pydantic import ValidationError

from service.simulator.answers import WireError, invalid, unreadable
from service.simulator.application import CONCURRENCIES, ApplicationSettings
from service.simulator.wire.keys import answered, client_of, json_object


async def get_health(request: web.Request) -> web.Response:
    """Answer the health that the control routes set; ten times a minute (Meta's page on health)."""
    client = client_of(request)
    if not client.health_limit.allows():
        raise WireError(429)
    health = {"gateway_status": "connecting"} if client.is_restarting else client.health
    return answered(request, {"health": health})


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


async def delete_settings(request: web.Request) -> web.Response:
    """Reset the application settings to those of a new client, which knows no webhook."""
    client_of(request).settings = ApplicationSettings()
    return answered(request, {})


async def get_webhook_ca(request: web.Request) -> web.Response:
    """Answer the authority that verifies the webhook's certificate: text/plain, PEM."""
    pem = client_of(request).webhook_ca
    if pem is None:
        raise WireError(404)
    return web.Response(text=pem)


async def post_webhook_ca(request: web.Request) -> web.Response:
    """Keep the authority that verifies the webhook's certificate; the Coreapps restart."""
    if request.content_type != "text/plain":
        raise unreadable("Content-Type is not text/plain.")
    client = client_of(request)
    try:
        client.trust_webhook(await request.text())
    except (ssl.SSLError, ValueError):
        raise invalid("certificate", "not PEM") from None
    client.restart()
    return answered(request, {})


async def delete_webhook_ca(request: web.Request) -> web.Response:
    """Verify the webhook's certificate by the system's authorities again; the Coreapps restart."""
    client = client_of(request)
    if client.webhook_ca is None:
        raise WireError(404)
    client.trust_webhook(None)
    client.restart()
    return answered(request, {})
