"""Moving MNIST: clips of two digits that bounce in a box (Srivastava et al. 2015), generated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from lowerbound.errors import RecipeError
from lowerbound.lab.data.digits import digits as small_digits
from lowerbound.lab.data.mnist import mnist
from lowerbound.lab.data.rows import Dataset, InMemory, Rows
from lowerbound.lab.data.splits import NAMES
from lowerbound.model.spec import Count, DataSpec
from lowerbound.noise import derive_seed

SPEED = 0.1  # the share of the free way that a digit goes from frame to frame


def moving_mnist(
    data_dir: Path | None,
    *,
    count: Count = 800,
    frames: Count = 20,
    size: Count = 64,
    digits: Count = 2,
    side: Count = 28,
    source: Literal["auto", "mnist", "scikit-learn"] = "auto",
    seed: int = 0,
) -> Dataset:
    """Clips (1, frames, size, size) with 256 levels, axes (channel, time, height, width); a tenth each is held out.

    Test clips show digits that no training clip shows.

    Args:
        data_dir: the folder that holds `mnist/`.
        count: clips of training; a tenth of it each for validation and testing.
        frames: of a clip.
        size: side of the box, pixels.
        digits: in a box; where they overlap, the brighter one is seen.
        side: of a digit, pixels; those of MNIST have 28 and those of scikit-learn 8, and are enlarged or reduced.
        source: of the digits; "auto" takes those of MNIST where its files are, else those of scikit-learn.
        seed: of positions and directions.
    """
    if size <= side:
        raise RecipeError(f"`data.size` is {size}, but a digit needs {side} pixels and room to move; choose more.")
    there = data_dir is not None and (data_dir / "mnist").exists()
    large = source == "mnist" or (source == "auto" and there)
    pictures = mnist(data_dir) if large else small_digits(None)
    parts = {}
    for name in NAMES:
        number = count if name == "train" else max(1, count // 10)
        random = np.random.default_rng(derive_seed(seed, "moving-mnist", name))
        sprites = _sprites(pictures.split(name), number * digits, side, random)
        places = _paths(number * digits, frames, size - side, random)
        parts[name] = InMemory(torch.from_numpy(_clips(sprites, places, digits, size)), names=_call(name))
    spec = DataSpec((1, frames, size, size), 256, examples=count)
    return Dataset("moving-mnist", spec, parts["train"], parts["validation"], parts["test"], source=pictures.source)


def _call(name: str) -> Callable[[int], str]:
    return lambda row: f"{name} clip {row}"


def _sprites(rows: Rows, count: int, side: int, random: np.random.Generator) -> NDArray[np.uint8]:
    """Pictures (count, side, side) with 256 levels chosen at random."""
    index = torch.from_numpy(random.integers(0, len(rows), count))
    raw = rows.take(index).raw[:, 0].numpy()
    if raw.shape[1] == 8:  # those of scikit-learn, of 17 levels
        raw = (raw.astype(np.float32) * (255 / 16)).astype(np.uint8)
    if raw.shape[1] == side:
        return raw
    fitted = [Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC) for picture in raw]
    return np.stack([np.asarray(picture) for picture in fitted])


def _paths(count: int, frames: int, room: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Corners (count, frames, 2) of digits that go straight and bounce, in whole pixels from 0 to `room`.

    A path that bounces between 0 and 1 is a straight one, folded: position mod 2, and what is above 1 goes back.
    """
    angle = random.uniform(0, 2 * np.pi, count)
    step = SPEED * np.stack([np.sin(angle), np.cos(angle)], axis=1)
    straight = random.uniform(0, 1, (count, 1, 2)) + step[:, None] * np.arange(frames)[None, :, None]
    folded = 1 - np.abs(straight % 2 - 1)
    return np.rint(folded * room).astype(np.int64)


def _clips(sprites: NDArray[np.uint8], places: NDArray[np.int64], digits: int, size: int) -> NDArray[np.uint8]:
    """Clips (N, 1, T, size, size)."""
    count, frames = len(sprites) // digits, places.shape[1]
    clips = np.zeros((count, 1, frames, size, size), np.uint8)
    side = sprites.shape[1]
    for number, sprite in enumerate(sprites):
        for time, (top, left) in enumerate(places[number]):
            box = clips[number // digits, 0, time, top : top + side, left : left + side]
            np.maximum(box, sprite, out=box)
    return clips
