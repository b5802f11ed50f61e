"""What a turn of a player touched: shared by the tests of one process and of two."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tables import FAMILIES, OBJECTIVES, context_rows, raw_rows

from lowerbound.lab.data.rows import InMemory
from lowerbound.lab.training.loop import Loop
from lowerbound.lab.training.processes import Processes
from lowerbound.model.objectives.objective import Player
from lowerbound.recipe import Training

ROWS = 16
CRITICS = [name for name in OBJECTIVES if "critic" in str(OBJECTIVES[name].table)]


@dataclass(frozen=True)
class Touched:
    """Names, with `model.` or `objective.` before them.

    Attributes:
        reached: parameters to which a gradient came.
        moved: parameters and buffers that are not what they were.
        steps: roles whose optimiser is not as it was.
        left: parameters that still hold a gradient.
    """

    reached: set[str]
    moved: set[str]
    steps: set[str]
    left: set[str]


def loop_of(name: str, processes: Processes | None = None) -> Loop:
    """A loop that trains an objective of the table."""
    row = OBJECTIVES[name]
    model = FAMILIES[row.family].make()
    data = InMemory(raw_rows(model.data, ROWS), context_rows(model.data, ROWS))
    training = Training.model_validate({"steps": 5, "batch_size": 8, "learning_rate": 1e-2})
    loop = Loop(model, row.make(model), data, training, 0, torch.device("cpu"), processes or Processes())
    loop.model.train()
    return loop


def parameters(loop: Loop) -> dict[str, torch.nn.Parameter]:
    """Those that are trained, by name."""
    named = {f"model.{name}": value for name, value in loop.model.named_parameters()}
    named |= {f"objective.{name}": value for name, value in loop.objective.named_parameters()}
    return {name: value for name, value in named.items() if id(value) in loop.trainable}


def take(loop: Loop, number: int, player: Player) -> Touched:
    """Let a player take its turn, and see what that touched."""
    reached: set[str] = set()
    named = parameters(loop)
    hooks = [
        value.register_post_accumulate_grad_hook(lambda _, name=name: reached.add(name))  # type: ignore[misc]
        for name, value in named.items()
    ]
    before, steps = _values(loop), _optimisers(loop)
    loop.turn(number, player)
    for hook in hooks:
        hook.remove()
    after, later = _values(loop), _optimisers(loop)
    return Touched(
        reached,
        {name for name in before if not torch.equal(before[name], after[name])},
        {role for role in later if not _same(steps[role], later[role])},
        {name for name, value in named.items() if value.grad is not None},
    )


def check(loop: Loop, number: int, player: Player) -> None:
    """A turn reaches and moves what is the player's, and nothing else; a critic's leaves all of the model alone."""
    named = parameters(loop)
    parameters_of = {id(parameter) for parameter in loop.own[player.role]}
    own = {name for name, value in named.items() if id(value) in parameters_of}
    assert all(name.startswith("objective." if player.role == "critic" else "model.") for name in own)
    found = take(loop, number, player)
    given = {name for name in own if name.startswith("model.prior.")}  # what is matched with a prior does not move it
    assert own - given <= found.reached <= own, (player.role, found.reached ^ own)
    assert found.moved & set(named) <= own, player.role
    assert found.moved & own, player.role
    assert found.steps == {player.role}
    assert not found.left
    if player.role == "critic":  # buffers of the model stay too: codebooks, optimal sigmas
        assert not any(name.startswith("model.") for name in found.moved)


def _values(loop: Loop) -> dict[str, torch.Tensor]:
    named = {f"model.{name}": value.clone() for name, value in loop.model.state_dict().items()}
    return named | {f"objective.{name}": value.clone() for name, value in loop.objective.state_dict().items()}


def _optimisers(loop: Loop) -> dict[str, list[torch.Tensor]]:
    return {
        role: [value.clone() for state in optimizer.state.values() for value in state.values()]
        for role, optimizer in loop.optimizers.items()
    }


def _same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))
