"""Controllers: parts with a buffer that is moved once per step that is taken."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lowerbound.model.evidence import Evidence
from lowerbound.model.objectives.objective import Loss, Objective, bound_loss, bound_parts
from lowerbound.model.objectives.schedules import Schedule
from lowerbound.model.spec import Fraction, Positive, Settings
from lowerbound.noise import Noise


class GECO(Objective):
    """Minimise the rate subject to distortion <= target (Rezende & Viola 2018, algorithm 1).

    The Lagrangian is rate + lambda (distortion - target); log lambda moves by `speed` times the moving average of
    (distortion - target) / |target|.

    Args:
        settings: from the assembly.
        target: distortion to reach, nats.
        speed: of log lambda per step.
        decay: of the moving average.
    """

    log_multiplier: Tensor
    excess: Tensor

    def __init__(self, settings: Settings, *, target: float, speed: Positive = 0.05, decay: Fraction = 0.9) -> None:
        super().__init__()
        self.target, self.speed, self.decay = target, speed, decay
        self.register_buffer("log_multiplier", torch.zeros(()))
        self.register_buffer("excess", torch.zeros(()))

    def forward(self, evidence: Evidence, step: int, player: str, noise: Noise) -> Loss:
        distortion, rates = evidence.average(evidence.reconstruction()), evidence.rates()
        multiplier = self.log_multiplier.exp()
        value = (evidence.average(evidence.rate(rates)) + multiplier * (distortion - self.target)).mean()
        rows = distortion.new_tensor(float(len(distortion)))
        return Loss(
            value,
            {"loss": value.detach(), "multiplier": multiplier} | bound_parts(evidence, rates),
            {"distortion": distortion.sum().detach(), "rows": rows},
        )

    def absorb(self, statistics: dict[str, Tensor]) -> None:
        excess = (statistics["distortion"] / statistics["rows"] - self.target) / max(abs(self.target), 1e-8)
        self.excess.lerp_(excess, 1 - self.decay)
        self.log_multiplier.add_(self.speed * self.excess).clamp_(-10.0, 10.0)


class TargetRate(Objective):
    """Minimise the distortion with the rate held at a target, by moving beta: `GECO` with the two exchanged.

    The loss is distortion + beta * rate + penalties; log beta moves by `speed` times the moving average of
    (rate - target) / target. So beta grows while the rate is above its target, and falls below it: a collapsing
    posterior lowers beta until the latents are used again. Shao et al. 2020 do the same by a PI controller.

    Args:
        settings: from the assembly.
        target: rate to reach, nats; a schedule.
        speed: of log beta per step.
        decay: of the moving average.
        penalties: weight of each of the model's penalties by name; 1 where not given.
    """

    log_beta: Tensor
    excess: Tensor

    def __init__(
        self,
        settings: Settings,
        *,
        target: Schedule,
        speed: Positive = 0.05,
        decay: Fraction = 0.9,
        penalties: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.target, self.speed, self.decay, self.penalties = target, speed, decay, dict(penalties or {})
        self.register_buffer("log_beta", torch.zeros(()))
        self.register_buffer("excess", torch.zeros(()))

    def forward(self, evidence: Evidence, step: int, player: str, noise: Noise) -> Loss:
        rates, beta, target = evidence.rates(), self.log_beta.exp(), self.target(step)
        rate = evidence.average(evidence.rate(rates))
        found = bound_loss(evidence, beta * rate.mean(), rates, self.penalties, {"beta": beta, "target_nats": target})
        excess = (rate.detach() - target) / max(target, 1e-3)
        rows = rate.new_tensor(float(len(rate)))
        return Loss(found.value, found.parts, {"excess": excess.sum(), "rows": rows})

    def absorb(self, statistics: dict[str, Tensor]) -> None:
        self.excess.lerp_(statistics["excess"] / statistics["rows"], 1 - self.decay)
        self.log_beta.add_(self.speed * self.excess).clamp_(-10.0, 10.0)
