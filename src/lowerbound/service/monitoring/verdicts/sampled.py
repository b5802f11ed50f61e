"""A look at what two versions draw from their priors, beside inputs that were kept: Fréchet distances for a judge."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from lowerbound.errors import TooFewError
from lowerbound.lab.checkpoint import read_tensors, write_tensors
from lowerbound.lab.evaluation.features import make_extractor
from lowerbound.lab.generation.use import sample
from lowerbound.lab.run import load
from lowerbound.service.monitoring.telemetry.history import Choice, History
from lowerbound.service.monitoring.verdicts.frechet import LEAST, Look, compare
from lowerbound.service.monitoring.verdicts.trial import path_of


def look_at_samples(
    folder: Path, name: str, number: int, candidate: Path, stable: Path, extractor: str, seed: int
) -> Look:
    """Compare samples of both versions, from the same seeds, with inputs that passed the gate.

    The inputs are taken once for each trial and kept beside its file, so that every look has the same.

    Args:
        folder: of the telemetry.
        name, number: of the candidate.
        candidate, stable: folders of the versions.
        extractor: "raw", "own" (codes of the stable version), or a file, as in the recipe's `evaluation.features`.
        seed: another one for each look.

    Raises:
        TooFewError: fewer than 2,000 inputs were kept.
        NotSupportedError, ShapeError: a version draws no samples without a label.
    """
    old, new = load(stable), load(candidate)
    features = make_extractor(extractor, old.data, old)
    reference = features(_inputs(folder, name, number))
    ours, theirs = (features(sample(model, len(reference), seed)).double() for model in (new, old))
    return compare(reference.double(), ours, theirs, features.hash)


def _inputs(folder: Path, name: str, number: int) -> Tensor:
    path = path_of(folder, name, number).with_suffix(".inputs.safetensors")
    if not path.is_file():
        _, rows = History(folder).inputs(Choice(model=name, gate="passed", newest=LEAST))
        if len(rows) < LEAST:
            raise TooFewError(
                f"{len(rows)} inputs of {name} were kept, and {LEAST} are needed: serve it with --privacy sample "
                "--sample-share 1 for a while."
            )
        write_tensors(path, {"rows": torch.from_numpy(rows)})
    return read_tensors(path)["rows"].float()
