"""Time of the 5,000-sample importance bound on the MNIST test set, for a 50-latent MLP (784-200-200-50, tanh).

    LOWERBOUND_DATA=DIR python benchmarks/importance_bound.py [--examples 10000] [--samples 5000]

Prints the time, and what share of the machine's matrix rate the decoder's products reach; the weights are untrained,
which changes the bound and not the time.
"""

from __future__ import annotations

import argparse
import time

import torch

from lowerbound.lab.data.load import load_data
from lowerbound.lab.evaluation.bounds import bounds
from lowerbound.model.build import build_model
from lowerbound.noise import BatchNoise

BATCH = 100
NETWORK = {"kind": "mlp", "widths": [200, 200], "activation": "tanh"}
# Multiplications and additions of one decoder pass, per sample of a row.
DECODER = 2 * (50 * 200 + 200 * 200 + 200 * 784)


def matrix_rate(seconds: float = 2.0) -> float:
    """Multiplications and additions per second of a large fp32 matrix product on this machine."""
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        a @ b
        count += 1
    return count * 2 * 1024**3 / (time.perf_counter() - start)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=10_000)
    parser.add_argument("--samples", type=int, default=5_000)
    chosen = parser.parse_args()
    data = load_data({"kind": "mnist"})
    model = build_model({"kind": "vae", "latent": 50, "encoder": NETWORK, "decoder": NETWORK}, data.spec, 0).eval()

    def batches():
        for number, start in enumerate(range(0, chosen.examples, BATCH)):
            raw = data.test.take(torch.arange(start, min(start + BATCH, chosen.examples))).raw
            noise = BatchNoise(0, number, len(raw))
            yield model.preparation.prepare(raw, noise.child("prepare")), None, noise

    rate = matrix_rate()
    start = time.perf_counter()
    found = bounds(model, batches(), chosen.samples)
    seconds = time.perf_counter() - start
    reached = chosen.examples * chosen.samples * DECODER / seconds
    print(f"{chosen.examples:,} images, K = {chosen.samples:,}, {torch.get_num_threads()} threads: {seconds:.0f} s")
    print(f"decoder products: {reached / 1e9:.0f} of {rate / 1e9:.0f} Gflop/s ({reached / rate:.0%})")
    print(f"bound of untrained weights: {found.importance[chosen.samples].mean():.2f} nats")


if __name__ == "__main__":
    main()
