"""Draws of densities with heavier tails than a Gaussian's: Laplace and Student's t."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Laplace, StudentT

from lowerbound.model.distributions import tree
from lowerbound.noise import Noise

tree.register(Laplace, {"loc": "loc", "scale": "scale"})
tree.register(StudentT, {"df": "df", "loc": "loc", "scale": "scale"})


@tree.point.register(Laplace)
@tree.point.register(StudentT)
def _point(distribution: Laplace | StudentT) -> Tensor:
    """The median, which is the mean where there is one."""
    return distribution.loc


@tree.draw_row(Laplace)
def _draw_laplace(distribution: Laplace, noise: Noise, samples: int, event: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """By the inverse distribution function, with gradient."""
    u = noise.uniform(samples, event).to(distribution.loc.dtype) - 0.5
    tail = torch.log1p(-2 * u.abs().clamp_max(0.5 * (1 - torch.finfo(noise.dtype).eps)))
    return distribution.loc - distribution.scale * u.sign() * tail, tail - torch.log(2 * distribution.scale)


@tree.draw_row(StudentT)
def _draw_student(distribution: StudentT, noise: Noise, samples: int, event: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """sqrt(v (u^(-2/v) - 1)) cos(2 pi w) from uniform u and w, exact for any v > 0 (Bailey 1994), with gradient."""
    df = distribution.df
    # 1 - u lies in (0, 1], where a power of it is finite.
    u = (1 - noise.child("radius").uniform(samples, event)).to(df.dtype)
    angle = 2 * math.pi * noise.child("angle").uniform(samples, event).to(df.dtype)
    radius = torch.sqrt(df * torch.expm1(-2 / df * u.log()))
    z = distribution.loc + distribution.scale * radius * torch.cos(angle)
    return z, distribution.log_prob(z)
