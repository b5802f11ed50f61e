"""What chance alone brings: windows that are put together from blocks of a stream in which nothing drifts.

A window and the reference beside it are a pool of blocks. If nothing has drifted, each choice of blocks might as well
have been the window. So both are drawn anew, as disjoint blocks, and the share of such draws that look at least as
strange is a p-value. It holds for any number of blocks and any distribution, on average over references, as far as
blocks are exchangeable (Phipson & Smyth 2010, for draws in place of all choices).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from lowerbound.service.monitoring.drift.measure import TINY, Measure
from lowerbound.service.monitoring.drift.window import Array

CHUNK = 500  # draws at a time
MANY = 32  # blocks of a window, beyond which a partial sort of all is faster
FIRST = 500  # draws that say how large each effect is by chance


@dataclass(frozen=True, eq=False)
class Chance:
    """How large each effect is where nothing drifts, (E,) each.

    Attributes:
        mean: of its size.
        deviation: of its size.
        spread: the root of its mean square.
    """

    mean: Array
    deviation: Array
    spread: Array

    @staticmethod
    def of(effects: Array) -> Chance:
        """From draws, (M, E)."""
        size = np.abs(effects)
        return Chance(size.mean(axis=0), np.maximum(size.std(axis=0), TINY), np.sqrt(np.mean(size**2, axis=0)))

    def statistic(self, effects: Array, floors: Array) -> Array:
        """The largest effect in deviations above its mean, (M,), of those above their floors; -inf without any."""
        size = np.abs(effects)
        apart = np.where(size >= floors, (size - self.mean) / self.deviation, -np.inf)
        result: Array = apart.max(axis=1)
        return result


def draw(
    measure: Measure, pool: Array, length: int, count: int, draws: int, chance: np.random.Generator
) -> Iterator[Array]:
    """Effects of windows of `count` blocks drawn from a pool (K, F), the rest of it being their reference; in chunks.

    Yields:
        Effects of up to 500 draws, (M, E).
    """
    blocks, whole = len(pool), pool.sum(axis=0)
    for start in range(0, draws, CHUNK):
        many = min(CHUNK, draws - start)
        chosen = _distinct(blocks, count, many, chance)
        picks = csr_array(
            (np.ones(many * count), chosen.reshape(-1), np.arange(0, many * count + 1, count)), shape=(many, blocks)
        )
        yield measure.effects(picks @ pool, count * length, whole, blocks * length)


def p_value(
    measure: Measure,
    reference: Array,
    window: Array,
    length: int,
    level: float,
    draws: int,
    chance: np.random.Generator,
) -> tuple[float, Chance]:
    """The probability of a window as strange as this one if nothing has drifted, and what chance brings.

    Effects are measured in units of what the pool's own draws vary by, so that reference and window are treated alike.
    Draws end once it is certain that the p-value is above the level; it is then an estimate.

    Args:
        measure: what is asked.
        reference: sums of its blocks, (K, F).
        window: sums of its blocks, (k, F).
        length: requests in a block.
        level: what p-values are compared with.
        draws: at most.
        chance: of the draws.
    """
    pool = np.concatenate([reference, window])
    count, whole = len(window), pool.sum(axis=0)
    usual = Chance.of(np.concatenate(list(draw(measure, pool, length, count, FIRST, chance))))
    seen = measure.effects(window.sum(axis=0, keepdims=True), count * length, whole, len(pool) * length)
    strange = usual.statistic(seen, measure.floors)[0]
    if strange == -np.inf:
        return 1.0, usual
    above, drawn = 0, 0
    for effects in draw(measure, pool, length, count, draws, chance):
        above += int((usual.statistic(effects, measure.floors) >= strange).sum())
        drawn += len(effects)
        if 1 + above > level * (1 + draws):
            break
    return (1 + above) / (1 + drawn), usual


def _distinct(blocks: int, count: int, draws: int, chance: np.random.Generator) -> Array:
    """Different blocks, (draws, count): each is drawn among those left, whose numbers skip those that are taken."""
    if count > MANY:
        found: Array = np.argpartition(chance.random((draws, blocks)), count - 1, axis=1)[:, :count]
        return found
    taken = np.empty((draws, 0), dtype=np.int64)
    for place in range(count):
        fresh = chance.integers(0, blocks - place, draws)
        for other in taken.T:
            fresh += fresh >= other
        taken = np.sort(np.concatenate([taken, fresh[:, None]], axis=1), axis=1)
    return taken
