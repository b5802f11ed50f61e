"""Numbers for Prometheus; labels come from closed sets."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from lowerbound.service.serving.payload import Array

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


KINDS = {
    "request": "From the head of a request to its answer.",
    "queue": "Waiting for the engine.",
    "decode": "Reading the body.",
    "compute": "In the engine, together with the rest of the batch.",
}
GAUGES = {
    "waiting_rows": "Rows that wait for the engine.",
    "aside_rows": "Rows that wait for an idle moment to be scored by other versions.",
    "aside_dropped": "Rows that did not get one since the process started.",
    "engines_alive": "Processes whose engine lives.",
    "incidents_open": "Incidents that are open.",
    "facts_dropped": "Facts that were dropped since the process started.",
    "workers": "Processes that serve.",
}
LABELS = ("model", "version", "verb", "reason")
Labels = tuple[str, str, str, str]


class Metrics:
    """The numbers of one process; used by one thread.

    Noting a request is adding to a dictionary and a list. Histograms are made of the list when they are asked for.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(self)
        self._counts: dict[Labels, int] = {}
        self._noted: list[tuple[float, ...]] = []
        self._seconds = _Histograms(len(KINDS), SECONDS)
        self._rows = _Histograms(1, ROWS)
        self._gauges = dict.fromkeys(GAUGES, 0.0)

    def request(self, labels: Labels, seconds: tuple[float, float, float, float]) -> None:
        """Count a request: labels, and seconds in all, in the queue, of reading, of computing."""
        self._counts[labels] = self._counts.get(labels, 0) + 1
        self._noted.append(seconds)

    def batches(self, sizes: Iterable[int]) -> None:
        """Count batches."""
        self._rows.add(np.array([[size] for size in sizes], np.float64).reshape(-1, 1))

    def set(self, name: str, value: float) -> None:
        """Set one of the gauges."""
        self._gauges[name] = value

    def text(self) -> bytes:
        """All of it, in the form of Prometheus."""
        return generate_latest(self.registry)

    def collect(self) -> Iterable[Metric]:
        """All of it."""
        noted, self._noted = self._noted, []
        self._seconds.add(np.array(noted, np.float64).reshape(-1, len(KINDS)))
        requests = CounterMetricFamily("lowerbound_requests", "Requests that were answered or refused.", labels=LABELS)
        for labels, count in self._counts.items():
            requests.add_metric(labels, count)
        yield requests
        for index, (name, text) in enumerate(KINDS.items()):
            buckets, total = self._seconds.read(index)
            yield HistogramMetricFamily(f"lowerbound_{name}_seconds", text, buckets=buckets, sum_value=total)
        buckets, total = self._rows.read(0)
        yield HistogramMetricFamily("lowerbound_batch_rows", "Rows of a batch.", buckets=buckets, sum_value=total)
        for name, value in self._gauges.items():
            yield GaugeMetricFamily(f"lowerbound_{name}", GAUGES[name], value=value)


class _Histograms:
    """Histograms of several columns with the same bounds."""

    def __init__(self, columns: int, bounds: tuple[float, ...]) -> None:
        self._bounds = np.array(bounds)
        self._counts = np.zeros((columns, len(bounds) + 1), np.int64)
        self._sums = np.zeros(columns)

    def add(self, values: Array) -> None:
        """Count values (N, columns)."""
        places = np.searchsorted(self._bounds, values, side="left")
        for column, counts in enumerate(self._counts):
            counts += np.bincount(places[:, column], minlength=len(counts))
        self._sums += values.sum(axis=0)

    def read(self, column: int) -> tuple[list[tuple[str, float]], float]:
        """Upper bounds with the counts up to them, and the sum."""
        names = [*(f"{bound:g}" for bound in self._bounds), "+Inf"]
        return list(zip(names, np.cumsum(self._counts[column]).tolist(), strict=True)), float(self._sums[column])


def merged(own: bytes, others: Iterable[Path]) -> bytes:
    """The sum of this process's numbers and those that others left in files."""
    families: dict[str, Metric] = {}
    sums: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for text in (own.decode(), *(_read(path) for path in others)):
        for family in text_string_to_metric_families(text):
            families.setdefault(family.name, family)
            known = sums.setdefault(family.name, {})
            for sample in family.samples:
                key = (sample.name, tuple(sorted(sample.labels.items())))
                known[key] = known.get(key, 0.0) + sample.value
    registry = CollectorRegistry()
    registry.register(_Fixed(families, sums))
    return generate_latest(registry)


class _Fixed:
    """A collector of numbers that are known."""

    def __init__(
        self,
        families: dict[str, Metric],
        sums: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]],
    ) -> None:
        self._families, self._sums = families, sums

    def collect(self) -> Iterable[Metric]:
        """The sums as metrics."""
        for name, family in self._families.items():
            made = Metric(name, family.documentation, family.type)
            for (sample, labels), value in self._sums[name].items():
                if not sample.endswith("_created"):
                    made.add_sample(sample, dict(labels), value)
            yield made


def leave(path: Path, text: bytes) -> None:
    """Write numbers where other processes find them, whole or not at all."""
    draft = path.with_suffix(".draft")
    draft.write_bytes(text)
    os.replace(draft, path)  # noqa: PTH105


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""  # a process that has just ended
