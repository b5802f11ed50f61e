"""Golden losses: a change that should not alter numbers leaves these as they are, to a relative 1e-6 in float64.

After a change that should alter them: `python tests/model/test_golden.py` writes them anew; say why in the commit.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tables import FAMILIES, OBJECTIVES, context_rows, raw_rows

from lowerbound.lab.data.rows import InMemory
from lowerbound.lab.training.loop import Loop
from lowerbound.lab.training.processes import Processes
from lowerbound.recipe import Training

GOLDEN = Path(__file__).parents[1] / "golden" / "losses.json"


def losses(name: str) -> dict[str, float]:
    """The numbers of the third step of training in double precision."""
    row = OBJECTIVES[name]
    model = FAMILIES[row.family].make().double()
    objective = row.make(model).double()
    raw, context = raw_rows(model.data, 16), context_rows(model.data, 16)
    if model.data.levels != 5:  # tokens stay integers
        raw = raw.double()
    if context is not None:
        context = type(context)(context.vector.double(), context.present)
    training = Training.model_validate({"steps": 3, "batch_size": 8, "learning_rate": 1e-3, "ema": 0.9, "clip": 10.0})
    loop = Loop(model, objective, InMemory(raw, context), training, 0, torch.device("cpu"), Processes())
    numbers: dict[str, float] = {}
    loop.run(lambda step, parts: bool(numbers.update({key: float(value) for key, value in parts.items()})))
    return numbers


@pytest.mark.parametrize("name", OBJECTIVES)
def test_losses_are_golden(name: str) -> None:
    assert losses(name) == pytest.approx(json.loads(GOLDEN.read_text())[name], rel=1e-6, abs=1e-9)


if __name__ == "__main__":
    torch.set_num_threads(1)
    GOLDEN.write_text(json.dumps({name: losses(name) for name in OBJECTIVES}, indent=1) + "\n")
