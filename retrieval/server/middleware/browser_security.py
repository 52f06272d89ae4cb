"""Middleware: which pages may call a service, what browsers may do with its answers, HEAD and OPTIONS."""

from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from retrieval.server.errors import ApiError
from retrieval.server.settings import Settings

_SAFE = {"GET", "HEAD", "OPTIONS"}
_LOCAL_NAMES = {"localhost", "127.0.0.1", "::1"}

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}


class SecurityHeaders:
    """Says to browsers that answers are data of this origin, and nothing to run or to frame."""

    def __init__(self, app: ASGIApp, *, shared: bool) -> None:
        """Take the application.

        Args:
            app: What answers.
            shared: Whether pages of other origins may show pictures.
        """
        self._app = app
        self._headers = _HEADERS | {"Cross-Origin-Resource-Policy": "cross-origin" if shared else "same-origin"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the headers; a page's own come first."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, with_headers)


class SameOrigin:
    """Keeps pages of other origins out of a service without keys, which their visitor's browser could reach.

    A page can send requests to this machine that need no permission (forms, plain text), and under a name that it
    controls it can also read the answers (DNS rebinding). So the name that was asked for has to be this machine's, and
    a change or a search that a browser sends has to come from an own page. With keys a foreign page has none.
    """

    def __init__(self, app: ASGIApp, *, settings: Settings) -> None:
        self._app = app
        self._names = _LOCAL_NAMES | {settings.host.strip("[]")}
        self._origins = set(settings.cors_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let own pages through, and programs."""
        if scope["type"] == "http":
            self._check(scope["method"], Headers(scope=scope))
        await self._app(scope, receive, send)

    def _check(self, method: str, headers: Headers) -> None:
        host = headers.get("host", "")
        if _name_of(host) not in self._names:
            raise ApiError(421, "This service has no keys, and answers only to localhost, 127.0.0.1 and [::1].")
        origin = headers.get("origin")
        foreign = origin is not None and origin not in {f"http://{host}", f"https://{host}", *self._origins}
        if foreign and method not in _SAFE:
            raise ApiError(403, "Pages of other origins may not ask here; --cors-origin lets one in.")


class HeadAndOptions:
    """HEAD as GET without a body, OPTIONS as the list of methods."""

    def __init__(self, app: ASGIApp, *, routes: Sequence[BaseRoute]) -> None:
        self._app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        if scope["type"] == "http" and scope["method"] == "HEAD":
            asked = {**scope, "method": "GET"}
            try:
                await self._app(asked, receive, _without_body(send))
            finally:
                scope["route"] = asked.get("route")  # as the figures want it
        elif scope["type"] == "http" and scope["method"] == "OPTIONS":
            await self._options(scope)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _options(self, scope: Scope) -> Response:
        methods = {
            method
            for route in self._routes
            if route.matches(scope)[0] is not Match.NONE
            for method in getattr(route, "methods", None) or ()
        }
        if not methods:
            raise ApiError(404, "There is nothing at this address.")
        methods |= {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())
        return Response(status_code=204, headers={"Allow": ", ".join(sorted(methods))})


def _without_body(send: Send) -> Send:
    async def without_body(message: Message) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await send(message)

    return without_body


def _name_of(host: str) -> str:
    """Return the name of a Host header, without its port; empty where it is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
