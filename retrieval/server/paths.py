"""Addresses of items: an id is one segment of a path, percent-encoded, whatever it holds."""

from urllib.parse import quote, unquote_to_bytes

from starlette.types import ASGIApp, Receive, Scope, Send

from retrieval.server.errors import ApiError

_ITEMS = "/items/"


def item_path(name: str) -> str:
    """Return the address of an item; also "/" in its id is encoded."""
    return _ITEMS + quote(name, safe="")


def image_path(name: str, position: int) -> str:
    """Return the address of a picture of an item."""
    return f"{item_path(name)}/images/{position}"


def parse_id(segment: str) -> str:
    """Return the id that a segment of a path spells.

    Raises:
        Problem: 404, it is not UTF-8, so there is no such item.
    """
    try:
        name = unquote_to_bytes(segment).decode()
    except UnicodeError:
        raise ApiError(404, "There is no such item: its id in the address is not UTF-8, percent-encoded.") from None
    if "\0" in name or not name.strip():
        raise ApiError(404, "There is no such item: an id has no NUL, and is not blank.")
    return name


class RawItemPaths:
    """Middleware that routes addresses of items as they were sent.

    Servers decode a path before it is routed, and "a/b" as an id would look like two segments, or "x/images/0" like a
    picture of "x". The raw path tells them apart.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Route it."""
        raw: bytes | None = scope.get("raw_path")
        if scope["type"] == "http" and raw is not None and raw.startswith(_ITEMS.encode()):
            scope["path"] = raw.partition(b"?")[0].decode("ascii", "replace")
        await self._app(scope, receive, send)
