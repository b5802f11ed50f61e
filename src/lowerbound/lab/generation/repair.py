"""Repair of rows: missing values are filled in, noise is taken out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.distributions import Distribution

from lowerbound.errors import NotSupportedError, ShapeError, UsageError
from lowerbound.lab.generation import use
from lowerbound.lab.generation.use import Observe
from lowerbound.model.distributions import tree
from lowerbound.model.families.family import Family, Latents
from lowerbound.model.spec import Context, DataSpec
from lowerbound.noise import Noise

Sampler = Literal["metropolis", "gibbs"]
WARM = 20  # iterations of plain Gibbs that bring a chain from a draw of the prior to where proposals are accepted


@dataclass(frozen=True)
class Filled:
    """Rows without gaps.

    Attributes:
        rows: (B, *event), raw values; what was observed is as it was.
        accepted: share of accepted proposals of each row after the warm start, (B,); 1 for "gibbs".
    """

    rows: Tensor
    accepted: Tensor


@torch.no_grad()
def fill(
    model: Family,
    raw: Tensor,
    missing: Tensor,
    iterations: int = 200,
    sampler: Sampler = "metropolis",
    context: Context | None = None,
    observe: Observe = "point",
    seed: int = 0,
) -> Filled:
    """Missing values given the observed ones, by a Markov chain over codes and missing values.

    "metropolis" is Metropolis-within-Gibbs (Mattei & Frellsen 2018, section 4.2): a draw of q(z|x) is proposed and
    accepted so that the chain's target is the model's own p(z, x_missing | x_observed), whatever the encoder is worth.
    It starts with 20 iterations of "gibbs", which accepts every proposal (pseudo-Gibbs: Rezende et al. 2014, appendix
    F) and is exact only where q is the true posterior. Observed values enter as in `encode`, without noise.

    Args:
        model: in evaluation mode.
        raw: rows, (B, *event); values at missing places are ignored and may be NaN.
        missing: True where a value is missing, (*event) for all rows or (B, *event).
        iterations: of the chain.
        sampler: "metropolis" or "gibbs".
        context: of the rows, for a conditional model.
        observe: "point": the mean of p(x|z) over the second half of the chain; "sample": the last state.
        seed: row i is a function of (seed, i).

    Raises:
        ShapeError: the mask does not fit the rows.
        NotSupportedError: "metropolis" for a model without one group of continuous codes with densities.
        UsageError: no iterations, or no gaps.
    """
    model.check(raw)
    gaps = _mask(missing, raw)
    if iterations < 1:
        raise UsageError(f"{iterations} iterations were asked for; ask for at least one.")
    step = _metropolis if sampler == "metropolis" else _gibbs
    device, rows, accepted = use.device_of(model), [], []
    for start in range(0, len(raw), use.CHUNK_ROWS):
        part = slice(start, start + use.CHUNK_ROWS)
        known = None if context is None else context.select(part).to(device)
        noise = use.row_noise(seed, start, start + len(raw[part]), device)
        holes = gaps[part].to(device)
        found = _chain(model, raw[part].to(device), holes, known, noise, iterations, step, observe)
        rows.append(found.rows.cpu())
        accepted.append(found.accepted.cpu())
    return Filled(torch.cat(rows), torch.cat(accepted))


@torch.no_grad()
def denoise(model: Family, raw: Tensor, draws: int = 32, context: Context | None = None, seed: int = 0) -> Tensor:
    """Noisy rows as the model would have made them, (B, *event), raw values: E[point of p(x|z)] over q(z|x).

    What a decoder trained on clean rows cannot make does not come back. The average over draws of the posterior has a
    smaller squared error than the reconstruction from its point, or any one draw.

    Args:
        model: in evaluation mode.
        raw: noisy rows, (B, *event), on the scale of raw values.
        draws: of the posterior; more than one makes sense only where it is not deterministic.
        context: of the rows, for a conditional model.
        seed: row i is a function of (seed, i).

    Raises:
        UsageError: no draws.
        NotSupportedError: the model's rows have no mean (tokens).
    """
    model.check(raw)
    if draws < 1:
        raise UsageError(f"{draws} draws were asked for; ask for at least one.")
    device, rows = use.device_of(model), []
    for start in range(0, len(raw), use.CHUNK_ROWS):
        part = slice(start, start + use.CHUNK_ROWS)
        known = None if context is None else context.select(part).to(device)
        x = model.preparation.prepare(raw[part].to(device), None)
        noise = use.row_noise(seed, start, start + len(x), device)
        total = torch.zeros_like(x, dtype=torch.float64)
        for draw in range(draws):
            mean = tree.point(model.decode(model.encode(x, known, noise.child(f"draw{draw}")), known))
            total += _real(mean, "the mean of several")
        rows.append(model.preparation.restore((total / draws).float()).cpu())
    return torch.cat(rows)


def add_noise(raw: Tensor, sigma: float, spec: DataSpec, seed: int = 0) -> Tensor:
    """Rows with Gaussian noise of standard deviation sigma, kept within the levels of integer data; raw values."""
    noise = use.row_noise(seed, 0, len(raw)).child("noise").normal(1, tuple(raw.shape[1:]))[0]
    noisy = raw.cpu().float() + sigma * noise
    return noisy if spec.levels is None else noisy.clamp(0, spec.levels - 1)


@dataclass(frozen=True)
class _State:
    """Where a chain is: prepared rows, their codes (None before the first step), how many proposals were accepted."""

    x: Tensor
    codes: Latents | None
    accepted: Tensor


_Step = Callable[[Family, _State, Context | None, Noise, bool], _State]


def _chain(
    model: Family,
    raw: Tensor,
    missing: Tensor,
    context: Context | None,
    noise: Noise,
    iterations: int,
    step: _Step,
    observe: Observe,
) -> Filled:
    """Run the chain of some rows."""
    guess = tree.draw(model.sample(noise.child("start"), context), noise.child("first"))[0][0]
    observed = model.preparation.prepare(torch.where(missing, torch.zeros_like(raw), raw), None)
    if observed.shape != missing.shape or guess.shape != missing.shape:
        raise NotSupportedError(
            f"the model describes a row of shape {list(missing.shape[1:])} by values of shape "
            f"{list(observed.shape[1:])}, so its gaps cannot be filled one by one."
        )
    state = _State(torch.where(missing, guess, observed), None, torch.zeros(len(raw), device=raw.device))
    total, kept = torch.zeros_like(state.x, dtype=torch.float64), 0
    warm = min(WARM, iterations // 2)
    for iteration in range(iterations):
        own = noise.child(f"iteration{iteration}")
        state = step(model, state, context, own, iteration < warm)
        assert state.codes is not None
        px = model.decode(state.codes, context)
        drawn = tree.draw(px, own.child("x"))[0][0]
        state = _State(torch.where(missing, drawn, observed), state.codes, state.accepted)
        if observe == "point" and iteration >= iterations // 2:
            total, kept = total + _real(tree.point(px), "the point of missing"), kept + 1
    answer = state.x if observe == "sample" else (total / kept).to(state.x.dtype)
    kind = raw.dtype if raw.is_floating_point() else torch.float32
    rows = torch.where(missing, model.preparation.restore(answer).to(kind), raw.to(kind))
    return Filled(rows, state.accepted / (iterations - warm))


def _gibbs(model: Family, state: _State, context: Context | None, noise: Noise, warm: bool) -> _State:
    """Draw the codes from q(z|x)."""
    return _State(state.x, model.encode(state.x, context, noise.child("z")), state.accepted + (not warm))


def _metropolis(model: Family, state: _State, context: Context | None, noise: Noise, warm: bool) -> _State:
    """Propose z' from q(z|x) and accept it with probability min(1, w(z') / w(z)), w(z) = p(x, z) / q(z|x)."""
    evidence = model.evidence(state.x, context, noise.child("z"))
    if len(evidence.latents) != 1:
        raise NotSupportedError(_NO_METROPOLIS.format(f"has {len(evidence.latents)} groups of latents"))
    ((name, latent),) = evidence.latents.items()
    if not latent.z.is_floating_point() or not tree.has_density(latent.q) or not evidence.exact:
        raise NotSupportedError(_NO_METROPOLIS.format("has codes without an exact density"))
    proposed = latent.z[0]
    if warm or state.codes is None:
        return _State(state.x, {name: proposed}, state.accepted + (not warm))
    z = state.codes[name]
    now = model.decode(state.codes, context).log_prob(state.x) + _log_ratio(latent.p, latent.q, z)
    then = evidence.log_weight()[0]
    accept = noise.child("accept").uniform()[0].log() < then - now
    chosen = torch.where(accept.reshape(-1, *(1,) * (z.ndim - 1)), proposed, z)
    return _State(state.x, {name: chosen}, state.accepted + accept)


_NO_METROPOLIS = "this model {}, so no proposal can be weighed; use the sampler `gibbs`."


def _log_ratio(p: Distribution, q: Distribution, z: Tensor) -> Tensor:
    """log p(z) - log q(z), (B,)."""
    ratio: Tensor = p.log_prob(z) - q.log_prob(z)
    return ratio.reshape(len(z))


def _mask(missing: Tensor, raw: Tensor) -> Tensor:
    """Where values are missing, (B, *event)."""
    if missing.shape not in (raw.shape, raw.shape[1:]):
        raise ShapeError(
            f"a mask of shape {list(missing.shape)} was given; these rows need one of shape {list(raw.shape[1:])} "
            f"for all, or {list(raw.shape)}."
        )
    gaps = missing.bool().expand(raw.shape)
    if not bool(gaps.any()):
        raise UsageError("the mask says that nothing is missing; mark at least one value.")
    if bool(torch.isnan(raw[~gaps].float()).any()):
        raise UsageError("some values are NaN and not marked as missing; mark them in the mask.")
    return gaps


def _real(values: Tensor, what: str) -> Tensor:
    if not values.is_floating_point():
        raise NotSupportedError(f"{what} discrete values is not defined; ask for a sample instead.")
    return values.double()
