"""Makes stores by several processes at once; fails if one of them is refused.

    python telemetry_openers.py FOLDER ROUNDS

A program of its own with one thread, so that a child can be forked (and need not load everything again).
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from made_facts import fact

from lowerbound.service.monitoring.telemetry.history import History
from lowerbound.service.monitoring.telemetry.store import Telemetry

PROCESSES, ROWS = 8, 20


def write(folder: Path, name: int, start: float) -> None:
    """Open the store at a moment that all agreed on, and write to it."""
    time.sleep(max(0.0, start - time.monotonic()))
    with Telemetry(folder) as telemetry:
        for index in range(ROWS):
            telemetry(fact(index, request=f"{name}-{index}"))


def together(folder: Path) -> None:
    """One round."""
    start, children = time.monotonic() + 0.05, []
    for name in range(PROCESSES):
        child = os.fork()
        if not child:
            try:
                write(folder, name, start)
            except BaseException as error:
                sys.stderr.write(f"{error}\n")
                os._exit(1)
            os._exit(0)
        children.append(child)
    ended = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert not any(ended), ended
    assert len(set(History(folder).window().request)) == PROCESSES * ROWS


if __name__ == "__main__":
    for turn in range(int(sys.argv[2])):
        together(Path(sys.argv[1]) / str(turn))
