"""Seconds of a training and an evaluation step of a codebook beside vector-quantize-pytorch: `make vqbench`.

Both quantise the same vectors with the same codes in one process, in turns, so that whatever else the machine does
meets both. Ratios are of neighbouring steps. A training step is the forward pass, the backward pass with a gradient for
the quantised vectors and a commitment of weight 0.25, and the update of the moving averages.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from importlib.metadata import version

import torch
from torch import Tensor
from vector_quantize_pytorch import VectorQuantize

from lowerbound.model.networks.quantizers.ema import EMACodebook
from lowerbound.noise import BatchNoise

SIZES = [(512, 64), (8192, 32)]
ROWS, POSITIONS = 32, 1024
ROUNDS = 7
TIE = 1e-5  # relative difference of distances


class Theirs:
    """Its steps, with the decay and the commitment of van den Oord et al."""

    def __init__(self, size: int, dimension: int) -> None:
        self.part = VectorQuantize(dim=dimension, codebook_size=size, decay=0.99, commitment_weight=0.25)

    def train(self, x: Tensor, gradient: Tensor) -> None:
        """One training step."""
        self.part.train()
        h = x.clone().requires_grad_()
        vectors, _, loss = self.part(h)
        ((vectors * gradient).sum() + loss.sum()).backward()

    @torch.no_grad()
    def evaluate(self, x: Tensor) -> Tensor:
        """The codes of an evaluation step."""
        self.part.eval()
        codes: Tensor = self.part(x)[1]
        return codes


class Ours:
    """Our steps; the codes are given, so there is no k-means start, and restarts stay on."""

    def __init__(self, size: int, dimension: int) -> None:
        self.part = EMACodebook(size=size, dimension=dimension, start=False)
        self.steps = 0

    def train(self, x: Tensor, gradient: Tensor) -> None:
        """One training step."""
        self.part.train()
        h = x.clone().requires_grad_()
        found = self.part(h, BatchNoise(0, self.steps, len(x)))
        loss = 0.25 * found.penalties["commitment"].sum() / x.numel()
        ((found.vectors * gradient).sum() + loss).backward()
        with torch.no_grad():
            self.part.absorb(found.statistics)
        self.steps += 1

    @torch.no_grad()
    def evaluate(self, x: Tensor) -> Tensor:
        """The codes of an evaluation step."""
        codes: Tensor = self.part.eval()(x, None).codes
        return codes

    def copy(self, theirs: Theirs) -> None:
        """Take their codes."""
        self.part.codebook.copy_(theirs.part.codebook)
        self.part.counts.fill_(1)
        self.part.sums.copy_(self.part.codebook)


def seconds(step: Callable[[], object]) -> float:
    """How long a step takes."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def disagreement(x: Tensor, codebook: Tensor, ours: Tensor, theirs: Tensor) -> tuple[int, int]:
    """How many codes differ, and how many of them by more than a tie, in double precision."""
    differ = ours != theirs
    rows = x[differ].double()
    distances = [(rows - codebook[codes[differ]].double()).square().sum(dim=1) for codes in (ours, theirs)]
    more = (distances[0] - distances[1]).abs() > TIE * distances[1]
    return int(differ.sum()), int(more.sum())


def spread(values: list[float], form: str) -> str:
    """Minimum, median and maximum."""
    return " / ".join(format(value, form) for value in (min(values), statistics.median(values), max(values)))


def main() -> None:
    """Compare and print a table in Markdown."""
    torch.manual_seed(0)
    print(f"vector-quantize-pytorch {version('vector-quantize-pytorch')}, torch {torch.__version__}")
    print(f"{ROUNDS} rounds in turns, {torch.get_num_threads()} threads, {ROWS * POSITIONS:,} vectors in fp32")
    print("each cell: minimum / median / maximum\n")
    print("| K, d | step | theirs, ms | ours, ms | ratio | codes that differ | more than a tie |")
    print("|---|---|---|---|---|---|---|")
    for size, dimension in SIZES:
        x, gradient = torch.randn(2, ROWS, POSITIONS, dimension)
        theirs, ours = Theirs(size, dimension), Ours(size, dimension)
        times: dict[str, list[tuple[float, float]]] = {"train": [], "eval": []}
        differ, more = 0, 0
        for number in range(ROUNDS + 1):  # the first warms up
            ours.copy(theirs)
            codes = ours.evaluate(x), theirs.evaluate(x)
            found = disagreement(x, ours.part.codebook, *codes)
            differ, more = differ + found[0], more + found[1]
            train = seconds(lambda: theirs.train(x, gradient)), seconds(lambda: ours.train(x, gradient))  # noqa: B023
            evaluate = seconds(lambda: theirs.evaluate(x)), seconds(lambda: ours.evaluate(x))  # noqa: B023
            if number:
                times["train"].append(train)
                times["eval"].append(evaluate)
        compared = f"{differ} of {(ROUNDS + 1) * ROWS * POSITIONS:,} | {more}"
        for name, pairs in times.items():
            a, b = ([1e3 * pair[side] for pair in pairs] for side in (0, 1))
            ratios = [pair[0] / pair[1] for pair in pairs]
            cells = [spread(a, ",.0f"), spread(b, ",.0f"), spread(ratios, ".1f")]
            print(f"| {size}, {dimension} | {name} | {' | '.join(cells)} | {compared} |", flush=True)


if __name__ == "__main__":
    main()
