"""The WhatsApp clients, as commands reach them: directly, by the configuration file."""

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import structlog

from service.observability.metrics import Metrics
from service.settings import OnPremAccountSettings
from service.whatsapp.client import Client


@asynccontextmanager
async def client_at(name: str, account: OnPremAccountSettings) -> AsyncIterator[Client]:
    """Open the way to an account's client."""
    client = Client(name, account, Metrics())
    try:
        yield client
    finally:
        await client.close()


@contextmanager
def quiet_logs() -> Iterator[None]:
    """Log nothing meanwhile: what a command finds out it says itself."""
    before = structlog.get_config()
    silent = structlog.make_filtering_bound_logger(logging.CRITICAL)
    structlog.configure(wrapper_class=silent)
    try:
        yield
    finally:
        structlog.configure(**before)
