"""What a form of the console sends, read within bounds."""

from collections.abc import Mapping, Sequence
from urllib.parse import parse_qs

from aiohttp import web

from service.api.context import BODIES, RESERVATION
from service.api.problems import ProblemError

Form = Mapping[str, Sequence[str]]

FORM: web.RequestKey[Form] = web.RequestKey("form")
MEDIA_TYPE = "application/x-www-form-urlencoded"
MAX_FIELDS = 4_096


async def read_form(request: web.Request) -> Form:
    """Return the fields of a form, each with its values; raise a 400 for what is no form.

    Raises RefusedError and FullError as well, as every body that is read.
    """
    if FORM in request:
        return request[FORM]
    if request.content_type != MEDIA_TYPE:
        raise ProblemError(400, "this is no form")
    raw = await request.app[BODIES].read(request, request[RESERVATION])
    try:
        text = raw.decode("ascii")
        form = parse_qs(text, keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS)
    except ValueError:
        raise ProblemError(400, "the form can't be read") from None
    request[FORM] = form
    return form


def text_of(form: Form, name: str) -> str:
    """Return the text of a field; empty where there is none."""
    return form.get(name, [""])[-1]
