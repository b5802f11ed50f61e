"""The page of several runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from lowerbound.app.report import pictures
from lowerbound.app.report.page import Drawn, Section, picture, render
from lowerbound.errors import LowerboundError
from lowerbound.files import write_text
from lowerbound.lab.compare import Comparison, Line
from lowerbound.lab.data.load import load_data
from lowerbound.lab.generation import use
from lowerbound.lab.run import Run

COLUMNS = 10


def write_compared(out: Path, paths: Sequence[Path], found: Comparison, data_dir: Path | None = None) -> None:
    """Write the page, with reconstructions and samples of each run where all are runs of images.

    Args:
        out: the page, .html.
        paths: of what was compared.
        found: the comparison.
        data_dir: where the runs' data lie.
    """
    page = render(
        "compared.html",
        {
            "names": found.names,
            "lines": [_row(line) for line in found.lines],
            "sections": _pictures(paths, found.names, data_dir),
        },
    )
    write_text(out, page)


def _row(line: Line) -> dict[str, object]:
    cells = [{"text": line.cell(place), "kind": line.verdict(place)} for place in range(len(line.values))]
    return {"name": line.name, "better": line.better, "cells": cells, "refused": line.refused}


def _pictures(paths: Sequence[Path], names: list[str], data_dir: Path | None) -> list[Section]:
    """What each run makes of the same rows, and of nothing."""
    try:
        runs = [Run(path) for path in paths]
        models = [run.model() for run in runs]
        spec = models[0].data
        if len(spec.event) != 3 or spec.event[0] not in (1, 3) or any(model.data.context for model in models):
            return []
        rows = load_data(runs[0].recipe().data, data_dir, runs[0].quarantine_path).test
        raw = rows.take(torch.arange(min(COLUMNS, len(rows)))).raw
        made = {name: use.reconstruct(model, raw) for name, model in zip(names, models, strict=True)}
        samples = {name: use.sample(model, COLUMNS) for name, model in zip(names, models, strict=True)}
    except LowerboundError:
        return []  # the numbers stand without pictures
    lines = "from top to bottom: " + ", ".join(names)
    figures: list[Drawn] = [
        picture(
            "reconstructions.png",
            "Reconstructions",
            f"The same held-out rows; {lines.replace(': ', ': data, ')}.",
            f"Reconstructions of {len(raw)} rows by {len(names)} runs.",
            pictures.stack({"data": raw, **made}, spec, COLUMNS),
        ),
        picture(
            "samples.png",
            "Samples",
            f"From the same seed; {lines}.",
            f"Samples of {len(names)} runs.",
            pictures.stack(samples, spec, COLUMNS),
        ),
    ]
    return [Section("pictures", "Pictures", "What each run makes.", figures)]
