"""PyOD's VAE on the rows of a folder, with its default settings; run by the peer's own Python."""

from __future__ import annotations

import sys

import numpy as np
from pyod.models.vae import VAE


def main(folder: str, seed: int) -> None:
    """Train on rows.npz, write scores.npy; larger is stranger."""
    with np.load(f"{folder}/rows.npz", allow_pickle=False) as rows:
        detector = VAE(random_state=seed, verbose=0)
        detector.fit(rows["train"])
        np.save(f"{folder}/scores.npy", detector.decision_function(rows["test"]))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
