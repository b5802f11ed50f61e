"""A run: a folder that holds a trained model and everything known about it."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

import lowerbound
from lowerbound.errors import RunError, TamperedError
from lowerbound.files import clear_drafts, exclusive, read_json, sha256, write_json
from lowerbound.lab.checkpoint import read_tensors, write_tensors
from lowerbound.lab.device import find_device
from lowerbound.model.build import build_model, in_use
from lowerbound.model.families.family import Family
from lowerbound.model.spec import DataSpec
from lowerbound.recipe import Recipe, parse

LOCK = ".lock"


class Run:
    """A run folder.

        recipe.json           the resolved recipe, with the facts of its data
        run.json              how far it got, the hash of the weights, and on what it was trained
        weights.safetensors   the weights to use
        journal.jsonl         one row per recorded step
        film/                 what the model made after a few steps
        checkpoint/           what training goes on from
        collapse/             what cures of a posterior collapse left behind, if there were any
        quarantine.json       the rows that were left out, if any were
        evaluation.json       what it was found to be worth
        figures/ report.html  for people

    Args:
        path: of the folder.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    @property
    def recipe_path(self) -> Path:
        return self.path / "recipe.json"

    @property
    def weights_path(self) -> Path:
        return self.path / "weights.safetensors"

    @property
    def journal_path(self) -> Path:
        return self.path / "journal.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoint"

    @property
    def evaluation_path(self) -> Path:
        return self.path / "evaluation.json"

    @property
    def figures(self) -> Path:
        return self.path / "figures"

    @property
    def film(self) -> Path:
        return self.path / "film"

    @property
    def quarantine_path(self) -> Path:
        return self.path / "quarantine.json"

    @property
    def report_path(self) -> Path:
        return self.path / "report.html"

    @property
    def finished(self) -> bool:
        """Whether training reached its last step."""
        return (self.path / "run.json").exists()

    def recipe(self) -> Recipe:
        """The resolved recipe."""
        return parse(self._recipe_table()[0], str(self.recipe_path))

    def data_spec(self) -> DataSpec:
        """The facts of the data it was trained on."""
        table = self._recipe_table()[1]
        try:
            return TypeAdapter(DataSpec).validate_python(table)
        except ValidationError:
            raise TamperedError(
                f"{self.recipe_path} has facts of its data that are none; restore it, or train the run again."
            ) from None

    def model(self, model: Family | None = None, use: Iterable[str] = ()) -> Family:
        """The trained model, in evaluation mode.

        Args:
            model: an instance of one's own to load the weights into, where the recipe cannot build it.
            use: settings of use in place of the recipe's, each `a.b=c`.

        Raises:
            RunError: there is no finished run here.
            TamperedError: the weights are not what was written.
        """
        self._must_exist()
        if not self.finished:
            raise RunError(
                f"{self.path} is not a finished run; finish it with "
                f"`lowerbound train RECIPE --out {self.path} --resume`."
            )
        written = self._hashes()
        for path in (self.recipe_path, self.weights_path):
            if not path.is_file() or sha256(path) != written.get(path.name):
                raise TamperedError(
                    f"{path} is not what training wrote (its hash differs); restore it, or train the run again."
                )
        recipe = self.recipe()
        built = model or build_model(in_use(recipe.model, use), self.data_spec(), recipe.seed)
        load_weights(built, read_tensors(self.weights_path), self.weights_path)
        return built.eval().requires_grad_(False)

    def start(self, recipe: Recipe, spec: DataSpec) -> None:
        """Write what the run is to be; clear what a crash left half-written."""
        for path in (self.recipe_path, self.weights_path, self.journal_path, self.path / "run.json"):
            clear_drafts(path)
        write_json(self.recipe_path, {**recipe.dump(), "data_spec": asdict(spec)})

    def finish(self, weights: dict[str, Tensor], step: int) -> None:
        """Write the weights, and last of all that the run is finished."""
        write_tensors(self.weights_path, weights)
        record = {
            "steps": step,
            "files": {path.name: sha256(path) for path in (self.recipe_path, self.weights_path)},
            "environment": environment(),
        }
        write_json(self.path / "run.json", record)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only one who writes here."""
        with exclusive(self.path / LOCK, f"the run {self.path}"):
            yield

    def _must_exist(self) -> None:
        if not self.recipe_path.exists():
            raise RunError(f"{self.path} is no run: it has no recipe.json; give the folder that `train --out` made.")

    def _hashes(self) -> dict[str, str]:
        """The hash of each file that training wrote."""
        path = self.path / "run.json"
        record = read_json(path)
        if not isinstance(record, dict) or not isinstance(record.get("files"), dict):
            raise TamperedError(f"{path} is not what training wrote; restore it, or train the run again.")
        return record["files"]

    def _recipe_table(self) -> tuple[dict[str, Any], dict[str, Any]]:
        self._must_exist()
        table = read_json(self.recipe_path)
        if not isinstance(table, dict) or not _is_spec(table.get("data_spec")):
            raise TamperedError(f"{self.recipe_path} is not the recipe of a run; restore it, or train the run again.")
        spec = table.pop("data_spec")
        return table, spec


def load(path: Path | str, model: Family | None = None, device: str = "cpu", use: Iterable[str] = ()) -> Family:
    """The trained model of a run folder, in evaluation mode; nothing that is read is executed.

    Args:
        path: of the run.
        model: an instance of one's own to load the weights into, where the recipe cannot build it.
        device: where to put it.
        use: settings of use in place of the recipe's, each `a.b=c`: the sampler of a diffusion model, its guidance.

    Raises:
        RunError: there is no finished run there.
        TamperedError: a file is not what training wrote.
        UsageError: there is no such device, or a setting that is not one of use.
    """
    place = find_device(device)
    return Run(path).model(model, use).to(place)


def load_weights(model: Family, weights: dict[str, Tensor], where: Path) -> None:
    """Put weights into a model that must fit them name by name and shape by shape."""
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise TamperedError(f"{where} does not fit the model of its recipe: {reason}") from None


def _is_spec(table: Any) -> bool:
    names = {field.name for field in fields(DataSpec)}
    return isinstance(table, dict) and table.keys() <= names and isinstance(table.get("event"), list)


def environment() -> dict[str, Any]:
    """On what equality to the bit depends."""
    return {
        "lowerbound": lowerbound.__version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }
