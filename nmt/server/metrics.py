"""Metrics of a server, in the text format of Prometheus."""

from collections.abc import Callable

from prometheus_client import CONTENT_TYPE_LATEST as CONTENT_TYPE
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

__all__ = ["CONTENT_TYPE", "Metrics"]

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counters of one server. No label contains a text or a key."""

    def __init__(self) -> None:
        # A registry per server: the global one refuses to register the same names twice.
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter("nmt_requests", "Requests answered.", ["path", "status"], registry=self._registry)
        self._seconds = Histogram(
            "nmt_request_seconds", "Seconds per request.", ["path"], buckets=SECONDS, registry=self._registry
        )
        self._batch_texts = Histogram("nmt_batch_texts", "Texts per batch.", buckets=TEXTS, registry=self._registry)
        self._batch_seconds = Histogram(
            "nmt_batch_seconds", "Seconds per batch.", buckets=SECONDS, registry=self._registry
        )
        self._waiting = Gauge("nmt_texts_waiting", "Texts in the queue.", registry=self._registry)
        self._in_progress = Gauge(
            "nmt_requests_in_progress", "Requests not answered yet, including this one.", registry=self._registry
        )

    def observe_request(self, path: str, status: int, seconds: float) -> None:
        """Counts a request under the pattern of its path."""
        self._requests.labels(path, status).inc()
        self._seconds.labels(path).observe(seconds)

    def observe_batch(self, texts: int, seconds: float) -> None:
        """Counts a batch of texts that were translated together."""
        self._batch_texts.observe(texts)
        self._batch_seconds.observe(seconds)

    def track(self, num_waiting: Callable[[], int], num_in_progress: Callable[[], int]) -> None:
        """Calls these functions for the current numbers of texts and requests each time the metrics are read."""
        self._waiting.set_function(num_waiting)
        self._in_progress.set_function(num_in_progress)

    def render(self) -> bytes:
        """Returns all metrics, as Prometheus reads them."""
        return generate_latest(self._registry)
