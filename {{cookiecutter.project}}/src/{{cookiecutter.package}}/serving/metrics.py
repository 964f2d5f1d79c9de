"""Numbers for Prometheus: requests, their time, predictions, and which model makes them."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .slot import Slot

if TYPE_CHECKING:
    from ..inference import Prediction

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """The counters of one app, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "http_requests", "Requests answered.", ["route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "http_request_seconds",
            "Time to the end of the answer.",
            ["route"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.predictions = Counter("predictions", "Rows predicted.", registry=self.registry)
        self.warnings = Counter(
            "prediction_warnings",
            "Values unlike those the model was trained on.",
            registry=self.registry,
        )
        self.model = Gauge(
            "model_info", "The model in service.", ["name", "version"], registry=self.registry
        )

    def count(self, predictions: Sequence[Prediction]) -> None:
        """Count the predictions of one answer, and their warnings."""
        self.predictions.inc(len(predictions))
        self.warnings.inc(sum(len(prediction.warnings) for prediction in predictions))

    def exposition(self, slot: Slot) -> bytes:
        """Return all numbers as Prometheus reads them."""
        self.model.clear()
        if served := slot.served:
            self.model.labels(served.model.name, served.model.version).set(1)
        return generate_latest(self.registry)


def measure(app: ASGIApp, metrics: Metrics) -> ASGIApp:
    """Wrap an app so that every request is counted and timed.

    Parameters
    ----------
    app : ASGIApp
    metrics : Metrics

    Returns
    -------
    ASGIApp
    """

    async def measured(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        status, start = 500, perf_counter()

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await app(scope, receive, watch)
        finally:
            # A raw path would be a label of unlimited values.
            route = getattr(scope.get("route"), "path", "other")
            metrics.requests.labels(route, status).inc()
            metrics.seconds.labels(route).observe(perf_counter() - start)

    return measured
