"""Middleware: a bound on the bytes and on the time of each request, and an answer to everything that goes wrong."""

import asyncio
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from retrieval.server.errors import ApiError, BusyError, error_response, logger, to_api_error

if TYPE_CHECKING:
    from retrieval.server.settings import Settings

BULK = ("POST", "/items")
"""Bounds its lines and batches itself, and may take as long as there are lines."""

_BODIES = 16  # of the largest that one may have, as many may be in memory


def is_bulk(scope: Scope) -> bool:
    """Whether this is a request of many lines."""
    return (scope["method"], scope["path"]) == BULK


class ErrorMiddleware:
    """Turns what is raised into an answer, or ends the connection where the answer has begun."""

    def __init__(self, app: ASGIApp, *, timeout: float, folder: str) -> None:
        self._app = app
        self._timeout = timeout
        self._folder = folder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer in time."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def noting(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            async with asyncio.timeout(None if is_bulk(scope) else self._timeout):
                await self._app(scope, receive, noting)
        except ClientDisconnect:
            return
        except Exception as error:
            problem = to_api_error(error, folder=self._folder)
            if begun:
                logger.warning("an answer broke off: %s", problem.message)
                raise
            await error_response(problem)(scope, receive, send)


class BodyLimitMiddleware:
    """Counts the bytes of a body as they come, and waits for the next ones only so long."""

    def __init__(self, app: ASGIApp, *, settings: "Settings") -> None:
        self._app = app
        self._most = settings.max_body
        self._most_held = _BODIES * settings.max_body
        self._held = 0  # bytes of all bodies whose requests are under way, those of lines excepted
        self._slow = settings.slow

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a body that says it is too large before it comes, and one that is when it gets there."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        _check_framing(scope)
        if is_bulk(scope):
            await self._app(scope, self._slowly(receive), send)
            return
        if _announced(scope) > self._most:
            raise self._too_large()
        await self._counted(scope, receive, send)

    async def _counted(self, scope: Scope, receive: Receive, send: Send) -> None:
        count, slowly = 0, self._slowly(receive)

        async def counting() -> Message:
            nonlocal count
            message = await slowly()
            size = len(message.get("body", b""))
            count += size
            self._held += size
            if count > self._most:
                raise self._too_large()
            if self._held > self._most_held:
                raise BusyError("large requests")
            return message

        try:
            await self._app(scope, counting, send)
        finally:
            self._held -= count

    def _slowly(self, receive: Receive) -> Receive:
        """Wait for each part of the body only so long, and for nothing after it."""
        there = False

        async def slowly() -> Message:
            nonlocal there
            message = await (receive() if there else self._in_time(receive))
            there = message["type"] != "http.request" or not message.get("more_body", False)
            return message

        return slowly

    async def _in_time(self, receive: Receive) -> Message:
        try:
            return await asyncio.wait_for(receive(), self._slow)
        except TimeoutError:
            raise ApiError(
                408, f"The body did not come: nothing for {self._slow:g} seconds.", headers={"Connection": "close"}
            ) from None

    def _too_large(self) -> ApiError:
        # The rest of the body is not read: the connection cannot be used again.
        message = f"The body is too large: at most {self._most:,} bytes are taken."
        return ApiError(413, message, headers={"Connection": "close"})


def _check_framing(scope: Scope) -> None:
    """Refuse a body of two lengths: a proxy that goes by the other one takes the rest for another client's request.

    RFC 9112, section 6.1.
    """
    if {b"content-length", b"transfer-encoding"} <= {name for name, _ in scope["headers"]}:
        raise ApiError(400, "A request has a Content-Length or a Transfer-Encoding.", headers={"Connection": "close"})


def _announced(scope: Scope) -> int:
    length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    return int(length) if length.isdigit() else 0
