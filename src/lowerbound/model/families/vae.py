"""The variational autoencoder: one group of continuous latents."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor
from torch.distributions import Distribution

from lowerbound.kinds import Part
from lowerbound.model.conditionals.conditional import Slot
from lowerbound.model.conditionals.likelihoods import BernoulliLikelihood, Likelihood
from lowerbound.model.conditionals.posteriors import DiagonalGaussian, Posterior
from lowerbound.model.conditionals.preparation import Preparation
from lowerbound.model.conditionals.priors import Prior, StandardNormal
from lowerbound.model.distributions import tree
from lowerbound.model.evidence import Evidence, Latent
from lowerbound.model.families.family import Family, Latents, apply
from lowerbound.model.networks.mlp import MLP
from lowerbound.model.networks.network import Network, Ports
from lowerbound.model.spec import Context, Count, DataSpec, Shape, Widths
from lowerbound.noise import Noise


class VAE(Family):
    """log p(x) >= E_q(z|x)[log p(x|z)] - KL(q(z|x), p(z)): Kingma & Welling 2014; Rezende, Mohamed & Wierstra 2014.

    With a context c every part is conditional: q(z|x,c), p(z|c), p(x|z,c) (Sohn et al. 2015).

    Args:
        data: facts about the data.
        latent: shape of the latents.
        encoder, posterior, prior, decoder, likelihood: the parts.
    """

    roles = {  # noqa: RUF012
        "encoder": ("encoder", "posterior"),
        "prior": ("prior",),
        "decoder": ("decoder", "likelihood"),
    }
    beyond_codes = ("prior", "decoder", "likelihood")

    def __init__(
        self,
        data: DataSpec,
        latent: Shape,
        encoder: Network,
        posterior: Posterior,
        prior: Prior,
        decoder: Network,
        likelihood: Likelihood,
    ) -> None:
        super().__init__()
        self.data, self.latents = data, {"z": latent}
        self.encoder, self.posterior, self.prior = encoder, posterior, prior
        self.decoder, self.likelihood = decoder, likelihood

    @classmethod
    def assemble(
        cls,
        data: DataSpec,
        *,
        latent: Count | Widths = 16,
        encoder: Part[Network] = Part(MLP),
        posterior: Part[Posterior] = Part(DiagonalGaussian),
        prior: Part[Prior] = Part(StandardNormal),
        decoder: Part[Network] = Part(MLP),
        likelihood: Part[Likelihood] = Part(BernoulliLikelihood),
    ) -> Self:
        """Give each part its shapes and put them together."""
        shape = (latent,) if isinstance(latent, int) else tuple(latent)
        q, p, px = posterior(Slot(shape, data)), prior(Slot(shape, data)), likelihood(Slot(data.event, data))
        c = data.context_features
        return cls(
            data,
            shape,
            encoder(Ports(px.preparation.inputs_shape, q.features_shape or shape, c, px.preparation.vocabulary)),
            q,
            p,
            decoder(Ports(shape, px.features_shape or data.event, c)),
            px,
        )

    @property
    def preparation(self) -> Preparation:
        return self.likelihood.preparation

    def evidence(self, x: Tensor, context: Context | None, noise: Noise, samples: int = 1) -> Evidence:
        q = self.q(x, context)
        p = tree.attach(self.p(context), noise.child("prior"))
        latent = Latent.drawn(q, p, noise.child("z"), samples)
        g = apply(self.decoder, latent.z, context)
        px = tree.attach(self.likelihood(g, context), noise.child("likelihood"))
        return Evidence(
            x=x,
            context=context,
            distortion=-px.log_prob(x),
            latents={"z": latent},
            penalties=self.likelihood.penalties(g, x),
            px=px,
            anchor=g,
            statistics={"likelihood": self.likelihood.statistics(px, x)},
            exact=tree.is_exact(p) and tree.is_exact(px),
        )

    def encode(self, x: Tensor, context: Context | None = None, noise: Noise | None = None) -> Latents:
        q = self.q(x, context)
        return {"z": tree.point(q) if noise is None else tree.draw(q, noise.child("z"))[0][0]}

    def at_point(self, x: Tensor, context: Context | None = None) -> dict[str, Latent]:
        return {"z": Latent.at_point(self.q(x, context), self.p(context))}

    def decode(self, latents: Latents, context: Context | None = None) -> Distribution:
        px: Distribution = self.likelihood(apply(self.decoder, latents["z"], context), context)
        return px

    def sample(self, noise: Noise, context: Context | None = None) -> Distribution:
        z, _ = tree.draw(self.p(context), noise.child("z"))
        return self.decode({"z": z[0]}, context)

    def q(self, x: Tensor, context: Context | None) -> Distribution:
        """The posterior q(z|x), batch shape (B,)."""
        result: Distribution = self.posterior(apply(self.encoder, self.preparation.inputs(x), context), context)
        return result

    def p(self, context: Context | None) -> Distribution:
        """The prior p(z), batch shape () or (B,)."""
        u = self.prior.inputs()
        result: Distribution = self.prior(None if u is None else self.q(u, self._absent(u)), context)
        return result

    def _absent(self, rows: Tensor) -> Context | None:
        """The context of rows that have none: absent, where the model is conditional."""
        if not self.data.context:
            return None
        count = rows.shape[0]
        return Context(rows.new_zeros(count, self.data.context), rows.new_zeros(count, dtype=torch.bool))
