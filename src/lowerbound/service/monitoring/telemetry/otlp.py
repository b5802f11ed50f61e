"""The totals of a store for a collector of OpenTelemetry, by OTLP over HTTP with protobuf."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from lowerbound.extras import need
from lowerbound.service.monitoring.telemetry.database import ROLLED
from lowerbound.service.monitoring.telemetry.history import History, Total
from lowerbound.service.monitoring.telemetry.post import post
from lowerbound.service.monitoring.telemetry.prometheus import LOST, TEXTS
from lowerbound.service.monitoring.telemetry.rollups import EDGES

WHAT = "export by OTLP"


class OtlpExporter:
    """Sends the totals of a store as cumulative sums and histograms.

    Args:
        folder: of the store.
        url: of the collector, such as http://127.0.0.1:4318; `/v1/metrics` is added.
        headers: for the collector, such as its key.
        timeout_s: of one request.

    Raises:
        UsageError: opentelemetry-proto is not installed.
        DataError: there is no such store.
    """

    def __init__(
        self, folder: Path | str, url: str, *, headers: dict[str, str] | None = None, timeout_s: float = 10.0
    ) -> None:
        self._service = need("opentelemetry.proto.collector.metrics.v1.metrics_service_pb2", "otlp", WHAT)
        self._metrics = need("opentelemetry.proto.metrics.v1.metrics_pb2", "otlp", WHAT)
        self._history = History(folder)
        self._url, self._timeout_s = f"{url.rstrip('/')}/v1/metrics", timeout_s
        self._headers = {"Content-Type": "application/x-protobuf", **(headers or {})}
        self._since = int(self._history.made() * 1e9)

    def push(self) -> int:
        """Send the totals as they are now; how many series.

        Raises:
            UsageError: the collector refused them.
            NotSavedError: it could not be reached.
        """
        totals = self._history.totals()
        request = self._service.ExportMetricsServiceRequest()
        resource = request.resource_metrics.add()
        label(resource.resource, {"service.name": "lowerbound"})
        scope = resource.scope_metrics.add()
        scope.scope.name = "lowerbound.telemetry"
        now = time.time_ns()
        for kind, text in (("rows", "Rows of requests."), ("requests", "Requests.")):
            counts = [(total.labels, getattr(total, kind)) for total in totals]
            self._add_sum(scope.metrics.add(name=f"lowerbound.{kind}", description=text, unit="1"), counts, now)
        lost = [({"cause": cause}, rows) for cause, rows in self._history.losses().items()]
        self._add_sum(scope.metrics.add(name="lowerbound.lost_rows", description=LOST, unit="1"), lost, now)
        for name in ROLLED:
            unit = "s" if name.endswith("_s") else "1"
            metric = scope.metrics.add(name=f"lowerbound.{name}", description=TEXTS[name], unit=unit)
            self._add_histogram(metric, name, totals, now)
        post(self._url, request.SerializeToString(), self._headers, self._timeout_s)
        return len(totals)

    def _add_sum(self, metric: Any, counts: list[tuple[dict[str, str], int]], now: int) -> None:
        metric.sum.is_monotonic = True
        metric.sum.aggregation_temporality = self._metrics.AGGREGATION_TEMPORALITY_CUMULATIVE
        for labels, count in counts:
            point = metric.sum.data_points.add(start_time_unix_nano=self._since, time_unix_nano=now, as_int=count)
            label(point, labels)

    def _add_histogram(self, metric: Any, name: str, totals: list[Total], now: int) -> None:
        metric.histogram.aggregation_temporality = self._metrics.AGGREGATION_TEMPORALITY_CUMULATIVE
        for total in totals:
            if name in total.n:
                upto = total.buckets[name]
                counts = [later - earlier for earlier, later in zip((0, *upto), upto, strict=False)]
                point = metric.histogram.data_points.add(
                    start_time_unix_nano=self._since,
                    time_unix_nano=now,
                    count=total.n[name],
                    sum=total.total[name],
                    bucket_counts=counts,
                    explicit_bounds=EDGES[name],
                )
                label(point, total.labels)


def label(thing: Any, labels: dict[str, str]) -> None:
    """Add attributes to a message that has them."""
    for key, value in labels.items():
        thing.attributes.add(key=key).value.string_value = value
