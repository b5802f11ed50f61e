"""Directions of attributes in the space of codes: what rows with an attribute have that others lack."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from lowerbound.errors import UsageError
from lowerbound.lab.generation import use
from lowerbound.lab.generation.paths import continuous_groups
from lowerbound.model.families.family import Family, Latents
from lowerbound.model.spec import Context

Way = Literal["means", "logistic"]


def attribute_direction(
    model: Family,
    having: Tensor,
    lacking: Tensor,
    way: Way = "means",
    context: Context | None = None,
    lacking_context: Context | None = None,
) -> Latents:
    """The step in each continuous group of codes that adds an attribute, (*units) each.

    "means" is the difference of the mean codes (White 2016; Larsen et al. 2016). "logistic" is the normal of a logistic
    regression's boundary, with the length of that difference along it: it ignores what differs only because it varies
    anyway. In both, strength 1 goes from the middle of those that lack it as far as the middle of those that have it.

    Args:
        model: in evaluation mode.
        having, lacking: raw rows with and without the attribute, (N, *event).
        way: "means" or "logistic".
        context, lacking_context: of these rows, for a conditional model.

    Raises:
        NotSupportedError: all codes of the model are discrete.
        UsageError: an empty set of rows.
    """
    if not len(having) or not len(lacking):
        raise UsageError(
            f"{len(having)} rows with the attribute and {len(lacking)} without were given; give at least one of each."
        )
    present, absent = use.encode(model, having, context), use.encode(model, lacking, lacking_context)
    return {name: _direction(present[name], absent[name], way) for name in continuous_groups(present)}


def edit(
    model: Family,
    raw: Tensor,
    direction: Latents,
    strengths: Sequence[float] = (-1.0, 0.0, 1.0, 2.0),
    context: Context | None = None,
) -> Tensor:
    """Rows moved along a direction by each strength and decoded, (B, strengths, *event), raw values.

    Args:
        model: in evaluation mode.
        raw: rows, (B, *event).
        direction: by group, from `attribute_direction` or of one's own: codes add and subtract.
        strengths: 0 is the reconstruction.
        context: of the rows, for a conditional model.
    """
    codes = moved(model, raw, direction, strengths, context)
    known = None if context is None else context.select(torch.arange(len(raw)).repeat_interleave(len(strengths)))
    rows = use.decode(model, {name: code.flatten(0, 1) for name, code in codes.items()}, known)
    return rows.unflatten(0, (len(raw), len(strengths)))


@torch.no_grad()
def moved(
    model: Family, raw: Tensor, direction: Latents, strengths: Sequence[float], context: Context | None = None
) -> Latents:
    """The codes of an edit by group, (B, strengths, *units); arguments are those of `edit`."""
    if not len(strengths):
        raise UsageError("no strengths were given; give at least one.")
    codes = use.encode(model, raw, context)
    amounts = torch.tensor(list(strengths), dtype=torch.float32)
    every: Latents = {}
    for name, code in codes.items():
        spread = code.repeat_interleave(len(amounts), dim=0)
        if name in direction:
            steps = amounts.repeat(len(raw)).reshape(-1, *(1,) * (code.ndim - 1))
            spread = spread + steps * direction[name].to(spread)
        every[name] = spread.unflatten(0, (len(raw), len(amounts)))
    return every


def _direction(having: Tensor, lacking: Tensor, way: Way) -> Tensor:
    difference = having.mean(dim=0) - lacking.mean(dim=0)
    if way == "means":
        return difference
    # One scale for all units: a scale for each would blow up units that carry nothing.
    codes = torch.cat([having, lacking]).flatten(1).double()
    scale = codes.std().clamp_min(1e-6)
    labels = [1] * len(having) + [0] * len(lacking)
    fitted = LogisticRegression(max_iter=1000, class_weight="balanced").fit((codes / scale).numpy(), labels)
    normal = torch.from_numpy(fitted.coef_[0])
    normal = normal / normal.norm().clamp_min(1e-12)
    return ((difference.flatten().double() @ normal) * normal).reshape(difference.shape).to(difference.dtype)
