"""Importance-weighted bounds."""

from __future__ import annotations

import torch
from torch import Tensor

from lowerbound.errors import NotSupportedError
from lowerbound.model.distributions import tree
from lowerbound.model.evidence import Evidence
from lowerbound.model.objectives.objective import Loss, Needs, Objective, bound_parts
from lowerbound.model.spec import Count, Settings
from lowerbound.noise import Noise


def _record(evidence: Evidence, value: Tensor) -> dict[str, Tensor]:
    bound = evidence.importance_bound().mean().detach()
    return {"loss": value.detach()} | bound_parts(evidence) | {"importance_bound_nats": bound}


class Importance(Objective):
    """-log 1/K sum_k p(x, z_k) / q(z_k|x): the importance-weighted autoencoder (Burda et al. 2016, eq. 8).

    Args:
        settings: from the assembly.
        samples: K.
    """

    def __init__(self, settings: Settings, *, samples: Count = 50) -> None:
        super().__init__()
        self.needs = Needs(samples=samples)

    def forward(self, evidence: Evidence, step: int, player: str, noise: Noise) -> Loss:
        value = -evidence.importance_bound().mean()
        return Loss(value, _record(evidence, value))


class DoublyReparameterised(Objective):
    """The importance-weighted bound with the encoder's gradient reparameterised twice (Tucker et al. 2019, eq. 8).

    Its signal-to-noise ratio grows with K, where that of the plain gradient falls. The score term of q is dropped
    (q enters the weights detached), and the path gradient at z is weighted by w^2: by w in the loss, and once more on
    its way through z. The value is the same bound.

    Args:
        settings: from the assembly.
        samples: K.
    """

    def __init__(self, settings: Settings, *, samples: Count = 50) -> None:
        super().__init__()
        if len(settings.latents) != 1:
            raise NotSupportedError(
                f"doubly reparameterised gradients are derived for one group of latents, and this model has "
                f"{len(settings.latents)}; use the objective `importance`."
            )
        self.needs = Needs(samples=samples)

    def forward(self, evidence: Evidence, step: int, player: str, noise: Noise) -> Loss:
        (latent,) = evidence.latents.values()
        log_weight = -evidence.reconstruction() - latent.sampled(q=tree.detach(latent.q))
        weight = torch.softmax(log_weight.detach(), dim=0)
        if latent.z.requires_grad:
            on_z = weight.reshape(*weight.shape, *(1,) * (latent.z.ndim - 2))
            latent.z.register_hook(lambda gradient: on_z * gradient)
        surrogate = -(weight * log_weight).sum(dim=0).mean()
        bound = -evidence.importance_bound().mean().detach()
        # The number is the bound's, the gradient the surrogate's.
        value = surrogate + (bound - surrogate.detach())
        return Loss(value, _record(evidence, value))
