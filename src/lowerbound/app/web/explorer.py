"""What the latent explorer knows of a version: the units of its code, how far they reach, and what each tells."""

from __future__ import annotations

from typing import Any

import numpy as np

from lowerbound.app.web.codes import reference_of
from lowerbound.app.web.plain import numbers
from lowerbound.service.registry.version import Version

MOST = 512  # units that have sliders
LOW, HIGH = 1, 99  # percentiles of the reference between which a slider runs


def units_of(version: Version) -> dict[str, Any]:
    """The units of a code, for a model with one group of at most 512 numbers; else why it cannot be explored.

    `tells` is 1/2 log(1 + Var(mu) / E[sigma^2]) of each unit, nats: what a Gaussian unit can tell of its input; zero
    where it is inactive, and null where a family does not show its posteriors.
    """
    reference = reference_of(version)
    groups = {name: shape for name, shape in reference.groups.items() if name not in reference.discrete}
    count = reference.points.shape[1]
    found: dict[str, Any] = {"version": version.number, "hash": version.hash}
    if len(reference.groups) != 1 or len(groups) != 1 or not 0 < count <= MOST:
        return {**found, "units": None, "why": f"Sliders are for one code of at most {MOST} real numbers."}
    [(name, shape)] = groups.items()
    spread, inner = (values.double().numpy() for values in (reference.variance_of_means, reference.mean_of_variances))
    with np.errstate(divide="ignore", invalid="ignore"):
        tells = 0.5 * np.log1p(spread / inner)
    order = np.argsort(-np.where(np.isfinite(tells), tells, spread), kind="stable")
    quantiles = reference.quantiles.double().numpy()
    return {
        **found,
        "group": name,
        "shape": list(shape),
        "units": order.tolist(),
        "low": numbers(quantiles[LOW]),
        "high": numbers(quantiles[HIGH]),
        "tells": numbers(tells),
    }
