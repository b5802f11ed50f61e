"""Trouble to plant into a stream of rows, as it happens to cameras and pipelines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from lowerbound.errors import UsageError
from lowerbound.service.monitoring.drift.window import Array

Chance = np.random.Generator


@dataclass(frozen=True)
class Injection:
    """One kind of trouble.

    Attributes:
        name: of it.
        says: what happens, as a clause.
        share: of the requests, by default.
        change: rows (N, *event) on [0, 1], a severity in (0, 1], chance; what becomes of them.
    """

    name: str
    says: str
    share: float
    change: Callable[[Array, float, Chance], Array]


def _brightness(rows: Array, severity: float, chance: Chance) -> Array:
    """Brighter, as under a new lamp: black stays away from 0, and white is cut."""
    return rows * (1 - 0.5 * severity) + 0.5 * severity


def _blur(rows: Array, severity: float, chance: Chance) -> Array:
    """Out of focus."""
    sides = (0,) * (rows.ndim - 2) + (severity * rows.shape[-2] / 8, severity * rows.shape[-1] / 8)
    found: Array = gaussian_filter(rows, sides)
    return found


def _corruption(rows: Array, severity: float, chance: Chance) -> Array:
    """Some lines of each picture are noise, as of a bad cable."""
    lines = max(1, round(severity * rows.shape[-2] / 3))
    made = rows.copy()
    for row in made:
        chosen = chance.choice(rows.shape[-2], lines, replace=False)
        row[..., chosen, :] = chance.random(row[..., chosen, :].shape)
    return made


def _pipeline(rows: Array, severity: float, chance: Chance) -> Array:
    """Rows and columns change places; where they are not equally many, the picture is upside down."""
    turned = np.swapaxes(rows, -1, -2) if rows.shape[-1] == rows.shape[-2] else rows[..., ::-1, :]
    return np.ascontiguousarray(turned)


def _black(rows: Array, severity: float, chance: Chance) -> Array:
    """The lens is covered."""
    return np.zeros_like(rows)


INJECTIONS = {
    one.name: one
    for one in (
        Injection("brightness", "all pictures are brighter", 1.0, _brightness),
        Injection("blur", "all pictures are out of focus", 1.0, _blur),
        Injection("corruption", "lines of some pictures are noise", 0.1, _corruption),
        Injection("pipeline-bug", "rows and columns of all pictures change places", 1.0, _pipeline),
        Injection("black", "some pictures are black", 0.03, _black),
    )
}
NEW_CLASS = "new-class"  # which is no change of a row: rows of a label that was held back come
NEW_SHARE = 0.15


def inject(
    rows: Array, name: str, chance: Chance, levels: int | None, share: float | None = None, severity: float = 0.5
) -> tuple[Array, Array]:
    """Rows of which a share was changed, and which (N,).

    Args:
        rows: raw pictures, (N, C, H, W).
        name: of the injection.
        chance: of the choice, and of the noise.
        levels: of a raw value, None for real numbers on [0, 1].
        share: of the rows; by default that of the injection.
        severity: in (0, 1].

    Raises:
        UsageError: no such injection, or no pictures.
    """
    if name not in INJECTIONS:
        raise UsageError(f"{name} was to be injected; there are {', '.join((*INJECTIONS, NEW_CLASS))}.")
    if rows.ndim != 4:
        raise UsageError(f"{name} is done to pictures, and rows of shape {list(rows.shape[1:])} are none.")
    if not 0 < severity <= 1 or not 0 < (share if share is not None else 1) <= 1:
        raise UsageError(f"a severity of {severity} and a share of {share} were given; both are above 0 and at most 1.")
    one, top = INJECTIONS[name], 1 if levels is None else levels - 1
    changed = chance.random(len(rows)) < (one.share if share is None else share)
    made = rows.copy()
    if changed.any():
        values = one.change(rows[changed].astype(np.float64) / top, severity, chance) * top
        made[changed] = (values if levels is None else np.clip(np.rint(values), 0, top)).astype(rows.dtype)
    return made, changed
