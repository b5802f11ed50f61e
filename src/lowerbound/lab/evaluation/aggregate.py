"""The aggregate posterior, the mixture of the posteriors of all rows: what codes say, and how it fits the prior."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Distribution

from lowerbound.errors import NotSupportedError
from lowerbound.lab.evaluation.latents import Group
from lowerbound.lab.evaluation.result import Result, mean_result
from lowerbound.model.distributions import tree
from lowerbound.noise import BatchNoise

ROWS = 2000  # at most so many posteriors make the mixture: the work grows with their square
WORK = 4e8  # evaluations of a unit's density, at most
HOLE = 0.01  # share of held-out codes that lie where the other posteriors have less density than this threshold


@torch.no_grad()
def aggregate_results(group: Group, suffix: str = "", seed: int = 0) -> dict[str, Result]:
    """Mutual information, KL(q(z), p(z)), total correlation and prior holes of one group of continuous latents.

    q(z) is taken as the mixture of the posteriors of the N rows, each row's own included, at one draw per row:

        I(x; z)     = E[log q(z|x) - log q(z)]      never above log N, and a lower bound in expectation
        KL(q, p)    = E[log q(z) - log p(z)]        an upper bound in expectation
        TC          = E[log q(z) - sum_j log q(z_j)]

    The first two add up to the sampled rate at the same draws (Hoffman & Johnson 2016). The mixture is above the true
    q(z) on average, because each draw is close to its own posterior; hence the signs (Poole et al. 2019, eq. 12).
    A draw of the prior lies in a hole where the mixture has less density than at 99 % of the draws of held-out rows,
    the own posterior left out.

    Args:
        group: of latents, over all rows.
        suffix: of the results' names.
        seed: of the prior's draws.

    Raises:
        NotSupportedError: codes without a density, or a prior that differs from row to row.
    """
    if not group.draws.is_floating_point() or not tree.has_density(group.posteriors[0]):
        raise NotSupportedError("the codes have no density, so their mutual information and aggregate have none.")
    units = group.draws[0].numel()
    rows = min(len(group.draws), ROWS, max(2, int(math.sqrt(WORK / units))))
    if rows < 2:
        raise NotSupportedError("one row alone makes no aggregate; judge at least two.")
    q, z, p = group.posterior(rows), group.draws[:rows].double(), group.prior()
    log_p = torch.cat(group.log_p)[:rows]
    pairs, margins = _pairs(q, z)
    own, mixture = pairs.diagonal(), _mixture(pairs)
    results = {
        f"mutual_information{suffix}_nats": mean_result(own - mixture, "lower_bound"),
        f"aggregate_kl{suffix}_nats": mean_result(mixture - log_p, "upper_bound"),
    }
    if margins is not None:
        results[f"total_correlation{suffix}_nats"] = mean_result(mixture - margins, "estimate")
    drawn = tree.draw(p, BatchNoise(seed, 0, rows, device=z.device))[0].reshape(z.shape).double()
    results[f"prior_hole_share{suffix}"] = mean_result(_in_holes(pairs, _pairs(q, drawn, margins=False)[0]), "estimate")
    return results


@torch.no_grad()
def conditional_results(group: Group) -> dict[str, Result]:
    """What codes say of a row beyond its context c, and how those of one context fit the prior given it.

    As `aggregate_results`, with q(z|c) the mixture of the posteriors of the n_c rows that have the context c:

        I(x; z|c)        = E[log q(z|x, c) - log q(z|c)]      never above E[log n_c], and a lower bound in expectation
        KL(q, p given c) = E[log q(z|c) - log p(z|c)]         an upper bound in expectation

    Both add up to the sampled rate at the same draws. Where the first is near 0, the context says all that there is to
    say: two rows of one context get one code.

    Args:
        group: of latents, over all rows, with their contexts.

    Raises:
        NotSupportedError: codes without a density, no context, or a context of its own for each row.
    """
    if not group.contexts:
        raise NotSupportedError("this model has no context, so nothing is known of a row before its code.")
    if not group.draws.is_floating_point() or not tree.has_density(group.posteriors[0]):
        raise NotSupportedError("the codes have no density, so their mutual information and aggregate have none.")
    rows = min(len(group.draws), ROWS)
    q, z, log_p = group.posterior(rows), group.draws[:rows].double(), torch.cat(group.log_p)[:rows]
    features = torch.cat([context.features() for context in group.contexts])[:rows]
    kinds, counts = features.unique(dim=0, return_inverse=True, return_counts=True)[1:]
    own, mixture, prior = [], [], []
    for kind in (counts > 1).nonzero().flatten():
        index = (kinds == kind).nonzero().flatten()
        some = tree.map_rows(q, lambda tensor, axis: tensor.index_select(axis, index))  # noqa: B023 (used at once)
        pairs, _ = _pairs(some, z[index], margins=False)
        own.append(pairs.diagonal())
        mixture.append(_mixture(pairs))
        prior.append(log_p[index])
    if not own:
        raise NotSupportedError(
            "each row has a context of its own, so there are no rows whose codes could be compared given it."
        )
    among = torch.cat(mixture)
    return {
        "conditional_mutual_information_nats": mean_result(torch.cat(own) - among, "lower_bound"),
        "conditional_aggregate_kl_nats": mean_result(among - torch.cat(prior), "upper_bound"),
    }


@torch.no_grad()
def mutual_information(group: Group) -> float:
    """I(x; z) as `aggregate_results` has it, nats, of all rows of a group; never above the logarithm of their number.

    Raises:
        NotSupportedError: codes without a density.
    """
    if not group.draws.is_floating_point() or not tree.has_density(group.posteriors[0]):
        raise NotSupportedError("the codes have no density, so there is no mutual information by densities.")
    pairs, _ = _pairs(group.posterior(), group.draws.double(), margins=False)
    return float((pairs.diagonal() - _mixture(pairs)).mean())


def _in_holes(held_out: Tensor, prior: Tensor) -> Tensor:
    """Which draws of the prior lie in a hole, (N,): both are compared with N - 1 posteriors, so the same is expected.

    Args:
        held_out: log q(z_i|x_j) of the rows' own draws, (N, N).
        prior: the same of the prior's draws.
    """
    left_out = torch.full_like(prior[0], -math.inf).diag_embed()
    threshold = torch.quantile(_mixture(held_out + left_out), HOLE)
    return (_mixture(prior + left_out) < threshold).double()


def _mixture(pairs: Tensor) -> Tensor:
    """The log-density of the mixture, up to a constant where posteriors are left out, (N,)."""
    return torch.logsumexp(pairs, dim=1) - math.log(pairs.shape[1])


def _pairs(q: Distribution, z: Tensor, margins: bool = True) -> tuple[Tensor, Tensor | None]:
    """log q(z_i|x_j), (N, N); the sum over units of each unit's log-mixture, (N,), where units are independent."""
    try:
        by_unit: Distribution | None = tree.factors(q)
    except NotSupportedError:
        by_unit = None
    rows, units = z.shape[0], z[0].numel()
    size = max(1, int(4e6 // (rows * units)))
    pairs, sums = [], []
    for part in z.split(size):
        if by_unit is None:
            pairs.append(q.log_prob(part[:, None]))
            continue
        values = by_unit.log_prob(part[:, None]).flatten(2)
        pairs.append(values.sum(dim=2))
        if margins:
            sums.append((torch.logsumexp(values, dim=1) - math.log(rows)).sum(dim=1))
    return torch.cat(pairs), torch.cat(sums) if sums else None
