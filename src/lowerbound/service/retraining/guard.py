"""The forgetting guard: on every slice, is the candidate no worse than what it replaces, by more than a margin?

It asks of each slice whether mean(candidate) < (1 + margin) mean(baseline), by a one-sided paired t-test of the rows'
candidate - (1 + margin) baseline. A candidate passes only if every test of every slice does (an intersection-union
test, Berger 1982): each may then be held at the whole level, and a candidate that is worse by the margin on any one
slice passes with at most that probability. Which slices were forgotten is claimed with Holm's correction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t

from lowerbound.errors import DataError

Array = NDArray[Any]
POWER = 0.9  # that the number of rows which a slice needs is for
LARGEST = 1e9  # relative change that stands for all larger ones: JSON has no infinity
FEWEST = 20  # rows, for which means are near enough to normal


@dataclass(frozen=True)
class Scores:
    """One number per row of a slice, by two models; smaller is better, and 0 is the least there is.

    Attributes:
        slice: name of the slice.
        metric: name of the number.
        against: what the candidate is compared with.
        baseline, candidate: (N,), of the same rows.
    """

    slice: str
    metric: str
    against: str
    baseline: Array
    candidate: Array


@dataclass(frozen=True)
class Finding:
    """What one comparison says.

    Attributes:
        slice, metric, against: of what.
        rows: how many.
        baseline, candidate: means.
        change: relative, of the means; positive is worse.
        limit: the most it is, with one minus the level.
        p_kept: of the data, were the candidate worse by the margin; small: it is not.
        p_forgotten: of the data, were it not worse by more than the margin, after Holm's correction.
        verdict: "kept" (no worse than the margin), "forgotten" (worse than the margin), or "undecided".
        needed: rows with which nine of ten equal candidates are found kept, at the spread of these.
    """

    slice: str
    metric: str
    against: str
    rows: int
    baseline: float
    candidate: float
    change: float
    limit: float
    p_kept: float
    p_forgotten: float
    verdict: Literal["kept", "forgotten", "undecided"]
    needed: int

    def sentence(self) -> str:
        """What was found, for a person."""
        found = f"{self.metric} on {self.slice} {self.change:+.1%} against {self.against} ({self.rows:,} rows"
        if self.verdict == "undecided" and self.rows < self.needed:
            return f"{found}, and about {self.needed:,} are needed to tell)"
        return f"{found}, at most {self.limit:+.1%})"


@dataclass(frozen=True)
class Judgement:
    """What the guard says of a candidate.

    Attributes:
        passed: whether every finding is "kept".
        margin, level: of the tests.
        findings: one of each comparison.
    """

    passed: bool
    margin: float
    level: float
    findings: tuple[Finding, ...]

    def sentence(self) -> str:
        """Why a candidate is refused, or that it passed."""
        for verdict, words in (("forgotten", "the candidate forgot"), ("undecided", "it was not shown that it kept")):
            found = [finding for finding in self.findings if finding.verdict == verdict]
            if found:
                worst = sorted(found, key=lambda finding: -finding.change)
                more = f" and {len(found) - 3} more" if len(found) > 3 else ""
                return f"{words}: {'; '.join(each.sentence() for each in worst[:3])}{more}"
        return f"all {len(self.findings)} comparisons are within {self.margin:.1%}"

    def json(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self), "error_rates": error_rates(self.level), "sentence": self.sentence()}


def error_rates(level: float) -> dict[str, str]:
    """What the level promises, in words."""
    return {
        "passed": f"a candidate that is worse by the margin on any one slice passes with at most {level:.1%}",
        "forgotten": f"a slice that is within the margin is called forgotten with at most {level:.1%}, for all slices",
    }


def judge(scores: Sequence[Scores], margin: float = 0.02, level: float = 0.05) -> Judgement:
    """Judge a candidate by the rows of every slice.

    Args:
        scores: of each slice, metric and baseline.
        margin: relative, that means may be worse by.
        level: probability of passing, with a slice that is worse by the margin.

    Raises:
        DataError: there is nothing to judge by, a number is not finite, or a slice has fewer than 20 rows.
    """
    if not scores:
        raise DataError("there is no slice to judge a candidate by; give held-out rows.")
    for each in scores:
        _check(each)
    tests = [paired_p_values(each.baseline, each.candidate, margin) for each in scores]
    forgotten = _holm(np.array([p_worse for _, p_worse in tests]))
    findings = tuple(
        _finding(each, float(p_kept), float(p_worse), margin, level)
        for each, (p_kept, _), p_worse in zip(scores, tests, forgotten, strict=True)
    )
    return Judgement(all(finding.verdict == "kept" for finding in findings), margin, level, findings)


def paired_p_values(baseline: Array, candidate: Array, margin: float) -> tuple[Array, Array]:
    """For streams (..., N): p-values of "worse by the margin or more" and of "not worse by more than it"."""
    difference = candidate - (1 + margin) * baseline
    rows = difference.shape[-1]
    mean, error = difference.mean(axis=-1), difference.std(axis=-1, ddof=1) / math.sqrt(rows)
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = np.where(error > 0, mean / error, np.where(mean > 0, np.inf, -np.inf))
    return t.cdf(statistic, rows - 1), t.sf(statistic, rows - 1)


def _check(scores: Scores) -> None:
    if not (np.isfinite(scores.baseline).all() and np.isfinite(scores.candidate).all()):
        raise DataError(
            f"the {scores.metric} of a row of {scores.slice} is not a finite number; see `lowerbound doctor`."
        )
    if len(scores.baseline) < FEWEST:
        raise DataError(
            f"{scores.slice} has {len(scores.baseline)} rows, and at least {FEWEST} are needed; hold more rows out."
        )


def _upper(baseline: Array, candidate: Array, level: float) -> float:
    """The least margin for which the candidate is kept at a level (Fieller's limit)."""
    rows, quantile = len(baseline), t.ppf(1 - level, len(baseline) - 1)
    if baseline.mean() <= 0:
        return math.inf if candidate.mean() > 0 else 0.0
    cov = np.cov(candidate, baseline) / rows
    a = baseline.mean() ** 2 - quantile**2 * cov[1, 1]
    b = candidate.mean() * baseline.mean() - quantile**2 * cov[0, 1]
    c = candidate.mean() ** 2 - quantile**2 * cov[0, 0]
    if a <= 0:
        return math.inf
    return float((b + math.sqrt(max(0.0, b * b - a * c))) / a - 1)


def _holm(p_values: Array) -> Array:
    """P-values corrected by Holm's step-down procedure (1979)."""
    order = np.argsort(p_values)
    scaled = np.maximum.accumulate(p_values[order] * (len(p_values) - np.arange(len(p_values))))
    found = np.empty_like(p_values)
    found[order] = np.minimum(scaled, 1.0)
    return found


def _finding(scores: Scores, p_kept: float, p_worse: float, margin: float, level: float) -> Finding:
    baseline, candidate = float(scores.baseline.mean()), float(scores.candidate.mean())
    verdict: Literal["kept", "forgotten", "undecided"] = "undecided"
    if p_kept <= level:
        verdict = "kept"
    elif p_worse <= level:
        verdict = "forgotten"
    spread = float(np.std(scores.candidate - (1 + margin) * scores.baseline, ddof=1))
    each = (norm.ppf(1 - level) + norm.ppf(POWER)) * spread
    needed = math.ceil((each / (margin * baseline)) ** 2) if baseline > 0 and margin > 0 else 0
    change = candidate / baseline - 1 if baseline > 0 else (0.0 if candidate == 0 else LARGEST)
    return Finding(
        scores.slice,
        scores.metric,
        scores.against,
        len(scores.baseline),
        baseline,
        candidate,
        change,
        min(_upper(scores.baseline, scores.candidate, level), LARGEST),
        p_kept,
        p_worse,
        verdict,
        max(needed, FEWEST),
    )
