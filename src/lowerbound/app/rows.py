"""Files of rows and codes: what commands read and write; the extension decides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from lowerbound.app.report import pictures
from lowerbound.errors import DataError, UsageError
from lowerbound.files import replacing
from lowerbound.lab.data.load import load_data
from lowerbound.lab.data.rows import Batch
from lowerbound.lab.run import Run
from lowerbound.model.families.family import Family, Latents
from lowerbound.model.spec import Context, DataSpec


def load_rows(
    run: Run, path: Path | None = None, split: str = "test", count: int = 32, data_dir: Path | None = None
) -> Batch:
    """Rows to work on: those of a file, or the first of the run's own data.

    Args:
        run: the run whose data they are like.
        path: .npy of (N, *event), or one picture; None: the run's own data.
        split, count: which of the run's own data, and how many at most.
        data_dir: where they lie.

    Raises:
        DataError: the file is missing, damaged, or not of the run's shape.
    """
    if path is not None:
        return Batch(_read(path, run.data_spec()))
    rows = load_data(run.recipe().data, data_dir).split(split)
    return rows.take(torch.arange(min(count, len(rows))))


def write_rows(path: Path, rows: Tensor, spec: DataSpec) -> None:
    """Write rows on the scale of raw values: .npy as they are, .png as a picture of them all."""
    if path.suffix == ".npy":
        _save_array(path, rows.cpu().numpy())
    elif path.suffix == ".png":
        _save_picture(path, pictures.gallery(rows.cpu(), spec))
    else:
        raise UsageError(f"{path}: the extension of --out decides the format; use .npy or .png.")


def write_pairs(path: Path, originals: Tensor, rows: Tensor, spec: DataSpec) -> None:
    """Write reconstructions: .npy of them alone, .png with the originals above them."""
    if path.suffix == ".png":
        _save_picture(path, pictures.pairs(originals.cpu(), rows.cpu(), spec))
    else:
        write_rows(path, rows, spec)


def write_latents(path: Path, latents: Latents) -> None:
    """Write codes: .npy where there is one group of latents, .npz by group otherwise."""
    arrays = {name: z.cpu().numpy() for name, z in latents.items()}
    if path.suffix == ".npz":
        with replacing(path) as draft, draft.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
    elif path.suffix == ".npy" and len(arrays) == 1:
        _save_array(path, next(iter(arrays.values())))
    else:
        raise UsageError(f"{path}: codes of the groups {', '.join(arrays)} are written as .npz (one group: .npy too).")


def read_latents(path: Path, model: Family) -> Latents:
    """Codes as written by `write_latents`."""
    found = _load_array(path)
    if isinstance(found, np.ndarray):
        if len(model.latents) != 1:
            raise UsageError(
                f"{path} holds one array, and the model has the groups {', '.join(model.latents)}; use .npz."
            )
        found = {next(iter(model.latents)): found}
    return {name: torch.from_numpy(array) for name, array in found.items()}


def label_context(model: Family, label: int, count: int) -> Context:
    """The context of `count` rows that all have a label."""
    classes = model.data.context
    if not classes:
        raise UsageError("--label was given, but this model is not conditional; leave it out.")
    if label >= classes:
        raise UsageError(f"--label {label} was given, but labels go from 0 to {classes - 1}.")
    return Context.labels(torch.full((count,), label), classes)


def _read(path: Path, spec: DataSpec) -> Tensor:
    if path.suffix == ".npy":
        found = _load_array(path)
        assert isinstance(found, np.ndarray)
        rows = torch.from_numpy(found)
    else:
        rows = _read_picture(path, spec)
    if rows.shape[1:] != torch.Size(spec.event) and rows.shape == torch.Size(spec.event):
        rows = rows[None]
    if tuple(rows.shape[1:]) != spec.event:
        raise DataError(
            f"{path} has shape {list(rows.shape)}; this run needs (rows, {', '.join(map(str, spec.event))})."
        )
    if rows.is_floating_point() and not torch.isfinite(rows).all():
        raise DataError(f"{path} holds values that are not finite; this run needs finite numbers.")
    return rows


def _read_picture(path: Path, spec: DataSpec) -> Tensor:
    if len(spec.event) != 3 or spec.levels is None:
        raise DataError(f"{path} is a picture, and this run is not one of pictures; give rows as .npy.")
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("L" if spec.event[0] == 1 else "RGB"), dtype=np.float64)
    except (FileNotFoundError, UnidentifiedImageError, OSError) as error:
        raise DataError(f"{path} cannot be read as a picture ({error}).") from None
    scaled = np.rint(pixels / 255 * (spec.levels - 1)).astype(np.uint8)
    return torch.from_numpy(scaled).reshape(*scaled.shape[:2], -1).permute(2, 0, 1)[None]


def _load_array(path: Path) -> NDArray[np.generic] | dict[str, NDArray[np.generic]]:
    """An array, or several by name; nothing in the file is executed."""
    try:
        found = np.load(path, allow_pickle=False)
        return found if isinstance(found, np.ndarray) else {name: found[name] for name in found.files}
    except FileNotFoundError:
        raise DataError(f"{path} does not exist.") from None
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{path} is no NumPy file of numbers ({error}).") from None


def _save_array(path: Path, array: NDArray[np.generic]) -> None:
    with replacing(path) as draft, draft.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def _save_picture(path: Path, picture: Image.Image) -> None:
    with replacing(path) as draft:
        picture.save(draft, format="PNG")
