"""What the newest codes look like beside those that the version was registered with."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowerbound.app.web.plain import numbers
from lowerbound.lab.evaluation.latents import ACTIVE
from lowerbound.lab.reference import Reference
from lowerbound.service.monitoring.telemetry.history import Choice, History, Window
from lowerbound.service.registry.version import Version

Array = NDArray[Any]
ROWS = 2000  # that are looked at
FEWEST = 30
MOST_UNITS = 1024  # that are shown


def codes(history: History, choice: Choice, version: Version) -> dict[str, Any]:
    """Statistics of the newest codes of a version and of its reference: of units, or of a codebook.

    Args:
        history: of the store.
        choice: of the model, the version and the time.
        version: whose reference they stand beside.
    """
    window = history.window(Choice(choice.since, choice.until, choice.model, choice.version, coded=True, newest=ROWS))
    rows = len(window)
    if rows < FEWEST:
        return {"rows": rows, "fewest": FEWEST, "latent": None, "codebook": None}
    reference = reference_of(version)
    discrete = window.code.dtype.kind in "iu"
    return {
        "rows": rows,
        "fewest": FEWEST,
        "reference_rows": max(len(reference.points), len(reference.indices)),
        "latent": None if discrete else latent(window, reference),
        "codebook": codebook(window.code, reference.indices.numpy()) if discrete else None,
    }


def latent(window: Window, reference: Reference) -> dict[str, Any] | None:
    """Each unit's mean and variance; None if the codes are not those of the reference.

    `shift` is in standard deviations of the reference's points, `ratio` of variances of the aggregate posterior,
    Var(mu) + E[sigma^2], or of the points alone where variances are not known.
    """
    code = window.code[np.isfinite(window.code).all(axis=1)].astype(np.float64)
    spread = reference.variance_of_means.double().numpy()
    if code.shape[1] != len(spread) or len(code) < FEWEST:
        return None
    now, was, known = code.var(axis=0), spread, False
    if window.variances.shape[1] == code.shape[1] and np.isfinite(window.variances).any(axis=0).all():
        inner = reference.mean_of_variances.double().numpy()
        if np.isfinite(inner).all():
            now, was, known = now + np.nanmean(window.variances, axis=0, dtype=np.float64), was + inner, True
    active = spread > ACTIVE
    rates = window.rates if window.rates.shape[1] == code.shape[1] else np.full(code.shape, np.nan)
    seen = np.isfinite(rates).any()
    shift = np.where(active, (code.mean(axis=0) - reference.mean.numpy()) / np.sqrt(np.maximum(spread, ACTIVE)), np.nan)
    ratio = np.where(active, now / np.maximum(was, 1e-12), np.nan)
    shown = slice(0, MOST_UNITS)
    return {
        "units": code.shape[1],
        "active": int((code.var(axis=0) > ACTIVE).sum()),
        "reference_active": int(active.sum()),
        "aggregate": known,
        "mean": numbers(code.mean(axis=0)[shown]),
        "reference_mean": numbers(reference.mean.numpy()[shown]),
        "variance": numbers(now[shown]),
        "reference_variance": numbers(was[shown]),
        "shift": numbers(shift[shown]),
        "ratio": numbers(ratio[shown]),
        "rate": numbers(np.nanmean(rates, axis=0)[shown]) if seen else None,
    }


def codebook(code: Array, known: Array) -> dict[str, Any]:
    """How often each code of a codebook is used, as shares, and how evenly: the exponential of the entropy."""
    size = int(max(code.max(initial=0), known.max(initial=0))) + 1
    now, was = (np.bincount(values[values >= 0].ravel(), minlength=size) for values in (code, known))
    shares = [counts / max(1, counts.sum()) for counts in (now, was)]
    return {
        "codes": size,
        "used": int((now > 0).sum()),
        "reference_used": int((was > 0).sum()),
        "perplexity": _perplexity(shares[0]),
        "reference_perplexity": _perplexity(shares[1]),
        "share": numbers(shares[0][:MOST_UNITS]),
        "reference_share": numbers(shares[1][:MOST_UNITS]),
    }


def _perplexity(shares: Array) -> float:
    there = shares[shares > 0]
    return float(np.exp(-(there * np.log(there)).sum()))


@lru_cache(maxsize=8)
def reference_of(version: Version) -> Reference:
    """The reference of a version, which never changes."""
    return version.calibration()
