"""Figures of a service for Prometheus; each service has its own registry."""

import time
from typing import TYPE_CHECKING

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from retrieval.server.service import Service

CONTENT_TYPE = CONTENT_TYPE_LATEST

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_COUNTS = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counters, gauges and histograms; names begin with `retrieval_`."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.requests = Counter(
            "retrieval_requests", "Requests answered.", ["method", "route", "status"], registry=registry
        )
        self.seconds = Histogram(
            "retrieval_request_seconds", "Until the answer.", ["route"], buckets=_SECONDS, registry=registry
        )
        self.under_way = Gauge("retrieval_requests_under_way", "Requests that are not answered yet.", registry=registry)
        self.batches = Histogram(
            "retrieval_batch_searches", "Searches in one batch.", buckets=_COUNTS, registry=registry
        )
        self.thumbnails = Counter("retrieval_thumbnails", "Small pictures sent.", ["how"], registry=registry)
        self.lines = Counter("retrieval_bulk_lines", "Lines of bulk requests.", ["status"], registry=registry)
        self._waiting = Gauge("retrieval_waiting", "Calls that wait or run.", ["what"], registry=registry)
        self._ready = Gauge("retrieval_ready", "Whether the service is warm.", registry=registry)
        self._kept = Gauge("retrieval_thumbnail_bytes", "Memory that small pictures take.", registry=registry)
        ProcessCollector(registry=self.registry)

    def watch(self, service: "Service") -> None:
        """Ask the service for what it knows whenever the figures are read."""
        self._waiting.labels("searches").set_function(lambda: service.batcher.waiting)
        self._waiting.labels("reads").set_function(lambda: service.read_executor.waiting)
        self._waiting.labels("changes").set_function(lambda: service.write_executor.waiting)
        self._ready.set_function(lambda: float(service.ready))
        self._kept.set_function(lambda: service.thumbnails.bytes)

    def text(self) -> bytes:
        """Return all figures in Prometheus' text format."""
        return generate_latest(self.registry)


class RequestMetrics:
    """Middleware that counts requests by the route that answered: never by address, of which there is no end."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, and count."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = "499"  # as nginx says it: the client went away before there was an answer
        since = time.perf_counter()

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        with self._metrics.under_way.track_inprogress():
            try:
                await self._app(scope, receive, noting)
            finally:
                route = getattr(scope.get("route"), "path", "other")
                self._metrics.requests.labels(_method(scope), route, status).inc()
                self._metrics.seconds.labels(route).observe(time.perf_counter() - since)


def _method(scope: Scope) -> str:
    known = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
    return scope["method"] if scope["method"] in known else "other"
