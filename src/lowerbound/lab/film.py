"""The film of training: what the model makes of the same noise and the same rows, at a few steps."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lowerbound.errors import NotSupportedError
from lowerbound.files import replacing
from lowerbound.lab.data.rows import Rows
from lowerbound.lab.generation import use
from lowerbound.lab.training.loop import Loop
from lowerbound.model.families.family import Family
from lowerbound.model.spec import DataSpec

IMAGES, POINTS = 8, 500  # samples, and reconstructions, of a frame


@dataclass(frozen=True)
class Frame:
    """What a model made after some steps; raw values.

    Attributes:
        step: taken.
        samples: from the prior, (N, *event), always from the same noise.
        originals, reconstructions: the same held-out rows, (N, *event), and what became of them; None where the model
            has no codes to go through.
    """

    step: int
    samples: Tensor
    originals: Tensor | None
    reconstructions: Tensor | None


def film_steps(frames: int, steps: int) -> set[int]:
    """The steps after which a frame is taken: evenly spaced in their logarithm, the first and the last among them."""
    if frames == 0:
        return set()
    return {steps, *(int(step) for step in np.geomspace(1, steps, frames).round())} if frames > 1 else {steps}


def has_picture(spec: DataSpec) -> bool:
    """Whether rows can be seen: images of 1 or 3 channels, or points in the plane."""
    return spec.event == (2,) or (len(spec.event) == 3 and spec.event[0] in (1, 3))


@torch.no_grad()
def take_frame(loop: Loop, rows: Rows) -> Frame:
    """A frame of a model in training, with the weights that would be kept; training goes on as if it had not been."""
    count = min(POINTS if loop.model.data.event == (2,) else IMAGES, len(rows))
    batch = rows.take(torch.arange(count))
    with _kept_weights(loop) as model:
        observe: use.Observe = "sample" if model.data.event == (2,) else "point"
        samples = use.sample(model, count, loop.seed, batch.context, observe)
        try:
            back: Tensor | None = use.reconstruct(model, batch.raw, batch.context)
        except NotSupportedError:
            back = None
    return Frame(loop.step, samples, None if back is None else batch.raw.cpu(), back)


def write_frame(folder: Path, frame: Frame, levels: int | None) -> None:
    """Write a frame; integer data of up to 256 levels are rounded to bytes."""
    found = {"samples": frame.samples, "originals": frame.originals, "reconstructions": frame.reconstructions}
    arrays = {name: _small(rows, levels) for name, rows in found.items() if rows is not None}
    with replacing(folder / f"{frame.step:08d}.npz") as draft, draft.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def read_film(folder: Path) -> list[Frame]:
    """The frames of a run in the order of their steps; a damaged one is left out."""
    frames = []
    for path in sorted(folder.glob("[0-9]*.npz")):
        try:
            with np.load(path, allow_pickle=False) as file:
                found = {name: torch.from_numpy(file[name]) for name in file.files}
            frames.append(Frame(int(path.stem), found["samples"], found.get("originals"), found.get("reconstructions")))
        except (ValueError, OSError, EOFError, KeyError, TypeError, zipfile.BadZipFile):
            continue
    return frames


def _small(rows: Tensor, levels: int | None) -> np.ndarray:
    if levels is not None and levels <= 256:
        return rows.float().round().clamp(0, levels - 1).to(torch.uint8).numpy()
    return rows.float().numpy()


@contextmanager
def _kept_weights(loop: Loop) -> Iterator[Family]:
    """The model in evaluation mode with the weights that would be kept, and as it was afterwards."""
    model, before = loop.model, {name: value.clone() for name, value in loop.model.state_dict().items()}
    model.load_state_dict(loop.average.final(model))
    model.eval()
    try:
        yield model
    finally:
        model.load_state_dict(before)
        model.train()
