"""The verbs of a trained model on raw rows, a chunk at a time; each answer is independent of its batch-mates."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.distributions import Distribution

from lowerbound.errors import ShapeError, UsageError
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
    if not 0 <= temperature < math.inf:
        raise UsageError(f"the temperature {temperature} was given; it must be a finite number, at least 0.")
    fitting, device = fitting_context(model, context, count), device_of(model)

    def rows(start: int, stop: int) -> Tensor:
        known = None if fitting is None else fitting.select(slice(start, stop))
        return draw_rows(model, row_noise(seed, start, stop, device), known, observe, temperature)

    return _in_chunks(count, rows)


@torch.no_grad()
def draw_rows(
    model: Family, noise: Noise, context: Context | None, observe: Observe = "point", temperature: float = 1.0
) -> Tensor:
    """Rows from the prior, one for each row of noise, all at once; arguments are those of `sample`."""
    px = model.sample(Scaled(noise, temperature) if temperature != 1 else noise, context)
    return _observe(model, px, noise, observe)


@torch.no_grad()
def reconstruct(
    model: Family, raw: Tensor, context: Context | None = None, observe: Observe = "point", seed: int = 0
) -> Tensor:
    """Raw rows through the model and back, (B, *event), on the scale of raw values, from the posterior's point."""
    model.check(raw)
    fitting, device = fitting_context(model, context, len(raw)), device_of(model)

    def rows(start: int, stop: int) -> Tensor:
        known = None if fitting is None else fitting.select(slice(start, stop))
        x = model.preparation.prepare(raw[start:stop].to(device), None)
        px = model.decode(model.encode(x, known), known)
        return _observe(model, px, row_noise(seed, start, stop, device), observe)

    return _in_chunks(len(raw), rows)


@torch.no_grad()
def encode(model: Family, raw: Tensor, context: Context | None = None) -> Latents:
    """Codes of raw rows by group, (B, *units): the posterior's point."""
    model.check(raw)
    fitting, device = fitting_context(model, context, len(raw)), device_of(model)
    parts: list[Latents] = []
    for start, stop in _chunks(len(raw)):
        known = None if fitting is None else fitting.select(slice(start, stop))
        parts.append(model.encode(model.preparation.prepare(raw[start:stop].to(device), None), known))
    return {name: torch.cat([part[name].cpu() for part in parts]) for name in parts[0]}


@torch.no_grad()
def decode(
    model: Family, latents: Latents, context: Context | None = None, observe: Observe = "point", seed: int = 0
) -> Tensor:
    """Raw rows of codes by group.

    Raises:
        UsageError: groups, shapes or values that are not the model's.
    """
    model.check_latents(latents)
    count = len(next(iter(latents.values())))
    fitting, device = fitting_context(model, context, count), device_of(model)

    def rows(start: int, stop: int) -> Tensor:
        known = None if fitting is None else fitting.select(slice(start, stop))
        px = model.decode({name: latents[name][start:stop].to(device) for name in model.latents}, known)
        return _observe(model, px, row_noise(seed, start, stop, device), observe)

    return _in_chunks(count, rows)


def row_noise(seed: int, start: int, stop: int, device: torch.device | str = "cpu") -> RowNoise:
    """Noise of rows start..stop: row i has its own stream, a function of (seed, i)."""
    seeds: Sequence[int] = [derive_seed(seed, "row", index) for index in range(start, stop)]
    return RowNoise(seeds, device)


def device_of(model: Family) -> torch.device:
    """Where a model's parameters are."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def fitting_context(model: Family, context: Context | None, count: int) -> Context | None:
    """The context of `count` rows where the model is, or a refusal of one that is missing or not for this model."""
    classes = model.data.context
    if context is None:
        if classes and not model.infers_context:
            raise ShapeError("this model is conditional: give a context (--label N or --context on the command line).")
        return None
    if tuple(context.vector.shape) != (count, classes):
        needed = f"one of shape {[count, classes]}" if classes else "none, for this model is not conditional"
        raise ShapeError(f"a context of shape {list(context.vector.shape)} was given; this needs {needed}.")
    return context.to(device_of(model))


def _observe(model: Family, px: Distribution, noise: Noise, observe: Observe) -> Tensor:
    x = tree.point(px) if observe == "point" else tree.draw(px, noise.child("observe"))[0][0]
    return model.preparation.restore(x)


def _in_chunks(count: int, rows: Callable[[int, int], Tensor]) -> Tensor:
    return torch.cat([rows(start, stop).cpu() for start, stop in _chunks(count)])


def _chunks(count: int) -> list[tuple[int, int]]:
    if count < 1:
        raise UsageError(f"{count} rows were asked for; ask for at least one.")
    return [(start, min(start + CHUNK_ROWS, count)) for start in range(0, count, CHUNK_ROWS)]
