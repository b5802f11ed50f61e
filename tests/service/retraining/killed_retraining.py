"""Retrains in child processes that die before and after each state's file is written; writes how many died.

A program of its own with one thread, so that a child can be forked (and need not load everything again).
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests_of_digits as digits
import torch

from lowerbound.service.registry.registry import Registry
from lowerbound.service.retraining import job as machine
from lowerbound.service.retraining.states import STATES, retrain

written = machine.write_json


def moments() -> Iterator[tuple[str, bool]]:
    """Where to die: before and after each write of these files."""
    for name in (machine.JOB, *(f"{state}.json" for state in STATES)):
        yield name, False
        yield name, True


def die_at(name: str, after: bool) -> None:
    """From now on, die without a word when a file of this name is written."""

    def write(path: Path, value: Any) -> None:
        if path.name == name and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        written(path, value)
        if path.name == name:
            os.kill(os.getpid(), signal.SIGKILL)

    machine.write_json = write


def child(place: Path, moment: tuple[str, bool] | None) -> int:
    """Retrain in a child, which dies at a moment; returns how it ended."""
    process = os.fork()
    if process == 0:
        if moment is not None:
            die_at(*moment)
        job = digits.job(place, Registry(place / "registry"), "incremental")
        os._exit(0 if retrain(job).outcome == "done" else 1)
    return os.waitpid(process, 0)[1]


def main(place: Path) -> None:
    """Die everywhere, then come to the end."""
    torch.set_num_threads(1)
    ends = [child(place, moment) for moment in moments()]
    sys.stdout.write(json.dumps({"killed": sum(map(os.WIFSIGNALED, ends)), "last": child(place, None)}))


main(Path(sys.argv[1]))
