"""The interface of all objectives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from torch import Tensor, nn

from lowerbound.model.evidence import Evidence
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

    @abstractmethod
    def forward(self, evidence: Evidence, step: int, player: str, noise: Noise) -> Loss:
        """The loss of `player` at optimiser step `step`. Pure."""

    def absorb(self, statistics: dict[str, Tensor]) -> None:
        """Take in the statistics of a step that was really taken."""


def bound_parts(evidence: Evidence) -> dict[str, Tensor]:
    """The parts of the plain bound, for the journal: never weighted, clamped or annealed."""
    distortion = evidence.average(evidence.reconstruction()).mean().detach()
    kind, rates = evidence.rates()
    parts = {"distortion_nats": distortion}
    total = distortion.new_zeros(())
    for name, rate in rates.items():
        mean = evidence.average(rate).mean().detach()
        total = total + mean
        if len(rates) > 1:
            parts[f"rate_{name}_nats"] = mean
    return {
        "elbo_nats": -(distortion + total),
        **parts,
        "rate_nats" if kind == "closed" else "sampled_rate_nats": total,
    }
