"""The description of the API as JSON, and as pages for people: `/docs` and `/docs/problems`.

The pages are made from the description, without a script and without anything from elsewhere, so
they can be read on a machine without a way out. They are made once.
"""

import asyncio
import base64
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from html import escape
from typing import Any, NamedTuple

import orjson
from aiohttp import web

from service.api.kinds import KINDS, type_of

Json = dict[str, Any]

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 0 auto; padding: 1rem; }
h2 { margin-top: 3rem; border-bottom: 1px solid #8886; }
h3 { margin-top: 2rem; }
code, pre { font: 13px/1.45 ui-monospace, monospace; }
pre { background: #8881; padding: .7rem; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .25rem .6rem .25rem 0; }
tr + tr td { border-top: 1px solid #8883; }
summary { cursor: pointer; }
:target { background: #fd03; }
:root { color-scheme: light dark; }
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",
}
"""Those of a page; the others are the same for all answers."""


class Pages(NamedTuple):
    """The description, and the page that shows it."""

    description: bytes
    docs: str


PAGES: web.AppKey[Callable[[], Pages]] = web.AppKey("pages")
"""Makes them at the first call: it takes a tenth of a second, which the start needn't."""


def make(description: Json) -> Pages:
    """Return the description and its page, as they are sent."""
    return Pages(orjson.dumps(description), _docs(description))


async def openapi(request: web.Request) -> web.Response:
    """Return this description of the API."""
    made = await asyncio.to_thread(request.app[PAGES])
    headers = {"Cache-Control": HEADERS["Cache-Control"]}
    return web.Response(body=made.description, content_type="application/json", headers=headers)


async def docs(request: web.Request) -> web.Response:
    """Return this description as a page for people."""
    return _page((await asyncio.to_thread(request.app[PAGES])).docs)


async def problems(_: web.Request) -> web.Response:
    """Return a page that explains every kind of problem."""
    return _page(_PROBLEMS)


def _page(text: str) -> web.Response:
    return web.Response(text=text, content_type="text/html", charset="utf-8", headers=HEADERS)


def _whole(title: str, parts: Iterable[str]) -> str:
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    view = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    body = "\n".join([f"<h1>{escape(title)}</h1>", *parts])
    return f'<!doctype html>\n<html lang="en"><head>{head}{view}</head>\n<body>{body}</body></html>'


def _prose(text: str) -> str:
    """Return text with what stands in backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>"


def _table(head: tuple[str, ...], rows: Iterable[Iterable[str]]) -> str:
    lines = ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
    if not lines:
        return ""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    return f"<table><tr>{top}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _docs(described: Json) -> str:
    return _whole("The API of Ackgate", _parts(described))


def _parts(described: Json) -> Iterator[str]:
    yield (
        f"<p>Version {escape(described['info']['version'])}. For programs: "
        '<a href="/openapi.json">openapi.json</a>. <a href="/docs/problems">Problems</a>, and '
        '<a href="#schemas">what the fields mean</a>. Send <code>Authorization: Bearer KEY</code> '
        "where a role is needed.</p>"
    )
    listed = [
        (method, path, operation)
        for path, operations in described["paths"].items()
        for method, operation in operations.items()
    ]
    for tag in described["tags"]:
        yield f'<h2 id="{escape(tag["name"])}">{escape(tag["name"].capitalize())}</h2>'
        yield f"<p>{_prose(tag['description'])}</p>"
        for method, path, operation in listed:
            if tag["name"] in operation["tags"]:
                yield from _operation(method, path, operation)
    yield '<h2 id="schemas">Schemas</h2>'
    for name, schema in described["components"]["schemas"].items():
        yield f'<h3 id="{escape(name)}">{escape(name)}</h3>'
        yield f"<p>{_prose(schema.get('description', ''))}</p>"
        yield _fields(schema)


def _operation(method: str, path: str, operation: Json) -> Iterator[str]:
    anchor = escape(operation["operationId"])
    yield f'<h3 id="{anchor}">{_code(f"{method.upper()} {path}")}</h3>'
    role = operation.get("x-role")
    needed = f" Role <code>{escape(role)}</code>." if role else ""
    yield f"<p>{_prose(operation['summary'])}{needed}</p>"
    yield _table(
        ("parameter", "in", "type", "meaning"),
        (
            (
                _code(one["name"]) + (" (required)" if one.get("required") else ""),
                escape(one["in"]),
                _type(one["schema"]),
                _prose(one["description"]),
            )
            for one in operation["parameters"]
        ),
    )
    if "requestBody" in operation:
        yield from _content("Body", operation["requestBody"])
    for status, answer in operation["responses"].items():
        yield from _content(f"{status} {answer['description']}", answer)


def _content(title: str, described: Json) -> Iterator[str]:
    """Show a request's or a response's body with its examples."""
    for media, content in described["content"].items():
        shown = "".join(
            f'<p><a href="/docs/problems#{escape(kind)}">{_code(kind)}</a></p>'
            for kind in content.get("examples", {})
        )
        if "example" in content:
            shown = f"<pre>{escape(_written(content['example']))}</pre>"
        kind = f"{_code(media)} {_type(content['schema'])}"
        yield f"<details><summary>{escape(title)}: {kind}</summary>{shown}</details>"


def _written(example: Any) -> str:
    return orjson.dumps(example, option=orjson.OPT_INDENT_2).decode()


def _fields(schema: Json) -> str:
    needed = schema.get("required", ())
    return _table(
        ("field", "type", "meaning"),
        (
            (
                _code(name) + ("" if name in needed else " (optional)"),
                _type(field),
                _prose(field.get("description", "")),
            )
            for name, field in schema.get("properties", {}).items()
        ),
    )


def _type(schema: Json) -> str:
    """Return a schema in a few words, with links to those that have a name."""
    if reference := schema.get("$ref"):
        name = escape(reference.rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if one_of := schema.get("anyOf"):
        return " or ".join(_type(each) for each in one_of)
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if "enum" in schema:
        return " or ".join(_code(str(each)) for each in schema["enum"])
    bounds = [
        f"{words} {schema[key]}"
        for key, words in (
            ("minimum", "from"),
            ("maximum", "to"),
        )
        if key in schema
    ]
    kind = schema.get("format") or schema.get("type") or schema.get("const") or "anything"
    return escape(", ".join([str(kind), *bounds, *_length(schema)]))


def _length(schema: Json) -> list[str]:
    """Return how long a text may be."""
    least, most = schema.get("minLength", 0), schema.get("maxLength")
    if most is not None:
        return [f"{least} to {most} characters"]
    return [f"{least} or more characters"] if least else []


def _explained() -> Iterator[str]:
    yield (
        "<p>Errors are <code>application/problem+json</code> (RFC 9457). <code>type</code> names "
        "the kind, and leads here. <code>request_id</code> stands in the log too. "
        '<a href="/docs">The API</a></p>'
    )
    for name, kind in KINDS.items():
        yield f'<h3 id="{escape(name)}">{_code(name)}: {escape(kind.meaning)} ({kind.status})</h3>'
        yield f"<p>{_prose(kind.cure)}</p><p>{_code(type_of(name))}</p>"


_PROBLEMS = _whole("Problems", _explained())
