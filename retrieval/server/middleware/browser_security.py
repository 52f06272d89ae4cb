"""Middleware for browsers: security headers, protection from other origins' pages, HEAD and OPTIONS."""

from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from retrieval.server.errors import ApiError
from retrieval.server.settings import Settings

_SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
_LOCAL_NAMES = {"localhost", "127.0.0.1", "::1"}

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}


class SecurityHeaders:
    """Tells browsers that responses are data of this origin, not to be run or framed; a route's own headers win.

    With `shared`, pages of other origins may show images.
    """

    def __init__(self, app: ASGIApp, *, shared: bool) -> None:
        self._app = app
        self._headers = _HEADERS | {"Cross-Origin-Resource-Policy": "cross-origin" if shared else "same-origin"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers)


class SameOrigin:
    """Keeps pages of other origins out of a service without keys, which their visitor's browser could reach.

    A page can send requests to this machine that need no permission (forms, plain text), and under a host name that it
    controls it can also read the responses (DNS rebinding). So the Host must be a name of this machine, and a change or
    a search from a browser must come from an own page. With keys, a foreign page lacks one.
    """

    def __init__(self, app: ASGIApp, *, settings: Settings) -> None:
        self._app = app
        self._names = _LOCAL_NAMES | {settings.host.strip("[]")}
        self._origins = set(settings.cors_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            host, origin = headers.get("host", ""), headers.get("origin")
            if _host_name(host) not in self._names:
                raise ApiError(421, "A service without keys answers only to localhost, 127.0.0.1 and [::1].")
            is_foreign = origin is not None and origin not in {f"http://{host}", f"https://{host}", *self._origins}
            if is_foreign and scope["method"] not in _SAFE_METHODS:
                raise ApiError(403, "Pages of other origins may not send this. Allow an origin by --cors-origin.")
        await self._app(scope, receive, send)


class HeadAndOptions:
    """Answers HEAD as GET without a body, and OPTIONS with the path's methods."""

    def __init__(self, app: ASGIApp, *, routes: Sequence[BaseRoute]) -> None:
        self._app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_without_body(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        if scope["type"] == "http" and scope["method"] == "HEAD":
            as_get = {**scope, "method": "GET"}
            try:
                await self._app(as_get, receive, send_without_body)
            finally:
                scope["route"] = as_get.get("route")  # for the metrics
        elif scope["type"] == "http" and scope["method"] == "OPTIONS":
            await self._list_methods(scope)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _list_methods(self, scope: Scope) -> Response:
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


def _host_name(host: str) -> str:
    """Return the name in a Host header, without its port; empty if it is malformed."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
