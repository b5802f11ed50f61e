"""Ways through the latents: interpolations, traversals and the picture of a plane."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from lowerbound.errors import NotSupportedError, UsageError
from lowerbound.lab.generation import use
from lowerbound.model.distributions import tree
from lowerbound.model.families.family import Family, Latents
from lowerbound.model.spec import Context
from lowerbound.noise import BatchNoise, generator

Method = Literal["linear", "spherical"]
DRAWS = 4096  # from a prior whose moments or quantiles have no formula


@torch.no_grad()
def interpolate(
    model: Family,
    start: Tensor,
    end: Tensor,
    steps: int = 9,
    method: Method = "linear",
    context: Context | None = None,
    end_context: Context | None = None,
) -> Tensor:
    """The way from one row to another through their codes, decoded, (B, steps, *event), on the scale of raw values.

    "spherical" goes along a great circle (White 2016), which keeps to the shell where a Gaussian in many dimensions has
    its mass. A discrete group of latents jumps halfway. The first and last step are the reconstructions of both rows.

    Args:
        model: in evaluation mode.
        start, end: raw rows, (B, *event).
        steps: at least 2, both ends included.
        method: "linear" or "spherical".
        context: of the B starts, for a conditional model.
        end_context: of the ends; the starts' by default. In between, vectors are mixed linearly.

    Raises:
        UsageError: fewer than 2 steps, or not as many ends as starts.
        NotSupportedError: all codes of the model are discrete.
    """
    codes = way(model, start, end, steps, method, context, end_context)
    known = _mixed(context, end_context or context, torch.linspace(0, 1, steps))
    rows = use.decode(model, {name: code.flatten(0, 1) for name, code in codes.items()}, known)
    return rows.unflatten(0, (len(start), steps))


@torch.no_grad()
def way(
    model: Family,
    start: Tensor,
    end: Tensor,
    steps: int = 9,
    method: Method = "linear",
    context: Context | None = None,
    end_context: Context | None = None,
) -> Latents:
    """The codes of an interpolation by group, (B, steps, *units); arguments and errors are those of `interpolate`."""
    if steps < 2:
        raise UsageError(f"{steps} steps were asked for; an interpolation has at least 2, its two ends.")
    if len(start) != len(end):
        raise UsageError(f"{len(start)} starts and {len(end)} ends were given; give one end for each start.")
    before, after = use.encode(model, start, context), use.encode(model, end, end_context or context)
    continuous_groups(before)
    shares = torch.linspace(0, 1, steps)
    return {name: _between(before[name], after[name], shares, method) for name in before}


@torch.no_grad()
def traverse(
    model: Family,
    raw: Tensor | None = None,
    units: Sequence[int] | None = None,
    steps: int = 11,
    reach: float = 3.0,
    context: Context | None = None,
    group: str | None = None,
) -> Tensor:
    """One unit of a code at a time, moved through the prior and decoded, (B, units, steps, *event), raw values.

    A unit takes the values mean + t * sigma of the prior for t from -reach to reach; all others keep the row's.

    Args:
        model: in evaluation mode.
        raw: rows whose codes are moved from, (B, *event); None: one row, the mean of the prior.
        units: which ones, by their number in the flattened code; None: all.
        steps: values of a unit.
        reach: the outermost values, in standard deviations of the prior.
        context: of the rows (of one where `raw` is None), for a conditional model.
        group: of latents; the first continuous one by default.

    Raises:
        UsageError: a unit, group, reach or number of steps that does not exist.
        NotSupportedError: all codes of the model are discrete, or the prior of one of several groups has no own mean.
    """
    moved = traversal(model, raw, units, steps, reach, context, group)
    rows, chosen, _ = next(iter(moved.values())).shape[:3]
    known = None if context is None else context.select(torch.arange(rows).repeat_interleave(chosen * steps))
    flat = {name: code.flatten(0, 2) for name, code in moved.items()}
    return use.decode(model, flat, known).unflatten(0, (rows, chosen, steps))


@torch.no_grad()
def traversal(
    model: Family,
    raw: Tensor | None = None,
    units: Sequence[int] | None = None,
    steps: int = 11,
    reach: float = 3.0,
    context: Context | None = None,
    group: str | None = None,
) -> Latents:
    """The codes of a traversal by group, (B, units, steps, *units); arguments and errors are those of `traverse`."""
    if steps < 2 or not 0 < reach < math.inf:
        raise UsageError(f"{steps} steps to {reach} were asked for; give at least 2 steps and a finite reach above 0.")
    codes = prior_mean(model, context) if raw is None else use.encode(model, raw, context)
    name = _group(codes, group)
    shape, rows = codes[name].shape[1:], len(codes[name])
    chosen = _units(units, shape.numel())
    mean, sigma = prior_moments(model, raw, context, name, rows)
    values = torch.linspace(-reach, reach, steps)
    moved = codes[name].flatten(1)[:, None, None].repeat(1, len(chosen), steps, 1)
    for place, unit in enumerate(chosen):
        moved[:, place, :, unit] = mean[:, unit, None] + sigma[:, unit, None] * values
    count = len(chosen) * steps
    every = {other: code.repeat_interleave(count, dim=0) for other, code in codes.items()}
    every[name] = moved.reshape(rows * count, *shape)
    return {other: code.unflatten(0, (rows, len(chosen), steps)) for other, code in every.items()}


@torch.no_grad()
def manifold(model: Family, side: int = 20, context: Context | None = None) -> Tensor:
    """The plane of a model with two latents, (side, side, *event), raw values (Kingma & Welling 2014, figure 4).

    Codes lie on a grid of equal probability, the prior's inverse cdf at (i + 1/2) / side: exact for a Gaussian, from
    draws otherwise. The first unit grows to the right, the second upwards.

    Args:
        model: in evaluation mode.
        side: codes along each axis.
        context: of one row, for a conditional model.

    Raises:
        NotSupportedError: the model has no single group of two continuous latents.
        UsageError: no side.
    """
    if model.values or [tuple(shape) for shape in model.latents.values()] != [(2,)]:
        shapes = ", ".join(f"`{name}` of shape {list(shape)}" for name, shape in model.latents.items())
        raise NotSupportedError(
            f"the picture of a plane needs one group of two latents, and this model has {shapes or 'none'}; "
            "train one with model.latent = 2."
        )
    if side < 1:
        raise UsageError(f"a side of {side} was asked for; ask for at least 1.")
    (name,) = model.latents
    levels = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    right, up = _quantiles(priors(model, None, context)[name], levels).float().unbind(dim=1)
    grid = torch.stack([right.repeat(side), up.flip(0).repeat_interleave(side)], dim=1)
    known = None if context is None else context.select(torch.zeros(len(grid), dtype=torch.long))
    return use.decode(model, {name: grid}, known).unflatten(0, (side, side))


def continuous_groups(codes: Latents) -> list[str]:
    """The groups whose codes are real numbers.

    Raises:
        NotSupportedError: there are none.
    """
    found = [name for name, code in codes.items() if code.is_floating_point()]
    if not found:
        raise NotSupportedError(
            "all codes of this model are discrete (or it has none): there is nothing between two of them; "
            "use a model with continuous latents."
        )
    return found


def priors(model: Family, raw: Tensor | None, context: Context | None, count: int = 1) -> dict[str, Distribution]:
    """The prior of each group; of lower groups in a hierarchy, given draws of the groups above at these rows."""
    rows = torch.zeros(count, *model.data.event) if raw is None else raw
    device = use.device_of(model)
    noise = use.row_noise(0, 0, len(rows), device)
    x = model.preparation.prepare(rows.to(device), None)
    known = None if context is None else context.to(device)
    return {name: latent.p for name, latent in model.evidence(x, known, noise).latents.items()}


def prior_mean(model: Family, context: Context | None = None) -> Latents:
    """The mean of the prior as the code of one row.

    Raises:
        NotSupportedError: the model has several groups: the lower ones' means depend on the upper ones.
    """
    if len(model.latents) != 1:
        raise NotSupportedError(
            f"a model with {len(model.latents)} groups of latents has no one mean of its prior; start from a row."
        )
    (name,) = model.latents
    if not torch.is_floating_point(tree.point(priors(model, None, context)[name])):
        raise NotSupportedError("the codes of this model are discrete: its prior has no mean; start from a row.")
    mean, _ = prior_moments(model, None, context, name, 1)
    return {name: mean.reshape(1, *model.latents[name])}


def prior_moments(
    model: Family, raw: Tensor | None, context: Context | None, group: str, rows: int
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of a group's prior, each (rows, units), units flattened."""
    p = priors(model, raw, context)[group]
    try:
        mean, sigma = p.mean, p.variance.sqrt()
    except (NotImplementedError, AttributeError):
        drawn = draws_of(p)
        mean, sigma = drawn.mean(dim=0), drawn.std(dim=0)
    units = p.event_shape.numel()
    return tuple(value.cpu().reshape(-1, units).expand(rows, units) for value in (mean, sigma))  # type: ignore[return-value]


def draws_of(p: Distribution, count: int = DRAWS) -> Tensor:
    """Draws of a prior that is the same for all rows (or of the first row's), (count, *units); always the same ones."""
    shared = p if not p.batch_shape else tree.map_rows(p, lambda tensor, axis: tensor.narrow(axis, 0, 1))
    return tree.draw(shared, BatchNoise(0, 0, count, device=_device(shared)))[0].flatten(0, 1)


def _device(p: Distribution) -> torch.device:
    leaves = [leaf for leaf in torch.utils._pytree.tree_leaves(p) if isinstance(leaf, Tensor)]
    return leaves[0].device if leaves else torch.device("cpu")


def _quantiles(p: Distribution, levels: Tensor) -> Tensor:
    """The inverse cdf of each unit at the levels, (levels, units)."""
    if isinstance(p, Independent) and isinstance(p.base_dist, Normal):
        loc, scale = (value.double().cpu().reshape(-1, 2)[:1] for value in (p.base_dist.loc, p.base_dist.scale))
        return Normal(loc, scale).icdf(levels[:, None])
    return torch.quantile(draws_of(p, 4 * DRAWS).double().cpu(), levels, dim=0)


def _between(start: Tensor, end: Tensor, shares: Tensor, method: Method) -> Tensor:
    """Codes between two, (B, steps, *units)."""
    t = shares.reshape(1, -1, *(1,) * (start.ndim - 1))
    if not start.is_floating_point():
        return torch.where(t < 0.5, start[:, None], end[:, None])
    if method == "linear":
        return torch.lerp(start[:, None], end[:, None], t.to(start.dtype))
    return _along_circle(start, end, t)


def _along_circle(start: Tensor, end: Tensor, t: Tensor) -> Tensor:
    """(sin((1 - t) a) start + sin(t a) end) / sin(a), a the angle between them; a line where they are parallel."""
    one, other = start.flatten(1).double(), end.flatten(1).double()
    lengths = one.norm(dim=1) * other.norm(dim=1)
    angle = torch.arccos(((one * other).sum(dim=1) / lengths.clamp_min(1e-12)).clamp(-1, 1))
    angle = angle.reshape(-1, *(1,) * (t.ndim - 1))
    straight = (angle.sin() < 1e-6).expand_as(angle)
    safe = torch.where(straight, torch.ones_like(angle), angle)
    first = torch.where(straight, 1 - t.double(), ((1 - t) * safe).sin() / safe.sin())
    second = torch.where(straight, t.double(), (t * safe).sin() / safe.sin())
    return (first * start[:, None] + second * end[:, None]).to(start.dtype)


def _mixed(start: Context | None, end: Context | None, shares: Tensor) -> Context | None:
    """Contexts of all steps of all rows, row by row."""
    if start is None or end is None:
        return None
    t = shares[None, :, None]
    vectors = torch.lerp(start.vector[:, None].cpu(), end.vector[:, None].cpu(), t).flatten(0, 1)
    return Context(vectors, (start.present & end.present).cpu().repeat_interleave(len(shares)))


def _group(codes: Latents, group: str | None) -> str:
    """The group of latents that was asked for, or the first continuous one."""
    found = continuous_groups(codes)
    if group is not None and group not in found:
        raise UsageError(f"the group of latents `{group}` was asked for; this model's are {', '.join(found)}.")
    return found[0] if group is None else group


def _units(units: Sequence[int] | None, count: int) -> list[int]:
    """The units that were asked for, or all."""
    chosen = list(range(count)) if units is None else list(units)
    wrong = [unit for unit in chosen if not 0 <= unit < count]
    if wrong or not chosen:
        raise UsageError(f"the units {chosen} were asked for; the units of this code go from 0 to {count - 1}.")
    return chosen


def random_pairs(count: int, rows: int, seed: int = 0) -> Tensor:
    """Pairs of different rows, (count, 2), for pictures."""
    order = torch.randperm(rows, generator=generator(seed))
    return order[: 2 * min(count, rows // 2)].reshape(-1, 2)
