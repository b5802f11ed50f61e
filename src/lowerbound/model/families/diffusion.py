"""A diffusion model of the data, trained for pictures as well as for its bound."""

from __future__ import annotations

from typing import ClassVar, Self

from torch import Tensor
from torch.distributions import Distribution

from lowerbound.errors import NotSupportedError
from lowerbound.kinds import Part
from lowerbound.model.conditionals import priors
from lowerbound.model.conditionals.conditional import Slot
from lowerbound.model.conditionals.preparation import Preparation, Scaling, real_numbers
from lowerbound.model.distributions import tree
from lowerbound.model.distributions.delta import Delta
from lowerbound.model.distributions.diffusing.bounds import Bound, ContinuousTime, Trial
from lowerbound.model.distributions.diffusing.predictions import Prediction, PredictNoise
from lowerbound.model.distributions.diffusing.samplers import Ancestral, Sampler
from lowerbound.model.distributions.diffusing.schedules import LogLinear, NoiseSchedule
from lowerbound.model.distributions.diffusing.weightings import Simple, Weighting
from lowerbound.model.distributions.diffusion import DiffusionDensity
from lowerbound.model.evidence import Evidence
from lowerbound.model.families.family import Family, Latents
from lowerbound.model.networks.mlp import MLP
from lowerbound.model.networks.network import Network
from lowerbound.model.spec import Context, Count, DataSpec, Shape
from lowerbound.noise import Noise


class Diffusion(Family):
    """A diffusion model of rows or of a frozen model's codes (Sohl-Dickstein et al. 2015; Ho et al. 2020).

    The distortion is an unbiased estimate of the bound on -log p(x). The penalty `denoising` is the weighted error of
    the same attempt, for the objective `penalties`, which trains nothing else; so is `variance` where that is learned.

    Args:
        data: facts about the data.
        density: the model of prepared rows.
        weighting: of the error by the level of noise.
        preparation: from raw rows to x.
    """

    roles = {"prior": ("density",)}  # noqa: RUF012
    of_use: ClassVar = ("sampler", "steps", "guidance")

    def __init__(
        self, data: DataSpec, density: priors.Diffusion, weighting: Weighting, preparation: Preparation
    ) -> None:
        super().__init__()
        latents: dict[str, Shape] = {}
        self.data, self.latents, self.density = data, latents, density
        self.weighting, self.scaling = weighting, preparation

    @classmethod
    def assemble(
        cls,
        data: DataSpec,
        *,
        network: Part[Network] = Part(MLP, widths=[256, 256, 256]),
        schedule: NoiseSchedule = LogLinear(),
        prediction: Prediction = PredictNoise(),
        weighting: Weighting = Simple(),
        bound: Bound = ContinuousTime(),
        sampler: Sampler = Ancestral(),
        steps: Count = 100,
        guidance: float = 1.0,
        frequencies: Count = 6,
        scaling: Scaling = "standard",
    ) -> Self:
        """Give the parts their shapes.

        Args:
            data: facts about the data.
            network: from a noisy row, Fourier features of the time and the context to what it predicts.
            schedule: of the noise.
            prediction: what the network predicts.
            weighting: of the error by the level of noise, in training.
            bound: on log p(x).
            sampler, steps: how rows are drawn; another way may be chosen in use.
            guidance: how far draws go from what the network says without the context (0) to what it says with it (1),
                and beyond; 1 is none.
            frequencies: number of Fourier frequencies of time.
            scaling: "none", or "standard" to learn a mean and a scale per channel from the training rows.
        """
        density = priors.Diffusion(
            Slot(data.event, data),
            network=network,
            schedule=schedule,
            prediction=prediction,
            bound=bound,
            sampler=sampler,
            steps=steps,
            guidance=guidance,
            frequencies=frequencies,
        )
        return cls(data, density, weighting, real_numbers(data, scaling))

    @property
    def preparation(self) -> Preparation:
        return self.scaling

    def evidence(self, x: Tensor, context: Context | None, noise: Noise, samples: int = 1) -> Evidence:
        p = tree.attach(self.density(None, context), noise.child("density"))
        assert isinstance(p, DiffusionDensity)
        trial = p.trial(x.expand(samples, *x.shape))
        penalties = {"denoising": self._weighted(trial), **p.process.bound.penalties(trial, p.process.schedule)}
        return Evidence(
            x=x,
            context=context,
            distortion=p.nats(trial).reshape(samples, -1),
            penalties={name: value.reshape(samples, -1) for name, value in penalties.items()},
            exact=False,
        )

    def _weighted(self, trial: Trial) -> Tensor:
        """The weighted error of a trial, (N,)."""
        slope = self.density.process.schedule.slope(trial.level.t)
        weight = self.weighting(trial.level, slope.reshape(trial.level.alpha.shape), self.density.denoiser.prediction)
        return weight.flatten() * trial.error()

    def encode(self, x: Tensor, context: Context | None = None, noise: Noise | None = None) -> Latents:
        raise NotSupportedError(
            "a diffusion model has no latents, so it cannot encode; use it as the second stage of a `Stack`."
        )

    def decode(self, latents: Latents, context: Context | None = None) -> Distribution:
        raise NotSupportedError("a diffusion model has no latents, so it cannot decode; ask it to sample.")

    def sample(self, noise: Noise, context: Context | None = None) -> Distribution:
        x, _ = tree.draw(self.density(None, context), noise.child("x"))
        return Delta(self.preparation.settle(x[0]), len(self.data.event))
