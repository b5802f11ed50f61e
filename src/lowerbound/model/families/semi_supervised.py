"""The semi-supervised VAE: the label is a latent where it is not known (model M2 of Kingma et al. 2014)."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution

from lowerbound.errors import ShapeError
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

# Stands for log 0 in a certain label: exp of it is exactly 0, and 0 times it is 0 (not NaN).
IMPOSSIBLE = -1e4


class SemiSupervised(Family):
    """p(y) p(z) p(x|y, z) with q(y|x) q(z|x, y); labels arrive as the context, present in some rows only.

    Labelled rows bound log p(x, y) (eq. 6), unlabelled ones log p(x), with the sum over classes done exactly (eq. 7):
    the sample axis of the evidence enumerates the classes, weighted by q(y|x). -log q(y|x) of labelled rows is the
    penalty "label" (eq. 9).

    Args:
        data: facts about the data; the context is the label.
        latent: shape of z.
        classifier: from x to logits of the classes.
        encoder, posterior, prior, decoder, likelihood: the parts, encoder and decoder conditional on the label.
    """

    infers_context = True
    roles = {  # noqa: RUF012
        "encoder": ("encoder", "posterior", "classifier"),
        "prior": ("prior",),
        "decoder": ("decoder", "likelihood"),
    }
    beyond_codes = ("prior", "decoder", "likelihood")

    def __init__(
        self,
        data: DataSpec,
        latent: Shape,
        classifier: Network,
        encoder: Network,
        posterior: Posterior,
        prior: Prior,
        decoder: Network,
        likelihood: Likelihood,
    ) -> None:
        super().__init__()
        self.data, self.latents, self.values = data, {"y": (), "z": latent}, {"y": data.context}
        self.classifier, self.encoder, self.posterior, self.prior = classifier, encoder, posterior, prior
        self.decoder, self.likelihood = decoder, likelihood

    @classmethod
    def assemble(
        cls,
        data: DataSpec,
        *,
        latent: Count | Widths = 16,
        classifier: Part[Network] = Part(MLP),
        encoder: Part[Network] = Part(MLP),
        posterior: Part[Posterior] = Part(DiagonalGaussian),
        prior: Part[Prior] = Part(StandardNormal),
        decoder: Part[Network] = Part(MLP),
        likelihood: Part[Likelihood] = Part(BernoulliLikelihood),
    ) -> Self:
        """Give each part its shapes and put them together."""
        if not data.context:
            raise ShapeError(
                "a semi-supervised model needs data with labels, and these have none; use the family `vae`."
            )
        shape = (latent,) if isinstance(latent, int) else tuple(latent)
        q, p, px = posterior(Slot(shape, data)), prior(Slot(shape, data)), likelihood(Slot(data.event, data))
        c = data.context_features
        return cls(
            data,
            shape,
            classifier(Ports(px.preparation.inputs_shape, (data.context,), 0, px.preparation.vocabulary)),
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
        classes, rows = self.data.context, x.shape[0]
        context = context or self._unlabelled(x)
        log_q_y = torch.log_softmax(apply(self.classifier, self.preparation.inputs(x), None).float(), dim=-1)
        known = torch.where(context.vector > 0, 0.0, IMPOSSIBLE)
        log_belief = torch.where(context.present[:, None], known, log_q_y)  # (B, classes)

        # The sample axis runs over every class, `samples` times.
        y = torch.arange(classes, device=x.device).repeat(samples)[:, None].expand(-1, rows)
        given = Context.labels(y.reshape(-1), classes)
        q_y, p_y = self._label(log_belief), self._label(torch.zeros(classes, device=x.device))
        # The probability of a given label is no choice of q's.
        log_q = torch.where(context.present, 0.0, q_y.log_prob(y))
        inputs = self.preparation.inputs(x)
        every = inputs.expand(len(y), *inputs.shape).flatten(0, 1)
        h = apply(self.encoder, every, given).unflatten(0, (len(y), rows))
        latent = Latent.drawn(self.posterior(h, given), self.prior(None, context), noise.child("z"), len(y))
        g = apply(self.decoder, latent.z.flatten(0, 1), given).unflatten(0, (len(y), rows))
        px = tree.attach(self.likelihood(g, given), noise.child("likelihood"))
        wrong = torch.where(context.present, -(log_q_y * context.vector).sum(dim=-1), 0.0)
        return Evidence(
            x=x,
            context=context,
            distortion=-px.log_prob(x),
            latents={"y": Latent(q_y, p_y, y, log_q, p_y.log_prob(y)), "z": latent},
            penalties={"label": wrong.expand(len(y), -1)} | self.likelihood.penalties(g, x),
            px=px,
            anchor=g,
            weights=log_belief.exp().T.repeat(samples, 1) / samples,
            statistics={"likelihood": self.likelihood.statistics(px, x)},
            exact=tree.is_exact(px),
        )

    def encode(self, x: Tensor, context: Context | None = None, noise: Noise | None = None) -> Latents:
        y = self._classes(x, context)
        given = Context.labels(y, self.data.context)
        q = self.posterior(apply(self.encoder, self.preparation.inputs(x), given), given)
        return {"y": y, "z": tree.point(q) if noise is None else tree.draw(q, noise.child("z"))[0][0]}

    def decode(self, latents: Latents, context: Context | None = None) -> Distribution:
        given = Context.labels(latents["y"], self.data.context)
        px: Distribution = self.likelihood(apply(self.decoder, latents["z"], given), given)
        return px

    def sample(self, noise: Noise, context: Context | None = None) -> Distribution:
        anywhere = (noise.child("y").uniform()[0] * self.data.context).long()
        y = anywhere if context is None else torch.where(context.present, context.vector.argmax(dim=1), anywhere)
        z, _ = tree.draw(self.prior(None, context), noise.child("z"))
        return self.decode({"y": y, "z": z[0]}, context)

    def _classes(self, x: Tensor, context: Context | None) -> Tensor:
        """The given label where there is one, else the most probable."""
        guess = apply(self.classifier, self.preparation.inputs(x), None).argmax(dim=-1)
        return guess if context is None else torch.where(context.present, context.vector.argmax(dim=1), guess)

    def _unlabelled(self, x: Tensor) -> Context:
        rows = x.shape[0]
        return Context(
            torch.zeros(rows, self.data.context, device=x.device),
            torch.zeros(rows, dtype=torch.bool, device=x.device),
        )

    @staticmethod
    def _label(logits: Tensor) -> Distribution:
        return Categorical(logits=logits, validate_args=False)
