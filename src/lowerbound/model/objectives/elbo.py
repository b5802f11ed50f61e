"""The evidence lower bound, and its weighted form."""

from __future__ import annotations

from collections.abc import Mapping

from lowerbound.model.evidence import Evidence
from lowerbound.model.objectives.objective import Loss, Objective, bound_loss
from lowerbound.model.objectives.schedules import Schedule, constant
from lowerbound.model.spec import Settings
from lowerbound.noise import Noise


class ELBO(Objective):
    """distortion + beta * rate + penalties, in nats, summed over event dimensions and averaged over rows.

    beta = 1 is the negative evidence lower bound (Kingma & Welling 2014, eq. 3), another the beta-VAE's loss
    (Higgins et al. 2017, eq. 4). The reported ELBO is always the one with beta = 1.

    Args:
        settings: from the assembly.
        beta: a schedule of the rate's weight.
        penalties: weight of each of the model's penalties by name; 1 where not given.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        beta: Schedule = constant(value=1.0),
        penalties: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.beta, self.penalties = beta, dict(penalties or {})

    def forward(self, evidence: Evidence, step: int, player: str, noise: Noise) -> Loss:
        beta, rates = self.beta(step), evidence.rates()
        rate = beta * evidence.average(evidence.rate(rates)).mean()
        return bound_loss(evidence, rate, rates, self.penalties, {"beta": beta})
