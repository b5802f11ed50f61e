"""Objectives that match the aggregate posterior with the prior by draws of both; no densities are needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

from lowerbound.errors import NotSupportedError
from lowerbound.model.distributions import tree
from lowerbound.model.evidence import Evidence, Latent
from lowerbound.model.objectives.objective import Loss, Needs, Objective, bound_loss
from lowerbound.model.objectives.schedules import Schedule, constant
from lowerbound.model.spec import Count, Settings
from lowerbound.noise import Noise

# From squared distances and the scale of the codes to values of a kernel.
Kernel = Callable[[Tensor, Tensor], Tensor]
SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


def codes_of(latents: Mapping[str, Latent]) -> Tensor:
    """A draw of every posterior, all groups joined, (B, D).

    Raises:
        NotSupportedError: the codes are discrete.
    """
    if not all(latent.z.is_floating_point() for latent in latents.values()) or not latents:
        raise NotSupportedError(
            "this objective moves the codes themselves towards draws of the prior, and this model has none or discrete "
            "ones; use the objective `elbo`."
        )
    return torch.cat([latent.z[0].flatten(1) for latent in latents.values()], dim=1)


def prior_draws(latents: Mapping[str, Latent], noise: Noise) -> Tensor:
    """As many draws of the prior, all groups joined, (B, D)."""
    draws = [tree.draw(latent.p, noise.child(name))[0][0] for name, latent in latents.items()]
    return torch.cat([draw.flatten(1) for draw in draws], dim=1)


def inverse_multiquadratic(distances: Tensor, scale: Tensor) -> Tensor:
    """c / (c + d^2), averaged over c = 0.1 ... 10 times the scale: heavy tails, so that far codes feel a pull."""
    return torch.stack([c * scale / (c * scale + distances) for c in SCALES]).mean(dim=0)


def gaussian(distances: Tensor, scale: Tensor) -> Tensor:
    """exp(-d^2 / c), averaged over c = 0.1 ... 10 times the scale."""
    return torch.stack([torch.exp(-distances / (c * scale)) for c in SCALES]).mean(dim=0)


KERNELS: dict[str, Kernel] = {"inverse-multiquadratic": inverse_multiquadratic, "gaussian": gaussian}


def squared_discrepancy(codes: Tensor, draws: Tensor, kernel: Kernel) -> Tensor:
    """The squared maximum mean discrepancy of two sets of equal size, (), without bias: Gretton et al. 2012, eq. 3.

    It may dip below 0. The kernel's scale is the mean squared distance of two draws of the prior.

    Args:
        codes, draws: (B, D).
        kernel: with k(0) = 1.

    Raises:
        NotSupportedError: one row alone.
    """
    rows = len(codes)
    if rows < 2:
        raise NotSupportedError("a discrepancy of distributions needs at least two rows; use larger batches.")
    own, theirs, across = (_distances(a, b) for a, b in ((codes, codes), (draws, draws), (codes, draws)))
    pairs = rows * (rows - 1)
    scale = (theirs.sum() / pairs).detach()
    # The diagonals are k(0) = 1.
    within = (kernel(own, scale).sum() + kernel(theirs, scale).sum() - 2 * rows) / pairs
    return within - 2 * kernel(across, scale).mean()


def sliced_distance(codes: Tensor, draws: Tensor, directions: Tensor) -> Tensor:
    """The squared sliced Wasserstein distance of two sets of equal size, (): Kolouri et al. 2019, section 3.

    Args:
        codes, draws: (B, D).
        directions: (L, D), of length 1.
    """
    ordered = [(points @ directions.T).sort(dim=0).values for points in (codes, draws)]
    return (ordered[0] - ordered[1]).square().mean()


class InfoVAE(Objective):
    """distortion + rate_weight * rate + weight * MMD^2(q(z), p(z)) + penalties (Zhao et al. 2019).

    In the terms of the paper rate_weight = 1 - alpha and weight = alpha + lambda - 1. The smaller the rate's weight,
    the more the codes may say of a row, while the discrepancy holds their aggregate at the prior.

    Args:
        settings: from the assembly.
        rate_weight: a schedule.
        weight: a schedule; MMD^2 lies between 0 and 2, so this is of the size of the distortion, nats.
        kernel: "inverse-multiquadratic" or "gaussian".
        penalties: weight of each of the model's penalties by name; 1 where not given.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        rate_weight: Schedule = constant(value=0.5),
        weight: Schedule = constant(value=100.0),
        kernel: Literal["inverse-multiquadratic", "gaussian"] = "inverse-multiquadratic",
        penalties: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.needs = Needs(global_batch=True)
        self.rate_weight, self.weight, self.kernel = rate_weight, weight, KERNELS[kernel]
        self.penalties = dict(penalties or {})

    def forward(self, evidence: Evidence, step: int, player: str, noise: Noise) -> Loss:
        rate_weight, rates = self.rate_weight(step), evidence.rates()
        squared = squared_discrepancy(codes_of(evidence.latents), prior_draws(evidence.latents, noise), self.kernel)
        rate = rate_weight * evidence.average(evidence.rate(rates)).mean()
        parts: dict[str, float | Tensor] = {"beta": rate_weight, "squared_mmd": squared}
        return bound_loss(evidence, rate + self.weight(step) * squared, rates, self.penalties, parts)


class WassersteinMMD(Objective):
    """distortion + weight * MMD^2(q(z), p(z)) + penalties: the WAE-MMD (Tolstikhin et al. 2018, eq. 4, algorithm 2).

    There is no rate in the loss, so codes may be deterministic, and no bound is reported.

    Args:
        settings: from the assembly.
        weight: a schedule; MMD^2 lies between 0 and 2, so this is of the size of the distortion, nats.
        kernel: "inverse-multiquadratic" or "gaussian".
        penalties: weight of each of the model's penalties by name; 1 where not given.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        weight: Schedule = constant(value=100.0),
        kernel: Literal["inverse-multiquadratic", "gaussian"] = "inverse-multiquadratic",
        penalties: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.needs = Needs(global_batch=True)
        self.weight, self.kernel, self.penalties = weight, KERNELS[kernel], dict(penalties or {})

    def forward(self, evidence: Evidence, step: int, player: str, noise: Noise) -> Loss:
        squared = squared_discrepancy(codes_of(evidence.latents), prior_draws(evidence.latents, noise), self.kernel)
        return _matching_loss(evidence, self.weight(step) * squared, {"squared_mmd": squared}, self.penalties)


class SlicedWasserstein(Objective):
    """distortion + weight * SW^2(q(z), p(z)) + penalties: the sliced Wasserstein autoencoder (Kolouri et al. 2019).

    Algorithm 1: codes and draws of the prior are projected on random directions and compared in sorted order, which
    costs B log B per direction, where MMD costs B^2. There is no rate in the loss, so codes may be deterministic, and
    no bound is reported.

    Args:
        settings: from the assembly.
        weight: a schedule.
        directions: L, new ones at every step.
        penalties: weight of each of the model's penalties by name; 1 where not given.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        weight: Schedule = constant(value=10.0),
        directions: Count = 50,
        penalties: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.needs = Needs(global_batch=True)
        self.weight, self.directions, self.penalties = weight, directions, dict(penalties or {})

    def forward(self, evidence: Evidence, step: int, player: str, noise: Noise) -> Loss:
        codes = codes_of(evidence.latents)
        # One set of directions for all rows: that of the first row.
        rays = noise.child("directions").normal(self.directions, codes.shape[1:])[:, 0].to(codes.dtype)
        rays = rays / rays.norm(dim=1, keepdim=True)
        squared = sliced_distance(codes, prior_draws(evidence.latents, noise.child("prior")), rays)
        return _matching_loss(
            evidence, self.weight(step) * squared, {"squared_sliced_distance": squared}, self.penalties
        )


def _distances(one: Tensor, other: Tensor) -> Tensor:
    """Squared distances of all pairs, (B, B)."""
    return (one[:, None] - other).square().sum(dim=2)


def _matching_loss(
    evidence: Evidence, divergence: Tensor, parts: Mapping[str, Tensor], penalties: Mapping[str, float]
) -> Loss:
    """distortion + divergence + weighted penalties; there is no bound to report."""
    distortion = evidence.average(evidence.reconstruction()).mean()
    value, found = distortion + divergence, {"distortion_nats": distortion, **parts}
    for name, penalty in evidence.penalties.items():
        found[name] = evidence.average(penalty).mean()
        value = value + penalties.get(name, 1.0) * found[name]
    return Loss(value, {name: part.detach() for name, part in ({"loss": value} | found).items()})
