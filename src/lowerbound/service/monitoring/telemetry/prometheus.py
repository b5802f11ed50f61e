"""The totals of a store for Prometheus: of all processes together, and across restarts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lowerbound.extras import need
from lowerbound.service.monitoring.telemetry.database import LABELS, ROLLED
from lowerbound.service.monitoring.telemetry.history import History
from lowerbound.service.monitoring.telemetry.rollups import EDGES

PREFIX = "lowerbound_telemetry"
LOST = "Rows, or their inputs, that were lost."
TEXTS = {
    "error": "Mean squared error of reconstructions on the raw scale.",
    "rate": "Total rate in nats.",
    "norm": "Norm of codes in the reference's covariance.",
    "queue_s": "Seconds in the queue.",
    "compute_s": "Seconds in the engine.",
    "total_s": "Seconds from a request's head to its answer.",
}


class TelemetryCollector:
    """For `registry.register`; each scrape asks the store.

    Args:
        folder: of the store.

    Raises:
        UsageError: prometheus-client is not installed.
        DataError: there is no such store.
    """

    def __init__(self, folder: Path | str) -> None:
        self._core = need("prometheus_client.core", "prometheus", "the numbers for Prometheus")
        self._history = History(folder)

    def describe(self) -> list[Any]:
        """Nothing: so registering asks no store."""
        return []

    def collect(self) -> Iterator[Any]:
        """Families of metrics."""
        core, totals = self._core, self._history.totals()
        rows = core.CounterMetricFamily(f"{PREFIX}_rows", "Rows of requests.", labels=LABELS)
        requests = core.CounterMetricFamily(f"{PREFIX}_requests", "Requests.", labels=LABELS)
        for total in totals:
            labels = [total.labels[name] for name in LABELS]
            rows.add_metric(labels, total.rows)
            requests.add_metric(labels, total.requests)
        lost = core.CounterMetricFamily(f"{PREFIX}_lost_rows", LOST, labels=["cause"])
        for cause, count in self._history.losses().items():
            lost.add_metric([cause], count)
        yield from (rows, requests, lost)
        for name in ROLLED:
            family = core.HistogramMetricFamily(f"{PREFIX}_{_seconds(name)}", TEXTS[name], labels=LABELS)
            for total in totals:
                if name in total.n:
                    edges = [*map(str, EDGES[name]), "+Inf"]
                    counts = list(zip(edges, total.buckets[name], strict=True))
                    family.add_metric([total.labels[label] for label in LABELS], counts, total.total[name])
            yield family


def _seconds(name: str) -> str:
    return name.removesuffix("_s") + "_seconds" if name.endswith("_s") else name


def prometheus_text(folder: Path | str) -> bytes:
    """The totals of a store in Prometheus's text format.

    Raises:
        UsageError: prometheus-client is not installed.
        DataError: there is no such store.
    """
    module = need("prometheus_client", "prometheus", "the numbers for Prometheus")
    registry = module.CollectorRegistry()
    registry.register(TelemetryCollector(folder))
    return module.generate_latest(registry)
