"""Reconstruction without a rate: the plain and the regularised deterministic autoencoder."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lowerbound.model.evidence import Evidence
from lowerbound.model.objectives.objective import Loss, Objective
from lowerbound.model.objectives.schedules import Schedule, constant
from lowerbound.model.spec import Settings
from lowerbound.noise import Noise


class Reconstruction(Objective):
    """distortion + code * |z|^2 / 2 + smoothness * |dg/dz|^2 / 2 + penalties, in nats; there is no rate, and no bound.

    With a deterministic posterior and both weights 0 this is the plain autoencoder; with them, the regularised one
    (Ghosh et al. 2020, with their gradient penalty). The squared Frobenius norm of the Jacobian of the
    decoder's features g is estimated along one random direction per row, E|J^T v|^2, without bias.

    Args:
        settings: from the assembly.
        code: a schedule of the weight of the codes' squared length.
        smoothness: a schedule of the weight of the decoder's squared Jacobian.
        penalties: weight of each of the model's penalties by name; 1 where not given.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        code: Schedule = constant(value=0.0),
        smoothness: Schedule = constant(value=0.0),
        penalties: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.code, self.smoothness, self.penalties = code, smoothness, dict(penalties or {})

    def forward(self, evidence: Evidence, step: int, player: str, noise: Noise) -> Loss:
        distortion = evidence.average(evidence.reconstruction()).mean()
        code, smoothness = self.code(step), self.smoothness(step)
        lengths = _squared_lengths(evidence)
        value = distortion + code * 0.5 * lengths
        parts = {"distortion_nats": distortion, "squared_code": lengths}
        if smoothness:
            parts["squared_jacobian"] = _squared_jacobian(evidence, noise)
            value = value + smoothness * 0.5 * parts["squared_jacobian"]
        for name, penalty in evidence.penalties.items():
            parts[name] = evidence.average(penalty).mean()
            value = value + self.penalties.get(name, 1.0) * parts[name]
        return Loss(value, {name: part.detach() for name, part in ({"loss": value} | parts).items()})


def _codes(evidence: Evidence) -> list[Tensor]:
    """The continuous codes of each group, (S, B, *units)."""
    return [latent.z for latent in evidence.latents.values() if latent.z.is_floating_point()]


def _squared_lengths(evidence: Evidence) -> Tensor:
    """Sum over groups of |z|^2, a mean over rows, ()."""
    lengths = [evidence.average(z.flatten(2).square().sum(dim=2)).mean() for z in _codes(evidence)]
    return torch.stack(lengths).sum() if lengths else evidence.reconstruction().new_zeros(())


def _squared_jacobian(evidence: Evidence, noise: Noise) -> Tensor:
    """The squared Frobenius norm of dg/dz along one random direction of g per row, a mean over rows, ()."""
    g, codes = evidence.anchor, _codes(evidence)
    if g is None or not codes:
        return evidence.reconstruction().new_zeros(())
    direction = noise.child("direction").normal(g.shape[0], tuple(g.shape[2:])).to(g.dtype)
    found = torch.autograd.grad(g, codes, direction, create_graph=True, allow_unused=True)
    squares = [slope.flatten(2).square().sum(dim=2).mean() for slope in found if slope is not None]
    return torch.stack(squares).sum() if squares else evidence.reconstruction().new_zeros(())
