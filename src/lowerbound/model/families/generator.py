"""A generator: samples without a likelihood, to be trained against a critic."""

from __future__ import annotations

from typing import Self

from torch import Tensor
from torch.distributions import Distribution

from lowerbound.errors import NotSupportedError
from lowerbound.kinds import Part
from lowerbound.model.conditionals.conditional import Slot, in_float
from lowerbound.model.conditionals.preparation import Preparation, Scaling, real_numbers
from lowerbound.model.conditionals.priors import Prior, StandardNormal
from lowerbound.model.distributions import tree
from lowerbound.model.distributions.delta import Delta
from lowerbound.model.evidence import Evidence
from lowerbound.model.families.family import Family, Latents, apply
from lowerbound.model.networks.network import Network, Ports
from lowerbound.model.spec import Context, Count, DataSpec
from lowerbound.noise import Noise


class Generator(Family):
    """x = G(z) with z from a prior: the generator of a GAN (Goodfellow et al. 2014). Any critic is the objective's.

    It is implicit: there is no p(x), so it has no distortion and no bound, and it cannot encode. It decodes and draws.

    Args:
        data: facts about the data.
        latents: shape of z.
        prior: of z.
        network: from z (and the context) to x.
        preparation: from raw rows to x.
    """

    roles = {"decoder": ("network",), "prior": ("prior",)}  # noqa: RUF012

    def __init__(
        self, data: DataSpec, latents: tuple[int, ...], prior: Prior, network: Network, preparation: Preparation
    ) -> None:
        super().__init__()
        self.data, self.latents = data, {"z": latents}
        self.prior, self.network, self.scaling = prior, network, preparation

    @classmethod
    def assemble(
        cls,
        data: DataSpec,
        *,
        network: Part[Network],
        latent: Count = 64,
        prior: Part[Prior] = Part(StandardNormal),
        scaling: Scaling = "standard",
    ) -> Self:
        """Give the parts their shapes.

        Args:
            data: facts about the data.
            network: from z to x.
            latent: units of z.
            prior: of z.
            scaling: "none", or "standard" to learn a mean and a scale per channel from the training rows.
        """
        made = network(Ports((latent,), data.event, data.context_features))
        return cls(data, (latent,), prior(Slot((latent,), data)), made, real_numbers(data, scaling))

    @property
    def preparation(self) -> Preparation:
        return self.scaling

    def evidence(self, x: Tensor, context: Context | None, noise: Noise, samples: int = 1) -> Evidence:
        return Evidence(x=x, context=context, distortion=None)

    def encode(self, x: Tensor, context: Context | None = None, noise: Noise | None = None) -> Latents:
        raise NotSupportedError(
            "a generator makes rows from codes and has no way back, so it cannot encode; decode or sample, or train a "
            "model with an encoder (`vae`)."
        )

    def decode(self, latents: Latents, context: Context | None = None) -> Distribution:
        return Delta(in_float(apply(self.network, latents["z"], context)), len(self.data.event))

    def sample(self, noise: Noise, context: Context | None = None) -> Distribution:
        z, _ = tree.draw(self.prior(None, context), noise.child("z"))
        return self.decode({"z": z[0]}, context)
