"""Serve an application with uvicorn, in one process, until it is told to stop."""

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import uvicorn
from fastapi import FastAPI

from retrieval.errors import ServiceError
from retrieval.server.protocol import Protocol
from retrieval.server.settings import Settings

if TYPE_CHECKING:
    from retrieval.server.service import Service

_BACKLOG = 256
_MOST_CONNECTIONS = 1000


def serve(app: FastAPI, *, on_ready: Callable[[str], None], stop: threading.Event | None = None) -> None:
    """Serve until SIGTERM or Ctrl-C; then answer what is under way, within the time that the settings give.

    Args:
        app: What `make_app` returned.
        on_ready: Called with the address once the service is warm.
        stop: Another way to be told, for who serves in a thread, which gets no signals.

    Raises:
        ServiceError: the address is taken, or cannot be had.
        RetrievalError: the encoder does not load.
    """
    service: Service = app.state.service
    bound = _bound(service.settings)
    server = _Server(_config(app, service.settings), stop)

    def settled() -> None:
        if service.startup_error is None:
            on_ready(_address(bound))
        else:
            server.should_exit = True

    service.on_started = settled
    server.run(sockets=[bound])
    if service.startup_error is not None:
        raise service.startup_error


class _Server(uvicorn.Server):
    """Ends by a signal as by itself: who stops a service sees it succeed."""

    def __init__(self, config: uvicorn.Config, stop: threading.Event | None) -> None:
        super().__init__(config)
        self._stop = stop

    async def on_tick(self, counter: int) -> bool:
        """Look, ten times a second, whether it is told to stop."""
        return await super().on_tick(counter) or (self._stop is not None and self._stop.is_set())

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at a signal, and at a second Ctrl-C at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {one: signal.signal(one, self.handle_exit) for one in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)


def _config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    http: Any = Protocol.waiting(settings.slow)
    return uvicorn.Config(
        app,
        http=http,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=_MOST_CONNECTIONS,
        backlog=_BACKLOG,
        timeout_graceful_shutdown=int(settings.stop),
    )


def _bound(settings: Settings) -> socket.socket:
    host = settings.host.strip("[]")
    try:
        return _listening(host, settings.port)
    except OSError as error:
        raise ServiceError(
            f"{host}:{settings.port} cannot be listened on: {error.strerror or error}. Take another --port, or --host."
        ) from error


def _listening(host: str, port: int) -> socket.socket:
    """Listen, with the protocol named: only then asyncio turns off the delay that adds 40 ms to small answers."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    family, kind, protocol, _, address = found[0]
    with ExitStack() as stack:
        bound = stack.enter_context(socket.socket(family, kind, protocol))
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(_BACKLOG)
        stack.pop_all()
    return bound


def _address(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
