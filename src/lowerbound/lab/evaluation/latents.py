"""Whether the latents are used, unit by unit, and where codes lie."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from scipy.special import chdtri
from torch import Tensor
from torch.distributions import Categorical, Distribution, Independent, Normal
from torch.utils import _pytree as pytree

from lowerbound.errors import NotSupportedError
from lowerbound.lab.evaluation.result import Result, mean_result, number
from lowerbound.model.distributions import tree
from lowerbound.model.distributions.codes import Codes
from lowerbound.model.evidence import Evidence, Latent
from lowerbound.model.families.family import Family
from lowerbound.model.spec import Context
from lowerbound.noise import BatchNoise, Noise

ACTIVE = 0.01  # Burda et al. 2016, section 5: a unit is active if Var_x(E_q[z|x]) is above this
DEAD, WEAK = 0.01, 0.1  # nats: rates below which a unit carries nothing, or little
OUTSIDE = 0.01  # probability of the prior beyond its region of highest density
CELLS = 20  # of equal probability, in which the prior of each unit is cut
MOMENT_DRAWS = 200  # of each row's posterior, where its moments are not known
PRIOR_DRAWS = 20_000  # to find that region where there is no formula


@dataclass
class Group:
    """What was seen of one group of latents over all rows.

    Attributes:
        posteriors: q(z|x) of each batch of rows, batch shape (B,).
        priors: p(z) of each batch.
        z: a draw of each row's posterior, (B, *units) each; log_p: its log-density under the prior, (B,) each.
        rates: rate per unit, (B, units) each; empty where units are not independent or have no density.
        contexts: what the rows of each batch were conditioned on; empty for a model without a context.
    """

    posteriors: list[Distribution] = field(default_factory=list)
    priors: list[Distribution] = field(default_factory=list)
    z: list[Tensor] = field(default_factory=list)
    log_p: list[Tensor] = field(default_factory=list)
    rates: list[Tensor] = field(default_factory=list)
    contexts: list[Context] = field(default_factory=list)

    @property
    def draws(self) -> Tensor:
        """The draws of all rows, (N, *units)."""
        return torch.cat(self.z)

    def posterior(self, rows: int | None = None) -> Distribution:
        """The posteriors of all rows, or the first so many, as one distribution in double precision."""
        whole = pytree.tree_map(lambda *leaves: torch.cat(leaves), *self.posteriors)
        first = whole if rows is None else tree.map_rows(whole, lambda tensor, axis: tensor.narrow(axis, 0, rows))
        result: Distribution = in_double(first)
        return result

    def prior(self) -> Distribution:
        """The prior, which must be the same for all rows, in double precision.

        Raises:
            NotSupportedError: it differs from row to row.
        """
        p = self.priors[0]
        for other in self.priors if p.batch_shape else ():
            leaves = zip(pytree.tree_leaves(p), pytree.tree_leaves(other), strict=True)
            if not all(bool((one[:1] == more).all()) for one, more in leaves if isinstance(one, Tensor)):
                raise NotSupportedError(
                    "the prior differs from row to row (it is conditional, or below another group of latents), so "
                    "there is no one prior to compare all codes with."
                )
        shared: Distribution = in_double(tree.map_rows(p, lambda tensor, axis: tensor.narrow(axis, 0, 1)))
        return shared

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of each row's posterior, (N, units)."""
        parts = [moments_of(q) for q in self.posteriors]
        mean, variance = (torch.cat(values).flatten(1).double() for values in zip(*parts, strict=True))
        return mean, variance


@torch.no_grad()
def collect(model: Family, batches: Iterable[tuple[Tensor, Context | None, Noise]]) -> dict[str, Group]:
    """The groups of latents of prepared rows, with one draw per row; not those that a family sums over (classes)."""
    groups: dict[str, Group] = {}
    for x, context, noise in batches:
        add(groups, model.evidence(x, context, noise.child("latents")))
    return groups


def add(groups: dict[str, Group], evidence: Evidence) -> None:
    """Add what the evidence of some rows says of latents, as `collect` does."""
    for name, latent in evidence.latents.items():
        if len(latent.z) != 1:
            continue
        group = groups.setdefault(name, Group())
        group.posteriors.append(_of_rows(latent.q))
        group.priors.append(_of_rows(latent.p))
        group.z.append(latent.z[0])
        group.log_p.append(latent.log_p[0].double())
        if (rate := _rate_per_unit(latent)) is not None:
            group.rates.append(rate)
        if evidence.context is not None:
            group.contexts.append(evidence.context)


def points(groups: dict[str, Group]) -> Tensor:
    """The points of the posteriors of all rows, all groups side by side, (N, units), in double precision."""
    parts = [torch.cat([tree.point(q).flatten(1) for q in group.posteriors]) for group in groups.values()]
    return torch.cat(parts, dim=1).double().cpu()


def latent_results(groups: dict[str, Group]) -> dict[str, Result]:
    """Use of the units and the place of codes, of each group; names carry the group where there are several."""
    results: dict[str, Result] = {}
    for name, group in groups.items():
        suffix = f"_{name}" if len(groups) > 1 else ""
        if isinstance(group.posteriors[0], Codes):
            results |= _codebook(group, suffix)
        elif group.draws.is_floating_point():
            results |= _units(group, suffix) | _place(group, suffix)
    return results


def _units(group: Group, suffix: str) -> dict[str, Result]:
    """Active, weak and dead units, and the moments of the aggregate posterior."""
    mean, variance = group.moments()
    n, units = mean.shape
    spread = mean.var(dim=0) if n > 1 else torch.zeros(units)
    results = {
        f"active_units{suffix}": number(float((spread > ACTIVE).sum()), "estimate", n),
        f"units{suffix}": number(float(units), "exact", n),
    }
    if group.rates:
        rate = torch.cat(group.rates).double().mean(dim=0)
        results[f"rate_per_unit{suffix}_nats"] = number(rate, "estimate", n)
        results[f"weak_units{suffix}"] = number(float(((rate >= DEAD) & (rate < WEAK)).sum()), "estimate", n)
        results[f"dead_units{suffix}"] = number(float((rate < DEAD).sum()), "estimate", n)
    results[f"aggregate_mean_per_unit{suffix}"] = number(mean.mean(dim=0), "estimate", n)
    results[f"aggregate_variance_per_unit{suffix}"] = number(spread + variance.mean(dim=0), "estimate", n)
    return results


def _place(group: Group, suffix: str) -> dict[str, Result]:
    """The share of codes outside the region of highest density that has 99 % of the prior."""
    try:
        outside = _outside(group.draws.double(), group.prior())
    except NotSupportedError:
        return {}
    return {
        f"outside_prior_share{suffix}": mean_result(outside.double(), "estimate"),
        f"prior_cells_reached{suffix}": number(_reached(group), "estimate", len(group.draws)),
    }


def _reached(group: Group) -> float:
    """Share of the prior's cells that codes reach, mean over units: of each unit, 20 cells of equal probability."""
    p = group.prior()
    z = group.draws.double().flatten(1)
    drawn, _ = tree.draw(p, BatchNoise(0, 0, PRIOR_DRAWS, device=z.device))
    drawn = drawn.double().reshape(-1, z.shape[1])
    levels = torch.linspace(0, 1, CELLS + 1, dtype=torch.float64, device=z.device)[1:-1]
    edges = torch.quantile(drawn[:PRIOR_DRAWS], levels, dim=0).T.contiguous()
    cells = torch.searchsorted(edges, z.T.contiguous())
    return float(torch.stack([(cells == cell).any(dim=1) for cell in range(CELLS)]).double().mean())


def _outside(z: Tensor, p: Distribution) -> Tensor:
    """Which draws, (N, *units), lie outside the prior's 99 % region: by chi square for a Gaussian, else from draws."""
    if not tree.is_exact(p) or not tree.has_density(p):
        raise NotSupportedError("the prior has no exact density.")
    if isinstance(p, Independent) and isinstance(p.base_dist, Normal):
        distance = ((z - p.base_dist.loc) / p.base_dist.scale).square().flatten(1).sum(dim=1)
        return distance > chdtri(z[0].numel(), OUTSIDE)
    draws, _ = tree.draw(p, BatchNoise(0, 0, PRIOR_DRAWS, device=z.device))
    return p.log_prob(z) < torch.quantile(p.log_prob(draws[0].double()), OUTSIDE)


def _codebook(group: Group, suffix: str) -> dict[str, Result]:
    """How many codes are in use, and how evenly: exp of the entropy of their frequencies."""
    codes, p = group.draws, group.priors[0]
    base = p.base_dist if isinstance(p, Independent) else p
    size = base.logits.shape[-1] if isinstance(base, Categorical) else int(codes.max()) + 1
    share = torch.bincount(codes.long().flatten().cpu(), minlength=size).double() / codes.numel()
    entropy = -torch.special.xlogy(share, share).sum()
    return {
        f"codebook_size{suffix}": number(float(size), "exact", len(codes)),
        f"codebook_usage{suffix}": number(float((share > 0).double().mean()), "estimate", len(codes)),
        f"codebook_perplexity{suffix}": number(float(entropy.exp()), "estimate", len(codes)),
        f"codebook_share_per_code{suffix}": number(share, "estimate", len(codes)),
    }


def _rate_per_unit(latent: Latent) -> Tensor | None:
    """(B, units), in closed form where there is one; None where units are not independent or have no density."""
    for rate in (latent.closed_per_unit, latent.sampled_per_unit):
        try:
            return rate()[0].flatten(1)
        except NotSupportedError:
            continue
    return None


def _of_rows(distribution: Distribution) -> Distribution:
    """Batch shape (1, B) to (B,): the axis of the one draw."""
    if len(distribution.batch_shape) < 2:
        return distribution
    result: Distribution = pytree.tree_map_only(Tensor, lambda tensor: tensor[0], distribution)
    return result


def moments_of(q: Distribution) -> tuple[Tensor, Tensor]:
    """Mean and variance of each unit; from draws where they are not known; a code that is certain has variance 0."""
    if not tree.has_density(q):
        return tree.point(q), torch.zeros_like(tree.point(q))
    try:
        return q.mean, q.variance
    except NotImplementedError:
        z, _ = tree.draw(q, BatchNoise(0, 0, q.batch_shape.numel(), device=_device(q)), MOMENT_DRAWS)
        return z.mean(dim=0), z.var(dim=0)


def _device(q: Distribution) -> torch.device:
    return next(leaf.device for leaf in pytree.tree_leaves(q) if isinstance(leaf, Tensor))


def in_double(distribution: Distribution) -> Distribution:
    """The same distribution with parameters in double precision."""
    result: Distribution = pytree.tree_map_only(
        Tensor, lambda tensor: tensor.double() if tensor.is_floating_point() else tensor, distribution
    )
    return result
