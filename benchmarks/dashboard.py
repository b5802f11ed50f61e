"""How long the dashboard's data take, of a store of many rows: python benchmarks/dashboard.py [ROWS]

Trains a small model, writes rows of two days into a store, and asks for the board of each span several times.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import lowerbound
from lowerbound.app.web.board import WIDTHS, Sources, board
from lowerbound.app.web.plain import text
from lowerbound.files import write_json
from lowerbound.service.monitoring.telemetry.fact import Fact
from lowerbound.service.monitoring.telemetry.store import Telemetry
from lowerbound.service.registry.registry import Registry

DAYS, AT_ONCE, TIMES = 2.0, 50_000, 5
SETTINGS = ["training.steps=200", "training.checkpoint_every=200", "data.context=label"]


def registered(folder: Path) -> Registry:
    """A registry in which `digits` is stable."""
    run, registry = (
        lowerbound.train(lowerbound.read_recipe("digits", SETTINGS), folder / "run"),
        Registry(folder / "registry"),
    )
    write_json(
        run.path / "evaluation.json", {"protocol": {"examples": 0, "split": "test", "samples": 0}, "results": {}}
    )
    registry.add(run.path, "digits")
    registry.promote("digits", 1)
    return registry


def fill(folder: Path, registry: Registry, rows: int, now: float) -> None:
    """Rows over two days until now, a fiftieth of them refused."""
    rng, version = np.random.default_rng(0), registry.resolve("digits")
    units = version.calibration().points.shape[1]
    with Telemetry(folder, most_rows=2 * AT_ONCE) as store:
        for start in range(0, rows, AT_ONCE):
            codes = rng.standard_normal((AT_ONCE, units), np.float32)
            for index in range(start, min(start + AT_ONCE, rows)):
                at, code = now - DAYS * 86400 * (1 - index / rows), codes[index - start]
                head = (at, f"{index}", "digits", version.hash, "stable", "encode")
                if index % 50 == 0:
                    store(Fact(*head, status=422, reason="flat", gate="flat", total_s=0.002))
                    continue
                known = {"error": 0.01 + 0.001 * (index % 7), "rate": 18.0 + index % 5, "code": code, "rates": code**2}
                store(
                    Fact(
                        *head, gate="passed", **known, variances=code**2, queue_s=0.001, compute_s=0.003, total_s=0.006
                    )
                )
            assert store.flush(120)


def main() -> None:
    """Measure, and print."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as name:
        folder, now = Path(name), time.time()
        registry = registered(folder)
        fill(folder / "telemetry", registry, rows, now)
        sources = Sources(registry, folder / "telemetry")
        print(f"{rows:,} rows, load {os.getloadavg()[0]:.1f}")
        for hours in WIDTHS:
            took = []
            for _ in range(TIMES):
                start, busy = time.perf_counter(), time.process_time()
                size = len(text(board(sources, "digits", hours, now)))
                took.append((time.perf_counter() - start, time.process_time() - busy))
            wall, cpu = zip(*took, strict=True)
            print(
                f"{hours:>4} h  {min(wall):.3f} to {max(wall):.3f} s, processor {min(cpu):.3f} to {max(cpu):.3f} s, "
                f"{size:,} bytes"
            )


if __name__ == "__main__":
    main()
