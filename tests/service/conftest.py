"""Runs to register, trained once."""

from __future__ import annotations

from pathlib import Path

import pytest

import lowerbound


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three finished and judged runs of points, of seeds 0, 1 and 2; nobody changes them."""
    folder = tmp_path_factory.mktemp("runs")
    made = []
    for seed in range(3):
        settings = [
            *("training.steps=30", "training.batch_size=32", f"seed={seed}"),
            *("model.encoder.widths=[16]", "model.decoder.widths=[16]", "evaluation.samples=4"),
        ]
        made.append(folder / f"seed{seed}")
        lowerbound.train(lowerbound.read_recipe("gmm2d", settings), made[-1])
        lowerbound.evaluate(made[-1], lowerbound.Run(made[-1]).recipe().evaluation)
    return made
