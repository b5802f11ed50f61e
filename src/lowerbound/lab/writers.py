"""The journal's rows, written for other programs too: TensorBoard and MLflow, both optional."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from lowerbound.errors import UsageError
from lowerbound.extras import need
from lowerbound.lab.recorder import Progress
from lowerbound.recipe import Recipe


class Writer(Protocol):
    """Takes the rows of a journal."""

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Take the numbers of a step."""

    def close(self) -> None:
        """No more rows."""


class TensorBoard:
    """Event files in the run's folder `tensorboard/`: `tensorboard --logdir RUN`.

    Args:
        folder: of the run.
        recipe: of the run; its text goes with it.
    """

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        module = need(PACKAGES["tensorboard"], "tensorboard", "writing for TensorBoard")
        self._writer = module.SummaryWriter(str(folder / "tensorboard"))
        self._writer.add_text("recipe", f"```json\n{recipe.model_dump_json(indent=2)}\n```")

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class MLflow:
    """A run of MLflow's experiment "lowerbound", at MLFLOW_TRACKING_URI or in the run's file `mlflow.db`.

    MLflow's own usage reports are switched off.

    Args:
        folder: of the run.
        recipe: of the run; its settings become parameters.
    """

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        client = import_module("mlflow.tracking").MlflowClient
        place = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(folder / 'mlflow.db').absolute()}"
        self._client = client(tracking_uri=place)
        found = self._client.get_experiment_by_name("lowerbound")
        experiment = found.experiment_id if found else self._client.create_experiment("lowerbound")
        self._run = self._client.create_run(experiment, run_name=recipe.name).info.run_id
        for name, value in _flat(recipe.dump()).items():
            self._client.log_param(self._run, name, value)

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            self._client.log_metric(self._run, name, value, step=step)

    def close(self) -> None:
        self._client.set_terminated(self._run)


# What must be there before training starts.
PACKAGES = {"tensorboard": "torch.utils.tensorboard", "mlflow": "mlflow"}
WRITERS: dict[str, Callable[[Path, Recipe], Writer]] = {"tensorboard": TensorBoard, "mlflow": MLflow}


class Writers:
    """Several writers as one watcher of training; opened with the first row, when the run's folder is there.

    Args:
        kinds: of writers.
        folder: of the run.
        recipe: of the run.

    Raises:
        UsageError: an unknown kind, or a package that is not installed.
    """

    def __init__(self, kinds: Sequence[str], folder: Path, recipe: Recipe) -> None:
        for kind in kinds:
            if kind not in WRITERS:
                raise UsageError(f"there is no writer `{kind}`; there are: {', '.join(sorted(WRITERS))}.")
            need(PACKAGES[kind], kind, f"writing for {kind}")
        self._open = [partial(WRITERS[kind], folder, recipe) for kind in kinds]
        self._writers: list[Writer] | None = None

    def watch(self, report: Progress) -> None:
        """Take what training reports."""
        if self._writers is None:
            self._writers = [make() for make in self._open]
        for writer in self._writers:
            writer.write(report.step, {**report.parts, "rows_per_second": report.rows_per_second})

    def close(self) -> None:
        """No more rows."""
        for writer in self._writers or []:
            writer.close()


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in table.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
