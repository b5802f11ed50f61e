"""Images per second of training beside pythae: `make bench`.

Both train the same networks on the same binary images with the same batch, optimiser and epochs, in turns, so that
whatever else the machine does meets both. Ratios are of neighbouring runs.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from lowerbound.lab.data.load import load_data

HERE = Path(__file__).parent
RUNS = 5
EPOCHS = {"mlp": 6, "convolutional": 2}
ROWS = {"mlp": 10_000, "convolutional": 4_000}
MLP = [(784, 512), (512, 512), (512, 40), (20, 512), (512, 512), (512, 784)]


def write_rows(network: str, path: Path) -> None:
    """Binary images: MNIST's where it is there, else noise (for speed alone); 32x32x3 noise for convolutions."""
    rows = ROWS[network]
    if network == "mlp" and "LOWERBOUND_DATA" in os.environ:
        data = load_data({"kind": "mnist"})
        every = [(split.take(torch.arange(rows)).raw >= 128).byte().numpy() for split in (data.train, data.test)]
    else:
        shape = (1, 28, 28) if network == "mlp" else (3, 32, 32)
        chance = np.random.default_rng(0)
        every = [(chance.random((rows, *shape)) < chance.random(shape)).astype(np.uint8) for _ in range(2)]
    np.savez(path, train=every[0], test=every[1][:2000])


def measure(python: str, script: str, *arguments: str) -> dict[str, float]:
    """The numbers that one side prints last."""
    done = subprocess.run([python, HERE / script, *arguments], check=True, capture_output=True, text=True, timeout=900)
    numbers: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return numbers


def limit(dtype: torch.dtype, batch: int = 128) -> float:
    """Images per second of the MLP's matrix products alone, forwards and backwards: no step can be faster."""
    layers = [
        (torch.randn(batch, i).to(dtype), torch.randn(o, i).to(dtype), torch.randn(batch, o).to(dtype)) for i, o in MLP
    ]
    times = []
    for _ in range(200):
        start = time.perf_counter()
        for x, weight, gradient in layers:
            x @ weight.t(), gradient.t() @ x, gradient @ weight
        times.append(time.perf_counter() - start)
    return batch / statistics.median(times)


def spread(values: list[float], form: str) -> str:
    """Minimum, median and maximum."""
    return " / ".join(format(value, form) for value in (min(values), statistics.median(values), max(values)))


def main(peer: str) -> None:
    """Compare and print a table in Markdown."""
    cpu = torch.backends.cpu.get_cpu_capability()
    print(f"{RUNS} runs in turns, {torch.get_num_threads()} threads, {cpu}, torch {torch.__version__}")
    fp32, bf16 = limit(torch.float32), limit(torch.bfloat16)
    print(f"matrix products of the MLP alone: {fp32:,.0f} images/s in fp32, {bf16:,.0f} in bf16")
    print("each cell: minimum / median / maximum\n")
    print("| network | ours in | pythae images/s | ours images/s | ratio | ELBO pythae | ELBO ours |")
    print("|---|---|---|---|---|---|---|")
    for network, epochs in EPOCHS.items():
        with tempfile.TemporaryDirectory() as folder:
            data = Path(folder) / "rows.npz"
            write_rows(network, data)
            for precision in ("fp32", "bf16"):
                theirs, ours = [], []
                for _ in range(RUNS):
                    theirs.append(measure(peer, "peer.py", str(data), network, str(epochs)))
                    ours.append(measure(sys.executable, "ours.py", str(data), network, str(epochs), precision))
                speeds = [[run["images_per_second"] for run in runs] for runs in (theirs, ours)]
                elbos = [[run["elbo_nats"] for run in runs] for runs in (theirs, ours)]
                ratios = [b / a for a, b in zip(*speeds, strict=True)]
                cells = [*(spread(s, ",.0f") for s in speeds), spread(ratios, ".2f")]
                cells += [spread(e, ".2f") for e in elbos]
                print(f"| {network} | {precision} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
