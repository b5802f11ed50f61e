"""Random assemblies: whatever is put together trains, or is refused when it is built by a sentence that says why."""

from __future__ import annotations

import math
import random
from functools import cache
from typing import Any

import pytest
import torch
from tables import CRITIC, LIKELIHOODS, POSTERIORS, PRIORS

from lowerbound.errors import LowerboundError
from lowerbound.lab.data.load import load_data
from lowerbound.lab.data.rows import InMemory
from lowerbound.lab.training.loop import Loop
from lowerbound.lab.training.processes import Processes
from lowerbound.model.build import OBJECTIVES, PARTS, build_model, build_objective
from lowerbound.model.conditionals.likelihoods import Likelihood
from lowerbound.model.conditionals.posteriors import Posterior
from lowerbound.model.conditionals.priors import Prior
from lowerbound.model.spec import DataSpec
from lowerbound.recipe import Training

DRAWS, ROWS, STEPS = 64, 32, 20
Table = dict[str, Any]

NETWORKS: dict[str, tuple[Table, Table]] = {
    "mlp": ({"kind": "mlp", "widths": [32]}, {"kind": "mlp", "widths": [32]}),
    "residual": ({"kind": "residual", "width": 32}, {"kind": "residual", "width": 32}),
    "skips": ({"kind": "masking", "network": {"kind": "mlp", "widths": [32]}}, {"kind": "skip-mlp", "widths": [32]}),
    "convolutional": (
        {"kind": "convolutional-down", "widths": [8, 16]},
        {"kind": "convolutional-up", "widths": [16, 8]},
    ),
    "residual-convolutional": ({"kind": "residual-down", "widths": [8]}, {"kind": "residual-up", "widths": [8]}),
    "attention": ({"kind": "attention-down", "width": 16}, {"kind": "attention-up", "width": 16}),
}
SETTINGS: dict[str, Table] = {
    "geco": {"target": 20.0},
    "target-rate": {"target": 5.0},
    "capacity": {"capacity": 5.0, "weight": 1.0},
    "balanced": {"beta": 1.0},
    "importance": {"samples": 4},
    "growing-importance": {"samples": 4, "start": 5, "steps": 10},
    "doubly-reparameterised": {"samples": 4},
    "combination-importance": {"samples": 4},
    "multiple-importance": {"samples": 2, "repeats": 2},
    "partial-importance": {"samples": 2, "repeats": 2},
    "adversarial-prior": {"critic": CRITIC},
    "factor-vae": {"critic": CRITIC},
    "vae-gan": {"critic": CRITIC},
}
# They train models with a class among their latents, models that are drawn from and no more, and models of noise; the
# last three train as another objective does.
OF_OTHERS = {
    *("adversarial-labels", "adversarial-samples", "penalties", "score-distillation"),
    *("focus", "settled", "growing"),
}
# Priors of whole numbers (these latents are real), and a likelihood that has a law of its own.
OF_CODES = {"uniform-codes", "pixelcnn", "transformer", "categorical-pixel"}
OF_POINTS = {"cloud-mixture", "cloud-flow", "occupancy"}  # likelihoods of clouds of points
# Their loss moves with what they hold, so only the distortion must fall.
MOVING = {"geco", "target-rate", "adversarial-prior", "factor-vae", "vae-gan"}


def kinds(group: type, rows: dict[str, Table]) -> list[Table]:
    """One small table of every kind of a group."""
    of_kind = {table["kind"]: table for table in reversed(rows.values())}
    return [of_kind.get(kind, {"kind": kind}) for kind in PARTS[group] if kind not in OF_CODES | OF_POINTS]


class Deck:
    """Deals its cards in random order, all of them before any of them again."""

    def __init__(self, cards: list[Any], source: random.Random) -> None:
        self.cards, self.source, self.left = cards, source, list[Any]()

    def deal(self) -> Any:
        if not self.left:
            self.left = self.source.sample(self.cards, len(self.cards))
        return self.left.pop()


@cache
def assemblies() -> list[tuple[Table, Table, bool]]:
    """Model, objective, and whether the rows have labels."""
    source = random.Random(0)
    posteriors, priors, likelihoods, networks, objectives, latents = (
        Deck(cards, source)
        for cards in (
            kinds(Posterior, POSTERIORS),
            kinds(Prior, {name: table for name, (table, _) in PRIORS.items()}),
            kinds(Likelihood, {name: table for name, (table, _) in LIKELIHOODS.items()}),
            list(NETWORKS.values()),
            [{"kind": kind, **SETTINGS.get(kind, {})} for kind in OBJECTIVES if kind not in OF_OTHERS],
            [4, 6, [2, 2, 2], 1],
        )
    )
    found = []
    for _ in range(DRAWS):
        encoder, decoder = networks.deal()
        posterior, prior, labelled = posteriors.deal(), priors.deal(), source.random() < 0.3
        if source.random() < 0.7:  # most draws are of parts that go together
            if posterior["kind"] == "von-mises-fisher":
                prior = {"kind": "uniform-sphere"}
            elif prior["kind"] == "uniform-sphere":
                prior = {"kind": "standard"}
            labelled = labelled or prior["kind"] == "context"
        model = {
            "kind": "vae",
            "latent": latents.deal(),
            "posterior": posterior,
            "prior": prior,
            "likelihood": likelihoods.deal() if source.random() < 0.5 else {"kind": "bernoulli"},
            "encoder": encoder,
            "decoder": decoder,
        }
        found.append((model, objectives.deal(), labelled))
    return found


def digits(labelled: bool) -> tuple[DataSpec, InMemory]:
    data = load_data({"kind": "digits", **({"context": "label"} if labelled else {})})
    assert isinstance(data.train, InMemory)
    some = data.train.take(torch.arange(ROWS))
    return data.spec, InMemory(some.raw, some.context)


def build(number: int) -> Loop:
    table, objective, labelled = assemblies()[number]
    spec, rows = digits(labelled)
    model = build_model(table, spec, 0)
    training = Training.model_validate({"steps": STEPS, "batch_size": ROWS, "learning_rate": 3e-3, "clip": 50.0})
    return Loop(model, build_objective(objective, model, 0), rows, training, 0, torch.device("cpu"), Processes())


@pytest.mark.parametrize("number", range(DRAWS))
def test_an_assembly_trains_or_is_refused_when_it_is_built(number: int) -> None:
    try:
        loop = build(number)
    except LowerboundError as error:
        said = str(error)
        assert said.endswith(".")
        assert len(said.split()) >= 8, said
        return
    seen: list[dict[str, float]] = []
    loop.run(lambda step, parts: bool(seen.append({name: float(value) for name, value in parts.items()})))
    assert all(math.isfinite(value) for parts in seen for value in parts.values())
    name = "distortion_nats" if assemblies()[number][1]["kind"] in MOVING else "loss"
    first, last = (sum(parts[name] for parts in some) / 3 for some in (seen[:3], seen[-3:]))
    assert last < first


def test_half_of_the_assemblies_can_be_built() -> None:
    refused = []
    for number in range(DRAWS):
        try:
            build(number)
        except LowerboundError as error:
            refused.append(str(error))
    assert len(refused) <= DRAWS // 2, refused
