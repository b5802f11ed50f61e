"""A registry of small models, and a server of them that many tests talk to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from servers import Server, serving
from sklearn.datasets import load_digits

import lowerbound
from lowerbound.files import write_json
from lowerbound.lab.run import Run
from lowerbound.service.registry.registry import Registry

SMALL = (
    *("training.steps=40", "training.checkpoint_every=40", "training.batch_size=32", "evaluation.samples=2"),
    *("model.encoder.widths=[32]", "model.decoder.widths=[32]", "model.latent=8"),
)
LEVEL = 0.02  # of the gate: the digits have 200 validation rows, which allow no less
UNJUDGED = {"protocol": {"examples": 0, "split": "test", "samples": 0}, "results": {}}  # judging takes longest


def _train(folder: Path, name: str, *settings: str) -> Path:
    lowerbound.train(lowerbound.read_recipe("digits", [*SMALL, *settings]), folder / name)
    return folder / name


def _plant(run: Path) -> None:
    """Let the encoder overflow where the first pixel is not 0, which it is in all digits."""
    model = lowerbound.load(run)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first = next(name for name, tensor in weights.items() if name.startswith("encoder") and tensor.ndim == 2)
    weights[first][:, 0] = 1e38
    Run(run).finish(weights, 40)


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`digits` in two versions, `labelled` (conditional) and `broken` (overflows at a planted pixel)."""
    folder = tmp_path_factory.mktemp("serving")
    runs = {
        "digits1": _train(folder, "digits1", "seed=1"),
        "digits2": _train(folder, "digits2", "seed=2"),
        "labelled": _train(folder, "labelled", "data.context=label"),
        "broken": _train(folder, "broken", "seed=3"),
    }
    _plant(runs["broken"])
    found = Registry(folder / "registry")
    for name, run in runs.items():
        write_json(run / "evaluation.json", UNJUDGED)
        found.add(run, name.rstrip("12"))
    for name in ("digits", "labelled", "broken"):
        found.promote(name, 1)
    return folder / "registry"


@pytest.fixture(scope="session")
def digits() -> np.ndarray:
    """Pictures of digits, (N, 1, 8, 8), levels 0 to 16."""
    return load_digits().images.astype(np.uint8)[:, None]


@pytest.fixture(scope="session")
def server(registry: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of all models, which keeps the inputs of all requests."""
    kept = ("--privacy", "sample", "--sample-share", 1)
    options = ("--gate-level", LEVEL, *kept, "--body-timeout", 1, "--engine", "auto")
    with serving(registry, "digits", "digits:2", "labelled", "broken", *options) as found:
        yield found
