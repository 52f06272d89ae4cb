"""uvicorn's HTTP, with an end to clients that send the head of a request byte by byte, or none at all."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


class Protocol(H11Protocol):
    """Closes a connection whose next request does not get going in time.

    uvicorn bounds the time between requests only until the first byte of the next one.
    """

    seconds = 15.0
    _timer: asyncio.TimerHandle | None = None

    @classmethod
    def waiting(cls, seconds: float) -> type["Protocol"]:
        """Return the protocol with another time to wait."""
        return type("Protocol", (cls,), {"seconds": seconds})

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Take bytes, and look whether they made a request."""
        if self._timer is None and self._is_idle():
            self._wait()
        super().data_received(data)
        if self._timer is not None and not self._is_idle():
            self._forget()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._forget()
        super().connection_lost(exc)

    def _is_idle(self) -> bool:
        """Whether no request is under way."""
        cycle: Any = self.cycle  # None before the first request, though uvicorn does not say so
        return cycle is None or cycle.response_complete

    def _wait(self) -> None:
        self._timer = self.loop.call_later(self.seconds, self._give_up)

    def _forget(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        if self._is_idle():
            self.transport.abort()
