"""Two players: what is one's the other neither reaches nor moves; and what a perceptual loss reaches."""

from __future__ import annotations

import pytest
import torch
from players import CRITICS, ROWS, check, loop_of
from tables import OBJECTIVES, context_rows, raw_rows
from torch import Tensor

from lowerbound.lab.data.rows import Batch
from lowerbound.lab.training.loop import gather_evidence
from lowerbound.model.objectives.objective import Needs
from lowerbound.model.objectives.perceptual import Perceptual
from lowerbound.noise import BatchNoise


def test_the_objectives_with_a_critic_are_all_looked_at() -> None:
    players = {name: [p.role for p in loop_of(name).objective.players] for name in OBJECTIVES}
    assert set(CRITICS) == {name for name, roles in players.items() if "critic" in roles}
    assert len(CRITICS) >= 5


@pytest.mark.parametrize("name", CRITICS)
def test_a_turn_touches_nothing_of_the_other_player(name: str) -> None:
    loop = loop_of(name)
    for step in range(2):
        for number, player in loop.schedule(step):
            check(loop, number, player)


def perceptual_gradients(name: str) -> tuple[Perceptual, dict[str, Tensor | None]]:
    """The gradient of the perceptual part alone, by parameter of the model."""
    loop = loop_of(name)
    objective = loop.objective
    assert isinstance(objective, Perceptual)
    data, noise = loop.model.data, BatchNoise(0, 0, ROWS)
    needs = Needs(generated=objective.needs.generated)
    evidence = gather_evidence(loop.model, Batch(raw_rows(data, ROWS), context_rows(data, ROWS)), noise, needs)
    whole, inner = (part(evidence, 0, "model", noise.child("objective")).value for part in (objective, objective.inner))
    names, values = zip(*loop.model.named_parameters(), strict=True)
    found = torch.autograd.grad(whole - inner, values, allow_unused=True)
    return objective, dict(zip(names, found, strict=True))


@pytest.mark.parametrize("name", ["perceptual", "perceptual-vae-gan"])
def test_the_perceptual_loss_reaches_the_encoder_and_the_decoder_and_nothing_that_is_frozen(name: str) -> None:
    objective, gradients = perceptual_gradients(name)
    for part in ("encoder", "decoder"):
        own = [gradient for key, gradient in gradients.items() if key.startswith(f"{part}.")]
        assert own
        assert all(gradient is not None and bool(gradient.abs().sum() > 0) for gradient in own), part
    assert not any(parameter.requires_grad for parameter in objective.comparison.parameters())


@pytest.mark.parametrize("name", ["perceptual", "perceptual-vae-gan"])
def test_the_network_that_compares_stays_as_it_is(name: str) -> None:
    loop = loop_of(name)
    before = {key: value.clone() for key, value in loop.objective.get_submodule("comparison").state_dict().items()}
    assert before
    loop.run(lambda step, parts: False)
    after = loop.objective.get_submodule("comparison").state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def test_the_distance_of_equal_rows_is_zero_and_a_seed_is_a_network() -> None:
    loop, other = loop_of("perceptual"), loop_of("perceptual")
    assert isinstance(loop.objective, Perceptual)
    assert isinstance(other.objective, Perceptual)
    rows, more = (raw_rows(loop.model.data, ROWS, seed).float() for seed in (0, 1))
    assert float(loop.objective.comparison(rows, rows).abs().max()) == 0
    distance = loop.objective.comparison(rows, more)
    assert distance.shape == (ROWS,)
    assert float(distance.min()) > 0
    assert torch.equal(distance, other.objective.comparison(rows, more))
