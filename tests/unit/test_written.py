"""Answers that are bytes already."""

from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest

from service.ingress.written import KEPT


def request(*, paused: bool) -> Any:
    return SimpleNamespace(
        transport=Mock(),
        protocol=SimpleNamespace(writing_paused=paused),
        writer=SimpleNamespace(drain=AsyncMock()),
    )


@pytest.mark.parametrize("paused", [True, False])
async def test_a_sender_that_reads_no_answers_gets_no_more_until_it_does(paused: bool) -> None:
    asked = request(paused=paused)
    await KEPT.prepare(asked)
    assert asked.transport.write.call_count == 1
    assert asked.writer.drain.await_count == int(paused)
