"""A detector: one measure, its share of the budget, and a verdict on each window."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lowerbound.errors import TooFewError
from lowerbound.service.monitoring.drift.blocks import FEWEST, Blocks
from lowerbound.service.monitoring.drift.budget import SHORTEST
from lowerbound.service.monitoring.drift.exchange import Chance, draw, p_value
from lowerbound.service.monitoring.drift.measure import Measure
from lowerbound.service.monitoring.drift.window import Array, Window

SUSPICION = 5.0  # times its level: a window with a smaller p-value by the reference alone is looked at closely
DRAWS = 4  # of windows for each 1 / level


@dataclass(frozen=True)
class Finding:
    """One effect that is there.

    Attributes:
        label: what it is of.
        effect: how large it is, in the unit of its measure.
        floor: the size from which on it matters.
        p_value: corrected for the number of effects by the method of Holm (1979).
    """

    label: str
    effect: float
    floor: float
    p_value: float


@dataclass(frozen=True)
class Verdict:
    """What a detector says of one window.

    Attributes:
        detector: its name.
        alarm: whether something drifted.
        p_value: of the window, by exchanged blocks; compared with the level.
        level: the probability of a false alarm in one look.
        effect: the largest of any label that is above its floor, else the largest; and its label.
        label: of that effect.
        findings: what drifted, the surest first; empty without an alarm.
    """

    detector: str
    alarm: bool
    p_value: float
    level: float
    effect: float
    label: str
    findings: tuple[Finding, ...]


class Detector:
    """Whether windows of a stream differ from its reference in one measure.

    Most windows are compared with windows drawn from the reference alone, once. One that is suspicious by these is
    compared with windows drawn from reference and window together, whose p-value does not depend on how long the
    reference is; only that one alarms.

    Args:
        measure: what is asked.
        reference: requests in which nothing drifted.
        blocks: how requests are cut.
        level: the probability of a false alarm in one look.
        seed: of the draws.

    Attributes:
        verdict: the last one, None before the first.
        chance: how large effects are where nothing drifts.
    """

    def __init__(self, measure: Measure, reference: Window, blocks: Blocks, level: float, seed: int = 0) -> None:
        self.measure, self.level = measure, level
        self.verdict: Verdict | None = None
        self._blocks = blocks
        self._draws = math.ceil(DRAWS / level)
        self._generator = np.random.default_rng(seed)
        self._reference = measure.sums(reference, blocks.length)
        if len(self._reference) < SHORTEST * blocks.in_window:
            raise TooFewError(
                f"a reference of {reference.size:,} requests is shorter than {SHORTEST} windows; give at least "
                f"{SHORTEST * blocks.in_window * blocks.length:,}."
            )
        effects = np.concatenate(list(self._drawn(blocks.in_window)))
        self.chance = Chance.of(effects)
        self._usual = np.sort(self.chance.statistic(effects, measure.floors))

    def _drawn(self, count: int) -> list[Array]:
        return list(draw(self.measure, self._reference, self._blocks.length, count, self._draws, self._generator))

    @property
    def noise(self) -> Array:
        """What each effect varies by from window to window, beside an endless reference, (E,)."""
        count, blocks = self._blocks.in_window, len(self._reference)
        result: Array = self.chance.spread * math.sqrt(1 - count / blocks)
        return result

    def update(self, window: Window) -> Verdict:
        """Look at a window; requests after its last whole block are left out.

        Raises:
            TooFewError: it has fewer than four blocks.
            DataError: it lacks the fact.
        """
        length = self._blocks.length
        sums = self.measure.sums(window, length)
        if len(sums) < FEWEST:
            raise TooFewError(f"a window of {window.size:,} requests is too short; give at least {FEWEST * length:,}.")
        whole = self._reference.sum(axis=0) + sums.sum(axis=0)
        rows = (len(sums) * length, (len(self._reference) + len(sums)) * length)
        effects = self.measure.effects(sums.sum(axis=0, keepdims=True), rows[0], whole, rows[1])
        p, usual = self._by_reference(effects, len(sums)), self.chance
        if p <= SUSPICION * self.level:
            p, usual = p_value(self.measure, self._reference, sums, length, self.level, self._draws, self._generator)
        self.verdict = self._say(effects[0], p, usual)
        return self.verdict

    def _by_reference(self, effects: Array, count: int) -> float:
        """The p-value by windows of the reference; 0, for a closer look, where the window is not of the usual size."""
        if count != self._blocks.in_window:
            return 0.0
        strange = self.chance.statistic(effects, self.measure.floors)[0]
        if strange == -np.inf:
            return 1.0
        above = len(self._usual) - np.searchsorted(self._usual, strange)
        return float(1 + above) / (1 + len(self._usual))

    def _say(self, effects: Array, p: float, usual: Chance) -> Verdict:
        apart = (np.abs(effects) - usual.mean) / usual.deviation
        matters = np.abs(effects) >= self.measure.floors
        place = int(np.argmax(np.where(matters, apart, apart - 1e9)))
        alarm = p <= self.level
        findings = self._findings(effects, p, usual, matters, place) if alarm else ()
        return Verdict(
            self.measure.name, alarm, p, self.level, float(effects[place]), self.measure.labels[place], findings
        )

    def _findings(self, effects: Array, p: float, usual: Chance, matters: Array, surest: int) -> tuple[Finding, ...]:
        """All that pass the correction, and the surest in any case: it is what the p-value of the window is of."""
        corrected = holm(self.measure.p_values(effects, usual.spread))
        corrected[surest] = min(corrected[surest], p)
        passed = np.flatnonzero(matters & (corrected <= self.level))
        order = passed[np.lexsort((-np.abs(effects[passed]), corrected[passed]))]
        return tuple(
            Finding(self.measure.labels[at], float(effects[at]), float(self.measure.floors[at]), float(corrected[at]))
            for at in order
        )


def holm(p_values: Array) -> Array:
    """p-values corrected for their number, (E,): that any below a level is false is no likelier (1979)."""
    order = np.argsort(p_values)
    steps = (len(p_values) - np.arange(len(p_values))) * p_values[order]
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return corrected
