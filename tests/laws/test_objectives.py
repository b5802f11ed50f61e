"""Laws of every objective, in the loop that trains with it."""

from __future__ import annotations

import pytest
import torch
from tables import FAMILIES, OBJECTIVES, context_rows, raw_rows

from lowerbound.errors import RecipeError
from lowerbound.lab.data.rows import InMemory
from lowerbound.lab.training.loop import Loop
from lowerbound.lab.training.processes import Processes
from lowerbound.model.families.family import Family
from lowerbound.recipe import Training

ROWS = 16
each = pytest.mark.parametrize("name", OBJECTIVES)


def loop_of(name: str, **settings: object) -> Loop:
    row = OBJECTIVES[name]
    model = FAMILIES[row.family].make()
    data = InMemory(raw_rows(model.data, ROWS), context_rows(model.data, ROWS))
    training = Training.model_validate({"steps": 5, "batch_size": 8, "learning_rate": 1e-2, **settings})
    return Loop(model, row.make(model), data, training, 0, torch.device("cpu"), Processes())


def weights(loop: Loop) -> dict[str, torch.Tensor]:
    named = {f"model.{k}": v for k, v in loop.model.state_dict().items()}
    named |= {f"objective.{k}": v for k, v in loop.objective.state_dict().items()}
    return {name: value.clone() for name, value in named.items()}


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


@each
def test_trains_with_finite_parts(name: str) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    loop = loop_of(name)
    assert loop.run(lambda step, parts: bool(seen.append(parts)))
    assert len(seen) == 5
    for parts in seen:
        assert all(torch.isfinite(value).all() for value in parts.values()), parts


@each
def test_a_player_moves_its_own_parameters_only(name: str) -> None:
    loop = loop_of(name)
    loop.model.train()
    for number, player in loop.schedule(0):
        before = weights(loop)
        loop.turn(number, player)
        moved = changed(before, weights(loop))
        parameters = {f"model.{key}" for key, _ in loop.model.named_parameters()}
        parameters |= {f"objective.{key}" for key, _ in loop.objective.named_parameters()}
        prefix = "objective." if player.role == "critic" else "model."
        own = {key for key in parameters if key.startswith(prefix)}
        assert moved & parameters, player.role
        assert moved & parameters <= own, player.role
        leftover = [*loop.model.parameters(), *loop.objective.parameters()]
        assert all(parameter.grad is None for parameter in leftover)
        assert all(parameter.requires_grad == (id(parameter) in loop.trainable) for parameter in leftover)


@each
def test_training_is_a_function_of_seed_and_step(name: str) -> None:
    first, second = loop_of(name), loop_of(name)
    first.run(lambda step, parts: False)
    torch.manual_seed(123)  # whatever the global generator did
    second.run(lambda step, parts: False)
    assert changed(weights(first), weights(second)) == set()


@each
def test_state_goes_on_to_the_bit(name: str) -> None:
    whole, part = loop_of(name, ema=0.9), loop_of(name, ema=0.9)
    whole.run(lambda step, parts: False)
    part.run(lambda step, parts: step == 2)
    tensors, numbers = part.state()
    other = loop_of(name, ema=0.9)
    copied = {file: {key: value.clone() for key, value in content.items()} for file, content in tensors.items()}
    other.load(copied, {**numbers, "step": part.step})
    other.run(lambda step, parts: False)
    assert changed(weights(whole), weights(other)) == set()
    assert all(torch.equal(value, other.average.weights[key]) for key, value in whole.average.weights.items())


@each
def test_micro_batches_add_up_to_the_batch(name: str) -> None:
    whole = loop_of(name)
    if whole.objective.needs.global_batch:
        with pytest.raises(RecipeError, match="all rows of it at once"):
            loop_of(name, accumulate=2)
        return
    split = loop_of(name, accumulate=2)
    for loop in (whole, split):
        loop.run(lambda step, parts: step == 2)
    for key, value in weights(whole).items():
        torch.testing.assert_close(value, weights(split)[key], rtol=1e-4, atol=1e-5, msg=key)


def test_every_shipped_objective_stands_in_the_table() -> None:
    from lowerbound.model.build import FAMILIES as FAMILY_KINDS
    from lowerbound.model.build import OBJECTIVES as KINDS

    assert {row.table["kind"] for row in OBJECTIVES.values()} == set(KINDS)
    assert {row.table["kind"] for row in FAMILIES.values()} == set(FAMILY_KINDS)


def test_a_frozen_first_stage_stays_as_it_is() -> None:
    model: Family = FAMILIES["stack"].make()
    data = InMemory(raw_rows(model.data, ROWS))
    from lowerbound.model.build import build_objective

    training = Training.model_validate({"steps": 3, "batch_size": 8})
    loop = Loop(model, build_objective({"kind": "elbo"}, model, 0), data, training, 0, torch.device("cpu"), Processes())
    before = weights(loop)
    loop.run(lambda step, parts: False)
    moved = changed(before, weights(loop))
    assert moved
    assert not any(key.startswith("model.first.") for key in moved)
