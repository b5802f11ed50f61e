"""Trains every objective of the table for some steps and writes the weights; run once, or twice under one group."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parents[1] / "laws"))

from tables import FAMILIES, OBJECTIVES, TEXT, context_rows, raw_rows

from lowerbound.lab.data.rows import InMemory
from lowerbound.lab.training.loop import Loop
from lowerbound.lab.training.processes import Processes
from lowerbound.model.spec import Context, DataSpec
from lowerbound.recipe import Training

ROWS = 32


def double_rows(data: DataSpec) -> tuple[torch.Tensor, Context | None]:
    """Rows and contexts in double precision; tokens stay integers."""
    raw, context = raw_rows(data, ROWS), context_rows(data, ROWS)
    if context is not None:
        context = Context(context.vector.double(), context.present)
    return (raw if data == TEXT else raw.double()), context


def main(out: str) -> None:
    """Train in double precision: Adam divides by the gradient, which blows up rounding where it is near 0."""
    torch.set_num_threads(1)
    processes = Processes.join(torch.device("cpu"))
    reached: dict[str, torch.Tensor] = {}
    for name, row in OBJECTIVES.items():
        model = FAMILIES[row.family].make().double()
        objective = row.make(model).double()
        data = InMemory(*double_rows(model.data))
        training = Training.model_validate({"steps": 5, "batch_size": 16, "learning_rate": 1e-3, "clip": 5.0})
        loop = Loop(model, objective, data, training, 0, torch.device("cpu"), processes)
        numbers: dict[str, float] = {}
        loop.run(lambda step, parts, kept=numbers: bool(kept.update({k: float(v) for k, v in parts.items()})))
        reached |= {f"{name}/model.{key}": value.clone() for key, value in loop.model.state_dict().items()}
        reached |= {f"{name}/objective.{key}": value.clone() for key, value in loop.objective.state_dict().items()}
        reached |= {f"{name}/parts.{key}": torch.tensor(value) for key, value in numbers.items()}
    if processes.leads:
        save_file({key: value.contiguous() for key, value in reached.items()}, out)
    Processes.leave()


main(sys.argv[1])
