"""Looks after a client: does it answer, and does it let us in?"""

import asyncio

from service.whatsapp.client import Client

EVERY_SECONDS = 30.0
"""The client allows ten health checks a minute."""


async def watch(client: Client) -> None:
    """Ask the client for its health, again and again."""
    while True:
        await client.check_health()
        await asyncio.sleep(EVERY_SECONDS)
