"""Middleware that routes the paths of items as they were sent."""

from starlette.types import ASGIApp, Receive, Scope, Send

from retrieval.server.paths import ITEMS


class RawItemPaths:
    """Routes by the raw path of an item.

    Servers decode a path before it is routed. The id "a/b" would then look like two segments, and "x/images/0" like an
    image of "x".
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raw: bytes | None = scope.get("raw_path")
        if scope["type"] == "http" and raw is not None and raw.startswith(ITEMS.encode()):
            scope["path"] = raw.partition(b"?")[0].decode("ascii", "replace")
        await self._app(scope, receive, send)
