"""Whether a model in training uses its latents, from a few held-out rows: what a guard looks at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lowerbound.errors import NotSupportedError
from lowerbound.lab.evaluation.aggregate import mutual_information
from lowerbound.lab.evaluation.latents import ACTIVE, DEAD, WEAK, Group, add
from lowerbound.model.distributions import tree
from lowerbound.model.families.family import Family, Latents
from lowerbound.model.spec import Context
from lowerbound.noise import Noise

TRAVERSED_ROWS, TRAVERSED_UNITS = 4, 8
REACH = 2.0  # standard deviations of the codes of all rows, to either side
UNKNOWN = math.nan


@dataclass(frozen=True)
class Usage:
    """How latents are used; NaN where a model has no such number.

    Attributes:
        bound: the ELBO, nats.
        rate: of all units, nats.
        largest_rate: of any unit, nats.
        dead, weak: units with a rate below 0.01 nats, and those from there to 0.1 nats.
        active: units whose posterior mean varies by more than 0.01 (Burda et al. 2016).
        information: mutual information of rows and codes, nats: the largest of any group.
        change: how much decoded values change along a unit, the largest of any unit, as a share of the difference
            between two rows of data.
    """

    bound: float
    rate: float
    largest_rate: float
    dead: float
    weak: float
    active: float
    information: float
    change: float


@torch.no_grad()
def usage(model: Family, batches: Sequence[tuple[Tensor, Context | None, Noise]]) -> Usage:
    """Look at the latents of prepared rows, with one draw per row.

    Args:
        model: in evaluation mode.
        batches: x, context and noise of some rows each.
    """
    groups: dict[str, Group] = {}
    bounds, rates = [], []
    for x, context, noise in batches:
        evidence = model.evidence(x, context, noise.child("usage"))
        try:
            bounds.append(evidence.elbo().double())
            rates.append(evidence.average(evidence.rate()).double())
        except NotSupportedError:
            pass
        add(groups, evidence)
    own = {name: group for name, group in groups.items() if group.draws.is_floating_point()}
    each = torch.cat([_unit_rates(group) for group in own.values()]) if own else torch.zeros(0)
    x, context, _ = batches[0]
    return Usage(
        bound=_mean(bounds),
        rate=_mean(rates),
        largest_rate=float(each.max()) if len(each) else UNKNOWN,
        dead=float((each < DEAD).sum()) if len(each) else UNKNOWN,
        weak=float(((each >= DEAD) & (each < WEAK)).sum()) if len(each) else UNKNOWN,
        active=float(sum(int((_spread(group) > ACTIVE).sum()) for group in own.values())) if own else UNKNOWN,
        information=max((_information(group) for group in own.values()), default=UNKNOWN),
        change=max((_change(model, x, context, name, group) for name, group in own.items()), default=UNKNOWN),
    )


def _mean(parts: list[Tensor]) -> float:
    return float(torch.cat(parts).mean()) if parts else UNKNOWN


def _unit_rates(group: Group) -> Tensor:
    """(units,), nats; empty where units are not independent."""
    return torch.cat(group.rates).double().mean(dim=0) if group.rates else torch.zeros(0, dtype=torch.float64)


def _spread(group: Group) -> Tensor:
    """Variance over rows of the posterior's point, (units,)."""
    return torch.cat([tree.point(q).flatten(1) for q in group.posteriors]).double().var(dim=0)


def _information(group: Group) -> float:
    try:
        return mutual_information(group)
    except NotSupportedError:
        return UNKNOWN


def _change(model: Family, x: Tensor, context: Context | None, name: str, group: Group) -> float:
    """The largest change along the units of a group that vary most, each from the low to the high end of its codes."""
    rows = min(TRAVERSED_ROWS, len(x))
    known = None if context is None else context.select(slice(0, rows))
    try:
        codes = model.encode(x[:rows], known)
    except NotSupportedError:
        return UNKNOWN
    if name not in codes:  # a group of a stack that is not decoded by itself
        return UNKNOWN
    draws = group.draws.flatten(1)
    middle, reach = draws.mean(dim=0), REACH * draws.std(dim=0)
    units = _spread(group).topk(min(TRAVERSED_UNITS, draws.shape[1])).indices.tolist()
    ends = [_decoded(model, codes, known, name, [(unit, (middle + sign * reach)[unit]) for unit in units])
            for sign in (-1, 1)]  # fmt: skip
    scale = float(_difference(x[1:], x[:-1]).mean()) if len(x) > 1 else UNKNOWN
    along = _difference(*ends).unflatten(0, (len(units), rows)).mean(dim=1)
    return float(along.max()) / scale if scale > 0 else UNKNOWN


def _decoded(
    model: Family, codes: Latents, context: Context | None, name: str, places: Sequence[tuple[int, Tensor]]
) -> Tensor:
    """Points of p(x|z) of all rows with one unit of a group moved to each place in turn, (places * B, *event)."""
    moved = []
    for unit, value in places:
        flat = codes[name].flatten(1).clone()
        flat[:, unit] = value
        moved.append(flat.reshape(codes[name].shape))
    count = len(places)
    latents = {key: torch.cat([value] * count) for key, value in codes.items()} | {name: torch.cat(moved)}
    known = context and Context(context.vector.repeat(count, 1), context.present.repeat(count))
    return tree.point(model.decode(latents, known))


def _difference(one: Tensor, other: Tensor) -> Tensor:
    """How far rows differ, (B,): mean absolute difference; of symbols, the share that differs."""
    if one.is_floating_point() or other.is_floating_point():
        far = (one.double() - other.double()).abs()
    else:
        far = (one != other).double()
    return far.flatten(1).nanmean(dim=1)
