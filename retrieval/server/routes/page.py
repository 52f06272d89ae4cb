"""The page at "/": a few files of this package, and no others."""

from functools import cache
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request, Response

from retrieval.hashing import content_hash
from retrieval.server.errors import ApiError

_SCRIPTS = ("api", "app", "cards", "dom", "filters", "keyboard", "panel", "pictures", "state")
_TYPES = {
    "index.html": "text/html; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    **{f"{name}.js": "text/javascript; charset=utf-8" for name in _SCRIPTS},
}
PAGE_PATHS = ("/", *(f"/{name}" for name in _TYPES if name != "index.html"))
"""Where the page and what it loads are: open to everybody, since there is nothing of a catalog in them."""

# Pictures that need a key come to the page by script, as blobs.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def add_routes(app: FastAPI) -> None:
    """Add the page and what it loads."""
    for address in PAGE_PATHS:
        app.add_api_route(address, page, methods=["GET"], response_class=Response, include_in_schema=False)


async def page(request: Request) -> Response:
    """Return a file of the page."""
    name = request.url.path.removeprefix("/") or "index.html"
    data, tag = _file(name, request.app.state.service.settings.max_results)
    headers = {"ETag": tag, "Cache-Control": "no-cache", "Content-Security-Policy": _POLICY}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(data, headers=headers | {"Content-Type": _TYPES[name]})


@cache
def _file(name: str, most: int) -> tuple[bytes, str]:
    path: Any = files("retrieval") / "server" / "web" / name
    if not path.is_file():
        raise ApiError(404, "There is nothing at this address.")
    data = path.read_bytes().replace(b'data-most="1000"', b'data-most="%d"' % most)
    return data, f'"{content_hash(data)}"'
