"""Masks: which values of rows are missing, from a word, a file or the rows themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lowerbound.app.rows import read_array
from lowerbound.errors import DataError, UsageError
from lowerbound.model.spec import DataSpec

HALVES = ("left", "right", "top", "bottom")


def read_mask(given: str | None, raw: Tensor, spec: DataSpec) -> Tensor:
    """Where values are missing, (*event) or (B, *event).

    Args:
        given: "left", "right", "top" or "bottom" for that half of an image; a .npy of (*event) or (rows, *event), or a
            picture, in which what is not 0 is missing; None: where the rows are NaN.
        raw: the rows.
        spec: the facts of the data.

    Raises:
        UsageError: nothing is missing, or a half of something that is no image.
        DataError: a mask that cannot be read or does not fit.
    """
    if given is None:
        gaps = torch.isnan(raw.float())
        if not bool(gaps.any()):
            raise UsageError("no value is missing: mark gaps with NaN in --input, or with --mask.")
        return gaps
    if given in HALVES:
        return _half(given, spec)
    path = Path(given)
    found = read_array(path) if path.suffix.lower() == ".npy" else _picture(path, spec)
    if tuple(found.shape) not in (spec.event, tuple(raw.shape)):
        raise DataError(
            f"{path} has shape {list(found.shape)}; a mask of these rows has shape {list(spec.event)} or "
            f"{list(raw.shape)}."
        )
    return torch.from_numpy(found != 0)


def show_gaps(raw: Tensor, missing: Tensor, spec: DataSpec) -> Tensor:
    """Rows for a picture: a middle grey where values are missing."""
    middle = 0.5 if spec.levels is None else (spec.levels - 1) / 2
    return torch.where(missing.expand(raw.shape), torch.tensor(middle), raw.float())


def _half(name: str, spec: DataSpec) -> Tensor:
    if len(spec.event) != 3:
        raise UsageError(f"--mask {name} is for images, and these rows have shape {list(spec.event)}; give a file.")
    _, height, width = spec.event
    gaps = torch.zeros(spec.event, dtype=torch.bool)
    down, across = {
        "left": (slice(None), slice(0, width // 2)),
        "right": (slice(None), slice(width - width // 2, None)),
        "top": (slice(0, height // 2), slice(None)),
        "bottom": (slice(height - height // 2, None), slice(None)),
    }[name]
    gaps[:, down, across] = True
    return gaps


def _picture(path: Path, spec: DataSpec) -> np.ndarray:
    if len(spec.event) != 3:
        raise DataError(f"{path} is no .npy, and these rows are no images; give the mask as .npy.")
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("L"))
    except FileNotFoundError:
        words = ", ".join(HALVES)
        raise DataError(f"--mask {path} is neither a file nor one of {words}; give one of these.") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a picture ({error}); give a mask as .npy or .png.") from None
    return np.broadcast_to(pixels, (spec.event[0], *pixels.shape))
