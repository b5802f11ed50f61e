"""Trains on shards and writes by how much memory grew: streaming.py FOLDER OUT [STEP at which to be killed].

A program of its own, so that its memory is its own.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import torch

import lowerbound
from lowerbound.lab.recorder import Progress

OVERRIDES = [
    'data.kind="shards"',
    "training.steps=100",
    "training.batch_size=64",
    "training.checkpoint_every=20",
    "training.journal_every=1",
    "training.guard.rows=32",  # rows of a look need memory, as those of a batch do
    'model.likelihood.kind="bernoulli"',
    "model.latent=2",
    "model.encoder.widths=[4]",
    "model.decoder.widths=[4]",
]
WARM = 5  # steps after which buffers and optimisers are there


def largest_kib() -> int:
    """The most memory that this process has held since `forget`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    raise AssertionError("no VmHWM")


def main(folder: str, out: str, kill_at: int | None) -> None:
    """Train, and write the growth after the first steps."""
    torch.set_num_threads(1)
    recipe = lowerbound.read_recipe("table", [f'data.path="{folder}"', *OVERRIDES])
    start = 0

    def watch(progress: Progress) -> None:
        nonlocal start
        if progress.step == WARM:
            Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew
            start = largest_kib()
        if progress.step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    lowerbound.train(recipe, out, resume=True, watch=watch)
    Path(out, "memory.json").write_text(json.dumps({"growth_bytes": (largest_kib() - start) * 1024, "start": start}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else None)
