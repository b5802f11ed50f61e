"""Trains a run in child processes that are killed at random steps, until it is finished; writes the number of kills.

A program of its own with one thread, so that a child can be forked (and need not load everything again).
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

import lowerbound
from lowerbound.recipe import Recipe

KILLS, STEPS = 20, 400
OVERRIDES = [
    f"training.steps={STEPS}",
    "training.checkpoint_every=7",
    "training.journal_every=1",
    "model.encoder.widths=[16]",
    "model.decoder.widths=[16]",
]


def last_step(out: Path) -> int:
    """The step of the journal's last whole row."""
    path = out / "journal.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return int(json.loads(lines[-1])["step"]) if lines else 0


def train(recipe: Recipe, out: Path) -> int:
    """A child that trains; returns its process."""
    child = os.fork()
    if child == 0:
        lowerbound.train(recipe, out, resume=True)
        os._exit(0)
    return child


def main(out: Path) -> None:
    """Kill and resume; the steps at which to kill are spread over the run at random."""
    torch.set_num_threads(1)
    recipe = lowerbound.read_recipe("gmm2d", OVERRIDES)
    lowerbound.load_data(recipe.data)  # load what a child needs, once
    targets = sorted(random.Random(0).sample(range(1, STEPS - 1), KILLS))
    kills = 0
    for target in targets:
        child = train(recipe, out)
        deadline = time.monotonic() + 60
        while last_step(out) < target and time.monotonic() < deadline:
            time.sleep(0.0005)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        kills += os.WIFSIGNALED(status)
    _, status = os.waitpid(train(recipe, out), 0)
    sys.stdout.write(json.dumps({"kills": kills, "status": status}))


main(Path(sys.argv[1]))
