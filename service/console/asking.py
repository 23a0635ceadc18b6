"""What the routes of the API answer, for pages: the same queries, and the same rights."""

import json
from typing import Any, TypeVar, get_origin
from urllib.parse import urlencode

from aiohttp import web
from pydantic import ValidationError

from service.api.params import QUERY, Query
from service.api.problems import from_validation
from service.console.signin import Resource

Q = TypeVar("Q", bound=Query)


async def answer_of(request: web.Request, resource: Resource, query: Query | None = None) -> Any:
    """Return what a route answers to who looks at the page, as it stands in its JSON.

    Raises what the route raises.
    """
    request[QUERY] = Query() if query is None else query
    response = await resource(request)
    if not isinstance(response, web.Response):
        raise TypeError("the route answers by a stream")
    return json.loads(response.text or "null")


def query_from(request: web.Request, model: type[Q], **fixed: Any) -> Q:
    """Return the query of a page as a route takes it; raise a 422 for a value that is not valid.

    A field of a form that was left empty is none, and what the route does not know is not for it.
    """
    given: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        values = [value for value in request.query.getall(name, ()) if value]
        if values:
            is_list = get_origin(field.annotation) is list
            given[name] = values if is_list else values[-1]
    try:
        return model.model_validate(given | fixed)
    except ValidationError as error:
        raise from_validation(query=error) from None


def path_with(path: str, **values: str | None) -> str:
    """Return the address of a page with those values that there are."""
    query = urlencode({name: value for name, value in values.items() if value})
    return f"{path}?{query}" if query else path
