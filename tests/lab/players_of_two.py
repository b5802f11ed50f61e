"""Lets every player of every objective with a critic take turns in this process, which may be one of several."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parents[1] / "laws"))

from players import CRITICS, check, loop_of, parameters

from lowerbound.lab.training.processes import Processes


def main(out: str) -> None:
    """Check each turn, and write the weights that this process has at the end."""
    torch.set_num_threads(1)
    processes = Processes.join(torch.device("cpu"))
    reached = {}
    for name in CRITICS:
        loop = loop_of(name, processes)
        for step in range(2):
            for number, player in loop.schedule(step):
                check(loop, number, player)
        reached |= {f"{name}/{key}": value.detach().clone() for key, value in parameters(loop).items()}
    save_file(reached, f"{out}-{processes.rank}")
    Processes.leave()


main(sys.argv[1])
