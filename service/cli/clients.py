"""WhatsApp clients and the Cloud API, as commands reach them: directly, by the configuration."""

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import structlog

from service.observability.metrics import Metrics
from service.settings import CloudAccountSettings, OnPremAccountSettings
from service.whatsapp.cloud import Graph
from service.whatsapp.onprem import Client


@asynccontextmanager
async def client_at(name: str, account: OnPremAccountSettings) -> AsyncIterator[Client]:
    """Open the way to an account's client."""
    client = Client(name, account, Metrics())
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def graph_at(name: str, account: CloudAccountSettings) -> AsyncIterator[Graph]:
    """Open the way to the Cloud API for an account."""
    graph = Graph(name, account, Metrics())
    try:
        yield graph
    finally:
        await graph.close()


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
