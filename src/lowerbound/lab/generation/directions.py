"""Directions of attributes in the space of codes: what rows with an attribute have that others lack."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lowerbound.errors import UsageError
from lowerbound.lab.generation import use
from lowerbound.lab.generation.paths import continuous_groups
from lowerbound.model.families.family import Family, Latents
from lowerbound.model.spec import Context


def mean_direction(
    model: Family,
    having: Tensor,
    lacking: Tensor,
    context: Context | None = None,
    lacking_context: Context | None = None,
) -> Latents:
    """The difference of the mean codes (White 2016; Larsen et al. 2016) in each continuous group, (*units) each.

    Args:
        model: in evaluation mode.
        having, lacking: raw rows with and without the attribute, (N, *event).
        context, lacking_context: of these rows, for a conditional model.

    Raises:
        NotSupportedError: all codes of the model are discrete.
        UsageError: an empty set of rows.
    """
    present, absent = codes_of_both(model, having, lacking, context, lacking_context)
    return {name: code.mean(dim=0) - absent[name].mean(dim=0) for name, code in present.items()}


def codes_of_both(
    model: Family, having: Tensor, lacking: Tensor, context: Context | None, lacking_context: Context | None
) -> tuple[Latents, Latents]:
    """The codes of continuous groups of rows with and without an attribute; arguments are those of `mean_direction`."""
    if not len(having) or not len(lacking):
        raise UsageError(
            f"{len(having)} rows with the attribute and {len(lacking)} without were given; give at least one of each."
        )
    present, absent = use.encode(model, having, context), use.encode(model, lacking, lacking_context)
    groups = continuous_groups(present)
    return {name: present[name] for name in groups}, {name: absent[name] for name in groups}


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
