"""An objective that trains one role of a model and leaves the others as they are."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from lowerbound.errors import NotSupportedError
from lowerbound.kinds import Part
from lowerbound.model.evidence import Evidence
from lowerbound.model.objectives.elbo import ELBO
from lowerbound.model.objectives.objective import Loss, Needs, Objective, Player
from lowerbound.model.spec import Settings
from lowerbound.noise import Noise


class Focus(Objective):
    """Another objective, played by one role: no other parameter, codebook or statistic of the model moves.

    Turns of other roles are left out; those of a critic stay. So a decoder is brought up to date under codes that
    keep their meaning, to the bit, where a family's codes do not depend on it.

    Args:
        settings: from the assembly.
        role: that is trained.
        objective: the other one.

    Raises:
        NotSupportedError: the model has nothing to train in this role, or the objective has no turn for it.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        role: Literal["encoder", "decoder", "prior"],
        objective: Part[Objective] = Part(ELBO),
    ) -> None:
        super().__init__()
        self.inner = objective(settings)
        given = [player.role for player in self.inner.players if player.role in ("model", role)]
        if role not in settings.roles:
            there = ", ".join(settings.roles) or "none"
            raise NotSupportedError(f"this model has no role `{role}` to train alone; its roles are: {there}.")
        if len(given) != 1:
            raise NotSupportedError(
                f"this objective has {len(given)} turns that move the `{role}`, and one is needed to train it alone; "
                "choose another objective."
            )
        self.asked = {role: given[0], "critic": "critic"}
        self.needs = self.inner.needs
        self.players = tuple(
            Player(role if player.role == given[0] else player.role, player.turns)
            for player in self.inner.players
            if player.role in (given[0], "critic")
        )

    def needs_at(self, step: int) -> Needs:
        return self.inner.needs_at(step)

    def forward(self, evidence: Evidence, step: int, player: str, noise: Noise) -> Loss:
        loss: Loss = self.inner(evidence, step, self.asked[player], noise)
        return loss

    def absorb(self, statistics: dict[str, Tensor]) -> None:
        self.inner.absorb(statistics)
