"""A browser without JavaScript: it keeps cookies, follows redirects, and fills in forms."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin, urlsplit

import aiohttp
from yarl import URL

from tests.acceptance.conftest import Caller, Json, digest_of

Fields = list[tuple[str, str]]

REDIRECTS = 5


def keys(*roles: str, **more: Json) -> Json:
    """Give a table of keys, one for each role, each named and written as its role."""
    made = {role: {"role": role, "sha256": digest_of(f"key-{role}")} for role in roles}
    return {"api": {"keys": made | more}}


@dataclass
class Form:
    """A form of a page: where it leads, and its fields as they are."""

    method: str
    action: str
    fields: Fields = field(default_factory=list)
    boxes: Fields = field(default_factory=list)
    buttons: Fields = field(default_factory=list)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self.texts: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self._form: Form | None = None
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        have = {name: value or "" for name, value in attrs}
        self.tags.append((tag, have))
        if tag in {"script", "style", "title"}:
            self._silent += 1
        if tag == "form":
            self._form = Form(have.get("method", "get"), have.get("action", ""))
            self.forms.append(self._form)
        elif self._form is not None and "name" in have:
            pair = (have["name"], have.get("value", ""))
            if tag == "input" and have.get("type") == "checkbox":
                self._form.boxes.append(pair)
            elif tag == "input":
                self._form.fields.append(pair)
            elif tag == "button":
                self._form.buttons.append(pair)

    def handle_endtag(self, tag: str) -> None:
        if tag in {"script", "style", "title"}:
            self._silent -= 1
        if tag == "form":
            self._form = None

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.texts.append(data)


@dataclass
class Page:
    """What a server answered, read as HTML."""

    status: int
    url: str
    html: str
    headers: Mapping[str, str]
    forms: Sequence[Form]
    text: str
    tags: Sequence[tuple[str, Mapping[str, str]]]

    def form(self, action_end: str) -> Form:
        """Give the form that leads to an address with this end."""
        [found] = [one for one in self.forms if one.action.endswith(action_end)]
        return found

    def has_form(self, action_end: str) -> bool:
        return any(one.action.endswith(action_end) for one in self.forms)

    def links(self) -> list[str]:
        return [have["href"] for tag, have in self.tags if tag == "a" and "href" in have]


@dataclass
class Browser:
    """One who looks at the console."""

    http: aiohttp.ClientSession
    base: str
    cookies: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, made: Caller) -> "Browser":
        return cls(made.http, made.inside or made.base)

    async def send(
        self,
        method: str,
        path: str,
        data: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        follow: bool = True,
    ) -> Page:
        url = urljoin(self.base, path)
        sent = {"Origin": self.base, **self.headers} if method == "POST" else dict(self.headers)
        sent |= headers or {}
        for _ in range(REDIRECTS):
            request = self.http.request(
                method,
                URL(url, encoded=True),
                data=data,
                headers=sent,
                cookies=self.cookies,
                allow_redirects=False,
            )
            async with request as answer:
                html = await answer.text()
                for name, morsel in answer.cookies.items():
                    self.cookies[name] = morsel.value
                    if morsel["max-age"] == "0":
                        del self.cookies[name]
                if answer.status != 303 or not follow:
                    return _page(answer, url, html)
                method, data = "GET", None
                url = urljoin(url, answer.headers["Location"])
        raise AssertionError(url)

    async def get(self, path: str, **more: Any) -> Page:
        return await self.send("GET", path, **more)

    async def submit(
        self, form: Form, button: str = "", *, ticked: Sequence[str] = (), **fields: str
    ) -> Page:
        """Send a form with fields filled in, boxes ticked, and a button pressed."""
        data = [(name, fields.pop(name, value)) for name, value in form.fields]
        assert not fields, f"the form has no {[*fields]}"
        data += [pair for pair in form.boxes if pair[1] in ticked]
        data += [pair for pair in form.buttons if button and pair[1] == button][:1]
        return await self.send(form.method.upper(), form.action, encoded(data))

    async def sign_in(self, key: str, path: str = "/console/") -> Page:
        page = await self.get(path)
        return await self.submit(page.form("/sign-in"), api_key=key)


def encoded(fields: Fields) -> aiohttp.FormData:
    """Encode fields as a browser does."""
    form = aiohttp.FormData(default_to_multipart=False)
    for name, value in fields:
        form.add_field(name, value)
    return form


def _page(answer: aiohttp.ClientResponse, url: str, html: str) -> Page:
    reader = _Reader()
    reader.feed(html)
    text = " ".join(" ".join(reader.texts).split())
    path = urlsplit(url)._replace(scheme="", netloc="").geturl()
    return Page(answer.status, path, html, answer.headers, reader.forms, text, reader.tags)
