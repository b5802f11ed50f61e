"""What telemetry says of traffic: how much, how fast, what was refused, and whether averages stay within their band."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowerbound.app.web.plain import numbers
from lowerbound.errors import DataError
from lowerbound.service.monitoring.drift.rolling import BASELINE, FEWEST, WIDTH_S, Rule
from lowerbound.service.monitoring.telemetry.fact import IDLE
from lowerbound.service.monitoring.telemetry.history import Choice, History, Minutes

Array = NDArray[Any]
NEWEST = 256  # requests of a span that percentiles are of
LEAST_TIMED = 10  # requests, below which a span has no percentiles
LEARNT_S = 8 * 86400.0  # of the past, that a band may be of
REASONS = 12  # that are shown


def starts_of(since: float, until: float, width: int) -> Array:
    """First minutes of the spans between two times."""
    return np.arange(int(since // 60) // width * width, math.ceil(until / 60), width)


def traffic(history: History, choice: Choice, width: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Rows over time by what became of them, and in all by the reason why they were not answered.

    Args:
        history: of the store.
        choice: of the model and the time.
        width: of a span, minutes.

    Returns:
        Rows in each span: answered by alias, refused, failed, and scored in idle moments, which nobody asked for; and
        rows that were asked for, and lost by reason.
    """
    starts = starts_of(choice.since, choice.until, width)
    answered: dict[str, Array] = {}
    refused, failed, aside = (np.zeros(len(starts), int) for _ in range(3))
    lost: Counter[tuple[str, int]] = Counter()
    asked = 0
    for labels, minutes, rows in history.counts(replace(choice, idle=True), width):
        alias, status, spans = labels["alias"], labels["status"], _on(starts, minutes, rows)
        if labels["verb"] == IDLE:
            aside += spans
            continue
        asked += int(rows.sum())
        if status < 400:
            answered[alias or "pinned"] = answered.get(alias or "pinned", 0) + spans
        else:
            (failed if status >= 500 else refused)[:] += spans
            lost[labels["reason"] or str(status), status] += int(rows.sum())
    over_time = {
        "time": numbers(starts * 60),
        "width_s": 60 * width,
        "until": 60 * math.ceil(choice.until / 60),
        "answered": {alias: numbers(spans) for alias, spans in sorted(answered.items(), reverse=True)},
        "refused": numbers(refused),
        "failed": numbers(failed),
        "aside": numbers(aside),
    }
    return over_time, {
        "asked": asked,
        "lost": lost.total(),
        "failed": sum(rows for (_, status), rows in lost.items() if status >= 500),
        "reasons": [
            {"reason": reason, "status": status, "rows": rows} for (reason, status), rows in lost.most_common(REASONS)
        ],
    }


def latency(history: History, choice: Choice, width: int) -> dict[str, Any]:
    """Percentiles of the newest requests of each span, and what they waited and were computed on average; ms."""
    starts = starts_of(choice.since, choice.until, width)
    spans = Choice(since=60.0 * starts[0], until=60.0 * (starts[-1] + width), model=choice.model, answered=True)
    found = history.times(spans, len(starts), NEWEST)
    lines: dict[str, list[float]] = {"p50": [], "p99": [], "queue": [], "compute": []}
    order = np.searchsorted(found["span"], np.arange(len(starts) + 1))
    for first, last in zip(order[:-1], order[1:], strict=True):
        total = found["total_s"][first:last]
        total = total[np.isfinite(total)]
        enough = len(total) >= LEAST_TIMED
        p50, p99 = np.percentile(total, (50, 99)) if enough else (math.nan, math.nan)
        lines["p50"].append(1e3 * p50)
        lines["p99"].append(1e3 * p99)
        for name in ("queue", "compute"):
            values = found[f"{name}_s"][first:last]
            values = values[np.isfinite(values)]
            lines[name].append(1e3 * float(values.mean()) if enough and len(values) else math.nan)
    recent = found["total_s"][-NEWEST:]
    recent = recent[np.isfinite(recent)]
    return {
        "time": numbers(starts * 60),
        "newest": NEWEST,
        **{name: numbers(values) for name, values in lines.items()},
        "recent_p99": float(1e3 * np.percentile(recent, 99)) if len(recent) >= LEAST_TIMED else None,
    }


def rolling(history: History, choice: Choice) -> dict[str, dict[str, Any]]:
    """Averages of five minutes of the error and of the rate, with the band of the 3-sigma rule.

    The band is of the averages before the span that is shown, where there is a day of them, else of all.

    Args:
        history: of the store.
        choice: of one version, and of the time that is shown.
    """
    past = Choice(min(choice.since, choice.until - LEARNT_S), choice.until, choice.model, choice.version)
    rolled = history.minutes(past, int(WIDTH_S // 60), ("error", "rate"))
    shown = rolled.minute * 60 >= choice.since
    return {name: _averages(rolled, shown, name) for name in ("error", "rate")}


def _averages(rolled: Minutes, shown: Array, name: str) -> dict[str, Any]:
    mean, n = rolled.mean[name], rolled.n[name]
    enough = n >= FEWEST
    before = mean[enough & ~shown]
    baseline = before if len(before) >= BASELINE else mean[enough]
    found: dict[str, Any] = {
        "time": numbers(rolled.minute[shown] * 60),
        "mean": numbers(mean[shown]),
        "n": numbers(n[shown]),
        "fewest": FEWEST,
    }
    unknown = {**found, "low": None, "high": None, "alarms": [], "state": "unknown"}
    if len(baseline) < BASELINE:
        return {**unknown, "says": f"There is no band yet: it needs {BASELINE} of them, and there are {len(baseline)}."}
    try:
        rule = Rule(baseline)
    except DataError as error:
        return {**unknown, "says": str(error)}
    looks = [rule.update(value, count) for value, count in zip(mean[shown].tolist(), n[shown].tolist(), strict=True)]
    whole = looks[:-1] if looks and looks[-1].sigmas is None else looks  # the newest may have hardly begun
    low, high = math.exp(rule.centre - 3 * rule.scale), math.exp(rule.centre + 3 * rule.scale)
    alarms = [bool(look.alarm) for look in looks]
    return {
        **found,
        "low": low,
        "high": high,
        "alarms": alarms,
        "state": "alarm" if whole and whole[-1].alarm else "inside" if whole else "unknown",
        "says": f"The band is of {len(baseline):,} averages"
        + (", from before this span." if baseline is before else ", with those that are shown."),
    }


def _on(starts: Array, minutes: Array, rows: Array) -> Array:
    """Rows of the spans that have some, on all spans."""
    found = np.zeros(len(starts), int)
    inside = (minutes >= starts[0]) & (minutes <= starts[-1])
    found[np.searchsorted(starts, minutes[inside])] = rows[inside]
    return found
