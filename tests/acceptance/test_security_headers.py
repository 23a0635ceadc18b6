"""What browsers are told with every answer that one could ask for."""

from service.api.routes import API, COMPAT, OPEN, SENDING
from tests.acceptance.conftest import TOKEN, Installation

ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
OWN = {"/docs", "/docs/problems", "/openapi.json"}
"""The same for everybody, so they may be kept as long as they are asked for again."""


async def headers_of(manual: Installation, method: str, path: str) -> dict[str, str]:
    async with manual.http.request(method, manual.base + path) as response:
        return dict(response.headers)


async def test_every_answer_but_a_webhooks_says_how_a_browser_may_take_it(
    manual: Installation,
) -> None:
    gets = {route.path for route in (*API, *COMPAT, *SENDING, *OPEN) if route.method == "GET"}
    paths = [path.replace("{", "").replace("}", "") for path in gets]
    # The stream of events is answered by its head alone here.
    for path in [*paths, "/no-such-page", "/console/", "/console/sign-in", "/console/nothing"]:
        headers = await headers_of(manual, "HEAD", path)
        assert {name: headers.get(name) for name in ALWAYS} == ALWAYS, path
        assert headers["Cache-Control"] == ("no-cache" if path in OWN else "no-store"), path
        assert "default-src 'none'" in headers["Content-Security-Policy"], path
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"], path
        assert "unsafe" not in headers["Content-Security-Policy"], path
        assert "Strict-Transport-Security" not in headers, path
    refused = await headers_of(manual, "POST", "/api/v1/accounts/main/identities/1/hold")
    assert {name: refused.get(name) for name in ALWAYS} == ALWAYS
    webhook = await headers_of(manual, "POST", f"/webhooks/main/{TOKEN}")
    assert not webhook.keys() & ALWAYS
