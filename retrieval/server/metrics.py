"""Prometheus metrics of a service; each service has its own registry."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counters, gauges and histograms, all named `retrieval_...`."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self.requests = Counter(
            "retrieval_requests", "Requests answered.", ["method", "route", "status"], registry=registry
        )
        self.seconds = Histogram(
            "retrieval_request_seconds", "Seconds until the response.", ["route"], buckets=_SECONDS, registry=registry
        )
        self.in_progress = Gauge("retrieval_requests_under_way", "Requests in progress.", registry=registry)
        self.batches = Histogram("retrieval_batch_searches", "Searches in a batch.", buckets=_SIZES, registry=registry)
        self.thumbnails = Counter("retrieval_thumbnails", "Thumbnails sent.", ["how"], registry=registry)
        self.lines = Counter("retrieval_bulk_lines", "Lines of bulk requests.", ["status"], registry=registry)
        self.pending = Gauge("retrieval_waiting", "Calls that wait or run.", ["what"], registry=registry)
        self.ready = Gauge("retrieval_ready", "Whether the service is ready.", registry=registry)
        self.thumbnail_bytes = Gauge("retrieval_thumbnail_bytes", "Memory of the cached thumbnails.", registry=registry)
        ProcessCollector(registry=registry)

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)
