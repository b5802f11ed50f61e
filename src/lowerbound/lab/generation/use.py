"""The verbs of a trained model on raw rows, a chunk at a time; each answer is independent of its batch-mates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.distributions import Distribution

from lowerbound.errors import UsageError
from lowerbound.model.distributions import tree
from lowerbound.model.families.family import Family, Latents
from lowerbound.model.spec import Context
from lowerbound.noise import Noise, RowNoise, Scaled, derive_seed

Observe = Literal["point", "sample"]
CHUNK_ROWS = 256


@torch.no_grad()
def sample(
    model: Family,
    count: int,
    seed: int = 0,
    context: Context | None = None,
    observe: Observe = "point",
    temperature: float = 1.0,
) -> Tensor:
    """Rows from the prior, (count, *event), on the scale of raw values; row i is a function of (seed, i).

    Args:
        model: in evaluation mode.
        count: rows to make.
        seed: of the draws.
        context: of `count` rows, for a conditional model.
        observe: "point" of p(x|z), or a "sample" of it.
        temperature: scales the standard deviation of latents.
    """

    def rows(start: int, stop: int) -> Tensor:
        noise = row_noise(seed, start, stop)
        known = None if context is None else context.select(slice(start, stop))
        px = model.sample(Scaled(noise, temperature) if temperature != 1 else noise, known)
        return _observe(model, px, noise, observe)

    return _in_chunks(count, rows)


@torch.no_grad()
def reconstruct(
    model: Family, raw: Tensor, context: Context | None = None, observe: Observe = "point", seed: int = 0
) -> Tensor:
    """Raw rows through the model and back, (B, *event), on the scale of raw values, from the posterior's point."""
    model.check(raw)

    def rows(start: int, stop: int) -> Tensor:
        known = None if context is None else context.select(slice(start, stop))
        x = model.preparation.prepare(raw[start:stop], None)
        px = model.decode(model.encode(x, known), known)
        return _observe(model, px, row_noise(seed, start, stop), observe)

    return _in_chunks(len(raw), rows)


@torch.no_grad()
def encode(model: Family, raw: Tensor, context: Context | None = None) -> Latents:
    """Codes of raw rows by group, (B, *units): the posterior's point."""
    model.check(raw)
    parts: list[Latents] = []
    for start in range(0, len(raw), CHUNK_ROWS):
        rows = slice(start, start + CHUNK_ROWS)
        known = None if context is None else context.select(rows)
        parts.append(model.encode(model.preparation.prepare(raw[rows], None), known))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


@torch.no_grad()
def decode(
    model: Family, latents: Latents, context: Context | None = None, observe: Observe = "point", seed: int = 0
) -> Tensor:
    """Raw rows of codes by group.

    Raises:
        UsageError: groups or shapes that are not the model's.
    """
    for name, shape in model.latents.items():
        given = latents.get(name)
        if given is None or tuple(given.shape[1:]) != shape:
            what = "absent" if given is None else f"of shape {list(given.shape[1:])} per row"
            raise UsageError(f"the model's latents `{name}` have shape {list(shape)} per row; those given are {what}.")

    def rows(start: int, stop: int) -> Tensor:
        known = None if context is None else context.select(slice(start, stop))
        px = model.decode({name: z[start:stop] for name, z in latents.items()}, known)
        return _observe(model, px, row_noise(seed, start, stop), observe)

    return _in_chunks(len(next(iter(latents.values()))), rows)


def row_noise(seed: int, start: int, stop: int) -> RowNoise:
    """Noise of rows start..stop: row i has its own stream, a function of (seed, i)."""
    seeds: Sequence[int] = [derive_seed(seed, "row", index) for index in range(start, stop)]
    return RowNoise(seeds)


def _observe(model: Family, px: Distribution, noise: Noise, observe: Observe) -> Tensor:
    x = tree.point(px) if observe == "point" else tree.draw(px, noise.child("observe"))[0][0]
    return model.preparation.restore(x)


def _in_chunks(count: int, rows: Callable[[int, int], Tensor]) -> Tensor:
    if count < 1:
        raise UsageError(f"{count} rows were asked for; ask for at least one.")
    return torch.cat([rows(start, min(start + CHUNK_ROWS, count)) for start in range(0, count, CHUNK_ROWS)])
