"""Files of rows and codes: what commands read and write; the extension decides."""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lowerbound.app.report import pictures
from lowerbound.errors import DataError, UsageError
from lowerbound.files import replacing, write_text
from lowerbound.lab.data.load import load_data, reading_of
from lowerbound.lab.data.rows import Batch
from lowerbound.lab.run import Run
from lowerbound.model.families.family import Family, Latents
from lowerbound.model.spec import Context, DataSpec

MODES = ("1", "L", "LA", "P", "RGB", "RGBA")  # pictures of 8 bits or less: PIL cuts off what is above


def load_rows(
    run: Run,
    path: Path | None = None,
    split: str = "test",
    count: int = 32,
    data_dir: Path | None = None,
    label: int | None = None,
    gaps: bool = False,
) -> Batch:
    """Rows to work on: those of a file, or the first of the run's own data.

    Args:
        run: the run whose data they are like.
        path: .npy of (N, *event), or one picture; None: the run's own data.
        split, count: which of the run's own data, and how many at most.
        data_dir: where they lie.
        label: of all rows of the file, for a conditional model.
        gaps: whether values of the file may be NaN: missing.

    Raises:
        DataError: the file is missing, damaged, or not of the run's shape.
        UsageError: a label that does not fit.
    """
    if path is not None:
        raw, spec = _read(path, run.data_spec(), gaps), run.data_spec()
        return Batch(raw, None if label is None else _labels(spec, torch.full((len(raw),), label)))
    if label is not None:
        raise UsageError(f"--label {label} is for rows of --input; the run's own data have labels of their own.")
    rows = load_data(run.recipe().data, data_dir, run.quarantine_path).split(split)
    return rows.take(torch.arange(min(count, len(rows))))


def write_rows(path: Path, rows: Tensor, spec: DataSpec) -> None:
    """Write rows on the scale of raw values: .npy as they are, .png as a picture of them all, clips also as .gif."""
    if path.suffix.lower() == ".npy":
        _save_array(path, rows.cpu().numpy())
    elif path.suffix.lower() == ".png":
        _save_picture(path, pictures.gallery(rows.cpu(), spec))
    elif path.suffix.lower() == ".gif":
        _save_film(path, pictures.film(rows.cpu(), spec))
    else:
        raise UsageError(f"{path}: the extension of --out decides the format; use .npy, .png, or .gif for clips.")


def write_maps(path: Path, raw: Tensor, maps: Tensor, order: list[int], spec: DataSpec) -> None:
    """Write where rows are strange, (N, *event), nats: .npy of all rows; .png of some images, brighter is stranger.

    Args:
        path: where to write.
        raw: the rows.
        maps: of them.
        order: rows to show on a picture, the strangest first; all maps of a picture have one scale.
        spec: of the rows.

    Raises:
        UsageError: another extension, or a picture of rows that are no images.
    """
    if path.suffix.lower() == ".npy":
        _save_array(path, maps.cpu().numpy())
        return
    if path.suffix.lower() != ".png" or len(spec.event) != 3:
        raise UsageError(f"--maps {path} was given; use .npy, or .png for images.")
    shown = maps[order].mean(dim=1, keepdim=True).expand(-1, spec.event[0], -1, -1).double()
    top = 1 if spec.levels is None else spec.levels - 1
    span = (shown.max() - shown.min()).clamp(min=1e-12)
    write_stack(path, {"data": raw[order].cpu(), "map": (shown - shown.min()) / span * top}, spec)


def write_pairs(path: Path, originals: Tensor, rows: Tensor, spec: DataSpec) -> None:
    """Write reconstructions: .npy of them alone, .png with the originals above them."""
    if path.suffix.lower() == ".png":
        _save_picture(path, pictures.pairs(originals.cpu(), rows.cpu(), spec))
    else:
        write_rows(path, rows, spec)


def write_stack(path: Path, sets: dict[str, Tensor], spec: DataSpec) -> None:
    """Write sets of equally many rows: .npy of the last alone, .png of all, each below the one before."""
    if path.suffix.lower() == ".png":
        _save_picture(path, pictures.stack({name: rows.cpu() for name, rows in sets.items()}, spec))
    else:
        write_rows(path, list(sets.values())[-1], spec)


def write_steps(path: Path, rows: Tensor, spec: DataSpec) -> None:
    """Write rows (lines, steps, *event): .npy as they are, .png line by line, .gif as a film over the steps."""
    if path.suffix.lower() == ".gif":
        there = pictures.frames(rows.cpu(), spec)
        _save_film(path, [*there, *there[-2:0:-1]])
    elif path.suffix.lower() == ".png":
        _save_picture(path, pictures.table(rows.cpu(), spec))
    else:
        write_rows(path, rows, spec)


def write_columns(path: Path, columns: dict[str, Tensor]) -> None:
    """Write one number per row and name, (N,) each, as a CSV file with the row's number in front."""
    values = torch.stack([column.double() for column in columns.values()], dim=1).tolist()
    lines = [f"{row}," + ",".join(map(repr, numbers)) for row, numbers in enumerate(values)]
    write_text(path, "\n".join([",".join(["row", *columns]), *lines]) + "\n")


def labelled_rows(
    run: Run, label: int, against: int | None = None, split: str = "train", data_dir: Path | None = None
) -> tuple[Batch, Batch]:
    """The rows of a run's own data that have a label, and those that have another (or one other).

    Raises:
        UsageError: the data have no labels, or no rows of one of the two kinds.
    """
    rows = load_data(run.recipe().data, data_dir).split(split)
    if rows.labels is None or rows.labels.ndim != 1:
        raise UsageError("the data of this run have no labels; give rows with --having and --lacking.")
    labels = rows.labels.cpu()
    without = labels != label if against is None else labels == against
    known = f"its labels are {', '.join(str(int(found)) for found in labels.unique()[:20])}"
    for name, chosen in ((label, labels == label), (against, without)):
        if not bool(chosen.any()):
            raise UsageError(f"no row of the {split} data has the label {name}; {known}.")
    if label == against:
        raise UsageError(f"the label {label} was given twice; compare it with another one.")
    return tuple(rows.take(torch.nonzero(chosen).flatten()) for chosen in (labels == label, without))  # type: ignore[return-value]


def write_latents(path: Path, latents: Latents) -> None:
    """Write codes: .npy where there is one group of latents, .npz by group otherwise."""
    arrays = {name: z.cpu().numpy() for name, z in latents.items()}
    if path.suffix.lower() == ".npz":
        with replacing(path) as draft, draft.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
    elif path.suffix.lower() == ".npy" and len(arrays) == 1:
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
    if found.keys() != model.latents.keys():
        raise UsageError(
            f"{path} holds {', '.join(found) or 'nothing'}; "
            f"the model's groups of latents are {', '.join(model.latents)}."
        )
    return {name: _numbers(array, path) for name, array in found.items()}


def label_context(model: Family, label: int | None, count: int) -> Context | None:
    """The context of `count` rows that all have a label; without one each class in turn, if the model has classes."""
    classes = model.data.context
    if classes and model.data.contexts == "texts":
        raise UsageError('this model is conditional on texts: say what to make, as in `sample RUN --context "..."`.')
    if classes and model.data.contexts == "numbers":
        raise UsageError(
            f"this model is conditional on {classes} numbers and not on labels: give them, as in "
            "`sample RUN --context FILE.npy`."
        )
    if label is None:
        return _labels(model.data, torch.arange(count) % classes) if classes else None
    return _labels(model.data, torch.full((count,), label))


def text_context(run: Path | str, text: str, count: int) -> Context:
    """The context of `count` rows that all have the same text.

    Raises:
        UsageError: the run's model is not conditional on texts, or cannot read this one; unknown words are named.
        DataError: files of a pretrained text encoder that are missing or wrong.
    """
    read = reading_of(Run(run).recipe().data, Run(run).data_spec()).read([text])
    return Context.of(read.vector.expand(count, -1))


def numbers_context(model: Family, path: Path, count: int) -> Context:
    """The contexts of `count` rows from an array, (C,) for all of them or (count, C) for one each.

    Raises:
        UsageError: the model is not conditional on numbers, or on as many as these.
        DataError: a file that holds none.
    """
    data = model.data
    if not data.context or data.contexts != "numbers":
        told = f"on {data.contexts}" if data.context else "at all"
        raise UsageError(f"--context {path} was given, but this model is not conditional on numbers ({told}).")
    vectors = _one_array(path, "contexts")
    if tuple(vectors.shape) not in ((data.context,), (count, data.context)):
        raise UsageError(
            f"{path} has shape {list(vectors.shape)}; {count} rows of this run need [{data.context}] or "
            f"[{count}, {data.context}]."
        )
    return Context.of(vectors.float().expand(count, -1))


def _labels(spec: DataSpec, labels: Tensor) -> Context:
    if not spec.context:
        raise UsageError("--label was given, but this model is not conditional; leave it out.")
    if bool((labels < 0).any()) or bool((labels >= spec.context).any()):
        raise UsageError(f"--label {int(labels[0])} was given, but labels go from 0 to {spec.context - 1}.")
    return Context.labels(labels, spec.context)


def _one_array(path: Path, what: str, gaps: bool = False) -> Tensor:
    """The numbers of a file that holds one array of them."""
    found = _load_array(path)
    if not isinstance(found, np.ndarray):
        raise DataError(f"{path} holds several arrays; give {what} as one array in .npy.")
    return _numbers(found, path, gaps)


def _read(path: Path, spec: DataSpec, gaps: bool = False) -> Tensor:
    if path.suffix.lower() == ".npy":
        rows = _one_array(path, "rows", gaps)
    elif path.suffix.lower() == ".npz":
        raise DataError(f"{path} is a .npz file; give rows as one array in .npy, or one picture.")
    else:
        rows = _read_picture(path, spec)
    if rows.shape == torch.Size(spec.event):
        rows = rows[None]
    if tuple(rows.shape[1:]) != spec.event:
        raise DataError(
            f"{path} has shape {list(rows.shape)}; this run needs (rows, {', '.join(map(str, spec.event))})."
        )
    known = rows[~torch.isnan(rows)] if gaps else rows
    if spec.levels is not None and len(known) and (known.min() < 0 or known.max() > spec.levels - 1):
        raise DataError(
            f"{path} holds values from {known.min():g} to {known.max():g}; "
            f"those of this run's data go from 0 to {spec.levels - 1}."
        )
    return rows


def _numbers(array: NDArray[np.generic], path: Path, gaps: bool = False) -> Tensor:
    """An array of finite numbers (or NaN for gaps), real ones in single precision, which is what models compute in."""
    if array.dtype.kind not in "buif":
        raise DataError(f"{path} holds values of type {array.dtype}; this run needs numbers.")
    if not array.size:
        raise DataError(f"{path} holds no rows; give at least one.")
    if array.dtype.kind != "f" and array.max() <= np.iinfo(np.int64).max:
        return torch.from_numpy(array.astype(np.int64))
    with np.errstate(over="ignore"):
        real = array.astype(np.float32)
    if not (np.isfinite(real) | (np.isnan(real) & gaps)).all():
        raise DataError(f"{path} holds values that are not finite; this run needs finite numbers.")
    return torch.from_numpy(real)


def _read_picture(path: Path, spec: DataSpec) -> Tensor:
    if len(spec.event) != 3 or spec.levels is None:
        raise DataError(f"{path} is a picture, and this run is not one of pictures; give rows as .npy.")
    try:
        with Image.open(path) as image:
            if image.mode not in MODES:
                raise DataError(f"{path} is a picture of mode {image.mode}; save it with 8 bits per channel.")
            pixels = np.asarray(image.convert("L" if spec.event[0] == 1 else "RGB"), dtype=np.float64)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist.") from None
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as a picture ({error}).") from None
    scaled = np.rint(pixels / 255 * (spec.levels - 1)).astype(np.uint8)
    return torch.from_numpy(scaled).reshape(*scaled.shape[:2], -1).permute(2, 0, 1)[None]


def read_array(path: Path) -> NDArray[np.generic]:
    """One array of numbers.

    Raises:
        DataError: there is none.
    """
    found = _load_array(path)
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "buif":
        raise DataError(f"{path} holds no single array of numbers; write one as .npy.")
    return found


def _load_array(path: Path) -> NDArray[np.generic] | dict[str, NDArray[np.generic]]:
    """An array, or several by name; nothing in the file is executed."""
    try:
        with path.open("rb") as file:
            found = np.load(file, allow_pickle=False)
            if isinstance(found, np.ndarray):
                return found
            arrays = {name: found[name] for name in found.files}
    except FileNotFoundError:
        raise DataError(f"{path} does not exist.") from None
    except (ValueError, OSError, EOFError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        # NumPy's own words would advise to load pickles.
        reason = "it holds objects, or is something else" if "pickle" in str(error) else str(error)
        raise DataError(f"{path} is no whole .npy or .npz file of numbers ({reason}); write it again.") from None
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise DataError(f"{path} holds `{name}`, which is no array; write it again.")
    return arrays


def _save_array(path: Path, array: NDArray[np.generic]) -> None:
    with replacing(path) as draft, draft.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def _save_picture(path: Path, picture: Image.Image) -> None:
    with replacing(path) as draft:
        picture.save(draft, format="PNG")


def _save_film(path: Path, steps: list[Image.Image], milliseconds: int = 120) -> None:
    """A film that begins again, for ever."""
    frames = [step.convert("RGB") for step in steps]
    with replacing(path) as draft:
        frames[0].save(
            draft, format="GIF", save_all=True, append_images=frames[1:], duration=milliseconds, loop=0, disposal=2
        )
