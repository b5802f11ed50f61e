"""The interface of all objectives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lowerbound.errors import NotSupportedError
from lowerbound.model.distributions import tree
from lowerbound.model.evidence import Evidence, Rates
from lowerbound.noise import Noise


@dataclass(frozen=True)
class Needs:
    """What an objective asks the loop to put into the evidence.

    Attributes:
        samples: draws of the latents per row.
        global_batch: the rows of all processes, gathered with gradient.
        generated: decoded prior samples.
    """

    samples: int = 1
    global_batch: bool = False
    generated: bool = False


@dataclass(frozen=True)
class Player:
    """Who steps, and how often in one step of the loop.

    Attributes:
        role: "model", "encoder", "decoder", "prior" or "critic" (the objective's own parameters).
        turns: each turn draws its own batch.
    """

    role: str
    turns: int = 1


@dataclass(frozen=True)
class Loss:
    """What an objective returns for one player.

    Attributes:
        value: what the player minimises, a mean over rows, ().
        parts: numbers to record, by name with unit; means over rows, detached.
        statistics: sums over rows for the objective itself to absorb (a controller).
    """

    value: Tensor
    parts: dict[str, Tensor]
    statistics: dict[str, Tensor] = field(default_factory=dict)


class Objective(nn.Module, ABC):
    """From evidence to a loss, for each player in turn.

    A constructor takes `Settings` from the assembly; its keyword arguments are the recipe's settings. Its parameters
    and buffers (critics, controllers) are checkpointed with a run and never shipped.
    """

    needs: Needs = Needs()
    players: tuple[Player, ...] = (Player("model"),)

    def needs_at(self, step: int) -> Needs:
        """What it needs at optimiser step `step`; the same at every step for most."""
        return self.needs

    @abstractmethod
    def forward(self, evidence: Evidence, step: int, player: str, noise: Noise) -> Loss:
        """The loss of `player` at optimiser step `step`. Pure."""

    def absorb(self, statistics: dict[str, Tensor]) -> None:
        """Take in the statistics of a step that was really taken."""


def reconstructions(evidence: Evidence) -> Tensor:
    """The points of p(x|z), (S, B, *event), as a critic or a network that compares sees them: with gradient.

    Raises:
        NotSupportedError: there are none, or they are whole numbers, which have no gradient.
    """
    if evidence.px is None:
        raise NotSupportedError("this objective looks at reconstructions, and this model makes none; use `elbo`.")
    made = tree.point(evidence.px)
    if not (evidence.x.is_floating_point() and made.is_floating_point()):
        raise NotSupportedError(
            "a critic of data, and a network that compares them, need made rows of real numbers, through which they "
            "have a gradient; this likelihood makes whole numbers; use a likelihood of intensities or of real numbers."
        )
    return made.reshape(-1, *evidence.x.shape)


def bound_parts(evidence: Evidence, rates: Rates | None = None) -> dict[str, Tensor]:
    """The parts of the plain bound, for the journal: never weighted, clamped or annealed.

    Args:
        evidence: of a batch.
        rates: `evidence.rates()`, where they are known already.
    """
    distortion = evidence.average(evidence.reconstruction()).mean().detach()
    kind, groups = rates or evidence.rates()
    parts = {"distortion_nats": distortion}
    total = distortion.new_zeros(())
    for name, rate in groups.items():
        mean = evidence.average(rate).mean().detach()
        total = total + mean
        if len(groups) > 1:
            parts[f"rate_{name}_nats"] = mean
    return {
        "elbo_nats": -(distortion + total),
        **parts,
        "rate_nats" if kind == "closed" else "sampled_rate_nats": total,
    }


def bound_loss(
    evidence: Evidence,
    rate: Tensor,
    rates: Rates,
    penalties: Mapping[str, float],
    parts: Mapping[str, float | Tensor],
) -> Loss:
    """distortion + rate + weighted penalties, a mean over rows.

    Args:
        evidence: of a batch.
        rate: (), what an objective makes of the rates: weighted, clamped, balanced.
        rates: `evidence.rates()`, of which the plain bound is reported.
        penalties: weight of each of the model's penalties by name; 1 where not given.
        parts: the objective's own numbers to record.
    """
    value = evidence.average(evidence.reconstruction()).mean() + rate
    found = bound_parts(evidence, rates)
    for name, number in parts.items():
        found[name] = torch.as_tensor(number, dtype=value.dtype, device=value.device).detach()
    for name, penalty in evidence.penalties.items():
        mean = evidence.average(penalty).mean()
        value = value + penalties.get(name, 1.0) * mean
        found[name] = mean.detach()
    return Loss(value, {"loss": value.detach()} | found)
