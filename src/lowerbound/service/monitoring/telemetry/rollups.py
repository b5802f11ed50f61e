"""Sums over the rows of a minute and over all rows: added to in the transaction that writes the rows."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

import numpy as np

from lowerbound.service.monitoring.telemetry.database import ROLLED
from lowerbound.service.monitoring.telemetry.fact import Array

LEAST = 1e-12  # below this a logarithm is that of this number
MOST_NUMBERS = 2**20  # of series and of buckets, to join two integers into one
# Upper edges of the histograms: seconds in steps of about two, other numbers four to a decade.
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
DECADES = tuple(float(f"{10 ** (power / 4):.3g}") for power in range(-24, 17))
EDGES = {name: SECONDS if name.endswith("_s") else DECADES for name in ROLLED}

ADD_MINUTE = """INSERT INTO minutes VALUES (?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET rows = rows + excluded.rows, requests = requests + excluded.requests"""
ADD_MINUTE_NUMBER = """INSERT INTO minute_numbers VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
    n = n + excluded.n, total = total + excluded.total, log_total = log_total + excluded.log_total,
    log_squares = log_squares + excluded.log_squares, highest = max(highest, excluded.highest)"""
ADD_TOTAL = """INSERT INTO totals VALUES (?, ?, ?)
    ON CONFLICT DO UPDATE SET rows = rows + excluded.rows, requests = requests + excluded.requests"""
ADD_TOTAL_NUMBER = """INSERT INTO total_numbers VALUES (?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET n = n + excluded.n, total = total + excluded.total"""
ADD_BUCKET = "INSERT INTO buckets VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n"


@dataclass(frozen=True)
class Columns:
    """What roll-ups need of the rows of one transaction.

    Attributes:
        minute, series: of each row, (N,).
        row: number within its request, (N,).
        numbers: by name, (N,), NaN where there is none.
    """

    minute: Array
    series: Array
    row: Array
    numbers: dict[str, Array]


def add_rollups(connection: sqlite3.Connection, columns: Columns) -> None:
    """Add rows to the sums; a number that is not finite counts as absent."""
    joined, places = np.unique(columns.minute * MOST_NUMBERS + columns.series, return_inverse=True)
    keys = np.stack([joined // MOST_NUMBERS, joined % MOST_NUMBERS])
    series, own = np.unique(columns.series, return_inverse=True)
    rows, requests = np.bincount(places), np.bincount(places, columns.row == 0)
    connection.executemany(ADD_MINUTE, _plain(*keys, rows, requests.astype(int)))
    all_requests = np.bincount(own, columns.row == 0).astype(int)
    connection.executemany(ADD_TOTAL, _plain(series, np.bincount(own), all_requests))
    for number, name in enumerate(ROLLED):
        values = columns.numbers[name]
        there = np.isfinite(values)
        if there.any():
            _add_number(connection, number, values[there], keys, places[there], series, own[there])


def _add_number(
    connection: sqlite3.Connection, name: int, values: Array, keys: Array, places: Array, series: Array, own: Array
) -> None:
    logs = np.log(np.maximum(values, LEAST))
    counts = np.bincount(places, minlength=keys.shape[1])
    highest = np.full(len(counts), -np.inf)
    np.maximum.at(highest, places, values)
    sums = [np.bincount(places, weights, len(counts)) for weights in (values, logs, logs * logs)]
    some = counts > 0
    named = np.full(some.sum(), name)
    parts = [part[some] for part in (counts, *sums, highest)]
    connection.executemany(ADD_MINUTE_NUMBER, _plain(*keys[:, some], named, *parts))
    counts = np.bincount(own, minlength=len(series))
    some = counts > 0
    totals = np.bincount(own, values, len(series))
    connection.executemany(
        ADD_TOTAL_NUMBER, _plain(series[some], np.full(some.sum(), name), counts[some], totals[some])
    )
    buckets = np.searchsorted(EDGES[ROLLED[name]], values)  # the first edge that is no smaller
    pairs, n = np.unique(own * MOST_NUMBERS + buckets, return_counts=True)
    of, bucket = series[pairs // MOST_NUMBERS], pairs % MOST_NUMBERS
    connection.executemany(ADD_BUCKET, _plain(of, np.full(len(n), name), bucket, n))


def _plain(*columns: Array) -> zip[tuple[object, ...]]:
    """Rows of Python's own numbers, which SQLite takes."""
    return zip(*(column.tolist() for column in columns), strict=True)
