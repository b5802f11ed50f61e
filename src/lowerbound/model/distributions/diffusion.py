"""The density of a continuous-time diffusion model (Kingma et al. 2021, "Variational diffusion models")."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from lowerbound.errors import NotSupportedError
from lowerbound.model.distributions import tree
from lowerbound.noise import Noise

# (noisy x (N, *event), time in [0, 1] (N,)) -> estimate of the standard noise in it, (N, *event)
Denoiser = Callable[[Tensor, Tensor], Tensor]


def time_features(t: Tensor, frequencies: int) -> Tensor:
    """Times t (N,) and their sines and cosines at octaves, (N, 2 F + 1): what a denoiser sees of the time."""
    angles = math.pi * t[:, None] * 2.0 ** torch.arange(frequencies, device=t.device)
    return torch.cat([t[:, None], angles.sin(), angles.cos()], dim=1)


class DiffusionDensity(Distribution):
    """A variance-preserving diffusion with log-SNR falling linearly from `start` to `end`.

    x_t = alpha_t x + sigma_t eps, alpha_t^2 = sigmoid(snr(t)), sigma_t^2 = sigmoid(-snr(t)).
    `log_prob` is an unbiased *estimate*, at one random time per example, of the variational lower bound (eq. 11, 15):
    reconstruction at t = 0, KL from the prior at t = 1, and 1/2 (start - end) E ||eps - eps_hat||^2 in between. So
    it may be averaged, but never put through a logarithm: importance weights of it are refused.

    Args:
        denoiser: the network.
        event: shape of a row.
        start, end: log signal-to-noise ratio at t = 0 and t = 1.
        steps: steps of the ancestral sampler.
        noise: where the random times come from; `tree.attach` supplies it.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (torch's own declaration)
    is_exact = False

    def __init__(
        self,
        denoiser: Denoiser,
        event: torch.Size,
        start: float,
        end: float,
        steps: int,
        noise: Noise | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self.denoiser, self.event, self.start, self.end, self.steps, self.noise = (
            denoiser, event, start, end, steps, noise,
        )  # fmt: skip
        super().__init__(torch.Size(), event, validate_args=validate_args)

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """alpha_t and sigma_t at times t, shaped to broadcast over the event."""
        snr = (self.start + t * (self.end - self.start)).reshape(*t.shape, *(1,) * len(self.event))
        return torch.sigmoid(snr).sqrt(), torch.sigmoid(-snr).sqrt()

    def log_prob(self, value: Tensor) -> Tensor:
        if self.noise is None:
            raise NotSupportedError("the density of a diffusion model is a random estimate: attach its noise first.")
        samples = value.numel() // (self.noise.rows * math.prod(self.event))
        flat = value.reshape(samples * self.noise.rows, *self.event)
        # One uniform time per example from a low-discrepancy set would couple rows; independent times do not.
        t = self.noise.child("time").uniform(samples).reshape(-1).to(flat.dtype)
        eps = self.noise.child("noise").normal(samples, self.event).reshape(flat.shape).to(flat.dtype)
        alpha, sigma = self.scales(t)
        error = (eps - self.denoiser(alpha * flat + sigma * eps, t)).square().flatten(1).sum(1)
        estimate = -(0.5 * (self.start - self.end) * error + self._prior_kl(flat) + self._reconstruction(flat))
        return estimate.reshape(value.shape[: value.ndim - len(self.event)])

    def _prior_kl(self, x: Tensor) -> Tensor:
        alpha2, sigma2 = torch.sigmoid(torch.tensor(self.end)), torch.sigmoid(torch.tensor(-self.end))
        return 0.5 * (alpha2 * x.square() + sigma2 - 1 - sigma2.log()).flatten(1).sum(1)

    def _reconstruction(self, x: Tensor) -> Tensor:
        """-E log N(x; x_0 / alpha_0, (sigma_0 / alpha_0)^2), the entropy of the noise that is left at t = 0."""
        size = math.prod(self.event)
        return x.new_full((x.shape[0],), 0.5 * size * (1 + math.log(2 * math.pi) - self.start))

    def ancestral(self, batch: torch.Size, normal: Callable[[int], Tensor]) -> Tensor:
        """Samples (*batch, *event) by ancestral sampling (eq. 32-34); `normal(step)` is the noise of a step."""
        z = normal(0).reshape(-1, *self.event)
        for step in range(self.steps):
            t, s = 1 - step / self.steps, 1 - (step + 1) / self.steps
            time = z.new_full((z.shape[0],), t)
            (alpha_t, sigma_t), (alpha_s, sigma_s) = (
                self.scales(time),
                self.scales(z.new_full((z.shape[0],), s)),
            )
            c = -torch.expm1(torch.tensor((self.end - self.start) * (t - s), dtype=z.dtype, device=z.device))
            mean = alpha_s / alpha_t * (z - c * sigma_t * self.denoiser(z, time))
            z = mean + sigma_s * c.sqrt() * normal(step + 1).reshape(z.shape)
        return (z / self.scales(z.new_zeros(z.shape[0]))[0]).reshape(*batch, *self.event)

    def path(self, start: Tensor) -> Tensor:
        """Where the deterministic sampler (Song et al. 2021, "Denoising diffusion implicit models") leads, (N, *event).

        Args:
            start: noise at t = 1, (N, *event).
        """
        z = start
        for step in range(self.steps):
            t, s = 1 - step / self.steps, 1 - (step + 1) / self.steps
            time = z.new_full((z.shape[0],), t)
            (alpha_t, sigma_t), (alpha_s, sigma_s) = self.scales(time), self.scales(z.new_full((z.shape[0],), s))
            ratio = alpha_s / alpha_t
            z = ratio * z + (sigma_s - ratio * sigma_t) * self.denoiser(z, time)
        return z / self.scales(z.new_zeros(z.shape[0]))[0]


tree.register(DiffusionDensity, {}, ["denoiser", "event", "start", "end", "steps", "noise"])


@tree.attach.register
def _attach(distribution: DiffusionDensity, noise: Noise) -> Distribution:
    d = distribution
    return DiffusionDensity(d.denoiser, d.event, d.start, d.end, d.steps, noise)


@tree.draw_row(DiffusionDensity)
def _draw_diffusion(
    distribution: DiffusionDensity, noise: Noise, samples: int, event: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Samples; their log-density is not known, which NaN says."""
    batch = torch.Size([samples, noise.rows])
    z = distribution.ancestral(batch, lambda step: noise.child(f"step{step}").normal(samples, event))
    return z, z.new_full(batch, math.nan)
