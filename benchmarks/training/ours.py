"""Our side of the comparison: the same networks, batch, optimiser, rows and epochs; prints one JSON line."""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import torch

from lowerbound.lab.data.rows import InMemory
from lowerbound.lab.evaluation.bounds import bounds
from lowerbound.lab.training.loop import Loop
from lowerbound.lab.training.processes import Processes
from lowerbound.model.build import build_model, build_objective
from lowerbound.model.spec import DataSpec
from lowerbound.noise import BatchNoise
from lowerbound.recipe import Training

WIDE = {"kind": "mlp", "widths": [512, 512], "activation": "relu"}
NETWORKS = {
    "mlp": {"encoder": WIDE, "decoder": WIDE},
    "convolutional": {
        "encoder": {"kind": "convolutional-down", "widths": [32, 64, 128], "activation": "relu"},
        "decoder": {"kind": "convolutional-up", "widths": [128, 64, 32], "activation": "relu"},
    },
}


def main(data: str, network: str, epochs: int, precision: str) -> None:
    """Train on the arrays of a file and print images per second and the ELBO of the test rows."""
    arrays = np.load(data, allow_pickle=False)
    train, test = torch.from_numpy(arrays["train"]), torch.from_numpy(arrays["test"])
    spec = DataSpec(tuple(train.shape[1:]), 2, examples=len(train))
    model = build_model({"kind": "vae", "latent": 20, **NETWORKS[network]}, spec, 0)
    settings = {"epochs": float(epochs), "batch_size": 128, "learning_rate": 1e-3, "precision": precision}
    loop = Loop(
        model,
        build_objective({"kind": "elbo"}, model, 0),
        InMemory(train),
        Training.model_validate(settings),
        0,
        torch.device("cpu"),
        Processes(),
    )
    start = time.perf_counter()
    loop.run(lambda step, parts: False)
    seconds = time.perf_counter() - start
    batches = [
        (model.preparation.prepare(rows, None), None, BatchNoise(1, number, len(rows)))
        for number, rows in enumerate(test.split(500))
    ]
    elbo = bounds(model.eval(), batches, 1).elbo.mean().item()
    print(json.dumps({"images_per_second": loop.steps * 128 / seconds, "elbo_nats": elbo}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
