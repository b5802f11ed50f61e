"""Baselines: what requests are compared with. Each belongs to one encoder: codes of two are never compared."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lowerbound.errors import DataError, NotSupportedError
from lowerbound.files import read_json, write_json
from lowerbound.lab.checkpoint import read_tensors, write_tensors
from lowerbound.lab.reference import Reference
from lowerbound.service.monitoring.drift.window import Array, Window
from lowerbound.service.monitoring.looking.stretch import Stretch
from lowerbound.service.registry.version import Version

FOLDER = "baselines"
SHUFFLE = 0  # seed: rows that were held out have no order in time


@dataclass(frozen=True, eq=False)
class Baseline:
    """Ordinary requests of one encoder.

    Attributes:
        window: their facts.
        statistics: names of the columns of its inputs.
        codes: hash of all that codes depend on.
        source: where they are from, as a clause.
        refused: rows beside them that the gate refused, by its reason.
        chosen: whether a person chose them; others are replaced where a budget needs more.
    """

    window: Window
    statistics: tuple[str, ...]
    codes: str
    source: str
    refused: dict[str, int]
    chosen: bool = False

    @property
    def widths(self) -> dict[str, int]:
        """Numbers in a row of each fact that is a vector."""
        return {name: values.shape[1] for name, values in self.window.facts.items() if values.ndim > 1}


def codes_of(version: Version) -> str:
    """The hash of all that the codes of a version depend on."""
    return str(version.manifest()["codes"])


def registered(version: Version) -> Baseline:
    """The held-out rows that a version was registered with, in no order of time.

    Raises:
        NotSupportedError: it was registered without codes, or before facts of single rows were kept.
    """
    if "rows" not in version.manifest()["reference"]:
        raise NotSupportedError(
            f"{version.reference} has no reference, for its model has no codes; drift is not watched."
        )
    reference = version.calibration()
    if not reference.facts:
        raise NotSupportedError(
            f"{version.reference} was registered before facts of single rows were kept; take a span of telemetry as "
            "ordinary, or register its run again."
        )
    order = np.random.default_rng(SHUFFLE).permutation(reference.rows)
    facts = {name: values[order] for name, values in _facts_of(reference).items()}
    source = f"the {reference.rows:,} rows that {version.reference} was registered with"
    return Baseline(Window(**facts), statistics_of(reference), codes_of(version), source, {})


def statistics_of(reference: Reference) -> tuple[str, ...]:
    """Names of the statistics of inputs that a reference knows, in the order of a fact's `pixels`."""
    return tuple(name for name in reference.scores if name.startswith("pixel_"))


def _facts_of(reference: Reference) -> dict[str, Array]:
    names = {"error": "errors", "rates": "rates", "variances": "variances", "inputs": "inputs"}
    found = {names[name]: values.double().numpy() for name, values in reference.facts.items() if name in names}
    if reference.points.shape[1]:
        found["points"] = reference.points.double().numpy()
    elif reference.indices.shape[1]:
        found["indices"] = reference.indices.numpy().astype(np.int64)
    return found


class Baselines:
    """Stretches of telemetry that were taken as ordinary, one for each encoder of each model; retention spares them.

    Args:
        telemetry: folder of the store.
    """

    def __init__(self, telemetry: Path | str) -> None:
        self._folder = Path(telemetry) / FOLDER

    def adopt(self, model: str, codes: str, statistics: tuple[str, ...], stretch: Stretch, *, chosen: bool) -> Baseline:
        """Take a stretch as ordinary from now on, because a person chose it or because it came first.

        Raises:
            DataError: it has no rows.
        """
        if stretch.window is None:
            raise DataError("a stretch of telemetry without rows that have facts was given; give one with requests.")
        since, until = stretch.span
        about = {
            **{"model": model, "codes": codes, "statistics": list(statistics), "since": since, "until": until},
            **{"refused": stretch.reasons, "rows": len(stretch), "chosen": chosen},
        }
        arrays, path = self._paths(model, codes)
        facts = {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in stretch.window.facts.items()}
        write_tensors(arrays, facts)
        write_json(path, about)
        return _adopted(about, stretch.window)

    def find(self, model: str, codes: str) -> Baseline | None:
        """The one of an encoder, if one was adopted.

        Raises:
            DataError: its files are damaged.
        """
        arrays, path = self._paths(model, codes)
        if not path.is_file():
            return None
        try:
            facts = {name: values.numpy() for name, values in read_tensors(arrays).items()}
            return _adopted(read_json(path), Window(**facts))
        except (TypeError, KeyError):
            raise DataError(f"{arrays} is not a baseline; delete it, and {path.name} beside it.") from None

    def forget(self, model: str, codes: str) -> None:
        """Take another one next time."""
        for path in reversed(self._paths(model, codes)):
            path.unlink(missing_ok=True)

    def _paths(self, model: str, codes: str) -> tuple[Path, Path]:
        folder = self._folder / model
        return folder / f"{codes[:16]}.safetensors", folder / f"{codes[:16]}.json"


def _adopted(about: dict[str, Any], window: Window) -> Baseline:
    source = f"{about['rows']:,} requests of telemetry, from {moment(about['since'])} to {moment(about['until'])}"
    return Baseline(window, tuple(about["statistics"]), about["codes"], source, about["refused"], about["chosen"])


def moment(seconds: float) -> str:
    """A time for a person, UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds)) + "Z"
