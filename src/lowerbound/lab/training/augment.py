"""Augmentation: random changes of raw training images, a function of the batch's noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lowerbound.errors import ShapeError
from lowerbound.kinds import Kinds, resolve
from lowerbound.model.spec import Count
from lowerbound.noise import Noise

Augmentation = Callable[[Tensor, Noise], Tensor]


def flip() -> Augmentation:
    """Mirror each image left to right with probability one half."""

    def apply(raw: Tensor, noise: Noise) -> Tensor:
        mirrored = noise.uniform()[0] < 0.5
        return torch.where(mirrored.reshape(-1, 1, 1, 1), raw.flip(-1), raw)

    return apply


def shift(*, pixels: Count = 2) -> Augmentation:
    """Move each image by up to so many pixels each way; what comes in is 0.

    Args:
        pixels: the largest shift.
    """

    def apply(raw: Tensor, noise: Noise) -> Tensor:
        rows, _, height, width = raw.shape
        moves = (noise.uniform(1, (2,))[0] * (2 * pixels + 1)).long() - pixels
        y = torch.arange(height, device=raw.device) - moves[:, :1]
        x = torch.arange(width, device=raw.device) - moves[:, 1:]
        inside = ((y >= 0) & (y < height))[:, :, None] & ((x >= 0) & (x < width))[:, None, :]
        index = torch.arange(rows, device=raw.device)[:, None, None]
        y, x = y.clamp(0, height - 1)[:, :, None], x.clamp(0, width - 1)[:, None, :]
        moved = raw.movedim(1, -1)[index, y, x].movedim(-1, 1)
        return moved * inside[:, None].to(raw.dtype)

    return apply


AUGMENTATIONS: Kinds = {"flip": flip, "shift": shift}


def augmentations(tables: Sequence[dict[str, Any]], event: Sequence[int]) -> Augmentation:
    """The augmentations of a recipe, one after the other.

    Args:
        tables: `kind` and settings of each.
        event: shape of a row; only images can be augmented.
    """
    if tables and len(event) != 3:
        raise ShapeError(f"training.augment is for images, and rows here have shape {list(event)}; leave it out.")
    made = []
    for number, table in enumerate(tables):
        make, settings = resolve(table, AUGMENTATIONS, f"training.augment.{number}")
        made.append(make(**settings))

    def apply(raw: Tensor, noise: Noise) -> Tensor:
        for number, change in enumerate(made):
            raw = change(raw, noise.child(f"augment{number}"))
        return raw

    return apply
