"""How long each tier takes on the digits, and how often the forgetting guard is wrong.

    python benchmarks/retraining.py [--streams 2000] [--write]

Prints tables; --write puts them into docs/retraining.md.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import lowerbound
from lowerbound.files import read_json
from lowerbound.service.monitoring.telemetry.fact import Fact, Privacy
from lowerbound.service.monitoring.telemetry.store import Telemetry
from lowerbound.service.registry.registry import Registry
from lowerbound.service.retraining.guard import paired_p_values
from lowerbound.service.retraining.job import Job
from lowerbound.service.retraining.plan import TIERS, read_plan
from lowerbound.service.retraining.states import STATES, retrain

DOCS = Path(__file__).parents[1] / "docs" / "retraining.md"
MARGIN, LEVEL = 0.02, 0.05
OF_IMAGES = 0.6  # deviation of the logarithm of errors between images
SLICES = 10
REQUESTS = 1297
Array = NDArray[np.float64]


# ---------------------------------------------------------------------------------------------------- the tiers


def requests(folder: Path, now: float) -> None:
    """Digits for training, one pixel to a side with a little noise, as the inputs of a week's requests."""
    chance = np.random.default_rng(0)
    raw = lowerbound.load_data({"kind": "digits"}).train.take(torch.arange(REQUESTS)).raw.numpy().astype(np.int64)
    moved = np.stack([np.roll(row, chance.choice([-1, 1]), axis=2) for row in raw]) + chance.integers(-1, 2, raw.shape)
    with Telemetry(folder, privacy=Privacy("sample", 1.0)) as telemetry:
        for place, row in enumerate(np.clip(moved, 0, 16).astype(np.uint8)):
            at = now - 86400 + place
            telemetry(Fact(at, f"{place}", "digits", "v", "stable", "score", gate="passed", input=row))
        telemetry.flush()


def tiers() -> str:
    """Seconds of each state, and what the guard said."""
    lines = [
        "| tier | " + " | ".join(STATES) + " | in all | said |",
        "| --- |" + " ---: |" * (len(STATES) + 1) + " --- |",
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lowerbound.train(lowerbound.read_recipe("digits"), folder / "first")
        lowerbound.evaluate(folder / "first")
        registry = Registry(folder / "registry")
        registry.add(folder / "first", "digits")
        registry.promote("digits", 1)
        requests(folder / "telemetry", time.time())
        for tier in TIERS:
            job = Job("digits", read_plan(tier), folder / tier / "job", registry, folder / "telemetry")
            found = retrain(job)
            took = [seconds(job.folder / f"{state}.json") for state in STATES]
            shown = " | ".join("" if each is None else f"{each:.1f}" for each in took)
            lines.append(f"| {tier} | {shown} | {sum(each or 0 for each in took):.1f} | {found.outcome}: {found.why} |")
            if "canary" in registry.aliases("digits"):
                registry.rollback("digits", "canary")
    return "\n".join(lines)


def seconds(path: Path) -> float | None:
    if not path.exists():
        return None
    found: dict[str, Any] = read_json(path)
    return (datetime.fromisoformat(found["ended"]) - datetime.fromisoformat(found["began"])).total_seconds()


# ---------------------------------------------------------------------------------------------------- the guard


def passes(chance: np.random.Generator, streams: int, rows: int, spread: float, worse: list[float]) -> float:
    """The share of candidates that pass on slices which are each worse by so much; paired, skewed errors."""
    kept = np.ones(streams, bool)
    for change in worse:
        baseline = chance.lognormal(0.0, OF_IMAGES, (streams, rows))
        ratio = np.exp(chance.normal(-(spread**2) / 2, spread, baseline.shape)) * (1 + change)
        kept &= paired_p_values(baseline, baseline * ratio, MARGIN)[0] <= LEVEL
    return float(kept.mean())


def rates(streams: int) -> str:
    """How often candidates pass, by the deviation of log(candidate / stable) of one image and the rows of a slice."""
    chance = np.random.default_rng(0)
    lines = [
        "| deviation | rows | 2 % worse on one slice: passes | 5 % worse on one: passes | equal: one slice passes | "
        f"equal: all {SLICES} pass |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for spread in (0.05, 0.1, 0.2):
        for rows in (100, 300, 1000):
            found = [
                passes(chance, streams, rows, spread, [MARGIN]),
                passes(chance, streams, rows, spread, [0.05]),
                passes(chance, streams, rows, spread, [0.0]),
                passes(chance, streams, rows, spread, [0.0] * SLICES),
            ]
            lines.append(f"| {spread} | {rows} | " + " | ".join(f"{each:.1%}" for each in found) + " |")
    return "\n".join(lines)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=2000)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    tables = {"tiers": tiers() + f"\n\nThe load average was {load:.1f}.", "guard": rates(given.streams)}
    text = DOCS.read_text(encoding="utf-8") if given.write else ""
    for name, table in tables.items():
        print(f"{table}\n")
        text = re.sub(rf"(<!-- {name} -->\n).*?(<!-- end -->)", rf"\g<1>{table}\n\g<2>", text, flags=re.DOTALL)
    if given.write:
        DOCS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
