"""What the control routes of both APIs share: their bodies and their answers."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Body(BaseModel):
    """A body of which every key is known."""

    model_config = ConfigDict(extra="forbid")


async def json_of(request: web.Request) -> dict[str, Any]:
    """Read a JSON object, `{}` when the body is empty; ValueError when it is none."""
    raw = await request.read()
    body = json.loads(raw) if raw else {}
    if not isinstance(body, dict):
        raise ValueError("the body is not a JSON object")  # noqa: TRY004 - the caller's mistake
    return body


def done(**shown: Any) -> web.Response:
    """Answer what there is to show."""
    return web.json_response(shown)
