"""An objective whose schedules have come to their end: for training that begins from trained weights."""

from __future__ import annotations

from torch import Tensor

from lowerbound.kinds import Part
from lowerbound.model.evidence import Evidence
from lowerbound.model.objectives.elbo import ELBO
from lowerbound.model.objectives.objective import Loss, Needs, Objective
from lowerbound.model.spec import Settings
from lowerbound.noise import Noise

AFTER = 10**9  # steps, later than any schedule ends


class Settled(Objective):
    """Another objective as it is after its last step: a warm-up from 0 would let go of what a trained model holds.

    Args:
        settings: from the assembly.
        objective: the other one.
    """

    def __init__(self, settings: Settings, *, objective: Part[Objective] = Part(ELBO)) -> None:
        super().__init__()
        self.inner = objective(settings)
        self.needs, self.players = self.inner.needs_at(AFTER), self.inner.players

    def needs_at(self, step: int) -> Needs:
        return self.inner.needs_at(AFTER + step)

    def forward(self, evidence: Evidence, step: int, player: str, noise: Noise) -> Loss:
        loss: Loss = self.inner(evidence, AFTER + step, player, noise)
        return loss

    def absorb(self, statistics: dict[str, Tensor]) -> None:
        self.inner.absorb(statistics)
