"""Run an application on uvicorn, in one process, until it is stopped."""

import asyncio
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from retrieval.errors import ServiceError

if TYPE_CHECKING:
    from retrieval.server.service import Service

_BACKLOG = 256
_MAX_CONNECTIONS = 1000


def serve(app: FastAPI, *, on_ready: Callable[[str], None], stop: threading.Event | None = None) -> None:
    """Serve until SIGTERM or Ctrl-C; requests in progress then have the settings' time to finish.

    Args:
        app: What `make_app` returned.
        on_ready: Called with the URL once the service is ready.
        stop: Stops the service when set; for one in a thread, which gets no signals.

    Raises:
        ServiceError: The address is in use or not available.
        RetrievalError: The encoder cannot be loaded.
    """
    service: Service = app.state.service
    settings = service.settings
    listener = _listen(settings.host.strip("[]"), settings.port)
    protocol: Any = partial(_Protocol, seconds=settings.client_timeout)
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=_MAX_CONNECTIONS,
        backlog=_BACKLOG,
        timeout_graceful_shutdown=int(settings.shutdown_timeout),
    )
    server = _Server(config)
    server.stop = stop

    def announce() -> None:
        if service.startup_error is None:
            host, port = listener.getsockname()[:2]
            on_ready(f"http://{f'[{host}]' if ':' in host else host}:{port}")
        else:
            server.should_exit = True

    service.on_started = announce
    server.run(sockets=[listener])
    if service.startup_error is not None:
        raise service.startup_error


class _Server(uvicorn.Server):
    """Exits successfully after a signal."""

    stop: threading.Event | None = None

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or (self.stop is not None and self.stop.is_set())

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
        """Stop, immediately at a second Ctrl-C; uvicorn would also raise the signal again in the end."""
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


class _Protocol(H11Protocol):
    """Closes a connection if the head of its next request does not arrive in time.

    uvicorn limits the time between requests only until the first byte of the next one.
    """

    _timer: asyncio.TimerHandle | None = None

    def __init__(self, *args: Any, seconds: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._seconds = seconds

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._start_timer()

    def data_received(self, data: bytes) -> None:
        if self._timer is None and self._is_idle():
            self._start_timer()
        super().data_received(data)
        if self._timer is not None and not self._is_idle():
            self._stop_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def _is_idle(self) -> bool:
        """Whether no request is in progress."""
        cycle: Any = self.cycle  # None before the first request, though uvicorn does not say so
        return cycle is None or cycle.response_complete

    def _start_timer(self) -> None:
        self._timer = self.loop.call_later(self._seconds, self._close_if_idle)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close_if_idle(self) -> None:
        self._timer = None
        if self._is_idle():
            self.transport.abort()


def _listen(host: str, port: int) -> socket.socket:
    """Listen, naming the protocol: only then does asyncio set TCP_NODELAY, without which small responses take 40 ms."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
        with ExitStack() as on_error:
            on_error.callback(listener.close)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(_BACKLOG)
            on_error.pop_all()
    except OSError as error:
        reason = error.strerror or error
        raise ServiceError(
            f"The service cannot listen on {host}:{port}: {reason}. Choose another --port or --host."
        ) from error
    return listener
