"""Anomalies in the tables of ADBench, beside peers on the same splits: `make adbench`.

    python benchmarks/anomaly/compare.py PYTHON_OF_PYOD --out DIR [--seeds 5]

Of each table a random half of the normal rows is for training; the other half and all anomalies are for testing.
Columns are standardised by the training rows, for all detectors. One setting for all tables. What is in DIR is not done
again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import numpy as np
import torch
from scipy.stats import rankdata
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors

import lowerbound
from lowerbound.files import write_json

HERE = Path(__file__).parent
OURS = ("VAEDetector", "VAEDetector, likelihood")
Split = tuple[np.ndarray, np.ndarray, np.ndarray]


def split(path: Path, seed: int) -> Split:
    """Training rows, test rows and which of them are anomalies."""
    with np.load(path, allow_pickle=False) as file:
        rows, truth = file["X"].astype(np.float64), file["y"].astype(int)
    normal = np.random.default_rng(seed).permutation(np.flatnonzero(truth == 0))
    half = len(normal) // 2
    train, held, odd = rows[normal[:half]], rows[normal[half:]], rows[truth == 1]
    mean, scale = train.mean(axis=0), train.std(axis=0)
    scale[scale == 0] = 1
    test = np.concatenate([held, odd])
    return (train - mean) / scale, (test - mean) / scale, np.repeat([0, 1], [len(held), len(odd)])


def ours(train: np.ndarray, test: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Both scores of one bag."""
    detector = lowerbound.VAEDetector(random_state=seed).fit(train)
    neighbours = -detector.score_samples(test)
    return dict(zip(OURS, (neighbours, -detector.set_params(method="likelihood").score_samples(test)), strict=True))


def five_neighbours(train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    """Mean distance to the five nearest training rows."""
    return NearestNeighbors(n_neighbors=5).fit(train).kneighbors(test)[0].mean(axis=1)


def outlier_factor(train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    """scikit-learn's local outlier factor."""
    return -LocalOutlierFactor(novelty=True).fit(train).score_samples(test)


def components(train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    """Squared distance along all principal components, each in units of its deviation."""
    found = PCA().fit(train)
    return (found.transform(test) ** 2 / np.maximum(found.explained_variance_, 1e-12)).sum(axis=1)


def forest(train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    """scikit-learn's isolation forest."""
    return -IsolationForest(random_state=seed).fit(train).score_samples(test)


PEERS: dict[str, Callable[[np.ndarray, np.ndarray, int], np.ndarray]] = {
    "5 nearest neighbours": five_neighbours,
    "local outlier factor": outlier_factor,
    "PCA": components,
    "isolation forest": forest,
}


def pyod(python: str, train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    """PyOD's VAE with its default settings, in an environment of its own."""
    with tempfile.TemporaryDirectory() as folder:
        np.savez(f"{folder}/rows.npz", train=train, test=test)
        subprocess.run([python, HERE / "peer.py", folder, str(seed)], check=True, capture_output=True, timeout=1800)
        # Some of its fits diverge; infinite scores are ranked as the largest.
        return rankdata(np.load(f"{folder}/scores.npy", allow_pickle=False))


def measure(path: Path, seed: int, python: str, out: Path) -> str:
    """Write the area under the ROC curve of each detector, in percent, and the seconds that each took."""
    train, test, truth = split(path, seed)
    numbers: dict[str, float] = {}

    def note(made: Callable[[], dict[str, np.ndarray]], name: str) -> None:
        start = time.perf_counter()
        for key, scores in made().items():
            numbers[key] = 100 * float(roc_auc_score(truth, scores))
        numbers[f"seconds {name}"] = time.perf_counter() - start

    note(lambda: ours(train, test, seed), OURS[0])
    for name, peer in PEERS.items():
        note(lambda name=name, peer=peer: {name: peer(train, test, seed)}, name)
    note(lambda: {"PyOD's VAE": pyod(python, train, test, seed)}, "PyOD's VAE")
    write_json(out, numbers)
    return f"{path.stem}, seed {seed}"


def report(found: dict[str, list[dict[str, float]]]) -> str:
    """The table in Markdown: means over seeds, and over tables."""
    names = [*OURS, *PEERS, "PyOD's VAE"]
    lines = [f"| table | {' | '.join(names)} |", f"| --- |{' ---: |' * len(names)}"]
    means = {table: [statistics.mean(run[name] for run in runs) for name in names] for table, runs in found.items()}
    lines += [f"| {table} | {' | '.join(f'{value:.1f}' for value in values)} |" for table, values in means.items()]
    every = np.array(list(means.values()))
    lines.append(f"| **mean** | {' | '.join(f'**{value:.2f}**' for value in every.mean(axis=0))} |")
    lines.append("")
    for index, name in enumerate(OURS):
        for other in range(len(OURS), len(names)):
            gap = every[:, index] - every[:, other]
            width = 1.96 * gap.std(ddof=1) / np.sqrt(len(gap))
            lines.append(f"* {name} less {names[other]}: {gap.mean():+.2f} ± {width:.2f} (95 %, paired over tables)")
    return "\n".join(lines)


def alone() -> None:
    """One thread for each process: as many processes run as there are cores."""
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


def main() -> None:
    """Measure what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("python")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    tables = sorted((Path(os.environ["LOWERBOUND_DATA"]) / "adbench").glob("*.npz"))
    places = {(path, seed): chosen.out / f"{path.stem}-{seed}.json" for seed in range(chosen.seeds) for path in tables}
    missing = sorted(
        (key for key, place in places.items() if not place.exists()), key=lambda key: -key[0].stat().st_size
    )
    start = time.perf_counter()
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn"), alone) as pool:
        waiting = [pool.submit(measure, path, seed, chosen.python, places[path, seed]) for path, seed in missing]
        for number, done in enumerate(as_completed(waiting), 1):
            print(f"{number} of {len(missing)}: {done.result()}", flush=True)
    found: dict[str, list[dict[str, float]]] = {}
    for (path, _), place in places.items():
        found.setdefault(path.stem.split("_", 1)[1], []).append(json.loads(place.read_text()))
    print(f"{len(missing)} measured in {(time.perf_counter() - start) / 60:.0f} minutes on {os.cpu_count()} cores\n")
    print(report(found))


if __name__ == "__main__":
    main()
