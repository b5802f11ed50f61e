"""How strange a row is to a model: scores that are deterministic, one number per row, larger is stranger.

All draws use the same noise for every row (`SameNoise`), so a score is a function of its row: it does not change with
the order of rows, with their number, or from call to call. Two published detectors score by a fresh random draw.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.distributions import Independent, Normal, kl_divergence

from lowerbound.errors import DataError, NotSupportedError
from lowerbound.lab.evaluation.annealing import log_likelihood
from lowerbound.lab.evaluation.bounds import CHUNK
from lowerbound.lab.generation.use import device_of
from lowerbound.model.distributions import tree
from lowerbound.model.families.family import Family
from lowerbound.model.spec import Context
from lowerbound.noise import Noise, SameNoise

Scores = dict[str, Tensor]
REGRET_STEPS, REGRET_RATE = 100, 0.1  # of Adam, as few as change nothing but the last percent
RIDGE = 1e-6  # of the variance of a unit, so that units which repeat one another have distances
SAME = 1e-6  # of the size of a unit, below which what it varies by is rounding


@torch.no_grad()
def likelihood_scores(
    model: Family, raw: Tensor, context: Context | None = None, samples: int = 64, seed: int = 0
) -> Scores:
    """Scores that need the model alone, (N,) each, nats.

    "elbo": minus the ELBO. "nll": minus the importance bound (Burda et al. 2016, eq. 8), where there is one.
    "reconstruction": minus the reconstruction probability E_q[log p(x|z)] (An & Cho 2015, algorithm 4).

    Args:
        model: in evaluation mode.
        raw: rows, (N, *event).
        context: of the rows, for a conditional model.
        samples: draws of the posterior.
        seed: of the draws, which all rows share.

    Raises:
        DataError: a value or a score is not a number.
        NotABoundError: the model has no bound.
    """
    parts: dict[str, list[Tensor]] = {}
    for x, known, noise in _prepared(model, raw, context, samples, seed):
        evidence = model.evidence(x, known, noise.child("evidence"), samples)
        parts.setdefault("elbo", []).append(-evidence.elbo())
        parts.setdefault("reconstruction", []).append(evidence.average(evidence.reconstruction()))
        if evidence.exact:
            parts.setdefault("nll", []).append(-evidence.importance_bound())
    return {name: finite(torch.cat(values), name) for name, values in parts.items()}


@torch.no_grad()
def feature_scores(
    model: Family, raw: Tensor, context: Context | None = None, samples: int = 64, seed: int = 0
) -> Tensor:
    """Where a row is strange: E_q[-log p(x_d|z)] of each value, (N, *event), nats; of images, a map of pixels.

    They add up to the score "reconstruction".

    Raises:
        NotSupportedError: the likelihood's values are not independent given z.
    """
    found = []
    for x, known, noise in _prepared(model, raw, context, samples, seed):
        evidence = model.evidence(x, known, noise.child("evidence"), samples)
        if not isinstance(evidence.px, Independent):
            raise NotSupportedError("the values of a row are not independent in this likelihood: it scores whole rows.")
        values = -tree.factors(evidence.px).log_prob(x)  # (S, B, *event), or (B, *event) where all samples are alike
        event = values.shape[len(evidence.px.batch_shape) :]
        found.append(evidence.average(values.expand(*evidence.reconstruction().shape, *event)))
    return finite(torch.cat(found), "of values")


def likelihood_regret(
    model: Family,
    raw: Tensor,
    context: Context | None = None,
    samples: int = 16,
    seed: int = 0,
    steps: int = REGRET_STEPS,
) -> Tensor:
    """How much a posterior fitted to each row alone improves its ELBO, (N,), nats (Xiao et al. 2020, eq. 8).

    The mean and the log scale of a Gaussian q start at the encoder's and follow the gradient for some steps of Adam;
    the fitted ones are their mean over the second half of the way. Rows do not see one another. Each step has draws of
    its own, and both ELBOs are judged on others: on the draws that it was fitted to, any q looks better than it is.
    Where the fitted q is no better, the regret is 0.

    Args:
        model, raw, context, seed: as for `likelihood_scores`.
        samples: draws at a time, in pairs z and its mirror image, which makes the mean of a Gaussian's draws exact.
        steps: of Adam.

    Raises:
        NotSupportedError: the model has not one group of latents with a Gaussian posterior.
    """
    chunks = _prepared(model, raw, context, samples, seed)
    return finite(torch.cat([_regret(model, *chunk, samples, steps) for chunk in chunks]), "regret")


@torch.no_grad()
def posterior_means(model: Family, raw: Tensor, context: Context | None = None) -> Tensor:
    """The point of each row's posterior over all continuous groups, (N, units), double precision, on the CPU."""
    found = []
    for x, known, _ in _prepared(model, raw, context, 1, 0):
        codes = [z.flatten(1) for z in model.encode(x, known).values() if z.is_floating_point()]
        if not codes:
            raise NotSupportedError("this model's codes are discrete: it has likelihood scores only.")
        found.append(torch.cat(codes, dim=1).double().cpu())
    return torch.cat(found)


def _prepared(
    model: Family, raw: Tensor, context: Context | None, samples: int, seed: int
) -> Iterator[tuple[Tensor, Context | None, SameNoise]]:
    """Prepared rows in chunks, with noise that all rows share."""
    model.check(raw)
    if raw.is_floating_point() and not model.data.columns and not bool(torch.isfinite(raw).all()):
        broken = (~torch.isfinite(raw)).flatten(1).any(dim=1).nonzero().flatten()
        raise DataError(f"row {int(broken[0])} has a value that is no finite number: it cannot be scored.")
    device = device_of(model)
    dtype = next((p.dtype for p in model.parameters()), torch.float32)
    size = max(1, CHUNK // (samples * max(1, model.data.size)))
    for start in range(0, len(raw), size):
        rows = raw[start : start + size].to(device)
        noise = SameNoise(seed, len(rows), device, dtype)
        known = None if context is None else context.select(slice(start, start + size)).to(device)
        yield model.preparation.prepare(rows, noise.child("prepare")), known, noise


def _regret(model: Family, x: Tensor, context: Context | None, noise: Noise, samples: int, steps: int) -> Tensor:
    """The regret of prepared rows, (B,)."""
    with torch.no_grad():
        latents = model.evidence(x, context, noise.child("evidence")).latents
    name, latent = next(iter(latents.items()), ("", None))
    if len(latents) != 1 or latent is None or not _is_gaussian(latent.q):
        raise NotSupportedError("likelihood regret needs one group of latents with a Gaussian posterior.")

    def elbo(q: Tensor, draws: Noise) -> Tensor:
        mean, scale = q[0], q[1].exp()
        eps = draws.normal((samples + 1) // 2, tuple(mean.shape[1:])).to(mean.dtype)
        z = mean + scale * torch.cat([eps, -eps])
        rate = _rate(Normal(mean, scale, validate_args=False), latent.p, z)
        return log_likelihood(model, name, z, x, context).mean(dim=0) - rate

    base = latent.q.base_dist  # type: ignore[attr-defined]  # of an Independent
    start = torch.stack([base.loc, base.scale.log()]).detach()
    q, way = start.clone().requires_grad_(), []
    optimizer = torch.optim.Adam([q], lr=REGRET_RATE)
    for step in range(steps):
        optimizer.zero_grad()
        torch.autograd.backward(-elbo(q, noise.child(f"step{step}")).sum(), inputs=[q])
        optimizer.step()
        way.append(q.detach().clone())
    with torch.no_grad():
        fitted, fresh = torch.stack(way[steps // 2 :]).mean(dim=0), noise.child("judge")
        return (elbo(fitted, fresh) - elbo(start, fresh)).clamp_min(0)


def _rate(q: Normal, p: torch.distributions.Distribution, z: Tensor) -> Tensor:
    """The rate of a Gaussian with independent units, (B,), in closed form where there is one."""
    independent = Independent(q, q.loc.ndim - 1, validate_args=False)
    try:
        return kl_divergence(independent, p)
    except NotImplementedError:
        return (independent.log_prob(z) - p.log_prob(z)).mean(dim=0)


def _is_gaussian(q: torch.distributions.Distribution) -> bool:
    return isinstance(q, Independent) and isinstance(q.base_dist, Normal)


def precision_of(codes: Tensor) -> Tensor:
    """The inverse of the covariance of codes (N, units), (units, units), also where units repeat one another."""
    units, largest = codes.shape[1], codes.abs().amax(dim=0)
    scale = torch.maximum(codes.std(dim=0), SAME * largest)
    scale = torch.where(scale > 0, scale, 1)
    standard = (codes - codes.mean(dim=0)) / scale
    correlation = torch.cov(standard.T).reshape(units, units).fill_diagonal_(1 + RIDGE)
    return torch.linalg.inv(correlation) / (scale[:, None] * scale)


def mahalanobis(codes: Tensor, mean: Tensor, precision: Tensor) -> Tensor:
    """Squared Mahalanobis distances of codes (N, units), (N,)."""
    offset = codes - mean
    return ((offset @ precision) * offset).sum(dim=1)


def left_out(distances: Tensor) -> Tensor:
    """Squared Mahalanobis distances of N rows from the others, from those by the moments of all, (N,).

    By the formula of Sherman & Morrison. A row draws the moments towards itself: by those of all N rows, no distance
    exceeds (N - 1)^2 / N.
    """
    rows = len(distances)
    share, leverage = rows / (rows - 1), distances / (rows - 1)
    return (rows - 2) * share**2 * leverage / (1 - share * leverage)


def finite(values: Tensor, name: str) -> Tensor:
    """The values in double precision, if all are finite numbers; they are the score `name`."""
    values = values.double().cpu()
    if not bool(torch.isfinite(values).all()):
        raise DataError(f"a score {name} is not a finite number: the model or the rows are broken; see `doctor`.")
    return values
