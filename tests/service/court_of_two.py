"""Sits as a court over digits:2 until it is killed. Arguments: registry, telemetry."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from lowerbound.service.candidate import Candidate
from lowerbound.service.monitoring.verdicts.court import Court
from lowerbound.service.monitoring.verdicts.rules import Rules
from lowerbound.service.registry.registry import Registry


def main(place: Path, folder: Path) -> None:
    registry = Registry(place)
    since = next(row.id for row in reversed(registry.history("digits")) if row.alias == "canary")
    hashes = [registry.resolve(f"digits:{number}").hash for number in (2, 1)]
    candidate = Candidate("digits", "canary", 2, hashes[0], since, 1, hashes[1])
    court = Court(folder, registry, lambda: [candidate], Rules())
    court.sit()
    sys.stdout.write("sits\n")
    sys.stdout.flush()
    while True:
        time.sleep(0.02)
        court.sit()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
