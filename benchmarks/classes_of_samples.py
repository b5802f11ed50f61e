"""Whether a conditional model makes the class it was asked for, by a classifier of real rows that never saw the model.

    python benchmarks/classes_of_samples.py RUN [DATA_DIR]

The classifier is a small network on the run's own training rows; its accuracy on the run's test rows is printed beside.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

import lowerbound
from lowerbound.lab.data.rows import Batch, Rows
from lowerbound.lab.run import Run
from lowerbound.model.spec import Context
from lowerbound.noise import generator

EPOCHS, BATCH, EACH = 5, 100, 1000


def main() -> None:
    """Train the classifier, and ask it about real rows and about made ones."""
    torch.set_num_threads(1)
    run = Run(sys.argv[1])
    data = lowerbound.load_data(run.recipe().data, Path(sys.argv[2]) if len(sys.argv) > 2 else None)
    top, classes = float((data.spec.levels or 2) - 1), data.spec.context
    known, asked = everything(data.train), everything(data.test)
    torch.manual_seed(0)
    size = data.spec.size
    network = nn.Sequential(nn.Flatten(), nn.Linear(size, 256), nn.ReLU(), nn.Dropout(0.2), nn.Linear(256, classes))
    fit(network, known.raw / top, labels_of(known))
    print(f"accuracy on {len(asked.raw)} real test rows: {share(network, asked.raw / top, labels_of(asked)):.4f}")
    wanted = torch.arange(classes).repeat(EACH)
    model = run.model()
    for observe in ("point", "sample"):
        made = lowerbound.sample(model, len(wanted), 0, Context.labels(wanted, classes), observe)
        print(
            f"made rows ({observe}) of the class asked for: {share(network, made / top, wanted):.4f} of {len(wanted)}"
        )


def everything(rows: Rows) -> Batch:
    return rows.take(torch.arange(len(rows)))


def labels_of(batch: Batch) -> Tensor:
    assert batch.context is not None
    return batch.context.vector.argmax(dim=1)


def fit(network: nn.Module, x: Tensor, labels: Tensor) -> None:
    """Train by cross-entropy."""
    optimizer, source = torch.optim.Adam(network.parameters(), 1e-3), generator(0)
    for _ in range(EPOCHS):
        for index in torch.randperm(len(x), generator=source).split(BATCH):
            loss = nn.functional.cross_entropy(network(x[index]), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    network.eval()


@torch.no_grad()
def share(network: nn.Module, x: Tensor, labels: Tensor) -> float:
    """The share of rows that the classifier puts where they belong."""
    return float((network(x.float()).argmax(dim=1) == labels).double().mean())


main()
