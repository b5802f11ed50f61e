"""The suite for autoencoders and pictures of others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lowerbound.errors import DataError
from lowerbound.files import sha256
from lowerbound.kinds import Part
from lowerbound.lab.data.images import images
from lowerbound.lab.data.rows import Dataset, Joined
from lowerbound.lab.data.splits import Split, Values
from lowerbound.lab.device import find_device
from lowerbound.lab.evaluation.reconstruction import reconstruction_results
from lowerbound.lab.foreign import Scale, open_autoencoder
from lowerbound.lab.judge import Judgement, compare_sets, judge
from lowerbound.lab.run import environment
from lowerbound.model.spec import Shape
from lowerbound.noise import generator
from lowerbound.recipe import Evaluation


def evaluate_foreign(
    path: Path,
    data: Dataset,
    settings: Evaluation | None = None,
    *,
    scale: Scale = "raw",
    device: str = "cpu",
    watch: Callable[[int, int], None] | None = None,
) -> Judgement:
    """Judge an autoencoder of others on data.

    Args:
        path: of its folder, see `open_autoencoder`.
        data: the rows; those of the split that `settings` names are judged.
        settings: how to judge.
        scale: of the values that a pair in ONNX takes and gives.
        device: a torch device; a pair in ONNX runs on the processor.
        watch: told how many batches of how many are done.

    Raises:
        UsageError, DataError: as for opening it.
    """
    settings = settings or Evaluation()
    model = open_autoencoder(path, data.spec, scale).to(find_device(device))
    protocol = {
        "model": type(model).__name__,
        "files": {file.name: sha256(file) for file in sorted(path.iterdir()) if file.is_file()},
        "scale": scale,
        **_protocol(data, settings),
    }
    return judge(model, data, settings, protocol, watch)


def evaluate_pictures(made: Path, data: Dataset, settings: Evaluation | None = None) -> Judgement:
    """Judge pictures of a folder beside real ones: as pairs where file names are the same, and as two sets.

    Args:
        made: the folder.
        data: the real pictures; those of the split that `settings` names.
        settings: how to judge.

    Raises:
        DataError: a folder without pictures.
    """
    settings = settings or Evaluation()
    own = pictures_of(made, data.spec.event).test
    real = data.split(settings.split)
    seen = len(real) if settings.examples is None else min(settings.examples, len(real))
    judgement = Judgement(_protocol(data, settings), {}, {}, {})
    by_name = {_key(own.name(row), made): row for row in range(len(own))}
    keys = [_key(real.name(row), data.source) for row in range(seen)]
    pairs = {row: by_name[key] for row, key in enumerate(keys) if key in by_name}
    if pairs:
        both = real.take(torch.tensor([*pairs])).raw, own.take(torch.tensor([*pairs.values()])).raw
        judgement.attempt("squared_error", lambda: reconstruction_results(*both, data.spec))
    else:
        judgement.refused["squared_error"] = "no picture has the file name of a real one, so there are no pairs."
    one, other = _apart(seen, len(own), pairs, settings)
    judgement.protocol["generated"] = {"rows": len(one)}
    compare_sets(judgement, settings, real.take(one).raw, own.take(other).raw, data.spec)
    return judgement


def _key(name: str, folder: Path | None) -> str:
    """A file within its folder, without its ending."""
    path = Path(name)
    return str((path.relative_to(folder) if folder and path.is_relative_to(folder) else path).with_suffix(""))


def _apart(real: int, made: int, pairs: dict[int, int], settings: Evaluation) -> tuple[Tensor, Tensor]:
    """Equally many real and made rows in a random order, no two of them a pair: sets that are independent."""
    source = generator(settings.seed)
    order = torch.randperm(real, generator=source)
    chosen = order[: (real + 1) // 2] if pairs else order
    taken = {pairs[row] for row in chosen.tolist() if row in pairs}
    rest = torch.tensor([row for row in torch.randperm(made, generator=source).tolist() if row not in taken])
    count = min(len(chosen), len(rest), settings.generated)
    return chosen[:count], rest[:count].long()


def holds_pictures(path: Path) -> bool:
    """Whether a folder is one of pictures, and not of an autoencoder."""
    kinds = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
    return path.is_dir() and any(file.suffix.lower() in kinds for file in path.rglob("*"))


def pictures_of(path: Path, event: Shape | None = None) -> Dataset:
    """All pictures of a folder as one set, in every part.

    Args:
        path: of the folder.
        event: shape of a row, (C, H, W); pictures of another size are cropped and changed to it. By default that of
            most pictures.

    Raises:
        DataError: a folder without pictures.
    """
    split = Part(_undivided)
    if event is None:
        return whole(images(None, path=str(path), fit="crop", split=split))
    if len(event) != 3 or event[0] not in (1, 3):
        raise DataError(f"pictures cannot be rows of shape {list(event)}.")
    channels: Literal[1, 3] = 1 if event[0] == 1 else 3
    size = list(event[1:])
    return whole(images(None, path=str(path), size=size, channels=channels, fit="crop", split=split))


def whole(data: Dataset) -> Dataset:
    """All rows in every part: for judging what was not trained on any of them."""
    rows = Joined([data.train, data.validation, data.test])
    return replace(data, train=rows, validation=rows, test=rows)


def _undivided(count: int, values: Values) -> Split:
    """All rows for testing."""
    none = torch.zeros(0, dtype=torch.int64)
    return Split(none, none, torch.arange(count))


def _protocol(data: Dataset, settings: Evaluation) -> dict[str, Any]:
    return {
        "data": {
            "kind": data.name,
            "source": str(data.source and data.source.resolve()),
            "shape": list(data.spec.event),
        },
        "split": settings.split,
        "examples": min(len(data.split(settings.split)), settings.examples or len(data.split(settings.split))),
        "samples": settings.samples,
        "batch_size": settings.batch_size,
        "seed": settings.seed,
        "preparation": "rescaled",
        "precision": "fp32",
        **environment(),
    }
