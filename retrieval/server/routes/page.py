"""The search page at "/": a few files of this package, and no others."""

from functools import cache
from importlib.resources import files

from fastapi import APIRouter, Response
from starlette.requests import Request

from retrieval.hashing import content_hash
from retrieval.server.service import ServiceDep

_SCRIPTS = ("api", "app", "cards", "dom", "filters", "keyboard", "panel", "pictures", "state")
_MEDIA_TYPES = {
    "index.html": "text/html; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    **{f"{name}.js": "text/javascript; charset=utf-8" for name in _SCRIPTS},
}
PAGE_PATHS = ("/", *(f"/{name}" for name in _MEDIA_TYPES if name != "index.html"))
"""Paths of the page and what it loads; they need no key, for nothing in them comes from a catalog."""

# The page's script loads images that need a key, as blobs.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

router = APIRouter()


async def get_page_file(request: Request, service: ServiceDep) -> Response:
    """Return a file of the page."""
    name = request.url.path.removeprefix("/") or "index.html"
    data, tag = _read_page_file(name, service.settings.max_results)
    headers = {"ETag": tag, "Cache-Control": "no-cache", "Content-Security-Policy": _POLICY}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(data, headers=headers | {"Content-Type": _MEDIA_TYPES[name]})


for _path in PAGE_PATHS:
    router.add_api_route(_path, get_page_file, response_class=Response, include_in_schema=False)


@cache
def _read_page_file(name: str, max_results: int) -> tuple[bytes, str]:
    data = files("retrieval").joinpath("server", "web", name).read_bytes()
    data = data.replace(b'data-most="1000"', b'data-most="%d"' % max_results)
    return data, f'"{content_hash(data)}"'
