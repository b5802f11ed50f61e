"""Verdicts on simulated canaries: how often they are wrong, and how many requests they take.

    python benchmarks/canary.py [--streams 1000] [--write]

Every stream is looked at after every request. Prints tables; --write puts them into docs/canary.md.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lowerbound.service.monitoring.verdicts.evidence import betting_paths, mixture_paths
from lowerbound.service.monitoring.verdicts.frechet import compare
from lowerbound.service.monitoring.verdicts.rules import Rules

Array = NDArray[Any]
Paths = Callable[[Array], tuple[Array, Array]]
DOCS = Path(__file__).parents[1] / "docs" / "canary.md"
RULES, UNPAIRED = Rules(), Rules(pairing="unpaired")
MARGIN = math.log1p(RULES.margin)
LEVELS = (RULES.level_worse, RULES.level_fine)
LENGTH, PART = 1500, 200  # requests of a stream, streams at a time
DEVIATION, OF_IMAGES = 0.1, 0.6  # of logarithms of errors: of one image by two versions, and between images


def crossed(paths: Array, level: float) -> Array:
    """The number of the first value with enough evidence; one more than there are if none."""
    enough = paths >= math.log(1 / level)
    return np.where(enough.any(axis=1), enough.argmax(axis=1) + 1, paths.shape[1] + 1)


def far(logs: Array) -> tuple[Array, Array]:
    """Evidence of far worse rows."""
    return betting_paths(np.sign(logs) * (np.abs(logs) > RULES.bound), RULES.far_margin, 1.0)


def betting(logs: Array) -> tuple[Array, Array]:
    return betting_paths(logs, MARGIN, RULES.bound)


def mixture(logs: Array) -> tuple[Array, Array]:
    return mixture_paths(logs, MARGIN, RULES.bound, LEVELS)


def unclipped(logs: Array) -> tuple[Array, Array]:
    return mixture_paths(logs, MARGIN, 1e6, LEVELS)


METHODS: dict[str, Paths] = {
    "betting, clipped at 1.5 (default)": betting,
    "normal mixture, clipped at 1.5": mixture,
    "normal mixture, not clipped": unclipped,
}


def noises(chance: np.random.Generator) -> dict[str, Callable[[], Array]]:
    """Log-ratios of two versions that are equally good, by how they are distributed."""
    shape = (PART, LENGTH)
    return {
        "normal": lambda: chance.normal(0, DEVIATION, shape),
        "identical outputs": lambda: np.zeros(shape),
        "Student, 2 degrees": lambda: DEVIATION * chance.standard_t(2, shape),
        "Cauchy": lambda: DEVIATION / 3 * chance.standard_cauchy(shape),
        "1 % of rows 20 times better or worse": lambda: np.where(
            chance.random(shape) < 0.01, chance.choice([-3.0, 3.0], shape), chance.normal(0, DEVIATION, shape)
        ),
        "skewed (exponential)": lambda: chance.exponential(DEVIATION, shape) - DEVIATION,
    }


def median(times: Array) -> str:
    middle = float(np.median(times))
    return f"{middle:.0f}" if middle <= LENGTH else f"> {LENGTH}"


def share(times: Array) -> str:
    return f"{100 * np.mean(times <= LENGTH):.1f} %"


def judged(make: Callable[[], Array], paths: Paths, shift: float, streams: int, both: bool) -> tuple[Array, Array]:
    """When each stream is rolled back, and cleared; with the far worse rows or without."""
    worse, fine = [], []
    for _ in range(max(1, streams // PART)):
        logs = make() + shift
        found = [paths(logs), far(logs)] if both else [paths(logs)]
        worse.append(np.min([crossed(above, LEVELS[0]) for above, _ in found], axis=0))
        fine.append(np.max([crossed(below, LEVELS[1]) for _, below in found], axis=0))
    return np.concatenate(worse), np.concatenate(fine)


def evidence_rows(streams: int) -> list[list[str]]:
    rows = []
    for name, make in noises(np.random.default_rng(0)).items():
        for method, paths in METHODS.items():
            equal = judged(make, paths, 0.0, streams, False)
            edge = judged(make, paths, MARGIN, streams, False)
            worse = judged(make, paths, math.log(1.05), streams, False)
            at_edge = np.minimum(*edge)
            rows.append([name, method, share(equal[0]), share(at_edge), median(worse[0]), median(equal[1])])
            print(rows[-1], flush=True)
    return rows


def whole_rows(streams: int) -> list[list[str]]:
    rows = []
    for name, make in noises(np.random.default_rng(1)).items():
        found = {shift: judged(make, betting, shift, streams, True) for shift in (0.0, math.log(1.05), -0.05)}
        rows.append(
            [
                name,
                share(found[0.0][0]),
                median(found[0.0][1]),
                median(found[math.log(1.05)][0]),
                share(found[math.log(1.05)][1]),
                median(found[-0.05][1]),
            ]
        )
        print(rows[-1], flush=True)
    return rows


def unpaired_rows(streams: int) -> list[list[str]]:
    """A canary's row beside the mean of 19 of the stable version; and the naive rule."""
    chance, length, rows = np.random.default_rng(2), 40_000, []
    kinds: dict[str, Callable[[tuple[int, int]], Array]] = {
        "normal": lambda shape: chance.normal(0, OF_IMAGES, shape),
        "Student, 4 degrees": lambda shape: OF_IMAGES / math.sqrt(2) * chance.standard_t(4, shape),
        "skewed (exponential)": lambda shape: chance.exponential(OF_IMAGES, shape),
    }
    for name, draw in kinds.items():
        found = []
        for shift in (0.0, MARGIN, math.log(1.05)):
            times = []
            for _ in range(streams):
                stable = draw((19, length)).mean(axis=0)
                logs = (draw((1, length))[0] - stable + shift)[None]
                above, below = betting_paths(logs, MARGIN, UNPAIRED.bound)
                times.append([crossed(above, UNPAIRED.level_worse)[0], crossed(below, UNPAIRED.level_fine)[0]])
            found.append(np.array(times))
        equal, edge, worse = found
        rows.append(
            [
                name,
                f"{100 * np.mean(equal[:, 0] <= length):.1f} %",
                f"{100 * np.mean(edge.min(axis=1) <= length):.1f} %",
                f"{np.median(worse[:, 0]):.0f}",
                f"{np.median(equal[:, 1]):.0f}",
                f"{100 * naive(draw, chance, streams):.0f} %",
            ]
        )
        print(rows[-1], flush=True)
    return rows


def naive(draw: Callable[[tuple[int, int]], Array], chance: np.random.Generator, streams: int) -> float:
    """How often equal models are rolled back by means that are compared every minute of a day, 60 requests a minute."""
    rolled = 0
    for _ in range(streams):
        errors = np.exp(draw((1440, 60)))
        canary = chance.random((1440, 60)) < 0.05
        sums = [
            (np.where(mine, errors, 0).sum(axis=1).cumsum(), mine.sum(axis=1).cumsum()) for mine in (canary, ~canary)
        ]
        with np.errstate(invalid="ignore"):
            ratio = (sums[0][0] / sums[0][1]) / (sums[1][0] / sums[1][1])
        rolled += bool((ratio > 1 + RULES.margin).any())
    return rolled / streams


def distance_rows(streams: int) -> list[list[str]]:
    """Two equally good versions, and one that is worse by twice the margin, in 16 dimensions, one look."""
    rows = []
    chance = torch.Generator().manual_seed(0)
    level = (0.01 / 3, 0.04)
    for name, apart in (("equally good, distance 4", 0.0), ("at the margin", 2.0), ("worse by 4 points", 4.0)):
        worse = fine = 0
        for _ in range(streams):
            shared = torch.randn(2000, 16, generator=chance)
            reference = torch.randn(2000, 16, generator=chance)
            made = [
                0.8 * shared + 0.6 * torch.randn(2000, 16, generator=chance) + math.sqrt((4 + more) / 16)
                for more in (apart, 0.0)
            ]
            low, high = compare(reference, made[0], made[1], "simulated").interval(1, *level)
            worse, fine = worse + (low > RULES.frechet_points), fine + (high < RULES.frechet_points)
        rows.append([name, f"{100 * worse / streams:.1f} %", f"{100 * fine / streams:.1f} %"])
        print(rows[-1], flush=True)
    return rows


HEADS = {
    "whole": [
        "log-ratios",
        "equal: rolled back",
        "cleared after",
        "5 % worse: rolled back after",
        "cleared",
        "5 % better: cleared after",
    ],
    "evidence": [
        "log-ratios",
        "evidence",
        "equal: rolled back",
        "at the margin: any verdict",
        "5 % worse: after",
        "equal: cleared after",
    ],
    "unpaired": [
        "errors of images",
        "equal: rolled back",
        "at the margin: any verdict",
        "5 % worse: after",
        "equal: cleared after",
        "naive rule: equal models rolled back",
    ],
    "distances": ["candidate", "rolled back", "cleared"],
}


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    streams = arguments.streams
    made = {
        "whole": whole_rows(streams),
        "evidence": evidence_rows(streams),
        "unpaired": unpaired_rows(max(1, streams // 5)),
        "distances": distance_rows(max(1, streams // 5)),
    }
    tables = {name: table(HEADS[name], rows) for name, rows in made.items()}
    print("\n\n".join(tables.values()))
    if arguments.write:
        text = DOCS.read_text()
        for name, lines in tables.items():
            text = re.sub(
                rf"(<!-- {name} -->\n).*?(<!-- end -->)", lambda m, t=lines: f"{m[1]}{t}\n{m[2]}", text, flags=re.DOTALL
            )
        DOCS.write_text(text)


if __name__ == "__main__":
    main()
