"""Ten minutes of load and the slope of the memory: python benchmarks/serving/soak.py --out DIR [--minutes 10]"""

from __future__ import annotations

import argparse
import threading
import time
from pathlib import Path

import numpy as np
import psutil
from load import ours, running
from models import payloads, pictures, register

import lowerbound

PORT = 8780


def main() -> None:
    """Print the slope, bytes for each thousand requests, with its standard error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10.0)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    registry = register(given.out, "small")
    picture, rows = payloads(given.out, "small")["PNG"][0].read_bytes(), pictures(4, 28)
    count, ended = [0], threading.Event()

    def ask() -> None:
        with lowerbound.Client(f"http://127.0.0.1:{PORT}") as client:
            while not ended.is_set():
                client.encode("small", picture)
                client.reconstruct("small", rows)
                client.score("small", rows[:2])
                client.sample("small", count=2, seed=count[0])
                list(client.frames("small", "interpolate", rows[:2], steps=4))
                try:
                    client.encode("small", picture[:-9])
                except lowerbound.ServerError:
                    count[0] += 6

    command = ours(registry, "small", PORT)
    with running(command, f"http://127.0.0.1:{PORT}/readyz", given.out / "soak.log") as (process, _):
        workers = process.children()
        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        start, requests, sizes = time.monotonic(), [], []
        while time.monotonic() - start < 60 * given.minutes:
            time.sleep(1)
            if time.monotonic() - start > 6 * given.minutes:  # the first tenth is for caches to fill
                requests.append(count[0])
                sizes.append(sum(psutil.Process(worker.pid).memory_info().rss for worker in workers))
        ended.set()
        for thread in threads:
            thread.join()
    fit, covariance = np.polyfit(requests, sizes, 1, cov=True)
    print(f"{count[0]:,} requests in {given.minutes:g} minutes, {sizes[-1] / 2**20:.0f} MiB at the end")
    print(f"slope: {fit[0]:.1f} +- {covariance[0, 0] ** 0.5:.1f} bytes for each request")


if __name__ == "__main__":
    main()
