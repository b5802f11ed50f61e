"""One look at a stretch of requests beside what is ordinary: drift, signs of unusual requests, and alerts."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import betabinom

from lowerbound.errors import DataError, TooFewError
from lowerbound.service.monitoring.alerts import ALERTS, OF_DETECTOR, OF_SIGN
from lowerbound.service.monitoring.drift import watch as watching
from lowerbound.service.monitoring.drift.attribution import Attributor
from lowerbound.service.monitoring.drift.budget import Budget, Certificate
from lowerbound.service.monitoring.drift.detector import Verdict
from lowerbound.service.monitoring.drift.window import Window
from lowerbound.service.monitoring.looking.baseline import Baseline
from lowerbound.service.monitoring.looking.stretch import Stretch

REJECTS = 0.01  # of the requests
SHOWS_NOTHING = ("black", "flat")  # reasons of the gate
GATE, FLAT = "refused by the gate", "refused as flat"
SUFFERED = 0.01  # of ordinary errors lie above the reference's 99th percentile


@dataclass(frozen=True)
class Share:
    """A share of the requests beyond something.

    Attributes:
        name: what is beyond what.
        share: of the requests.
        expected: of ordinary ones, about.
        alarm: whether chance does not explain it, and it matters.
    """

    name: str
    share: float
    expected: float
    alarm: bool


@dataclass(frozen=True)
class Errors:
    """Whether reconstruction suffered.

    Attributes:
        mean, ordinary_mean: errors of the requests, and of the baseline.
        above: share of the requests with an error above the baseline's 99th percentile.
        suffered: whether the detector of errors, or the sign of high ones, alarms.
    """

    mean: float
    ordinary_mean: float
    above: float
    suffered: bool


@dataclass(frozen=True)
class Look:
    """What was seen.

    Attributes:
        since, until: times of the first and last request, seconds since 1970.
        requests: that were looked at.
        incomplete: that passed the gate and lack a fact.
        refused: by the gate's reason.
        baseline: what they were compared with, as a clause.
        certificate: what the detectors promise, as a sentence.
        certified: false alarms a month, of detectors and signs together.
        verdicts: of the detectors of drift; none with too few requests.
        signs: of unusual requests.
        skipped: what was not asked, and why.
        errors: None where there are none.
    """

    since: float
    until: float
    requests: int
    incomplete: int
    refused: dict[str, int]
    baseline: str
    certificate: str
    certified: float
    verdicts: tuple[Verdict, ...]
    signs: tuple[Share, ...]
    skipped: dict[str, str]
    errors: Errors | None

    @property
    def drift(self) -> bool:
        """Whether a detector of drift alarms."""
        return any(verdict.alarm for verdict in self.verdicts)

    @property
    def alerts(self) -> tuple[str, ...]:
        """Names of all alerts, those of what came in first."""
        names = {OF_DETECTOR[verdict.detector] for verdict in self.verdicts if verdict.alarm}
        names |= {_alert_of(sign.name) for sign in self.signs if sign.alarm}
        return tuple(name for name in ALERTS if name in names)

    def said(self) -> str:
        """What was seen, for a person."""
        parts = [f"{sign.name}: {sign.share:.1%} of the requests" for sign in self.signs if sign.alarm]
        for verdict in self.verdicts:
            if verdict.alarm:
                parts.append(f"{verdict.detector}: {verdict.label} by {verdict.effect:+.3g}")
        return "; ".join(parts) or "nothing unusual"

    def json(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self), "drift": self.drift, "alerts": list(self.alerts)}


def _alert_of(sign: str) -> str:
    return {GATE: "gate-rejects", FLAT: "flat-inputs"}.get(sign) or OF_SIGN[sign]


class Looker:
    """Looks at stretches beside one baseline, with one budget for all that it asks.

    Half of the budget is the detectors', half that of the signs. Signs count requests beyond limits of the baseline,
    each limit conformal, and alarm above a quantile of the beta-binomial distribution, which takes requests as
    independent.

    Args:
        baseline: ordinary requests.
        facts: that requests have; others of the baseline are not asked about.
        budget: of false alarms.
        window: requests of a look.
        seed: of the draws.

    Raises:
        TooFewError: the baseline is too short for the budget; says what is needed.
        DataError: these facts allow no detector.
    """

    def __init__(self, baseline: Baseline, facts: tuple[str, ...], budget: Budget, window: int, seed: int = 0) -> None:
        shared = {name: values for name, values in baseline.window.facts.items() if name in facts}
        if not shared:
            raise DataError("the requests have none of the facts of the reference; serve and record the same verbs.")
        self.baseline, self.window, self.budget = baseline, window, budget
        self._reference = Window(**shared)
        half = Budget(budget.false_alarms / 2, budget.looks)
        self._watch = watching.Watch(self._reference, half, window, seed)
        self._skipped: dict[str, str] = {}
        self.attributor = self._attributor()
        count = 2 + (len(OF_SIGN) if self.attributor else 0)
        self._level = half.level / count

    @property
    def certificate(self) -> Certificate:
        """What is promised of the detectors."""
        return self._watch.certificate

    def look(self, stretch: Stretch) -> Look:
        """Look at the newest window of a stretch.

        Raises:
            DataError: it lacks a fact of the baseline.
        """
        recent, known = stretch.recent(self.window), stretch.known(self.window)
        skipped = dict(self._skipped)
        signs = [*self._refused(recent)]
        verdicts: tuple[Verdict, ...] = ()
        if len(known) == self.window and known.window is not None:
            verdicts = tuple(self._named(verdict) for verdict in self._watch.update(known.window).verdicts)
        else:
            skipped["drift"] = f"{len(known):,} requests have facts, and a look is at {self.window:,}."
        if self.attributor is not None and known.window is not None:
            found = self.attributor.signs(known.window, self._level)
            signs += [Share(sign.name, sign.share, sign.expected, sign.alarm) for sign in found]
        since, until = recent.span if len(known) < self.window else known.span
        refused = (recent if len(known) < self.window else known).reasons
        return Look(
            since=since,
            until=until,
            requests=len(known),
            incomplete=stretch.incomplete,
            refused=refused,
            baseline=self.baseline.source,
            certificate=str(self.certificate),
            certified=self.budget.false_alarms,
            verdicts=verdicts,
            signs=tuple(signs),
            skipped=skipped,
            errors=self._errors(known.window, verdicts, signs),
        )

    def _named(self, verdict: Verdict) -> Verdict:
        """With the names of statistics in place of their numbers."""
        names = {f"inputs {place}": name for place, name in enumerate(self.baseline.statistics)}
        findings = tuple(replace(one, label=names.get(one.label, one.label)) for one in verdict.findings)
        return replace(verdict, label=names.get(verdict.label, verdict.label), findings=findings)

    def _attributor(self) -> Attributor | None:
        try:
            return Attributor(self._reference, self.baseline.statistics)
        except (DataError, TooFewError) as error:
            self._skipped["signs of unusual requests"] = str(error)
            return None

    def _refused(self, recent: Stretch) -> list[Share]:
        """Of what the gate refused; the baseline's own share is known from as many rows as it has."""
        asked, rows = max(1, recent.asked), self._reference.size + sum(self.baseline.refused.values())
        found = []
        for name, of, least in ((GATE, None, REJECTS), (FLAT, SHOWS_NOTHING, 0.0)):
            count, before = (_count(reasons, of) for reasons in (recent.reasons, self.baseline.refused))
            usual = float(betabinom.isf(self._level, asked, before + 1, rows - before + 1))
            alarm = count > usual and count / asked > least
            found.append(Share(name, count / asked, before / rows, alarm))
        return found

    def _errors(self, window: Window | None, verdicts: tuple[Verdict, ...], signs: list[Share]) -> Errors | None:
        if window is None or window.errors is None or self._reference.errors is None:
            return None
        alarms = {_alert_of(sign.name) for sign in signs if sign.alarm}
        alarms |= {OF_DETECTOR[verdict.detector] for verdict in verdicts if verdict.alarm}
        limit = np.quantile(self._reference.errors, 1 - SUFFERED)
        mean, ordinary = float(window.errors.mean()), float(self._reference.errors.mean())
        above = float((window.errors > limit).mean())
        high = "high-error" in alarms or ("drift-error" in alarms and above > SUFFERED)
        return Errors(mean, ordinary, above, high)


def _count(reasons: dict[str, int], of: tuple[str, ...] | None) -> int:
    """Rows that were refused, for any reason or for some."""
    return sum(count for reason, count in reasons.items() if of is None or reason in of)
