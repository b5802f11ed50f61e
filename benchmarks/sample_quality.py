"""Memory and time of the distances of samples from data, over 50,000 feature vectors of 2,048 dimensions.

python benchmarks/sample_quality.py [--rows 50000] [--size 2048]
"""

from __future__ import annotations

import argparse
import resource
import time

import torch

from lowerbound.lab.evaluation.quality import frechet_distance, kernel_distance, neighbourhoods
from lowerbound.noise import generator


def peak() -> float:
    """The most memory that this process has held, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--size", type=int, default=2048)
    chosen = parser.parse_args()
    real = torch.randn(chosen.rows, chosen.size, generator=generator(0))
    made = torch.randn(chosen.rows, chosen.size, generator=generator(1)).mul_(1.05)
    print(f"{chosen.rows:,} x {chosen.size:,} features of each kind: {peak():.2f} GiB before")
    for name, measure in (
        ("Fréchet distance", lambda: frechet_distance(real, made)),
        ("kernel distance", lambda: kernel_distance(real, made)),
        ("precision, recall, density, coverage", lambda: neighbourhoods(real, made)),
    ):
        start = time.perf_counter()
        measure()
        print(f"{name}: {time.perf_counter() - start:.0f} s, at most {peak():.2f} GiB so far", flush=True)


if __name__ == "__main__":
    main()
