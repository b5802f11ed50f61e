"""Checkpoints: safetensors and JSON only, whole or absent, newest whole one wins."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import Optimizer

from lowerbound.errors import DataError, TamperedError
from lowerbound.files import read_json, replacing, replacing_folder, sha256, write_json

Tensors = Mapping[str, Tensor]


def write_tensors(path: Path, tensors: Tensors, metadata: dict[str, str] | None = None) -> None:
    """Write tensors by name, whole or not at all."""
    with replacing(path) as draft:
        _save(draft, tensors, metadata)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read tensors by name; nothing in the file is executed.

    Raises:
        TamperedError: the file is missing, torn or no safetensors file.
    """
    try:
        return load_file(path)
    except FileNotFoundError:
        raise TamperedError(f"{path} does not exist.") from None
    except (SafetensorError, OSError) as error:
        raise TamperedError(f"{path} is damaged or no safetensors file ({error}).") from None


def save(
    folder: Path,
    step: int,
    tensors: Mapping[str, Tensors],
    numbers: Mapping[str, Any],
    keep: int,
    spare: Collection[int] = (),
) -> None:
    """Write the checkpoint of a step into `folder`, then drop all but the newest `keep` and those to spare.

    Args:
        folder: where checkpoints live, each in a folder of its own.
        step: number of optimiser steps taken.
        tensors: by file and name.
        numbers: anything that JSON can say.
        keep: how many checkpoints to retain.
        spare: steps whose checkpoints are retained besides.
    """
    final = of_step(folder, step)
    if not final.exists():
        with replacing_folder(final) as draft:
            for name, content in tensors.items():
                _save(draft / f"{name}.safetensors", content)
            hashes = {file.name: sha256(file) for file in sorted(draft.iterdir())}
            state = {"step": step, "files": hashes, **numbers}
            write_json(draft / "state.json", {**state, "hash": _hash(state)})
    spared = {of_step(folder, step) for step in spare}
    for old in _folders(folder)[keep:]:
        if old not in spared:
            shutil.rmtree(old)


def of_step(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step lives."""
    return folder / f"step-{step:09d}"


def drop_from(folder: Path, step: int) -> None:
    """Remove the checkpoints of a step and of all later ones, the newest first."""
    for path in _folders(folder):
        if path >= of_step(folder, step):
            shutil.rmtree(path)


def newest(folder: Path) -> Path | None:
    """The newest checkpoint whose files are all there with the content that was written; None if there is none."""
    return next((path for path in _folders(folder) if is_whole(path)), None)


def clear(folder: Path) -> None:
    """Remove drafts that a crash left, and damaged checkpoints: they would be counted instead of whole ones."""
    for path in [*folder.glob(".step-*"), *(path for path in _folders(folder) if not is_whole(path))]:
        shutil.rmtree(path, ignore_errors=True)


def load(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Tensors by file and name, and the numbers, of a whole checkpoint."""
    numbers = read_json(path / "state.json")
    return {Path(name).stem: read_tensors(path / name) for name in numbers["files"]}, numbers


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """An optimiser's state by "parameter.key"; its settings are the recipe's and are not saved."""
    state = optimizer.state_dict()["state"]
    return {f"{index}.{key}": value for index, entry in state.items() for key, value in entry.items()}


def load_optimizer(optimizer: Optimizer, tensors: Tensors, share: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Put a saved state into an optimiser over the same parameters.

    Args:
        optimizer: over the parameters.
        tensors: as `optimizer_tensors` gave them.
        share: (whole tensor, parameter) -> the tensor, shared out among processes as the parameter is.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split(".", 1)
        like = parameters[int(index)]
        state.setdefault(int(index), {})[key] = share(value, like) if value.shape == like.shape else value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _save(path: Path, tensors: Tensors, metadata: dict[str, str] | None = None) -> None:
    # Each tensor gets memory of its own: safetensors refuses views of one another.
    copies = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    try:
        save_file(copies, path, metadata)
    except SafetensorError as error:
        raise OSError(str(error)) from error


def _hash(state: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def _folders(folder: Path) -> list[Path]:
    found = [path for path in folder.glob("step-*") if re.fullmatch(r"step-\d{9}", path.name)]
    return sorted(found, reverse=True)


def is_whole(path: Path) -> bool:
    """Whether the files of a checkpoint are all there with the content that was written."""
    try:
        state: dict[str, Any] = read_json(path / "state.json")
        found = state.pop("hash")
        return found == _hash(state) and all(sha256(path / name) == digest for name, digest in state["files"].items())
    except (OSError, KeyError, TypeError, AttributeError, DataError):
        return False
