"""Writes facts until it is killed; says every few rows how many were recorded and how many are committed, and when.

python telemetry_writer.py FOLDER NAME
"""

from __future__ import annotations

import sys
import time

from made_facts import fact

from lowerbound.service.monitoring.telemetry.store import Telemetry

EVERY = 20  # rows


def main(folder: str, name: str) -> None:
    """Never returns."""
    telemetry = Telemetry(folder)
    index = 0
    while True:
        telemetry(fact(index, request=f"{name}-{index}"))
        index += 1
        if index % EVERY == 0:
            counts = telemetry.counts
            # One system call for a line, which a kill -9 does not tear.
            sys.stdout.write(f"{time.monotonic()} {counts.recorded} {counts.committed} {counts.full}\n")
            sys.stdout.flush()
            time.sleep(0.01)


if __name__ == "__main__":
    main(*sys.argv[1:])
