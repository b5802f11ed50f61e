"""Controllers: parts with a buffer that is moved once per step that is taken."""

from __future__ import annotations

import torch
from torch import Tensor

from lowerbound.model.evidence import Evidence
from lowerbound.model.objectives.objective import Loss, Objective, bound_parts
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
        distortion = evidence.average(evidence.reconstruction())
        multiplier = self.log_multiplier.exp()
        value = (evidence.average(evidence.rate()) + multiplier * (distortion - self.target)).mean()
        rows = distortion.new_tensor(float(len(distortion)))
        return Loss(
            value,
            {"loss": value.detach(), "multiplier": multiplier} | bound_parts(evidence),
            {"distortion": distortion.sum().detach(), "rows": rows},
        )

    def absorb(self, statistics: dict[str, Tensor]) -> None:
        excess = (statistics["distortion"] / statistics["rows"] - self.target) / max(abs(self.target), 1e-8)
        self.excess.lerp_(excess, 1 - self.decay)
        self.log_multiplier.add_(self.speed * self.excess).clamp_(-10.0, 10.0)
