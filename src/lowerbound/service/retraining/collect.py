"""Rows to retrain on: those of requests, and those of the data before, in the shares that a plan says."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from lowerbound.errors import DataError
from lowerbound.lab.data.collected import Collected, join
from lowerbound.lab.reference import input_statistics
from lowerbound.model.spec import Context, DataSpec
from lowerbound.service.monitoring.telemetry.history import Choice, History
from lowerbound.service.retraining.parent import Parent, points_of
from lowerbound.service.retraining.plan import PRODUCTION, Plan

PASSED = ("passed", "")  # what the gate says of rows that may be learnt from; "" where it was not asked
PARTS = (0.7, 0.8)  # of requests: the ends of training and validation
FLAT = 0.1  # of the least variance of an ordinary picture, below which one shows nothing
CLIP = 20.0  # times the mean, the largest weight of a row by its ratio of densities
SPREAD = 2**32


@dataclass(frozen=True)
class Requests:
    """Inputs of requests, and what was left out of them.

    Attributes:
        raw: (N, *event), of the type of the data before.
        seen: inputs that were kept within the window.
        left_out: how many, by reason.
    """

    raw: Tensor
    seen: int
    left_out: dict[str, int]


def collect(
    parent: Parent, history: History, plan: Plan, since: float, until: float, frozen: Collection[bytes] = ()
) -> Collected:
    """The rows that a candidate is trained, calibrated and judged on.

    Requests that the gate refused, that failed, that are flat, that repeat an earlier one or a row of the data before,
    or that are no rows of the model's kind, are left out. Which part a request goes to depends on nothing but its
    content, so that it is the same in every retraining.

    Args:
        parent: to go on from.
        history: of telemetry with inputs.
        plan: how.
        since, until: window of the requests, seconds since 1970.
        frozen: digests of the rows of the suite, none of which may be trained on.

    Raises:
        DataError: too few requests are left, or the data before are gone.
    """
    before = parent.rows(plan)
    suite = set(frozen)
    old = [digest(row) for row in before.raw]
    apart = torch.tensor([part < 2 and own in suite for part, own in zip(before.part.tolist(), old, strict=True)])
    before = before.select(~apart)
    found = requests(parent, history, plan, since, until, before.raw, set(old) | suite)
    if len(found.raw) < plan.least:
        without = ", ".join(f"{count:,} {reason}" for reason, count in found.left_out.items() if count) or "none"
        raise DataError(
            f"{found.seen:,} requests of {parent.version.name} kept their input from {_text(since)} to {_text(until)}, "
            f"and {len(found.raw):,} of them can be learnt from (left out: {without}), but {plan.least:,} are needed; "
            "keep inputs with `--privacy sample`, look back further, or wait."
        )
    name = f"{PRODUCTION} {datetime.fromtimestamp(until, UTC):%Y-%m-%dT%H:%M}"
    new = _as_collected(found.raw, name, before.spec)
    mixed, told = weigh(join([before, new], {}), name, parent, plan)
    about = {
        "model": parent.version.name,
        "parent": {"number": parent.version.number, "hash": parent.version.hash},
        "requests": name,
        "since": since,
        "until": until,
        "seen": found.seen,
        "left_out": {**found.left_out, "of the data before, because they are in the suite": int(apart.sum())},
        **told,
    }
    return replace(mixed, about=about)


def requests(
    parent: Parent, history: History, plan: Plan, since: float, until: float, like: Tensor, known: Collection[bytes]
) -> Requests:
    """The inputs of a window that can be learnt from.

    Args:
        parent, history, plan, since, until: as above.
        like: rows of the data before, whose type and shape inputs must have.
        known: digests of rows that are no news.
    """
    raw = _inputs(history, parent.version.name, since, until, plan.newest)
    left_out = {"no rows of this model": 0, "flat": 0, "repeated": 0, "known": 0}
    if tuple(raw.shape[1:]) != tuple(like.shape[1:]):
        left_out["no rows of this model"] = len(raw)
        return Requests(like[:0], len(raw), left_out)
    with np.errstate(invalid="ignore"):  # what has no place in the other type is found in the next line
        whole = torch.from_numpy(raw.astype(like.numpy().dtype))
    fits = torch.from_numpy(np.asarray(whole.numpy() == raw)).flatten(1).all(dim=1) | _gaps(whole, parent)
    flat = _flat(whole, parent)
    keep, seen = [], set(known)
    for place, row in enumerate(whole):
        own = digest(row)
        reason = (
            "no rows of this model" if not fits[place] else "flat" if flat[place] else "known" if own in seen else ""
        )
        if reason == "known" and own not in known:
            reason = "repeated"
        if reason:
            left_out[reason] += 1
        else:
            keep.append(place)
            seen.add(own)
    return Requests(whole[torch.tensor(keep, dtype=torch.long)], len(raw), left_out)


def weigh(mixed: Collected, name: str, parent: Parent, plan: Plan) -> tuple[Collected, dict[str, Any]]:
    """The rows with the weights that give each slice its share of a batch, and what they are."""
    train = mixed.part == 0
    ratio = torch.ones(len(mixed.raw), dtype=torch.float64)
    told: dict[str, Any] = {"weighting": {"kind": plan.weighting}}
    if plan.weighting == "density-ratio":
        old = train & (mixed.slice != mixed.slices.index(name))
        ratio[old] = density_ratio(
            points_of(parent.model, mixed.select(train & ~old)), points_of(parent.model, mixed.select(old))
        )
        used = ratio[old]
        told["weighting"]["effective_rows"] = float(used.sum() ** 2 / used.square().sum())
    named = {name if key == PRODUCTION else key: share for key, share in plan.shares.items()}
    if unknown := sorted(named.keys() - set(mixed.slices)):
        raise DataError(f"the plan gives a share to {unknown[0]!r}; the slices are: {', '.join(mixed.slices)}.")
    weight = torch.zeros_like(ratio)
    rest = train.clone()
    for key, share in named.items():
        own = train & (mixed.slice == mixed.slices.index(key))
        weight[own] = share * ratio[own] / ratio[own].sum()
        rest &= ~own
    if bool(rest.any()):
        weight[rest] = (1 - sum(named.values())) * ratio[rest] / ratio[rest].sum()
    total = weight.sum()
    told["shares"] = {key: float(weight[mixed.slice == place].sum() / total) for place, key in enumerate(mixed.slices)}
    return replace(mixed, weight=weight), told


def density_ratio(new: Tensor, old: Tensor) -> Tensor:
    """p_new / p_old at old points (N, D), (N,), at most 20 times its mean.

    By logistic regression of new points (M, D) against old ones (Sugiyama et al. 2012, section 4.2).
    """
    points = torch.cat([new, old]).double().numpy()
    labels = np.repeat([1, 0], [len(new), len(old)])
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000)).fit(points, labels)
    odds = np.exp(classifier.decision_function(points[len(new) :])) * len(old) / len(new)
    ratio = torch.from_numpy(odds)
    return ratio.clamp_max(CLIP * float(ratio.mean()))


def digest(row: Tensor) -> bytes:
    """Of a raw row's content."""
    return hashlib.blake2b(row.contiguous().numpy().tobytes(), digest_size=16).digest()


def _inputs(history: History, name: str, since: float, until: float, newest: int) -> Any:
    """The newest inputs that were answered and that the gate let pass, oldest first."""
    found = [
        history.inputs(Choice(since=since, until=until, model=name, gate=gate, answered=True, newest=newest))
        for gate in PASSED
    ]
    kept = [(ids, rows) for ids, rows in found if len(ids)]
    if not kept:
        return np.zeros((0,))
    if len({(rows.shape[1:], rows.dtype.str) for _, rows in kept}) > 1:
        raise DataError(f"the inputs of {name} have several shapes or types; choose a window of one kind.")
    ids, rows = np.concatenate([ids for ids, _ in kept]), np.concatenate([rows for _, rows in kept])
    return rows[np.argsort(ids, kind="stable")[-newest:]]


def _as_collected(raw: Tensor, name: str, spec: DataSpec) -> Collected:
    places = torch.tensor([int.from_bytes(digest(row)[:4], "little") / SPREAD for row in raw], dtype=torch.float64)
    count = len(raw)
    absent = Context(torch.zeros(count, spec.context), torch.zeros(count, dtype=torch.bool)) if spec.context else None
    return Collected(
        raw=raw,
        part=torch.bucketize(places, torch.tensor(PARTS, dtype=torch.float64), right=True).to(torch.uint8),
        slice=torch.zeros(count, dtype=torch.long),
        slices=(name,),
        weight=torch.ones(count, dtype=torch.float64),
        spec=spec,
        context=absent,
    )


def _flat(raw: Tensor, parent: Parent) -> Tensor:
    """Which pictures vary by less than a tenth of what the flattest ordinary ones vary by, (N,)."""
    found = input_statistics(raw, parent.run.data_spec())
    names = [name for name in found if name.startswith("pixel_variance")]
    if not names:
        return torch.zeros(len(raw), dtype=torch.bool)
    known = parent.version.calibration().scores
    limit = FLAT * max(float(known[name][0]) for name in names)
    return torch.stack([found[name] for name in names]).amax(dim=0) <= limit


def _gaps(whole: Tensor, parent: Parent) -> Tensor:
    """Rows of tables with missing values, which are rows all the same, (N,)."""
    if parent.run.data_spec().columns:
        return whole.isnan().flatten(1).any(dim=1)
    return torch.zeros(len(whole), dtype=torch.bool)


def _text(time: float) -> str:
    return f"{datetime.fromtimestamp(time, UTC):%Y-%m-%dT%H:%MZ}"
