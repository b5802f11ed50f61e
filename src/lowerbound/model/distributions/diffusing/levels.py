"""A level of noise, and what a denoiser says of a row at it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Level:
    """One level of noise, x_t = alpha x + sigma eps, or one for each row.

    Attributes:
        t: time in [0, 1], () or (N,).
        alpha, sigma: scales of the row and of the noise, () or (N, 1, ...).
    """

    t: Tensor
    alpha: Tensor
    sigma: Tensor

    @property
    def log_snr(self) -> Tensor:
        """log(alpha^2 / sigma^2), infinite where there is no noise."""
        return 2 * (self.alpha.log() - self.sigma.log())

    @property
    def ratio(self) -> Tensor:
        """sigma / alpha: the noise level of models whose rows keep their scale."""
        return self.sigma / self.alpha

    @property
    def norm(self) -> Tensor:
        """Standard deviation of a noisy value where the data's is 1."""
        return (self.alpha.square() + self.sigma.square()).sqrt()

    def over(self, axes: int) -> Level:
        """The same levels, shaped to broadcast over that many axes of a row."""
        shape = (*self.t.shape, *(1,) * axes)
        return Level(self.t, self.alpha.reshape(shape), self.sigma.reshape(shape))

    def noised(self, x: Tensor, eps: Tensor) -> Tensor:
        """Rows with noise of this level."""
        return self.alpha * x + self.sigma * eps


CLEAN = Level(torch.tensor(0.0), torch.tensor(1.0), torch.tensor(0.0))


@dataclass(frozen=True)
class Guess:
    """What a denoiser says of noisy rows.

    Attributes:
        x: expected clean rows, (N, *event).
        eps: expected standard noise in them, (N, *event); the score is -eps / sigma (Song et al. 2021, eq. 9 and 29).
        blend: where the variance of a step lies between its two bounds, 0 to 1, (N, *event); None where not learned.
    """

    x: Tensor
    eps: Tensor
    blend: Tensor | None = None

    def score(self, level: Level) -> Tensor:
        """The gradient of the log-density of noisy rows, (N, *event)."""
        return -self.eps / level.sigma

    def towards(self, other: Guess, scale: float) -> Guess:
        """This guess, moved `scale` times the way to another one: guidance (Ho & Salimans 2022, eq. 6)."""
        x, eps = self.x + scale * (other.x - self.x), self.eps + scale * (other.eps - self.eps)
        return Guess(x, eps, other.blend)
