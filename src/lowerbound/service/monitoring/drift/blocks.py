"""Blocks of time: as long as requests are alike, and then some, so that whole blocks may be exchanged.

Frames of one camera are alike for many requests, and any p-value that counts them as independent is wrong. Sums over
blocks that are long beside that time are nearly independent of one another (Kunsch 1989), so it is blocks that are
counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lowerbound.errors import TooFewError
from lowerbound.service.monitoring.drift.window import Array, Window

TIMES = 25  # times of dependence in a block: neighbouring blocks then share about 1 % of what they vary by
FEWEST, MOST = 4, 16  # blocks in a window
HORIZON = 5  # times of dependence up to which autocorrelations are summed (Sokal 1997, section 3)
COLUMNS = 256  # of a fact, whose dependence is looked at: evenly chosen where there are more
SAME = 1e-6  # of the size of a series, below which what it varies by is rounding
LEAST = 200  # requests, below which no autocorrelation can be told from noise


@dataclass(frozen=True)
class Blocks:
    """How a stream is cut.

    Attributes:
        dependence: the integrated autocorrelation time, requests: as many count as one independent request.
        length: requests in a block.
        in_window: blocks in a window.
    """

    dependence: float
    length: int
    in_window: int


def cut(reference: Window, size: int) -> Blocks:
    """Blocks for windows of so many requests, by the dependence among the reference's.

    Raises:
        TooFewError: the reference is too short to see dependence, or the windows hold fewer than four blocks.
    """
    time = dependence(reference)
    fits = int(size / (TIMES * time)) if time > 1 else size
    if fits < FEWEST:
        raise TooFewError(
            f"a window of {size:,} requests is too short where requests are alike for about {time:.0f}: look at "
            f"windows of at least {int(np.ceil(FEWEST * TIMES * time)):,}."
        )
    count = min(fits, MOST)
    return Blocks(time, size // count, count)


def dependence(window: Window) -> float:
    """The integrated autocorrelation time of the slowest fact, requests, 1 where requests are independent.

    1 + 2 sum_t rho(t), of each column and of its distance from its median, by the window of Sokal (1997, eq. 3.21).

    Raises:
        TooFewError: fewer than 200 requests.
    """
    if window.size < LEAST:
        raise TooFewError(f"{window.size} requests do not show how long they are alike; give at least {LEAST}.")
    return max(_time(_columns(values)) for values in window.facts.values())


def of_blocks(values: Array, length: int) -> Array:
    """Sums over whole blocks, (N, F) to (K, F); requests after the last whole block are left out."""
    return whole(values, length).sum(axis=1, dtype=np.float64)


def squares_of_blocks(values: Array, length: int) -> Array:
    """The same of squares."""
    blocks = whole(values, length)
    return np.stack([np.einsum("nf,nf->f", block, block, dtype=np.float64) for block in blocks])


def whole(values: Array, length: int) -> Array:
    """Whole blocks, (K, length, F), as a view."""
    count = len(values) // length
    return values[: count * length].reshape(count, length, -1)


def _columns(values: Array) -> Array:
    """At most 256 columns, (N, C)."""
    flat = values.reshape(len(values), -1)
    chosen = np.unique(np.linspace(0, flat.shape[1] - 1, min(COLUMNS, flat.shape[1])).astype(int))
    return flat[:, chosen].astype(np.float64)


def _time(columns: Array) -> float:
    """The largest of columns (N, C) and of their distances from their medians."""
    longest = 1.0
    for column in columns.T:
        for series in (column, np.abs(column - np.median(column))):
            longest = max(longest, _integrated(series))
    return longest


def _integrated(series: Array) -> float:
    """Of one series, (N,); 1 for one that does not vary."""
    centred = series - series.mean()
    if np.ptp(series) <= SAME * np.abs(series).max():
        return 1.0
    power = np.abs(np.fft.rfft(centred, 1 << (2 * len(centred) - 1).bit_length())) ** 2
    correlations = np.fft.irfft(power)[: len(centred) // 2]
    times = 2 * np.cumsum(correlations / correlations[0]) - 1
    enough = np.arange(len(times)) >= HORIZON * times
    return float(times[np.argmax(enough)] if enough.any() else times[-1])
