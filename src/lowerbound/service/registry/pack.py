"""From a run to the folder of a version."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import lowerbound
from lowerbound.errors import NotSupportedError, ParityError, UsageError
from lowerbound.files import read_json, write_json, write_text
from lowerbound.lab.compatibility import ROWS, codes_hash, compare_codes
from lowerbound.lab.data.rows import Dataset
from lowerbound.lab.export import export_model, held_out
from lowerbound.lab.reference import Reference, make_reference
from lowerbound.lab.run import Run
from lowerbound.model.families.family import Family
from lowerbound.service.registry.card import write_card
from lowerbound.service.registry.objects import copy
from lowerbound.service.registry.version import CARD, COMPATIBILITY, EXPORT, Version, write_manifest

# Files of a run that a version keeps; the journal, checkpoints and pictures stay with the run.
LINEAGE = "lineage.json"  # what a retraining made it from
KEPT = ("recipe.json", "run.json", "weights.safetensors", "evaluation.json", "quarantine.json", LINEAGE)
IDENTITY_ROWS = 1000  # of each part of the data, whose values tell it from others
SCHEMA = 1


def pack(
    run: Run, draft: Path, *, name: str, card: str | None, parent: Version | None, source: str, data_dir: Path | None
) -> str:
    """Fill the folder of a version; returns its hash.

    A run that was never judged is judged now, for its version only.

    Args:
        run: finished.
        draft: an empty folder.
        name: of the model.
        card: what it is meant for.
        parent: that it is compared with.
        source: hash of what it is made of.
        data_dir: where the run's data lie.
    """
    for file in KEPT:
        if (run.path / file).exists():
            copy(run.path / file, draft / file)
    if not (draft / "evaluation.json").exists():
        write_json(draft / "evaluation.json", lowerbound.evaluate(run, data_dir=data_dir, write=False).json())
    model, data = Run(draft).model(), lowerbound.load_data(run.recipe().data, data_dir, run.quarantine_path)
    facts: dict[str, Any] = {"schema": SCHEMA, "source": source, "codes": codes_hash(model, run.recipe().model)}
    facts["parent"] = None if parent is None else {"number": parent.number, "hash": parent.hash}
    if parent is not None:
        write_json(draft / COMPATIBILITY, _compared(parent, model, facts["codes"], data))
    facts["data"] = {"table": run.recipe().data, **identity(data)}
    try:
        reference = make_reference(model, data.validation)
        reference.save(draft)
        facts["reference"] = {"rows": reference.rows, "scores": sorted(reference.scores)}
        facts["export"] = _exported(model, reference, data, draft)
    except NotSupportedError as error:
        facts["reference"] = facts["export"] = {"refused": str(error)}
    write_text(draft / CARD, write_card(name, run, read_json(draft / "evaluation.json"), facts, card))
    return write_manifest(draft, facts)


def identity(data: Dataset) -> dict[str, Any]:
    """Which data a model saw: the number of rows of each part, and a hash of the values of the first thousand."""
    found = {}
    for name in ("train", "validation", "test"):
        rows = data.split(name)
        digest = hashlib.sha256()
        for start in range(0, min(len(rows), IDENTITY_ROWS), 100):
            digest.update(_bytes(rows.take(torch.arange(start, min(start + 100, len(rows), IDENTITY_ROWS))).raw))
        found[name] = {"rows": len(rows), "sha256": digest.hexdigest()}
    return found


def _compared(parent: Version, model: Family, codes: str, data: Dataset) -> dict[str, Any]:
    """How the codes relate to those of the parent, on validation rows."""
    against = {"against": parent.number, "hash": parent.hash}
    rows = data.validation.take(torch.arange(min(len(data.validation), ROWS)))
    same = parent.manifest()["codes"] == codes
    try:
        before = Run(parent.verify().path).model()
        return {**against, **compare_codes(before, model, rows.raw, rows.context, same_parts=same).json()}
    except NotSupportedError as error:
        return {**against, "verdict": "identical" if same else "breaking", "reason": str(error)}


def _exported(model: Family, reference: Reference, data: Dataset, draft: Path) -> dict[str, Any]:
    try:
        parity = export_model(model, reference, held_out(data.validation), draft / EXPORT)["onnx"]
    except (NotSupportedError, ParityError, UsageError) as error:  # a version without files for other engines
        return {"refused": str(error)}
    worst = max(parity.outputs.values())
    return {"format": "onnx", "engine": parity.engine, "largest_difference": worst, "decisions": parity.decisions}


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
