"""Images of one's own: a folder of pictures."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from pydantic import Field
from torch import Tensor

from lowerbound.errors import DataError
from lowerbound.kinds import Part
from lowerbound.lab.data import splits
from lowerbound.lab.data.assemble import assemble, by_name, located
from lowerbound.lab.data.findings import Finding
from lowerbound.lab.data.labelled import ContextKind
from lowerbound.lab.data.rows import Batch, Dataset, InMemory, Rows
from lowerbound.model.spec import Context, Count

MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr")  # 8 bits or less a channel: PIL cuts off what is above
PARTS = {"train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation",
         "test": "test", "testing": "test"}  # fmt: skip
IGNORED = ("Thumbs.db", "desktop.ini")
ORIENTATION = 0x0112  # the EXIF tag; from 5 on the picture lies on its side

Made = TypeVar("Made")
Most = TypeVar("Most", int, tuple[int, int])

Fit = Literal["exact", "resize", "crop"]
Size = Annotated[list[Count], Field(min_length=2, max_length=2)]


class UnfitError(Exception):
    """A file that gives no row, with the check that it failed."""

    def __init__(self, check: str, what: str) -> None:
        super().__init__(what)
        self.check, self.what = check, what


def images(
    data_dir: Path | None,
    *,
    path: str,
    size: Size | None = None,
    fit: Fit = "exact",
    channels: Literal[1, 3] | None = None,
    context: ContextKind = "none",
    memory: bool = True,
    split: Part[splits.Split] = Part(splits.at_random),
) -> Dataset:
    """Pictures of a folder and the folders in it, as (C, H, W) with 256 levels.

    Folders called `train`, `validation` and `test` are the parts; without `validation`, it is taken from `train`. The
    other folders are labels, numbered in alphabetical order. Files that are no whole picture, and pictures of another
    size or other channels, are findings.

    Args:
        data_dir: where a relative path starts.
        path: the folder.
        size: height and width of a row; by default those of most pictures.
        fit: what happens to a picture of another size: "exact" makes it a finding, "resize" changes its shape,
            "crop" cuts off what is too much at both sides and then changes the size.
        channels: 1 (grey) or 3 (colour), pictures are converted; by default those of most pictures, and others are
            findings.
        context: "label" makes models conditional on the label.
        memory: off: decode pictures whenever they are needed, for folders that are larger than the memory.
        split: how pictures are divided where the folders do not say.
    """
    folder = located(path, data_dir)
    files = _files(folder)
    seen, findings = _look(files)
    if not seen:
        raise DataError(f"{folder} holds no pictures that can be read; give a folder of PNG, JPEG or similar files.")
    shape = size or list(_most([(picture.height, picture.width) for picture in seen]))
    depth = channels or _most([picture.channels for picture in seen])
    reader = Reader(shape[0], shape[1], depth, fit, strict=channels is None)
    kept, rows, unfit = _decode(reader, [picture.file for picture in seen], memory)
    findings = [*findings, *unfit]
    if not kept:
        raise DataError(f"{folder} holds no picture of {shape[0]} x {shape[1]} pixels; say how to `fit` them.")
    parts, labels = _places(folder, kept, split)
    data = assemble(
        "images",
        torch.empty(len(kept), depth, 0, 0, dtype=torch.uint8) if rows is None else rows,
        parts,
        levels=256,
        labels=labels,
        context=context,
        names=lambda row: str(kept[row]),
        source=folder,
        findings=findings,
    )
    return data if rows is not None else _from_files(data, parts, kept, reader)


# --------------------------------------------------------------------------------------------------- one picture


@dataclass(frozen=True)
class _Seen:
    """What the head of a picture's file says."""

    file: Path
    height: int
    width: int
    channels: int


@dataclass(frozen=True)
class Reader:
    """How a file becomes a row.

    Attributes:
        height, width, channels: of a row.
        fit: see `images`.
        strict: other channels are refused, not converted.
    """

    height: int
    width: int
    channels: int
    fit: Fit
    strict: bool

    def read(self, file: Path) -> NDArray[np.uint8]:
        """(C, H, W).

        Raises:
            UnfitError: the file gives no row.
        """
        with _opened(file) as image:
            seen = _head(file, image)
            if self.strict and seen.channels != self.channels:
                kind = "grey" if self.channels == 1 else "colour"
                raise UnfitError("channels", f"pictures that are not {kind}, as most are (set `data.channels`)")
            picture = ImageOps.exif_transpose(_whole(image)).convert("L" if self.channels == 1 else "RGB")
        if picture.size != (self.width, self.height):
            picture = self._fitted(picture)
        pixels = np.asarray(picture, np.uint8).reshape(self.height, self.width, self.channels)
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def _fitted(self, picture: Image.Image) -> Image.Image:
        place = (self.width, self.height)
        if self.fit == "crop":
            return ImageOps.fit(picture, place, Image.Resampling.LANCZOS)
        if self.fit == "resize":
            return picture.resize(place, Image.Resampling.LANCZOS)
        raise UnfitError("size", f"pictures of another size than {self.height} x {self.width} pixels (set `data.fit`)")


@contextmanager
def _opened(file: Path) -> Iterator[Image.Image]:
    """A picture, with every way in which it may be damaged as one error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(file) as image:
                yield image
    except UnfitError:
        raise
    except UnidentifiedImageError:
        raise UnfitError("unreadable", "files that are no pictures") from None
    except Image.DecompressionBombError:
        raise UnfitError("size", "pictures of far too many pixels") from None
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error) as error:
        cut = "trunc" in str(error) or isinstance(error, EOFError)
        raise UnfitError(
            *(("truncated", "truncated pictures") if cut else ("unreadable", "damaged pictures"))
        ) from None


def _head(file: Path, image: Image.Image) -> _Seen:
    if image.mode not in MODES:
        raise UnfitError("channels", "pictures with more than 8 bits per channel")
    turned = image.getexif().get(ORIENTATION, 1) >= 5
    width, height = image.size[::-1] if turned else image.size
    return _Seen(file, height, width, 1 if image.mode in ("1", "L", "LA") else 3)


def _whole(image: Image.Image) -> Image.Image:
    image.load()
    return image.convert("RGBA") if image.mode == "P" and "transparency" in image.info else image


# ------------------------------------------------------------------------------------------------------ a folder


class ImageFiles(Rows):
    """Pictures that are decoded whenever they are needed.

    Args:
        files: one a row.
        reader: how a file becomes a row.
        context, labels: of all rows.
    """

    def __init__(self, files: list[Path], reader: Reader, context: Context | None, labels: Tensor | None) -> None:
        self.files, self.reader, self.context, self.labels = files, reader, context, labels

    def __len__(self) -> int:
        return len(self.files)

    def take(self, index: Tensor) -> Batch:
        rows = []
        for row in index.tolist():
            try:
                rows.append(torch.from_numpy(self.reader.read(self.files[row])))
            except UnfitError as error:
                raise DataError(f"{self.files[row]}: {error.what}; it was readable before, mend it.") from None
        return Batch(torch.stack(rows), None if self.context is None else self.context.select(index))

    def name(self, row: int) -> str:
        return str(self.files[row])


def _files(folder: Path) -> list[Path]:
    """Every file, in an order that does not depend on the disk; hidden ones are left out."""
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; `data.path` must name a folder of pictures.")
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and path.name not in IGNORED
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _try(files: list[Path], use: Callable[[Path], Made]) -> tuple[list[Path], list[Made], list[Finding]]:
    """What each file gives, and the findings about those that give nothing, by what is wrong."""
    kept: list[Path] = []
    made: list[Made] = []
    wrong: dict[tuple[str, str], list[str]] = {}
    for file in files:
        try:
            result = use(file)
        except UnfitError as error:
            wrong.setdefault((error.check, error.what), []).append(str(file))
        else:
            kept.append(file)
            made.append(result)
    return kept, made, [Finding(check, what, tuple(names)) for (check, what), names in wrong.items()]


def _look(files: list[Path]) -> tuple[list[_Seen], list[Finding]]:
    def look(file: Path) -> _Seen:
        with _opened(file) as image:
            return _head(file, image)

    _, seen, findings = _try(files, look)
    return seen, findings


def _decode(reader: Reader, files: list[Path], memory: bool) -> tuple[list[Path], Tensor | None, list[Finding]]:
    """The files that give rows, their rows (N, C, H, W) if they are to be held in memory, and findings."""

    def decode(file: Path) -> NDArray[np.uint8] | None:
        row = reader.read(file)  # also where the row is not kept: only this finds a truncated file
        return row if memory else None

    kept, rows, findings = _try(files, decode)
    return kept, torch.from_numpy(np.stack(rows)) if memory and rows else None, findings  # type: ignore[arg-type]


def _most(values: list[Most]) -> Most:
    """The most frequent value; the first of them in order where there are several."""
    counts = Counter(values)
    return min(counts, key=lambda value: (-counts[value], value))


def _places(folder: Path, files: list[Path], split: Part[splits.Split]) -> tuple[splits.Split, Tensor | None]:
    """Which file goes to which part, and the labels that the folders name."""
    where = [file.relative_to(folder).parts[:-1] for file in files]
    parts = [PARTS.get(folders[0].lower()) if folders else None for folders in where]
    given = {"train", "test"} <= set(parts) and None not in parts
    words = [folders[1:] if given else folders for folders in where]
    names = sorted({folders[0] for folders in words if folders})
    labels = None
    if len(names) > 1 and all(words):
        labels = torch.tensor([names.index(folders[0]) for folders in words])
    values = {} if labels is None else {"label": labels.numpy()}
    if not given:
        return split(len(files), by_name(values)), labels
    rows = {part: torch.tensor([n for n, own in enumerate(parts) if own == part]) for part in splits.NAMES}
    if not len(rows["validation"]):
        own = rows["train"]
        cut = split(len(own), by_name({name: of[own] for name, of in values.items()}))
        rows["train"], rows["validation"] = own[torch.cat([cut.train, cut.test])], own[cut.validation]
    return splits.Split(**rows), labels


def _from_files(data: Dataset, parts: splits.Split, files: list[Path], reader: Reader) -> Dataset:
    """The same data with rows that are decoded when they are needed."""

    def rows(part: str) -> ImageFiles:
        held = data.split(part)
        context = held.context if isinstance(held, InMemory) else None
        return ImageFiles([files[row] for row in parts.parts()[part].tolist()], reader, context, held.labels)

    spec = replace(data.spec, event=(reader.channels, reader.height, reader.width))
    return replace(data, spec=spec, train=rows("train"), validation=rows("validation"), test=rows("test"))
