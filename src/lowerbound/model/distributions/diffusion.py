"""The density of a diffusion model, alone or given features of a row."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from lowerbound.errors import NotSupportedError
from lowerbound.model.distributions import tree
from lowerbound.model.distributions.diffusing.bounds import Bound, ContinuousTime, Trial, decoding_nats, prior_nats
from lowerbound.model.distributions.diffusing.levels import Guess, Level
from lowerbound.model.distributions.diffusing.samplers import DDIM, Ancestral, Denoise, Sampler, Tools
from lowerbound.model.distributions.diffusing.schedules import LogLinear, NoiseSchedule
from lowerbound.model.distributions.folding import folded
from lowerbound.noise import Noise

# (noisy x (N, *event), features (N, *event) or None, context features (N, C) or None, level) -> what is said of x
Denoiser = Callable[[Tensor, Tensor | None, Tensor | None, Level], Guess]


@dataclass(frozen=True)
class Process:
    """What belongs to a diffusion model beside its network.

    Attributes:
        event: shape of a row.
        schedule: of the noise.
        bound: on log p(x).
        sampler, steps: how rows are drawn.
        guidance: how far draws go from what is said without a context (0) to what is said with it (1) and beyond; 1 is
            none.
    """

    event: torch.Size
    schedule: NoiseSchedule = LogLinear()
    bound: Bound = ContinuousTime()
    sampler: Sampler = Ancestral()
    steps: int = 100
    guidance: float = 1.0


class DiffusionDensity(Distribution):
    """p(x), or p(x|features, context), of a diffusion model (Ho et al. 2020; Kingma et al. 2021).

    `log_prob` is an unbiased *estimate*, at random times, of the variational lower bound (Kingma et al. 2021, eq. 11):
    reconstruction at t = 0, KL from the prior at t = 1, and the cost of the steps between. So it may be averaged, but
    never put through a logarithm: importance weights of it are refused. Guidance and samplers change draws only.

    Args:
        features: (*batch, *event); None where there are none.
        context: features of the context, (*batch, C); None where there is none.
        denoiser: the network.
        process: everything else.
        noise: where the random times come from; `tree.attach` supplies it.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (torch's own declaration)
    is_exact = False

    def __init__(
        self,
        features: Tensor | None,
        context: Tensor | None,
        denoiser: Denoiser,
        process: Process,
        noise: Noise | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self.features, self.context, self.denoiser, self.process, self.noise = (
            features, context, denoiser, process, noise,
        )  # fmt: skip
        batch = torch.Size()
        if features is not None:
            batch = features.shape[: features.ndim - len(process.event)]
        if context is not None:
            batch = torch.broadcast_shapes(batch, context.shape[:-1])
        super().__init__(batch, process.event, validate_args=validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        batch = self._batch(value)
        return -self.nats(self.trial(value)).reshape(batch)

    def trial(self, value: Tensor) -> Trial:
        """Rows (*batch, *event), as N together, with noise of a random time each, and what the model says of them.

        The times of the samples of one row are spread evenly, from a place that is uniform and its own (antithetic):
        each is uniform, and their mean varies less.
        """
        if self.noise is None:
            raise NotSupportedError("the density of a diffusion model is a random estimate: attach its noise first.")
        batch, process, rows = self._batch(value), self.process, self.noise.rows
        x = folded(value, batch, len(process.event))
        samples = len(x) // rows
        spread = torch.arange(samples, device=x.device)[:, None] / samples
        uniform = (self.noise.child("time").uniform(1) + spread).remainder(1.0).reshape(-1).to(x.dtype)
        level = process.schedule.level(process.bound.times(uniform)).over(len(process.event))
        eps = self.noise.child("noise").normal(samples, process.event).reshape(x.shape).to(x.dtype)
        return Trial(x, eps, level, self.denoise(batch)(level.noised(x, eps), level))

    def nats(self, trial: Trial) -> Tensor:
        """The estimate of the bound on -log p(x) of each row of a trial, (N,), nats."""
        first, last = self.process.schedule.ends()
        steps = self.process.bound.steps_nats(trial, self.process.schedule)
        return steps + prior_nats(trial.x, last) + decoding_nats(trial.x, first)

    def draw(self, batch: torch.Size, normal: Callable[[str], Tensor]) -> Tensor:
        """Rows (*batch, *event) by the sampler; `normal(name)` is noise of that shape."""
        process, shape = self.process, (-1, *self.process.event)

        def noise(name: str) -> Tensor:
            return normal(name).reshape(shape)

        start = process.schedule.ends()[1].norm * noise("start")
        tools = Tools(self._guided(batch), process.schedule, noise)
        return process.sampler(start, process.steps, tools).reshape(*batch, *process.event)

    def path(self, start: Tensor) -> Tensor:
        """Where the deterministic sampler (DDIM) leads from noise at time 1, (*batch, *event)."""
        process = self.process
        tools = Tools(self._guided(self.batch_shape), process.schedule, lambda name: torch.zeros_like(start))
        found = DDIM()(start.reshape(-1, *process.event), process.steps, tools)
        return found.reshape(*self.batch_shape, *process.event)

    def _batch(self, value: Tensor) -> torch.Size:
        return torch.broadcast_shapes(self.batch_shape, value.shape[: value.ndim - len(self.process.event)])

    def denoise(self, batch: torch.Size) -> Denoise:
        """The denoiser of rows of batch shape `batch`, folded into one axis; without guidance."""
        features, context = self._folded(batch)
        return lambda z, level: self.denoiser(z, features, context, level)

    def _guided(self, batch: torch.Size) -> Denoise:
        """The denoiser that draws are made with: classifier-free guidance (Ho & Salimans 2022)."""
        features, context = self._folded(batch)
        scale, plain = self.process.guidance, self.denoise(batch)
        if context is None or scale == 1:
            return plain
        nothing = torch.zeros_like(context)

        def guided(z: Tensor, level: Level) -> Guess:
            return self.denoiser(z, features, nothing, level).towards(plain(z, level), scale)

        return guided

    def _folded(self, batch: torch.Size) -> tuple[Tensor | None, Tensor | None]:
        return folded(self.features, batch, len(self.process.event)), folded(self.context, batch)


tree.register(DiffusionDensity, {"features": "features", "context": "context"}, ["denoiser", "process", "noise"])


@tree.attach.register
def _attach(distribution: DiffusionDensity, noise: Noise) -> Distribution:
    d = distribution
    return DiffusionDensity(d.features, d.context, d.denoiser, d.process, noise)


@tree.draw_row(DiffusionDensity)
def _draw_diffusion(
    distribution: DiffusionDensity, noise: Noise, samples: int, event: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Samples; their log-density is not known, which NaN says."""
    batch = torch.Size([samples, noise.rows])
    z = distribution.draw(batch, lambda name: noise.child(name).normal(samples, event))
    return z, z.new_full(batch, math.nan)


@tree.point.register(DiffusionDensity)
def _point_diffusion(distribution: DiffusionDensity) -> Tensor:
    """One sample that is always the same: where the deterministic sampler leads from the middle of the noise, 0.

    For a Gaussian p(x|features) that is its mean; else it is a typical row, and sharper than the mean.
    """
    d = distribution
    like = d.features if d.features is not None else d.context
    return d.path((torch.zeros(()) if like is None else like).new_zeros(*d.batch_shape, *d.process.event))
