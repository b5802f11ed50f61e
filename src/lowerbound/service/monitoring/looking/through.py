"""Rows through a version in this process: the facts that a server would have recorded of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lowerbound.service.monitoring.telemetry.fact import Array, Fact
from lowerbound.service.serving.deployment import Deployment
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
    means = [deployment.judge.statistics(row) for row in real]
    reasons = [_refusal(deployment, *each) if gate else "" for each in means]
    passed = np.array([not reason for reason in reasons], bool)
    arrays = {"rows": real[passed]}
    if labels is not None:
        arrays["label"] = np.asarray(labels, np.int64)[passed]
    outputs = deployment.compute("facts", arrays, NONE) if passed.any() else {}
    place, made = -1, []
    for index, reason in enumerate(reasons):
        place += not reason
        known = {} if reason else {name: values[place] for name, values in outputs.items()}
        made.append(
            Fact(
                time=times[index],
                request=requests[index],
                model=deployment.name,
                version=deployment.version.hash,
                alias=alias,
                verb="score",
                status=422 if reason else 200,
                reason=reason,
                gate=reason or "passed",
                error=_number(known, "error"),
                rate=_number(known, "rate"),
                rates=known.get("rates"),
                code=_code(known, deployment),
                pixels=np.array([*means[index][0], *means[index][1]]) if deployment.contract.pictures else None,
                norm=_number(known, "norm"),
                p_value=_number(known, "p_value"),
                input=rows[index],
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


def _number(known: dict[str, Array], name: str) -> float | None:
    return float(known[name]) if name in known else None


def _code(known: dict[str, Array], deployment: Deployment) -> Array | None:
    """All groups side by side."""
    parts = [np.asarray(known[name]).reshape(-1) for name in deployment.contract.latents if name in known]
    return np.concatenate(parts) if parts else None
