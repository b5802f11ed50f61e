"""A model's own penalties as the whole objective."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from lowerbound.errors import NotSupportedError
from lowerbound.model.evidence import Evidence
from lowerbound.model.objectives.objective import Loss, Objective, bound_parts
from lowerbound.model.spec import Settings
from lowerbound.noise import Noise


class Penalties(Objective):
    """The weighted sum of the model's penalties, a mean over rows, and nothing of the bound, which is reported.

    For families whose penalty is what they are trained for: the weighted denoising error of a diffusion model, the
    distance of a student from its teacher.

    Args:
        settings: from the assembly.
        penalties: weight of each of the model's penalties by name; 1 where not given.
    """

    def __init__(self, settings: Settings, *, penalties: Mapping[str, float] | None = None) -> None:
        super().__init__()
        self.penalties = dict(penalties or {})

    def forward(self, evidence: Evidence, step: int, player: str, noise: Noise) -> Loss:
        if not evidence.penalties:
            raise NotSupportedError(
                "the objective `penalties` trains what a model reports beside its bound, and this model reports "
                "nothing there; use `elbo`."
            )
        means = {name: evidence.average(penalty).mean() for name, penalty in evidence.penalties.items()}
        value = torch.stack([self.penalties.get(name, 1.0) * mean for name, mean in means.items()]).sum()
        parts = {} if evidence.distortion is None else bound_parts(evidence)
        return Loss(value, {name: part.detach() for name, part in ({"loss": value} | parts | means).items()})
