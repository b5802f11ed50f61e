"""Trains every quantiser for some steps and writes this process's weights and codes; started once per process."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parents[1] / "laws"))

from tables import FAMILIES, OBJECTIVES, QUANTIZERS, raw_rows

from lowerbound.lab.data.rows import InMemory
from lowerbound.lab.training.loop import Loop
from lowerbound.lab.training.processes import Processes
from lowerbound.recipe import Training

ROWS = 64


def main(out: str) -> None:
    """Train in single precision, as usual: each process sees other rows, and rounds other sums."""
    torch.set_num_threads(1)
    processes = Processes.join(torch.device("cpu"))
    reached: dict[str, torch.Tensor] = {}
    for name in QUANTIZERS:
        model = FAMILIES[f"vq-vae-{name}"].make()
        raw = raw_rows(model.data, ROWS)
        training = Training.model_validate({"steps": 40, "batch_size": 16, "learning_rate": 1e-2, "clip": 5.0})
        objective = OBJECTIVES[f"elbo-vq-{name}"].make(model)
        loop = Loop(model, objective, InMemory(raw), training, 0, torch.device("cpu"), processes)
        loop.run(lambda step, parts: False)
        codes = model.eval().encode(model.preparation.prepare(raw, None))["codes"]
        reached |= {f"{name}/codes": codes}
        reached |= {f"{name}/{key}": value for key, value in model.state_dict().items()}
    save_file({key: value.contiguous().clone() for key, value in reached.items()}, f"{out}-{processes.rank}")
    Processes.leave()


main(sys.argv[1])
