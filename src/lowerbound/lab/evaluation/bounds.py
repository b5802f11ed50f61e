"""Bounds on log p(x), with standard errors."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from lowerbound.errors import NotABoundError
from lowerbound.lab.evaluation.result import Kind, Result, mean_result
from lowerbound.model.families.family import Family
from lowerbound.model.spec import Context
from lowerbound.noise import Noise

# Values of x that one call of the decoder works on: about what stays in the caches of a processor core.
CHUNK = 1_000_000

Prepared = tuple[Tensor, Context | None, Noise]


@dataclass(frozen=True)
class Bounds:
    """One number per example, in nats.

    Attributes:
        elbo: mean over samples, (N,).
        distortion, rate: its parts, (N,).
        rate_kind: "closed" or "sampled".
        importance: the importance bound by number of samples, (N,) each; empty where it is refused.
        refused: why there is no importance bound, if there is none.
        exact: whether they are log p(x) itself, for a density with nothing latent.
    """

    elbo: Tensor
    distortion: Tensor
    rate: Tensor
    rate_kind: str
    importance: dict[int, Tensor]
    refused: str | None = None
    exact: bool = False

    @property
    def best(self) -> Tensor:
        """The tightest on average of those that there are, (N,)."""
        return self.importance[max(self.importance)] if self.importance else self.elbo


@torch.no_grad()
def bounds(model: Family, batches: Iterable[Prepared], samples: int) -> Bounds:
    """ELBO and importance bound of prepared rows.

    Args:
        model: in evaluation mode.
        batches: prepared rows, their context, and noise of as many rows.
        samples: K of the importance bound (Burda et al. 2016, eq. 8), taken in chunks; the ELBO averages over them too.

    Raises:
        NotABoundError: the model is implicit or its codes have no density.
    """
    parts: dict[str, list[Tensor]] = {"distortion": [], "rate": []}
    curves: dict[int, list[Tensor]] = {count: [] for count in _counts(samples)}
    kind, refused, exact = "closed", None, True
    for x, context, noise in batches:
        size = max(1, min(samples, CHUNK // max(1, x.numel())))
        sums = {name: x.new_zeros(len(x), dtype=torch.float64) for name in parts}
        weights: list[Tensor] = []
        for start in range(0, samples, size):
            count = min(size, samples - start)
            evidence = model.evidence(x, context, noise.child(f"chunk{start}"), count)
            kind, rates = evidence.rates()
            exact = exact and evidence.exact and not evidence.latents
            rate = sum(rates.values(), torch.zeros_like(evidence.reconstruction()))
            sums["distortion"] += count * evidence.average(evidence.reconstruction()).double()
            sums["rate"] += count * evidence.average(rate).double()
            try:
                log_weight = evidence.log_weight()
            except NotABoundError as error:
                refused = str(error)
                continue
            # With enumerated classes the sum over them is part of each sample's weight.
            if evidence.weights is not None:
                log_weight = log_weight + (evidence.weights * count).log()
                log_weight = log_weight.unflatten(0, (count, -1)).logsumexp(dim=1)
            weights.append(log_weight)
        for name, values in sums.items():
            parts[name].append(values / samples)
        if weights:
            every = torch.cat(weights).double()
            for count, found in curves.items():
                found.append(torch.logsumexp(every[:count], dim=0) - math.log(count))
    whole = {name: torch.cat(values) for name, values in parts.items()}
    importance = {} if refused else {count: torch.cat(found) for count, found in curves.items()}
    elbo = -(whole["distortion"] + whole["rate"])
    return Bounds(elbo, whole["distortion"], whole["rate"], kind, importance, refused, exact)


def bound_results(found: Bounds, log_jacobian: float, dimensions: int | None, dequantised: bool) -> dict[str, Result]:
    """The results of bounds.

    Args:
        found: bounds on log p(x).
        log_jacobian: log |dx / d raw|, nats; bits per dimension are of raw rows.
        dimensions: values per raw row; None where bits per dimension mean nothing (real numbers).
        dequantised: whether x is random given a raw row, so that log p(x) itself is a bound for raw rows.
    """
    results = {
        "elbo_nats": mean_result(found.elbo, "lower_bound"),
        "distortion_nats": mean_result(found.distortion, "estimate"),
        "rate_nats": mean_result(found.rate, "estimate"),
    }
    if found.importance:
        results["nll_nats"] = mean_result(found.best, "exact" if found.exact else "upper_bound", -1.0)
    if dimensions is not None:
        kind: Kind = "exact" if found.exact and not dequantised else "upper_bound"
        results["bits_per_dim"] = mean_result(found.best + log_jacobian, kind, -1 / (dimensions * math.log(2)))
    return results


def convergence(found: Bounds) -> list[dict[str, float | None]]:
    """The importance bound by number of samples: how far it is from having converged."""
    rows = []
    for count, values in found.importance.items():
        result = mean_result(values, "lower_bound")
        assert isinstance(result.value, float)
        rows.append({"samples": count, "value": result.value, "stderr": result.stderr})
    return rows


def _counts(samples: int) -> list[int]:
    """1, 2, 5, 10, 20, 50, ... up to the number of samples, which is always among them."""
    steps = [head * 10**power for power in range(7) for head in (1, 2, 5)]
    return [*(step for step in steps if step < samples), samples]
