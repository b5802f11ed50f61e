"""What is behind a look: causes with shares, drifted directions decoded by the model, and the requests that show it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import betabinom
from torch import Tensor

from lowerbound.errors import DataError, LowerboundError, TooFewError
from lowerbound.lab.generation import use
from lowerbound.lab.reference import Reference
from lowerbound.model.families.family import Family
from lowerbound.service.monitoring.drift.attribution import LEVEL, Attributor
from lowerbound.service.monitoring.drift.window import Array
from lowerbound.service.monitoring.incidents import SHOWN, Cause
from lowerbound.service.monitoring.looking.baseline import Baseline
from lowerbound.service.monitoring.looking.look import SHOWS_NOTHING, Look
from lowerbound.service.monitoring.looking.stretch import Stretch

REQUESTS = 10_000  # that an investigation looks at
STEPS, REACH = 7, 3.0  # of a decoded direction: pictures, and deviations to either side
UNITS = 3  # that are drawn, of those that drifted
PICTURES = 8  # of inputs for each cause
SEES = {"black": "black inputs", "flat": "flat inputs"}
Inputs = Callable[[Array], dict[int, Array]]


@dataclass(frozen=True, eq=False)
class Direction:
    """A way through the codes along which requests moved, decoded.

    Attributes:
        label: what it is.
        moved: how far the mean of the requests moved along it, in deviations of ordinary ones.
        spread: the requests' deviation along it, over that of ordinary ones.
        values: of the pictures, in the same deviations; 0 is the ordinary mean, (S,).
        rows: decoded, (S, *event), raw values.
    """

    label: str
    moved: float
    spread: float
    values: Array
    rows: Tensor


@dataclass(frozen=True, eq=False)
class Shown:
    """Real inputs that show a cause.

    Attributes:
        name: of the cause.
        rows: raw, (M, *event).
        made: what the model makes of them, (M, *event).
    """

    name: str
    rows: Tensor
    made: Tensor


@dataclass(frozen=True, eq=False)
class Explanation:
    """What is behind a look.

    Attributes:
        requests: that were looked at.
        causes: the largest first.
        directions: decoded; empty where no unit drifted, or the model cannot decode without a label.
        shown: inputs, where they are kept.
        unsaid: what cannot be said, and why.
    """

    requests: int
    causes: tuple[Cause, ...]
    directions: tuple[Direction, ...]
    shown: tuple[Shown, ...]
    unsaid: dict[str, str]

    def said(self) -> str:
        """The causes, for a person."""
        if not self.causes:
            return f"no group of the {self.requests:,} requests stands out."
        parts = [f"{cause.name} {cause.share:.1%} ± {cause.stderr:.1%}" for cause in self.causes]
        return f"of {self.requests:,} requests: {', '.join(parts)}."


def explain(
    look: Look,
    stretch: Stretch,
    baseline: Baseline,
    attributor: Attributor | None,
    model: Family,
    reference: Reference,
    inputs: Inputs,
) -> Explanation:
    """Find causes and draw what moved.

    Args:
        look: that alarmed.
        stretch: requests to look at, at most 10,000.
        baseline: what they are compared with.
        attributor: made with it; None where there can be none.
        model: that decodes.
        reference: of its version, which knows how codes lie side by side.
        inputs: raw inputs by id of the rows that are asked for, those that were kept.
    """
    unsaid: dict[str, str] = {}
    causes, rows = _causes(stretch, baseline, attributor, unsaid)
    directions: tuple[Direction, ...] = ()
    if stretch.window is not None and stretch.window.points is not None and baseline.window.points is not None:
        try:
            directions = _directions(look, stretch.window.points, baseline.window.points, model, reference)
        except LowerboundError as error:
            unsaid["directions"] = str(error)
    shown = _shown(causes, rows, stretch, model, inputs, unsaid)
    return Explanation(stretch.asked, causes, directions, shown, unsaid)


def _causes(
    stretch: Stretch, baseline: Baseline, attributor: Attributor | None, unsaid: dict[str, str]
) -> tuple[tuple[Cause, ...], dict[str, Array]]:
    """Causes, and which known rows show each."""
    found = _refused(stretch, baseline)
    rows: dict[str, Array] = {}
    passed = len(stretch) / max(1, stretch.asked)
    if attributor is None or stretch.window is None:
        unsaid["causes among answered requests"] = "codes and errors of at least 200 ordinary requests are needed."
    else:
        try:
            for cause in attributor.attribute(stretch.window).causes:
                requests = tuple(stretch.request[cause.rows[:SHOWN]].tolist())
                name = _unused(cause.name, rows)
                found.append(Cause(name, cause.share * passed, cause.stderr * passed, requests))
                rows[name] = cause.rows
        except (DataError, TooFewError) as error:
            unsaid["causes among answered requests"] = str(error)
    return tuple(sorted(found, key=lambda cause: -cause.share)), rows


def _refused(stretch: Stretch, baseline: Baseline) -> list[Cause]:
    """What the gate refused more often than chance explains beside the baseline, by its reason."""
    rows = baseline.window.size + sum(baseline.refused.values())
    found = []
    for reason, count in stretch.reasons.items():
        share, before = count / stretch.asked, baseline.refused.get(reason, 0)
        stderr = float(np.sqrt(share * (1 - share) / stretch.asked))
        if count > betabinom.isf(LEVEL, stretch.asked, before + 1, rows - before + 1):
            name = SEES.get(reason, f"inputs refused as `{reason}`")
            found.append(Cause(f"{name}, refused" if reason in SHOWS_NOTHING else name, share, stderr))
    return found


def _unused(name: str, known: dict[str, Array]) -> str:
    number = 1 + sum(other.startswith(name) for other in known)
    return name if number == 1 else f"{name} ({number})"


def _directions(
    look: Look, points: Array, ordinary: Array, model: Family, reference: Reference
) -> tuple[Direction, ...]:
    mean, deviation = ordinary.mean(axis=0), np.maximum(ordinary.std(axis=0), 1e-9)
    seen, known = (points - mean) / deviation, (ordinary - mean) / deviation
    start = int(np.argmin((known**2).sum(axis=1)))
    found: list[tuple[str, Array]] = []
    alarms = {verdict.detector: verdict for verdict in look.verdicts if verdict.alarm}
    shift = seen.mean(axis=0)
    if {"latent, unit by unit", "aggregate posterior"} & alarms.keys():
        found.append(("where the mean of all units moved", shift))
    if verdict := alarms.get("latent, unit by unit"):
        units = [int(finding.label.split()[1]) for finding in verdict.findings[:UNITS]]
        found += [(f"unit {unit}", np.eye(len(mean))[unit]) for unit in units]
    if "latent, together" in alarms:
        change = np.cov(seen.T) - np.cov(known.T)
        values, vectors = np.linalg.eigh(change.reshape(len(mean), -1))
        found.append(("where the spread changed most", vectors[:, int(np.argmax(np.abs(values)))]))
    return tuple(
        _direction(label, way, seen, known, ordinary[start], deviation, model, reference) for label, way in found
    )


def _direction(
    label: str, way: Array, seen: Array, known: Array, start: Array, deviation: Array, model: Family,
    reference: Reference,
) -> Direction:  # fmt: skip
    size = float(np.linalg.norm(way))
    way = way / size if size > 0 else way
    along, before = seen @ way, known @ way
    unit = max(float(before.std()), 1e-9)
    values = np.linspace(-REACH, REACH, STEPS)
    codes = start + values[:, None] * unit * way * deviation
    rows = use.decode(model, _grouped(torch.from_numpy(codes).float(), reference))
    return Direction(label, float((along.mean() - before.mean()) / unit), float(along.std() / unit), values, rows)


def _grouped(points: Tensor, reference: Reference) -> dict[str, Tensor]:
    """Points side by side as codes by group; discrete groups as in the reference's first row."""
    found, at, place = {}, 0, 0
    for name, shape in reference.groups.items():
        size = int(np.prod(shape)) if shape else 1
        if name in reference.discrete:
            indices = reference.indices[:1, place : place + size].long()
            found[name], place = indices.expand(len(points), -1).reshape(-1, *shape), place + size
        else:
            found[name], at = points[:, at : at + size].reshape(-1, *shape), at + size
    return found


def _shown(
    causes: tuple[Cause, ...],
    rows: dict[str, Array],
    stretch: Stretch,
    model: Family,
    inputs: Inputs,
    unsaid: dict[str, str],
) -> tuple[Shown, ...]:
    """Inputs of each cause; without causes those with the largest errors."""
    chosen = {cause.name: rows[cause.name] for cause in causes if cause.name in rows}
    if not chosen and stretch.window is not None and stretch.window.errors is not None:
        chosen = {"the largest errors": np.argsort(-stretch.window.errors)}
    wanted = np.unique(np.concatenate([stretch.id[places] for places in chosen.values()])) if chosen else np.zeros(0)
    kept = inputs(wanted) if len(wanted) else {}
    if chosen and not kept:
        unsaid["inputs"] = "none are kept: serve with `--privacy sample`."
    found = []
    for name, places in chosen.items():
        there = _different([kept[row] for row in stretch.id[places].tolist() if row in kept])
        if there:
            raw = torch.from_numpy(np.stack(there))
            try:
                found.append(Shown(name, raw, use.reconstruct(model, raw.float())))
            except LowerboundError as error:
                unsaid["reconstructions"] = str(error)
    return tuple(found)


def _different(rows: list[Array]) -> list[Array]:
    """The first rows that are no repetitions."""
    return list({row.tobytes(): row for row in reversed(rows)}.values())[::-1][:PICTURES]
