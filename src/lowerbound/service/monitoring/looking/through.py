"""Rows through a version in this process: the facts that a server would have recorded of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lowerbound.service.monitoring.telemetry.fact import Array, Fact
from lowerbound.service.serving.deployment import Deployment
from lowerbound.service.serving.facts import known_of
from lowerbound.service.serving.settings import NONE

AT_ONCE = 256  # rows


def facts_through(
    deployment: Deployment,
    rows: Array,
    times: Sequence[float],
    requests: Sequence[str],
    *,
    alias: str = "stable",
    labels: Array | None = None,
    gate: bool = True,
) -> list[Fact]:
    """One fact for each row, as if each had been a request to score it.

    Args:
        deployment: the version.
        rows: raw, (N, *event).
        times: of the requests, seconds since 1970.
        requests: their ids.
        alias: that they are said to have come by.
        labels: for a conditional model, (N,).
        gate: whether the version's gate is asked; else every row passes.
    """
    found: list[Fact] = []
    for start in range(0, len(rows), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        some = None if labels is None else labels[part]
        found += _some(deployment, rows[part], times[part], requests[part], alias, some, gate)
    return found


def _some(
    deployment: Deployment,
    rows: Array,
    times: Sequence[float],
    requests: Sequence[str],
    alias: str,
    labels: Array | None,
    gate: bool,
) -> list[Fact]:
    real = np.ascontiguousarray(rows, np.float32)
    statistics = [deployment.judge.statistics(row) for row in real] if deployment.contract.pictures else []
    reasons = [_refusal(deployment, *each) for each in statistics] if gate and statistics else [""] * len(rows)
    passed = np.array([not reason for reason in reasons], bool)
    arrays = {"rows": real[passed]}
    if labels is not None:
        arrays["label"] = np.asarray(labels, np.int64)[passed]
    outputs = deployment.compute("facts", arrays, NONE) if passed.any() else {}
    known, places, made = known_of(outputs, deployment.contract), np.cumsum(passed) - 1, []
    for index, reason in enumerate(reasons):
        found = {} if reason else {name: values[places[index]] for name, values in known.items()}
        made.append(
            Fact(
                time=times[index],
                request=requests[index],
                model=deployment.version.name,
                version=deployment.version.hash,
                alias=alias,
                verb="score",
                status=422 if reason else 200,
                reason=reason,
                gate=reason or "passed",
                pixels=np.array([*statistics[index][0], *statistics[index][1]], np.float32) if statistics else None,
                input=rows[index],
                **found,
            )
        )
    return made


def _refusal(deployment: Deployment, means: list[float], variances: list[float]) -> str:
    """The gate's reason to refuse a picture with these statistics, empty if it passes."""
    judge = deployment.judge
    if judge.flat < 0:
        return ""
    if max(variances) < judge.flat:
        return "flat" if any(means) else "black"
    return "colour" if judge.unlike(means, variances) is not None else ""
