"""All detectors of a stream, under one alarm budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lowerbound.errors import DataError, TooFewError
from lowerbound.service.monitoring.drift.aggregate import Aggregate
from lowerbound.service.monitoring.drift.blocks import cut
from lowerbound.service.monitoring.drift.budget import SHORTEST, Budget, certify
from lowerbound.service.monitoring.drift.detector import Detector, Verdict
from lowerbound.service.monitoring.drift.means import Rates
from lowerbound.service.monitoring.drift.measure import Measure
from lowerbound.service.monitoring.drift.pairs import Pairs
from lowerbound.service.monitoring.drift.shapes import Shapes, active
from lowerbound.service.monitoring.drift.tails import Tails
from lowerbound.service.monitoring.drift.usage import Usage
from lowerbound.service.monitoring.drift.window import Window


@dataclass(frozen=True)
class Look:
    """What all detectors say of one window.

    Attributes:
        verdicts: one of each detector.
    """

    verdicts: tuple[Verdict, ...]

    @property
    def alarm(self) -> bool:
        """Whether any of them alarms."""
        return any(verdict.alarm for verdict in self.verdicts)

    @property
    def alarms(self) -> tuple[Verdict, ...]:
        """Those that do."""
        return tuple(verdict for verdict in self.verdicts if verdict.alarm)


class Watch:
    """Looks at one window of a stream after the other, with all detectors that its facts allow.

    Args:
        reference: requests in which nothing drifted, in the order of their times.
        budget: of false alarms, which the detectors share equally.
        window: requests of each look.
        seed: of the draws.

    Attributes:
        certificate: what is promised.
        detectors: by what they ask.
        look: the last one, None before the first.

    Raises:
        TooFewError: the reference is too short for the budget, or the window for its dependence; says what is needed.
    """

    def __init__(self, reference: Window, budget: Budget, window: int, seed: int = 0) -> None:
        self.look: Look | None = None
        blocks = cut(reference, window)
        makers = measures(reference)
        level = budget.level / len(makers)
        asked = [make(window, level) for make in makers]
        if reference.size < SHORTEST * blocks.in_window * blocks.length:
            unknown = [(np.full(len(measure.labels), np.inf), measure.floors) for measure in asked]
            raise TooFewError(str(certify(budget, blocks, window, reference.size, unknown)))
        self.detectors = {
            measure.name: Detector(measure, reference, blocks, level, seed + place)
            for place, measure in enumerate(asked)
        }
        noise = [(detector.noise, detector.measure.floors) for detector in self.detectors.values()]
        self.certificate = certify(budget, blocks, window, reference.size, noise)
        if not self.certificate.holds:
            raise TooFewError(str(self.certificate))

    def update(self, window: Window) -> Look:
        """Look at a window.

        Raises:
            TooFewError: it is too short.
            DataError: it lacks a fact that the reference has.
        """
        self.look = Look(tuple(detector.update(window) for detector in self.detectors.values()))
        return self.look


def measures(reference: Window) -> list[Callable[[int, float], Measure]]:
    """What can be asked with the facts of a reference; each made from the size of windows and a level.

    Raises:
        DataError: they allow no detector.
    """
    known = reference.facts
    found: list[Callable[[int, float], Measure]] = []
    if "inputs" in known:
        found.append(lambda size, level: Shapes("inputs", "inputs", known["inputs"]))
    if "points" in known:
        units = active(known["points"])
        if len(units):
            labels = [f"unit {unit}" for unit in range(known["points"].shape[1])]
            found.append(lambda size, level: Shapes("latent, unit by unit", "points", known["points"], units, labels))
        if len(units) > 1:
            found.append(lambda size, level: Pairs(known["points"], units))
        if "variances" in known:
            found.append(lambda size, level: Aggregate(known["points"].shape[1]))
    if "rates" in known:
        found.append(lambda size, level: Rates(known["rates"]))
    if "errors" in known:
        found.append(lambda size, level: Tails(known["errors"], size, level))
    if "indices" in known:
        found.append(lambda size, level: Usage(known["indices"]))
    if not found:
        raise DataError("these facts allow no detector; give points with active units, rates, errors or indices.")
    return found
