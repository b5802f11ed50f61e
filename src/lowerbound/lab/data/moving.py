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

SIDE, SPEED = 28, 0.1  # of a digit, pixels; the share of the free way that a digit goes from frame to frame


def moving_mnist(
    data_dir: Path | None,
    *,
    count: Count = 800,
    frames: Count = 20,
    size: Count = 64,
    digits: Count = 2,
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
        source: of the digits; "auto" takes those of MNIST where its files are, else those of scikit-learn, enlarged.
        seed: of positions and directions.
    """
    if size <= SIDE:
        raise RecipeError(f"`data.size` is {size}, but a digit needs {SIDE} pixels and room to move; choose more.")
    there = data_dir is not None and (data_dir / "mnist").exists()
    large = source == "mnist" or (source == "auto" and there)
    pictures = mnist(data_dir) if large else small_digits(None)
    parts = {}
    for name in NAMES:
        number = count if name == "train" else max(1, count // 10)
        random = np.random.default_rng(derive_seed(seed, "moving-mnist", name))
        sprites = _sprites(pictures.split(name), number * digits, random)
        places = _paths(number * digits, frames, size - SIDE, random)
        parts[name] = InMemory(torch.from_numpy(_clips(sprites, places, digits, size)), names=_call(name))
    spec = DataSpec((1, frames, size, size), 256, examples=count)
    return Dataset("moving-mnist", spec, parts["train"], parts["validation"], parts["test"], source=pictures.source)


def _call(name: str) -> Callable[[int], str]:
    return lambda row: f"{name} clip {row}"


def _sprites(rows: Rows, count: int, random: np.random.Generator) -> NDArray[np.uint8]:
    """Pictures (count, 28, 28) chosen at random; small ones are enlarged."""
    index = torch.from_numpy(random.integers(0, len(rows), count))
    raw = rows.take(index).raw[:, 0].numpy()
    if raw.shape[1] == SIDE:
        return raw
    bright = (raw.astype(np.float32) * (255 / 16)).astype(np.uint8)
    enlarged = [Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BICUBIC) for picture in bright]
    return np.stack([np.asarray(picture) for picture in enlarged])


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
    for number, sprite in enumerate(sprites):
        for time, (top, left) in enumerate(places[number]):
            box = clips[number // digits, 0, time, top : top + SIDE, left : left + SIDE]
            np.maximum(box, sprite, out=box)
    return clips
