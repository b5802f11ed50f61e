"""Annealed importance sampling: log p(x) from below and, on data that the model made itself, from above.

The path leads from the prior to the posterior, f_b(z) = p(z) p(x|z)^b, with Hamiltonian Monte Carlo on the way (Neal
2001; Wu et al. 2017). Started at a draw of the prior, the weights' mean is an unbiased estimate of p(x), so its
logarithm is a lower bound in expectation. Run the other way from a draw of the exact posterior, the mean of the inverse
weights is an unbiased estimate of 1/p(x), which bounds log p(x) from above (Grosse et al. 2015, section 4). An exact
posterior draw is at hand where x was made from z by the model.

Step sizes are found by a pilot run with other noise and then held: a chain that adapts to itself has no invariant
distribution, and its weights bound nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution

from lowerbound.errors import NotSupportedError
from lowerbound.lab.evaluation.result import Result, mean_result
from lowerbound.model.distributions import tree
from lowerbound.model.families.family import Family
from lowerbound.model.spec import Context
from lowerbound.noise import Noise

LEAPS = 10  # leapfrog steps of a proposal
TARGET = 0.65  # acceptance that the pilot run steers to (Neal 2011, section 5.4.4)
ADAPTATION = 0.1
LogDensity = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Sandwich:
    """log p(x) of rows that the model made, from both sides, nats, (N,) each.

    Attributes:
        lower, upper: bounds in expectation.
        x: the rows, prepared.
    """

    lower: Tensor
    upper: Tensor
    x: Tensor


def annealed_lower_bound(
    model: Family, x: Tensor, context: Context | None, noise: Noise, steps: int = 500, chains: int = 16
) -> Tensor:
    """A stochastic lower bound on log p(x) of prepared rows, (B,), nats.

    Args:
        model: in evaluation mode, with one group of continuous latents.
        x: prepared rows, (B, *event).
        context: of the rows.
        noise: of B rows.
        steps: temperatures between prior and posterior; the gap falls like one over their number.
        chains: per row.

    Raises:
        NotSupportedError: the latents are several groups, discrete, or their prior is an estimate.
    """
    path = _Path(model, x, context, noise.child("path"), steps)
    start, _ = tree.draw(path.prior, noise.child("start"), chains)
    sizes = path.pilot(noise.child("pilot"))
    weight, _ = path.walk(start, sizes, noise.child("walk"))
    return torch.logsumexp(weight, dim=0) - math.log(chains)


def sandwich(
    model: Family, x: Tensor, context: Context | None, noise: Noise, steps: int = 500, chains: int = 16
) -> Sandwich:
    """Bounds on log p(x) from both sides, for as many rows as `x` has, made by the model itself.

    Args:
        model, context, noise, steps, chains: as for `annealed_lower_bound`.
        x: rows of the model's kind; what they say is not used, only how many they are.
    """
    prior = _Path(model, x, context, noise.child("prior"), 1).prior
    z, _ = tree.draw(prior, noise.child("z"))
    name = next(iter(model.latents))
    with torch.no_grad():
        made = tree.draw(model.decode({name: z[0]}, context), noise.child("x"))[0][0]
    lower = annealed_lower_bound(model, made, context, noise.child("forward"), steps, chains)
    path = _Path(model, made, context, noise.child("path"), steps)
    sizes = path.pilot(noise.child("pilot"))
    weight, _ = path.walk(z.expand(chains, *z.shape[1:]), sizes, noise.child("backward"), backwards=True)
    return Sandwich(lower, math.log(chains) - torch.logsumexp(-weight, dim=0), made)


def sandwich_results(found: Sandwich, elbo: Tensor, importance: Tensor) -> dict[str, Result]:
    """How tight the bounds are on rows that the model made.

    Args:
        found: the sandwich.
        elbo, importance: bounds on the same rows, (N,), nats.
    """
    middle = 0.5 * (found.lower + found.upper)
    return {
        "simulated_annealed_lower_nats": mean_result(found.lower, "lower_bound"),
        "simulated_annealed_upper_nats": mean_result(found.upper, "upper_bound"),
        "simulated_elbo_gap_nats": mean_result(middle - elbo, "estimate"),
        "simulated_importance_gap_nats": mean_result(middle - importance, "estimate"),
    }


def log_likelihood(model: Family, group: str, z: Tensor, x: Tensor, context: Context | None) -> Tensor:
    """log p(x|z), (S, B), nats, of codes (S, B, *units) of the one group of latents and prepared rows (B, *event)."""
    chains, rows = z.shape[:2]
    known = None if context is None else context.select(torch.arange(rows).repeat(chains))
    px = model.decode({group: z.flatten(0, 1)}, known)
    result: Tensor = px.log_prob(x.expand(chains, *x.shape).flatten(0, 1))
    return result.unflatten(0, (chains, rows))


class _Path:
    """The densities between prior and posterior for some rows, and walks along them."""

    def __init__(self, model: Family, x: Tensor, context: Context | None, noise: Noise, steps: int) -> None:
        with torch.no_grad():
            evidence = model.evidence(x, context, noise)
        latents, latent = evidence.latents, next(iter(evidence.latents.values()), None)
        if len(latents) != 1 or latent is None or not latent.z.is_floating_point() or not evidence.exact:
            raise NotSupportedError(
                "annealed importance sampling needs one group of continuous latents, and exact densities."
            )
        self.model, self.x, self.context, self.name = model, x, context, next(iter(latents))
        self.prior: Distribution = tree.detach(latent.p)
        ends = torch.sigmoid(torch.tensor([-4.0, 4.0], dtype=torch.float64))
        between = torch.sigmoid(torch.linspace(-4, 4, steps + 1, dtype=torch.float64))  # Wu et al. 2017, section 5
        self.powers = ((between - ends[0]) / (ends[1] - ends[0])).tolist()

    def log_likelihood(self, z: Tensor) -> Tensor:
        """log p(x|z), (S, B)."""
        return log_likelihood(self.model, self.name, z, self.x, self.context)

    def pilot(self, noise: Noise) -> Tensor:
        """Step sizes for each temperature and row, (steps, B), from a walk of four chains that adapts."""
        start, _ = tree.draw(self.prior, noise.child("start"), 4)
        _, sizes = self.walk(start, None, noise.child("walk"))
        return sizes

    def walk(self, z: Tensor, sizes: Tensor | None, noise: Noise, backwards: bool = False) -> tuple[Tensor, Tensor]:
        """Walk from the prior to the posterior, or back.

        Args:
            z: where the chains start, (S, B, *units).
            sizes: step sizes, (steps, B); None to adapt them on the way.
            noise: of B rows.
            backwards: from the posterior to the prior.

        Returns:
            The log weight of each chain, (S, B), double precision, and the step sizes that were used.
        """
        weight = torch.zeros(z.shape[:2], dtype=torch.float64, device=z.device)
        size = torch.full(z.shape[1:2], 0.1, dtype=z.dtype, device=z.device)
        used, levels = [], range(1, len(self.powers))
        for level in reversed(levels) if backwards else levels:
            power, before = self.powers[level], self.powers[level - 1]
            own = noise.child(str(level))
            size = size if sizes is None else sizes[level - 1]
            if backwards:
                z, accepted = self._move(z, power, size, own)
            with torch.no_grad():
                weight += (power - before) * self.log_likelihood(z).double()
            if not backwards:
                z, accepted = self._move(z, power, size, own)
            used.append(size)
            size = size * torch.exp(ADAPTATION * (accepted.mean(dim=0) - TARGET))
        return weight, torch.stack(used)

    def _move(self, z: Tensor, power: float, size: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """A step of Hamiltonian Monte Carlo that leaves p(z) p(x|z)^power invariant; and which chains moved, (S, B)."""
        units = tuple(z.shape[2:])
        step = size.reshape(1, -1, *(1,) * len(units))
        momentum = noise.child("momentum").normal(z.shape[0], units).to(z.dtype)

        def kinetic(p: Tensor) -> Tensor:
            return 0.5 * p.flatten(2).square().sum(dim=2)

        value, slope = self._slope(z, power)
        energy = kinetic(momentum) - value
        place, speed = z, momentum + 0.5 * step * slope
        for leap in range(LEAPS):
            place = place + step * speed
            value, slope = self._slope(place, power)
            speed = speed + (0.5 if leap == LEAPS - 1 else 1.0) * step * slope
        change = energy - (kinetic(speed) - value)
        accepted = (
            noise.child("accept").uniform(z.shape[0]).to(z.dtype).log() < change
        )  # never where it is not a number
        return torch.where(accepted.reshape(*accepted.shape, *(1,) * len(units)), place, z), accepted.to(z.dtype)

    def _slope(self, z: Tensor, power: float) -> tuple[Tensor, Tensor]:
        """log f at z, (S, B), and its gradient, (S, B, *units)."""
        with torch.enable_grad():
            at = z.detach().requires_grad_()
            value = self.prior.log_prob(at) + power * self.log_likelihood(at)
            (slope,) = torch.autograd.grad(value.sum(), at)
        return value.detach(), slope
