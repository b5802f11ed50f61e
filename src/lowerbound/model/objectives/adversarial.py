"""Objectives with a second player: a critic."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lowerbound.kinds import Part
from lowerbound.model.evidence import Evidence
from lowerbound.model.networks.mlp import MLP
from lowerbound.model.networks.network import Network, Ports
from lowerbound.model.objectives.games import critic_loss, generator_loss
from lowerbound.model.objectives.matching import codes_of, prior_draws
from lowerbound.model.objectives.objective import (
    Loss,
    Needs,
    Objective,
    Player,
    bound_loss,
    bound_parts,
    reconstructions,
)
from lowerbound.model.objectives.schedules import Schedule, constant
from lowerbound.model.spec import Fraction, Settings
from lowerbound.noise import Noise


class AdversarialPrior(Objective):
    """The adversarial autoencoder (Makhzani et al. 2016): a critic in latent space replaces the rate.

    Any prior goes that can be drawn from. There is no rate in the loss, and no bound is reported.

    Args:
        settings: from the assembly.
        critic: from all latents, flattened and joined, to one logit.
        weight: of the adversarial term beside the distortion in nats.
    """

    players = (Player("critic"), Player("model"))

    def __init__(
        self,
        settings: Settings,
        *,
        critic: Part[Network] = Part(MLP, widths=[128, 128], activation="leaky_relu"),
        weight: Schedule = constant(value=10.0),
    ) -> None:
        super().__init__()
        units = sum(math.prod(shape) for shape in settings.latents.values())
        self.critic, self.weight = critic(Ports((units,), (1,))), weight

    def forward(self, evidence: Evidence, step: int, player: str, noise: Noise) -> Loss:
        fake = self.critic(codes_of(evidence.latents), None)
        if player == "critic":
            real = self.critic(prior_draws(evidence.latents, noise), None)
            value = critic_loss(real, fake)
            return Loss(value, {"critic_loss": value.detach()})
        distortion = evidence.average(evidence.reconstruction()).mean()
        adversarial = generator_loss(fake)
        value = distortion + self.weight(step) * adversarial
        parts = {"loss": value, "distortion_nats": distortion, "adversarial": adversarial}
        return Loss(value, {name: part.detach() for name, part in parts.items()})


class FactorVAE(Objective):
    """distortion + rate + gamma * total correlation + penalties, the last from a critic (Kim & Mnih 2018, eq. 2).

    The critic tells codes of the aggregate posterior from the same codes with every unit permuted over the batch of all
    processes on its own (algorithm 1), so its logit is log q(z) - sum_j log q(z_j), and the mean of it the total
    correlation (eq. 3). Both players take turns on their own batches (algorithm 2).

    Args:
        settings: from the assembly.
        critic: from all latents, flattened and joined, to one logit.
        gamma: a schedule of the weight of the total correlation.
        penalties: weight of each of the model's penalties by name; 1 where not given.
    """

    players = (Player("model"), Player("critic"))

    def __init__(
        self,
        settings: Settings,
        *,
        critic: Part[Network] = Part(MLP, widths=[256, 256, 256], activation="leaky_relu"),
        gamma: Schedule = constant(value=10.0),
        penalties: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        units = sum(math.prod(shape) for shape in settings.latents.values())
        self.needs = Needs(global_batch=True)
        self.critic, self.gamma, self.penalties = critic(Ports((units,), (1,))), gamma, dict(penalties or {})

    def forward(self, evidence: Evidence, step: int, player: str, noise: Noise) -> Loss:
        codes = codes_of(evidence.latents)
        logits = self.critic(codes, None)
        if player == "critic":
            value = critic_loss(logits, self.critic(permuted(codes, noise.child("order")), None))
            return Loss(value, {"critic_loss": value.detach()})
        correlation, rates = logits.mean(), evidence.rates()
        rate = evidence.average(evidence.rate(rates)).mean() + self.gamma(step) * correlation
        return bound_loss(evidence, rate, rates, self.penalties, {"total_correlation_nats": correlation})


def permuted(codes: Tensor, noise: Noise) -> Tensor:
    """Codes (B, D) with every unit permuted over the rows on its own: draws of the product of the marginals."""
    return codes.gather(0, noise.uniform(1, codes.shape[1:])[0].argsort(dim=0))


class Balance(nn.Module):
    """The weight at which adversarial and reconstruction gradients have equal norms at the anchor (Esser et al. 2021).

    Their eq. 7, but the squared norms are sums over rows, absorbed after the step: so the weight is that of the step
    before, it is the same on every process and for every micro-batch, and the loss stays pure. It starts at 0.

    Args:
        decay: of the moving average of both squared norms.
    """

    reconstruction: Tensor
    adversarial: Tensor

    def __init__(self, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("reconstruction", torch.zeros(()))
        self.register_buffer("adversarial", torch.zeros(()))

    def forward(self) -> Tensor:
        """The weight, ()."""
        ratio = self.reconstruction / self.adversarial.clamp_min(1e-12)
        return ratio.sqrt().clamp(max=1e4)

    def measure(self, reconstruction: Tensor, adversarial: Tensor, anchor: Tensor) -> dict[str, Tensor]:
        """The squared gradient norms of two losses at the anchor, summed over rows (each loss is a mean over rows)."""
        both = {"reconstruction": reconstruction, "adversarial": adversarial}
        norms = {}
        for name, loss in both.items():
            (gradient,) = torch.autograd.grad(loss, anchor, retain_graph=True)
            norms[name] = (gradient * gradient.shape[1]).square().sum()
        return norms

    def absorb(self, statistics: dict[str, Tensor]) -> None:
        """Move both averages by one step."""
        for name, value in statistics.items():
            average = getattr(self, name)
            average.lerp_(value, 1.0 if average == 0 else 1 - self.decay)


class VAEGAN(Objective):
    """A VAE whose decoder must also please a critic of data (Larsen et al. 2016), with balanced gradients.

    The critic tells data from reconstructions and from decoded prior samples.

    Args:
        settings: from the assembly.
        critic: from a row of prepared data to one logit.
        weight: of the adversarial gradient relative to the reconstruction's.
        decay: of the moving averages in the balance.
    """

    players = (Player("critic"), Player("model"))

    def __init__(
        self,
        settings: Settings,
        *,
        critic: Part[Network] = Part(MLP, widths=[128, 128], activation="leaky_relu"),
        weight: Schedule = constant(value=0.5),
        decay: Fraction = 0.9,
    ) -> None:
        super().__init__()
        self.needs = Needs(generated=True)
        self.critic, self.weight = critic(Ports(settings.data.event, (1,))), weight
        self.balance = Balance(decay)

    def forward(self, evidence: Evidence, step: int, player: str, noise: Noise) -> Loss:
        assert evidence.generated is not None
        reconstructed = reconstructions(evidence).flatten(0, 1)
        fake = self.critic(torch.cat([reconstructed, evidence.generated]), None)
        if player == "critic":
            value = critic_loss(self.critic(evidence.x, None), fake)
            return Loss(value, {"critic_loss": value.detach()})
        adversarial = generator_loss(fake)
        distortion = evidence.average(evidence.reconstruction()).mean()
        rate = evidence.average(evidence.rate()).mean()
        weight = self.weight(step) * self.balance()
        value = distortion + rate + weight * adversarial
        parts = {"loss": value.detach(), "adversarial": adversarial.detach(), "adversarial_weight": weight}
        statistics = {}
        if evidence.anchor is not None and evidence.anchor.requires_grad:
            statistics = self.balance.measure(distortion, adversarial, evidence.anchor)
        return Loss(value, parts | bound_parts(evidence), statistics)

    def absorb(self, statistics: dict[str, Tensor]) -> None:
        if statistics:
            self.balance.absorb(statistics)
