"""Looks after a client: does it answer, and does it let us in?"""

import asyncio

import structlog

from service.whatsapp.onprem import Client

EVERY_SECONDS = 30.0
"""The client allows ten health checks a minute."""

log = structlog.get_logger(__name__)


async def watch(client: Client) -> None:
    """Ask the client for its health, again and again."""
    while True:
        try:
            await client.check_health()
        except Exception:
            log.exception("a health check failed", account=client.name)
        await asyncio.sleep(EVERY_SECONDS)
