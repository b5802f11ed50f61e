"""The judge of a canary: takes values, says at any time what is to be done."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowerbound.errors import UsageError
from lowerbound.service.monitoring.verdicts.evidence import Betting, Evidence, NormalMixture
from lowerbound.service.monitoring.verdicts.frechet import Look
from lowerbound.service.monitoring.verdicts.naive import Naive
from lowerbound.service.monitoring.verdicts.pairing import Unpaired, paired
from lowerbound.service.monitoring.verdicts.rules import Method, Metric, Rules
from lowerbound.service.monitoring.verdicts.verdict import Action, Curve, Finding, Override, Verdict, state_of

SCHEMA = 1
METHODS: dict[Method, type[Betting] | type[NormalMixture]] = {"betting": Betting, "mixture": NormalMixture}
Array = NDArray[Any]


# What a metric's mean is, and how it is written.
WORDS: dict[Metric, tuple[str, Callable[[float], str]]] = {
    "error": ("the error differs by", lambda value: f"{100 * math.expm1(value):+.1f} %"),
    "far_worse": ("the surplus of far worse rows is", lambda value: f"{100 * value:+.1f} %"),
    "frechet": ("the Fréchet distance differs by", lambda value: f"{value:+.2f}"),
}


class Judge:
    """Compares a candidate with the stable version. It has no clock and acts on nothing: a router does.

    Once there is enough evidence for a conclusion it stays: that is what makes looking at every request harmless.

    Args:
        rules: what the candidate is held to.
        started: when it got its first traffic, seconds since 1970.
    """

    def __init__(self, rules: Rules, started: float) -> None:
        self.rules, self.started = rules, started
        self._naive = Naive()
        self._pairs = Unpaired()
        limits: dict[Metric, tuple[float, float]] = {
            "error": (math.log1p(rules.margin), rules.bound),
            "far_worse": (rules.far_margin, 1.0),
        }
        self._evidence: dict[Metric, Evidence] = {
            name: METHODS[rules.evidence](*limits[name], rules.level_worse, rules.level_fine)
            for name in rules.metrics
            if name in limits
        }
        self._frechet: Finding | None = None
        self._looks = 0
        self._curves: dict[str, Curve] = {name: Curve() for name in rules.metrics}
        self._override: Override | None = None

    def score(self, candidate: Array, stable: Array, at: float) -> None:
        """Take the errors of both versions on the same rows, (N,) each, NaN where a version failed.

        Raises:
            UsageError: the rules say unpaired.
            DataError: unequally many, or a negative error.
        """
        if self.rules.pairing != "paired":
            raise UsageError("paired errors were given where the rules say unpaired; call `serve` or change the rules.")
        self._take(paired(candidate, stable, self.rules.far), at)
        self._naive.add(np.asarray(candidate, np.float64), np.asarray(stable, np.float64))

    def serve(self, canary: Array, errors: Array, at: float) -> None:
        """Take rows that were served by one version each, in order: whether it was the canary, and its error, (N,).

        Raises:
            UsageError: the rules say paired.
            DataError: unequally many, or a negative error.
        """
        if self.rules.pairing != "unpaired":
            raise UsageError("single errors were given where the rules say paired; call `score` or change the rules.")
        canary, errors = np.asarray(canary, bool), np.asarray(errors, np.float64)
        self._take(self._pairs.add(canary, errors), at)
        self._naive.add(errors[canary], errors[~canary])

    def look(self, look: Look, at: float) -> None:
        """Take a comparison of Fréchet distances; each one is a look, and later ones spend less of the error.

        Raises:
            UsageError: the rules do not judge it.
        """
        if "frechet" not in self.rules.metrics:
            raise UsageError('a Fréchet distance was given and is not judged; add "frechet" to the metrics.')
        self._looks += 1
        margin, known = self.rules.frechet_points, self._frechet
        lower, upper = look.interval(self._looks, self.rules.level_worse, self.rules.level_fine)
        before = known.state if known else "open"
        state = state_of(before == "worse" or lower > margin, before == "fine" or upper < margin)
        self._frechet = Finding(at, look.n, look.difference, lower, upper, margin, None, None, state, None)
        self._curves["frechet"].add(self._frechet)

    def override(self, action: Action, who: str, why: str, at: float) -> None:
        """Record what an operator decided; verdicts say so from now on.

        Raises:
            UsageError: nobody, or no reason, is named.
        """
        if not who or not why:
            raise UsageError("an override was given without who decided it and why; name both.")
        self._override = None
        self._override = Override(action, who, why, at, self.verdict(at).action)

    def verdict(self, at: float) -> Verdict:
        """What is to be done now."""
        if self.rules.judgement == "naive":
            action, reason, needs = self._naively(at)
        else:
            action, reason, needs = self._validly(at)
        override = self._override
        if override is not None:
            action, needs = override.action, None
            reason = f"{override.who} decided so ({override.why}), where the numbers said {override.instead_of}."
        findings = self._findings(at)
        return Verdict(action, reason, needs, self.rules.judgement, at, compared(findings), findings, override)

    def to_json(self) -> dict[str, Any]:
        """Settings, state, and the curves of evidence: what a file holds and `from_json` reads."""
        return {
            "schema": SCHEMA,
            "rules": asdict(self.rules),
            "started": self.started,
            "naive": self._naive.state(),
            "evidence": {name: evidence.state() for name, evidence in self._evidence.items()},
            "frechet": None if self._frechet is None else asdict(self._frechet),
            "looks": self._looks,
            "override": None if self._override is None else asdict(self._override),
            "curves": {name: curve.to_json() for name, curve in self._curves.items()},
        }

    @staticmethod
    def from_json(state: dict[str, Any]) -> Judge:
        """A judge that goes on where another one was when `to_json` was called.

        Rows of an unpaired canary that had no partner yet are forgotten.
        """
        rules = state["rules"]
        judge = Judge(Rules(**{**rules, "metrics": tuple(rules["metrics"])}), state["started"])
        judge._naive.restore(state["naive"])
        for name, evidence in judge._evidence.items():
            evidence.restore(state["evidence"][name])
        judge._frechet = Finding(**state["frechet"]) if state["frechet"] else None
        judge._looks = state["looks"]
        judge._override = Override(**state["override"]) if state["override"] else None
        judge._curves = {name: Curve(**curve) for name, curve in state["curves"].items()}
        return judge

    # ---------------------------------------------------------------------------------------------- the judgement

    def _take(self, values: dict[Metric, Array], at: float) -> None:
        for name, evidence in self._evidence.items():
            if len(values[name]):
                evidence.add(values[name])
                self._curves[name].add(self._finding(evidence, at))

    def _finding(self, evidence: Evidence, at: float) -> Finding:
        now = evidence.standing()
        state = state_of(evidence.worse, evidence.fine)
        leans = now.needs_worse if now.n and now.mean > evidence.margin else now.needs_fine
        return Finding(
            at,
            now.n,
            now.mean if now.n else None,
            now.lower,
            now.upper,
            evidence.margin,
            now.worse,
            now.fine,
            state,
            leans if state == "open" else None,
        )

    def _findings(self, at: float) -> dict[Metric, Finding]:
        found: dict[Metric, Finding] = {}
        for name in self.rules.metrics:
            if name in self._evidence:
                found[name] = self._finding(self._evidence[name], at)
            elif self._frechet is not None:
                found[name] = self._frechet
        return found

    def _validly(self, at: float) -> tuple[Action, str, int | None]:
        found = self._findings(at)
        worse = [name for name in self.rules.metrics if name in found and found[name].state == "worse"]
        if worse:
            reasons = " and ".join(told(name, found[name]) for name in worse)
            return "roll_back", f"The candidate is worse: {reasons}.", None
        n = compared(found)
        if not n and not (self._frechet and self.rules.metrics == ("frechet",)):
            return "hold", "There were no requests to compare.", None
        unseen = [name for name in self.rules.metrics if name not in found]
        if unseen:
            return "hold", f"Nothing is known of {', '.join(unseen)} yet.", None
        still = [finding for finding in found.values() if finding.state == "open"]
        if still or (n < self.rules.least and self._evidence):
            return self._held(still, n)
        left = self.started + self.rules.soak_s - at
        if left > 0:
            return "hold", f"All is well; the candidate soaks for another {left / 3600:.1f} hours.", None
        reasons = ", ".join(told(name, finding) for name, finding in found.items())
        return "promote", f"The candidate is within the margins: {reasons}.", None

    def _held(self, still: list[Finding], n: int) -> tuple[Action, str, int | None]:
        leaning = [one.needs for one in still if one.needs and one.mean is not None and one.mean > one.margin]
        needs = [one.needs for one in still]
        if leaning:  # one metric is enough for a rollback
            more = min(leaning)
        elif any(missing is None for missing in needs):
            return "hold", "The evidence is not enough, and at this pace none is in sight.", None
        else:
            more = max([self.rules.least - n, *(missing for missing in needs if missing)])
        return "hold", f"The evidence is not enough; it needs about {more} more requests.", more

    def _naively(self, at: float) -> tuple[Action, str, int | None]:
        label = "naive judgement, which promises no error rate"
        ratio, n = self._naive.ratio, self._naive.n
        if math.isnan(ratio):
            return "hold", f"There were no requests to compare ({label}).", None
        seen = f"the mean error is {100 * (ratio - 1):+.1f} % over {n} requests ({label})."
        if ratio > 1 + self.rules.margin:
            return "roll_back", f"The candidate is worse: {seen}", None
        if at < self.started + self.rules.soak_s:
            return "hold", f"The candidate soaks; {seen}", None
        return "promote", f"The candidate is within the margin: {seen}", None


def told(name: Metric, finding: Finding) -> str:
    """A finding in words."""
    what, written = WORDS[name]
    mean, lower, upper = (written(value) for value in (finding.mean or 0.0, finding.lower, finding.upper))
    return f"{what} {mean} ({lower} to {upper}, {finding.n} requests)"


def compared(findings: dict[Metric, Finding]) -> int:
    """Requests behind the findings; rows of Fréchet distances are none."""
    return max((finding.n for name, finding in findings.items() if name != "frechet"), default=0)
