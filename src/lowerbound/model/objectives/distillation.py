"""Score distillation: what a model makes is moved towards what a frozen diffusion model finds likely."""

from __future__ import annotations

from typing import Protocol, cast

import torch
from torch import Tensor, nn

from lowerbound.errors import NotSupportedError, RecipeError, ShapeError
from lowerbound.model.distributions.diffusion import DiffusionDensity
from lowerbound.model.evidence import Evidence
from lowerbound.model.objectives.objective import Loss, Needs, Objective
from lowerbound.model.spec import Context, DataSpec, Fraction, Settings
from lowerbound.noise import Noise


def distillation_gradient(
    density: DiffusionDensity, x: Tensor, noise: Noise, span: tuple[float, float] = (0.0, 1.0), guidance: float = 1.0
) -> Tensor:
    """w(t) (eps_hat(x_t; t) - eps) of rows x (N, *event), at a random time each (Poole et al. 2023, eq. 3).

    w(t) = sigma^2 / (alpha^2 + sigma^2), which is their sigma^2 where the variance is preserved.

    Its mean over times and noise is the gradient of a weighted KL divergence from noisy x to the model, the network's
    own Jacobian left out (there, eq. 4): it points away from what is likely, so x goes against it, towards modes.

    Args:
        density: of rows, with a batch of N contexts where it is conditional.
        x: rows.
        noise: of N rows.
        span: the first and the last time.
        guidance: how far to go from what is said without the context (0) to what is said with it (1), and beyond.
    """
    low, high = span
    t = low + (high - low) * noise.child("time").uniform()[0].to(x.dtype)
    level = density.process.schedule.level(t).over(x.ndim - 1)
    eps = noise.child("noise").normal(1, x.shape[1:])[0].to(x.dtype)
    with torch.no_grad():
        noisy = level.noised(x.detach(), eps)
        guess = density.denoiser(noisy, None, density.context, level)
        if guidance != 1 and density.context is not None:
            nothing = density.denoiser(noisy, None, torch.zeros_like(density.context), level)
            guess = nothing.towards(guess, guidance)
        found: Tensor = (level.sigma / level.norm).square() * (guess.eps - eps)
    return found


class _Diffusion(Protocol):
    """What is used of a trained diffusion model."""

    data: DataSpec

    @property
    def preparation(self) -> _Preparation: ...

    def density(self, features: None, context: Context | None) -> DiffusionDensity: ...


class _Preparation(Protocol):
    def prepare(self, raw: Tensor, noise: None) -> Tensor: ...


class ScoreDistillation(Objective):
    """Any model that can be drawn from, trained by a frozen diffusion model of another run alone (Poole et al. 2023).

    The data are used for their context only. It seeks modes: what is made is likelier and less varied than draws of
    the diffusion model. Times away from the last ones are sharper, and find a mode less easily from afar.

    Args:
        settings: from the assembly.
        prior: the folder of the run: a diffusion model of rows like these.
        first, last: times between which noise is put in.
        guidance: how far to go from what is said without the context (0) to what is said with it (1), and beyond.

    Raises:
        NotSupportedError: the run is no diffusion model.
        ShapeError: it is one of other rows.
        RecipeError: times that are not in order.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        prior: str,
        first: Fraction = 0.02,
        last: Fraction = 0.98,
        guidance: float = 1.0,
    ) -> None:
        super().__init__()
        if not first < last:
            raise RecipeError(
                f"`objective.first` is {first:g} and `objective.last` is {last:g}, but noise is put in between these "
                "times; give a first one below the last."
            )
        self.needs = Needs(generated=True)
        self.prior = settings.outside.model(prior).requires_grad_(False)
        self.restore, self.span, self.guidance = settings.restore, (first, last), guidance
        inner = getattr(self.prior, "density", None)
        if not isinstance(inner, nn.Module) or not hasattr(inner, "process"):
            raise NotSupportedError(
                f"{prior} is no diffusion model, so it has no score to distil; name a run of the family `diffusion`."
            )
        known = cast(_Diffusion, self.prior).data
        if known.event != settings.data.event or known.context not in (0, settings.data.context):
            raise ShapeError(
                f"{prior} is a model of rows of shape {list(known.event)} with a context of {known.context} numbers, "
                f"and these have shape {list(settings.data.event)} with {settings.data.context}; name one of such rows."
            )

    def forward(self, evidence: Evidence, step: int, player: str, noise: Noise) -> Loss:
        made, prior = evidence.generated, cast(_Diffusion, self.prior)
        if made is None or not made.is_floating_point():
            raise NotSupportedError(
                "score distillation needs made rows of real numbers, through which it has a gradient."
            )
        x = prior.preparation.prepare(self.restore(made), None)
        density = prior.density(None, evidence.context if prior.data.context else None)
        gradient = distillation_gradient(density, x, noise, self.span, self.guidance)
        # The value has this gradient and no meaning of its own.
        value = (gradient * x).flatten(1).sum(1).mean()
        size = gradient.flatten(1).norm(dim=1).mean()
        return Loss(value, {"loss": value.detach(), "distillation_pull": size})
