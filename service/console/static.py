"""The files that pages load: the libraries as they were published, and the console's own.

They lie in `static/`, with what each library is in `vendored.json`. They are read once, and sent
from memory; their address has a digest of them all, so a browser may keep them for good.
"""

from functools import cache
from hashlib import sha256
from pathlib import Path

from aiohttp import web

from service.api.problems import ProblemError

FOLDER = Path(__file__).parent / "static"
_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


@cache
def _files() -> dict[str, bytes]:
    names = (path for path in FOLDER.iterdir() if path.suffix in _TYPES)
    return {path.name: path.read_bytes() for path in sorted(names)}


def _version() -> str:
    digest = sha256()
    for name, content in _files().items():
        digest.update(f"{name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()[:12]


VERSION = _version()
"""What the address of the files changes with."""


async def file(request: web.Request) -> web.Response:
    """Return a file; one of another version is what a replica of another release may ask for."""
    name = request.match_info["name"]
    content = _files().get(name)
    if content is None:
        raise ProblemError(404, "there is no such file")
    is_this = request.match_info["version"] == VERSION
    kept = "public, max-age=31536000, immutable" if is_this else "no-cache"
    media = _TYPES[Path(name).suffix]
    response = web.Response(body=content, content_type=media, charset="utf-8")
    response.headers["Cache-Control"] = kept
    response.enable_compression()
    return response
