"""Where the codes of requests lie: the active units of points, or the main directions of how a codebook is used."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from sklearn.decomposition import PCA

from lowerbound.errors import DataError
from lowerbound.service.monitoring.drift.shapes import active
from lowerbound.service.monitoring.drift.window import Array, Window

DIRECTIONS = 16
MOST = 10_000  # rows from which directions are learnt
ROWS = 4096  # at a time


class Coordinates(ABC):
    """From requests to vectors that can be compared."""

    @abstractmethod
    def __call__(self, window: Window) -> Array:
        """Vectors, (N, D) float64.

        Raises:
            DataError: the window lacks the codes.
        """


class Points(Coordinates):
    """The active units of points.

    Args:
        reference: with points.

    Raises:
        DataError: no unit is active.
    """

    def __init__(self, reference: Window) -> None:
        self._units = active(reference.fact("points"))
        if not len(self._units):
            raise DataError("no unit of these codes is active, so they say nothing of requests.")

    def __call__(self, window: Window) -> Array:
        return window.fact("points")[:, self._units].astype(np.float64)


class Uses(Coordinates):
    """The principal components of the square roots of how often a row uses each code, up to 16.

    Between square roots of frequencies the Euclidean distance is Hellinger's, in which a rare code counts as it should.

    Args:
        reference: with indices.

    Raises:
        DataError: all rows of it use the same codes equally often.
    """

    def __init__(self, reference: Window) -> None:
        indices = reference.fact("indices")
        self._size = int(indices.max()) + 1
        some = self._roots(indices[:: -(-len(indices) // MOST)])
        if not some.var(axis=0).max() > 0:
            raise DataError("all rows use the same codes equally often, so codes say nothing of requests.")
        self._components = PCA(min(DIRECTIONS, *some.shape), svd_solver="full").fit(some)

    def __call__(self, window: Window) -> Array:
        indices = window.fact("indices")
        parts = (indices[at : at + ROWS] for at in range(0, len(indices), ROWS))
        return np.concatenate([self._components.transform(self._roots(part)) for part in parts])

    def _roots(self, indices: Array) -> Array:
        """(N, K + 1); codes that the reference does not know share the last place."""
        cells, rows = self._size + 1, len(indices)
        places = np.minimum(indices, self._size) + cells * np.arange(rows)[:, None]
        counts = np.bincount(places.reshape(-1), minlength=rows * cells).reshape(rows, cells)
        found: Array = np.sqrt(counts / indices.shape[1])
        return found


def coordinates_of(reference: Window) -> Coordinates:
    """Those that a reference allows.

    Raises:
        DataError: there are neither points nor indices, or they do not vary.
    """
    return Uses(reference) if reference.points is None and reference.indices is not None else Points(reference)
