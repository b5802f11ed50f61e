"""A density of the data with nothing latent: a prior with the identity around it."""

from __future__ import annotations

from typing import Self

from torch import Tensor
from torch.distributions import Distribution

from lowerbound.errors import NotSupportedError
from lowerbound.kinds import Part
from lowerbound.model.conditionals.conditional import Slot
from lowerbound.model.conditionals.preparation import Preparation
from lowerbound.model.conditionals.priors import Prior
from lowerbound.model.distributions import tree
from lowerbound.model.distributions.delta import Delta
from lowerbound.model.evidence import Evidence
from lowerbound.model.families.family import Family, Latents
from lowerbound.model.spec import Context, DataSpec, Shape
from lowerbound.noise import Noise


class Density(Family):
    """p(x) itself: a diffusion model, a flow, an autoregressive model or a mixture over data or over latents.

    The distortion is -log p(x) (an unbiased estimate of a bound of it for diffusion), and there are no latents, so
    `encode` and `decode` are not supported.

    Args:
        data: facts about the data.
        density: any prior, standing at the place of the data.
    """

    roles = {"prior": ("density",)}  # noqa: RUF012

    def __init__(self, data: DataSpec, density: Prior) -> None:
        super().__init__()
        latents: dict[str, Shape] = {}
        self.data, self.latents, self.density = data, latents, density
        self.scaling = density.prepares(data)

    @classmethod
    def assemble(cls, data: DataSpec, *, density: Part[Prior]) -> Self:
        """Give the density its shape."""
        return cls(data, density(Slot(data.event, data)))

    @property
    def preparation(self) -> Preparation:
        return self.scaling

    def evidence(self, x: Tensor, context: Context | None, noise: Noise, samples: int = 1) -> Evidence:
        p = tree.attach(self.density(None, context), noise.child("density"))
        exact = tree.is_exact(p)  # then all samples are the same one, and computed once
        distortion = -p.log_prob(x.expand(1 if exact else samples, *x.shape))
        return Evidence(x=x, context=context, distortion=distortion.expand(samples, len(x)), exact=exact)

    def encode(self, x: Tensor, context: Context | None = None, noise: Noise | None = None) -> Latents:
        raise NotSupportedError(
            "a density has no latents, so it cannot encode; use it as the second stage of a `Stack`."
        )

    def decode(self, latents: Latents, context: Context | None = None) -> Distribution:
        raise NotSupportedError("a density has no latents, so it cannot decode; ask it to sample.")

    def sample(self, noise: Noise, context: Context | None = None) -> Distribution:
        x, _ = tree.draw(self.density(None, context), noise.child("x"))
        return Delta(x[0], len(self.data.event))
