"""Middleware that limits the bytes and the time of each request, and turns every exception into a response."""

import asyncio

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from retrieval.server.errors import ApiError, BusyError, error_response, logger, to_api_error
from retrieval.server.settings import Settings

_BULK = ("POST", "/items")  # limits its lines and batches itself, and takes as long as its lines do
_MAX_LARGEST_BODIES = 16  # bodies of the largest allowed size that fit in memory together
_CLOSE = {"Connection": "close"}  # the rest of the body is not read, so the connection cannot be used again


def is_bulk(scope: Scope) -> bool:
    """Whether this is a bulk request."""
    return (scope["method"], scope["path"]) == _BULK


class ErrorMiddleware:
    """Answers an exception, or closes the connection if the response has begun; ends requests after `timeout`."""

    def __init__(self, app: ASGIApp, *, timeout: float, folder: str) -> None:
        self._app = app
        self._timeout = timeout
        self._folder = folder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_begun = False

        async def send_and_record(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            async with asyncio.timeout(None if is_bulk(scope) else self._timeout):
                await self._app(scope, receive, send_and_record)
        except ClientDisconnect:
            return
        except Exception as error:
            api_error = to_api_error(error, folder=self._folder)
            if has_begun:
                logger.warning("A response broke off: %s", api_error.message)
                raise
            await error_response(api_error)(scope, receive, send)


class BodyLimitMiddleware:
    """Limits the bytes of a body, of all bodies in memory, and the time until the client's next bytes."""

    def __init__(self, app: ASGIApp, *, settings: Settings) -> None:
        self._app = app
        self._max_body = settings.max_body
        self._max_total = _MAX_LARGEST_BODIES * settings.max_body
        self._total = 0  # bytes of the bodies of all requests in progress, except bulk requests
        self._seconds = settings.client_timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a body whose declared length is too large before it comes, any other once it is too large."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if {b"content-length", b"transfer-encoding"} <= headers.keys():
            # RFC 9112, section 6.1: a proxy that goes by the other one takes the rest for another client's request.
            raise ApiError(400, "A request has a Content-Length or a Transfer-Encoding, not both.", headers=_CLOSE)
        if is_bulk(scope):
            await self._app(scope, self._with_timeout(receive), send)
            return
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._max_body:
            raise self._too_large()
        count, receive_in_time = 0, self._with_timeout(receive)

        async def receive_and_count() -> Message:
            nonlocal count
            message = await receive_in_time()
            size = len(message.get("body", b""))
            count += size
            self._total += size
            if count > self._max_body:
                raise self._too_large()
            if self._total > self._max_total:
                raise BusyError("large requests")
            return message

        try:
            await self._app(scope, receive_and_count, send)
        finally:
            self._total -= count

    def _with_timeout(self, receive: Receive) -> Receive:
        """Limit the wait for each part of the body; there is no limit once the body is complete."""
        is_complete = False

        async def receive_in_time() -> Message:
            nonlocal is_complete
            try:
                message = await asyncio.wait_for(receive(), None if is_complete else self._seconds)
            except TimeoutError:
                reason = f"The body did not arrive: no bytes came for {self._seconds:g} seconds."
                raise ApiError(408, reason, headers=_CLOSE) from None
            is_complete = message["type"] != "http.request" or not message.get("more_body", False)
            return message

        return receive_in_time

    def _too_large(self) -> ApiError:
        return ApiError(413, f"The body is too large: the limit is {self._max_body:,} bytes.", headers=_CLOSE)
