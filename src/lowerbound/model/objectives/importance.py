"""Importance-weighted bounds."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lowerbound.errors import NotSupportedError
from lowerbound.model.distributions import tree
from lowerbound.model.evidence import Evidence
from lowerbound.model.objectives.objective import Loss, Needs, Objective, Player, bound_parts
from lowerbound.model.objectives.schedules import Schedule, constant
from lowerbound.model.spec import Count, Settings, Whole
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


class GrowingImportance(Objective):
    """The importance-weighted bound of K draws, where K grows from 1 while a model trains.

    Few draws while the model is far from done, many for what only they teach: Burda et al. 2016, table 2, train a VAE
    on with the bound of 50 draws, and end where training with 50 draws from the start does. K is 1 until step `start`,
    then K^(share of `steps` taken), rounded up, and K from then on.

    Args:
        settings: from the assembly.
        samples: K.
        start: step from which it grows.
        steps: over which it grows.
    """

    def __init__(self, settings: Settings, *, samples: Count = 50, start: Whole = 0, steps: Count) -> None:
        super().__init__()
        self.samples, self.start, self.steps = samples, start, steps

    def needs_at(self, step: int) -> Needs:
        share = min(max((step - self.start) / self.steps, 0.0), 1.0)
        return Needs(samples=self.samples if share == 1 else math.ceil(self.samples**share))

    def forward(self, evidence: Evidence, step: int, player: str, noise: Noise) -> Loss:
        value = -evidence.importance_bound().mean()
        return Loss(value, _record(evidence, value))


class CombinationImportance(Objective):
    """-(beta * ELBO + (1 - beta) * importance bound): the CIWAE (Rainforth et al. 2018, section 5).

    A bound for any beta in [0, 1], between the two; the share of the ELBO keeps the signal in the encoder's gradient.

    Args:
        settings: from the assembly.
        samples: K.
        beta: a schedule of the ELBO's share.
    """

    def __init__(self, settings: Settings, *, samples: Count = 50, beta: Schedule = constant(value=0.5)) -> None:
        super().__init__()
        self.needs, self.beta = Needs(samples=samples), beta

    def forward(self, evidence: Evidence, step: int, player: str, noise: Noise) -> Loss:
        beta = self.beta(step)
        value = -(beta * evidence.elbo() + (1 - beta) * evidence.importance_bound()).mean()
        return Loss(value, _record(evidence, value) | {"elbo_share": value.detach().new_tensor(beta)})


class MultipleImportance(Objective):
    """-1/M sum_m log 1/K sum_k w_mk: the MIWAE (Rainforth et al. 2018, section 5), the mean of M bounds of K draws.

    M = 1 is the importance-weighted autoencoder, K = 1 the VAE with M draws. For the same M K draws, more M make the
    encoder's gradient less noisy, and more K the bound tighter.

    Args:
        settings: from the assembly.
        samples: K.
        repeats: M.
    """

    def __init__(self, settings: Settings, *, samples: Count = 8, repeats: Count = 8) -> None:
        super().__init__()
        self.needs, self.repeats = Needs(samples=samples * repeats), repeats

    def forward(self, evidence: Evidence, step: int, player: str, noise: Noise) -> Loss:
        value = -multiple_bound(evidence, self.repeats).mean()
        return Loss(value, _record(evidence, value))


class PartialImportance(Objective):
    """The encoder maximises the MIWAE's bound, all else that of all M K draws: the PIWAE (Rainforth et al. 2018).

    Section 5 there. The roles of the model take turns, each on its own batch.

    Args:
        settings: from the assembly.
        samples: K.
        repeats: M.
    """

    def __init__(self, settings: Settings, *, samples: Count = 8, repeats: Count = 8) -> None:
        super().__init__()
        if "encoder" not in settings.roles:
            raise NotSupportedError(
                f"the objective trains the encoder apart from the rest, and this model's roles are "
                f"{', '.join(settings.roles) or 'none'}; use the objective `importance`."
            )
        self.needs, self.repeats = Needs(samples=samples * repeats), repeats
        self.players = tuple(Player(role) for role in settings.roles)

    def forward(self, evidence: Evidence, step: int, player: str, noise: Noise) -> Loss:
        repeats = self.repeats if player == "encoder" else 1
        value = -multiple_bound(evidence, repeats).mean()
        return Loss(value, _record(evidence, value))


def multiple_bound(evidence: Evidence, repeats: int) -> Tensor:
    """The mean of M importance bounds, each of S / M draws, (B,), nats; larger is better."""
    if evidence.weights is not None:
        raise NotSupportedError(
            "this objective divides the draws into groups, and this model's samples are its classes, each with a "
            "probability; use the objective `importance`."
        )
    log_weight = evidence.log_weight().unflatten(0, (repeats, -1))
    return (torch.logsumexp(log_weight, dim=1) - math.log(log_weight.shape[1])).mean(dim=0)


class DoublyReparameterised(Objective):
    """The importance-weighted bound with the encoder's gradient reparameterised twice (IWAE-DReG: Tucker et al. 2019).

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
