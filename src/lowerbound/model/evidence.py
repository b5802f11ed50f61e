"""The record from which every number about a model is derived.

A family returns the *parts* of the bound

    log p(x) >= E_q[ log p(x|z) + log p(z) - log q(z|x) ]        (Kingma & Welling 2014, eq. 2-3)

and this module derives rates, bounds and importance weights from them, so that no two places define them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.distributions import Distribution

from lowerbound.errors import NotABoundError, NotSupportedError
from lowerbound.model.distributions import tree
from lowerbound.model.spec import Context
from lowerbound.noise import Noise

Statistics = dict[str, dict[str, Tensor]]
# How rates were computed ("closed" or "sampled"), and the rate of each group, (S, B), nats.
Rates = tuple[str, dict[str, Tensor]]


@dataclass(frozen=True)
class Latent:
    """One group of latent units.

    Attributes:
        q: posterior, batch shape (B,) or (S, B).
        p: prior, batch shape (), (B,) or (S, B).
        z: a draw of q, (S, B, *units).
        log_q: log q(z|x), (S, B), nats.
        log_p: log p(z), (S, B), nats; an unbiased estimate where p is not exact.
    """

    q: Distribution
    p: Distribution
    z: Tensor
    log_q: Tensor
    log_p: Tensor

    @staticmethod
    def drawn(q: Distribution, p: Distribution, noise: Noise, samples: int) -> Latent:
        """A group with a draw of its posterior.

        Raises:
            ShapeError: the prior lives in another space than the posterior.
        """
        tree.check_same_space(q, p)
        z, log_q = tree.draw(q, noise, samples)
        return Latent(q, p, z, log_q, p.log_prob(z) if tree.has_density(p) else torch.full_like(log_q, math.nan))

    @staticmethod
    def at_point(q: Distribution, p: Distribution) -> Latent:
        """A group at the point of its posterior, which stands where a draw would: nothing in it is random.

        A log-density that is no number that one can have without noise is NaN.

        Raises:
            ShapeError: the prior lives in another space than the posterior.
        """
        tree.check_same_space(q, p)
        z = tree.point(q)[None]
        nothing = z.new_full(z.shape[: z.ndim - len(q.event_shape)], math.nan, dtype=torch.float32)
        known = (tree.has_density(d) and tree.is_exact(d) for d in (q, p))
        return Latent(q, p, z, *(d.log_prob(z) if yes else nothing for d, yes in zip((q, p), known, strict=True)))

    def closed(self) -> Tensor:
        """KL(q, p) in closed form, (S, B), nats; >= 0.

        Raises:
            NotSupportedError: no closed form is known.
        """
        return self._with_samples(tree.closed_kl(self.q, self.p))

    def closed_per_unit(self) -> Tensor:
        """KL(q, p) of each unit in closed form, (S, B, *units), nats, where q and p both factorise."""
        return self._with_samples(tree.closed_kl(tree.factors(self.q), tree.factors(self.p)), self.z.ndim - 2)

    def sampled(self, q: Distribution | None = None) -> Tensor:
        """log q(z) - log p(z) at the draw, (S, B), nats; may dip below 0.

        Args:
            q: another posterior to evaluate at z (a detached one, for doubly reparameterised gradients).
        """
        for density in (self.q, self.p):
            if not tree.has_density(density):
                raise NotABoundError(
                    "a deterministic code has no density, so it has no rate and its model no bound; use an objective "
                    "without a rate (`adversarial-prior`) or a posterior with a density (`gaussian`)."
                )
        log_q = self.log_q if q is None else q.log_prob(self.z)
        return log_q - self.log_p

    def sampled_per_unit(self) -> Tensor:
        """log q(z) - log p(z) of each unit, (S, B, *units), nats, where q and p both factorise."""
        return tree.factors(self.q).log_prob(self.z) - tree.factors(self.p).log_prob(self.z)

    def map_rows(self, function: tree.RowFunction) -> Latent:
        """Apply `function(tensor, row_axis)` to every tensor."""
        return Latent(
            tree.map_rows(self.q, function),
            tree.map_rows(self.p, function),
            function(self.z, 1),
            function(self.log_q, 1),
            function(self.log_p, 1),
        )

    def _with_samples(self, rate: Tensor, units: int = 0) -> Tensor:
        if rate.ndim == 1 + units:
            rate = rate.unsqueeze(0)
        return rate.expand(self.z.shape[0], *rate.shape[1:])


@dataclass(frozen=True)
class Evidence:
    """The parts of the bound for a batch. S samples, B rows; everything in nats, summed over event dimensions.

    Attributes:
        x: prepared data, (B, *event).
        context: what the model was conditioned on.
        distortion: -log p(x|z), (S, B); None for an implicit model (a GAN).
        latents: one `Latent` per group, top group first.
        penalties: terms that belong to no bound (commitment, classification), by name, (S, B).
        px: p(x|z), batch shape (S, B) or (B,).
        anchor: the tensor at which adversarial and reconstruction gradients are balanced.
        weights: probability of each sample, (S, B), where the sample axis enumerates (classes); None means 1/S each.
        generated: decoded prior samples, (B, *event), where the objective asked for them.
        statistics: sums over rows for parts of the model to absorb, by part and name.
        exact: False where a term is an unbiased estimate of a log-density rather than its value.
    """

    x: Tensor
    context: Context | None
    distortion: Tensor | None
    latents: dict[str, Latent] = field(default_factory=dict)
    penalties: dict[str, Tensor] = field(default_factory=dict)
    px: Distribution | None = None
    anchor: Tensor | None = None
    weights: Tensor | None = None
    generated: Tensor | None = None
    statistics: Statistics = field(default_factory=dict)
    exact: bool = True

    def average(self, values: Tensor) -> Tensor:
        """Mean over the sample axis, (S, B, ...) -> (B, ...), with the samples' probabilities."""
        if self.weights is None:
            return values.mean(dim=0)
        weights = self.weights.reshape(*self.weights.shape, *(1,) * (values.ndim - 2))
        return (weights * values).sum(dim=0)

    def reconstruction(self) -> Tensor:
        """The distortion, (S, B); refused for an implicit model."""
        if self.distortion is None:
            raise NotABoundError(
                "this model is implicit: it has samples but no likelihood, so it has no distortion and no bound; "
                "judge it by its samples."
            )
        return self.distortion

    def rates(self) -> Rates:
        """How the rates were computed, and the rate of each group, (S, B).

        "closed" where every group has a closed form, else "sampled" for all: the two are never mixed.
        """
        try:
            return "closed", {name: latent.closed() for name, latent in self.latents.items()}
        except NotSupportedError:
            return "sampled", {name: latent.sampled() for name, latent in self.latents.items()}

    def rates_per_unit(self) -> dict[str, Tensor]:
        """The rate of each unit of each group, (S, B, *units), nats; closed or sampled for all, as `rates`.

        Raises:
            NotSupportedError: a posterior or prior does not factorise over its units.
        """
        try:
            return {name: latent.closed_per_unit() for name, latent in self.latents.items()}
        except NotSupportedError:
            return {name: latent.sampled_per_unit() for name, latent in self.latents.items()}

    def rate(self, rates: Rates | None = None) -> Tensor:
        """Sum of the groups' rates, (S, B), nats; from `rates` where they are known already."""
        return self._total(list((rates or self.rates())[1].values()))

    def log_weight(self) -> Tensor:
        """log p(x, z) - log q(z|x) at the draws, (S, B), nats; always from sampled rates.

        Raises:
            NotABoundError: a density in it is an estimate: the logarithm of a noisy weight is no bound.
        """
        if not self.exact:
            raise NotABoundError(
                "a density of this model is an estimate, not an exact value: an importance-weighted bound of it would "
                "lie above the truth; report its ELBO instead."
            )
        return -self.reconstruction() - self._total([latent.sampled() for latent in self.latents.values()])

    def elbo(self) -> Tensor:
        """The evidence lower bound of each row, (B,), nats; larger is better. Penalties are no part of it."""
        return -self.average(self.reconstruction() + self.rate())

    def importance_bound(self) -> Tensor:
        """log sum_s w_s p(x, z_s) / q(z_s|x), (B,), nats: Burda et al. 2016, eq. 8; w_s = 1/S but for classes."""
        log_weight = self.log_weight()
        if self.weights is None:
            return torch.logsumexp(log_weight, dim=0) - math.log(log_weight.shape[0])
        return torch.logsumexp(log_weight + self.weights.log(), dim=0)

    def map_rows(self, function: tree.RowFunction) -> Evidence:
        """Apply `function(tensor, row_axis)` to every tensor that has rows."""

        def optional(value: Tensor | None, axis: int) -> Tensor | None:
            return None if value is None else function(value, axis)

        context = self.context and Context(function(self.context.vector, 0), function(self.context.present, 0))
        return replace(
            self,
            x=function(self.x, 0),
            context=context,
            distortion=optional(self.distortion, 1),
            latents={name: latent.map_rows(function) for name, latent in self.latents.items()},
            penalties={name: function(value, 1) for name, value in self.penalties.items()},
            px=None if self.px is None else tree.map_rows(self.px, function),
            anchor=optional(self.anchor, 1),
            weights=optional(self.weights, 1),
            generated=optional(self.generated, 0),
        )

    def select(self, rows: Tensor) -> Evidence:
        """The evidence of some rows (indices)."""
        return self.map_rows(lambda tensor, axis: tensor.index_select(axis, rows))

    def gather(self, collect: Callable[[Tensor, int], Tensor]) -> Evidence:
        """The evidence of all processes' rows; `collect(tensor, axis)` concatenates along `axis`, with gradient."""
        return self.map_rows(collect)

    def _total(self, rates: list[Tensor]) -> Tensor:
        return torch.stack(rates).sum(dim=0) if rates else torch.zeros_like(self.reconstruction())
