"""What is to be done with a candidate, and why."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from lowerbound.service.monitoring.verdicts.rules import Judgement, Metric

Action = Literal["promote", "hold", "roll_back"]
State = Literal["worse", "fine", "open"]
MOST_POINTS = 200  # of a curve; then every second one goes


@dataclass(frozen=True)
class Finding:
    """One metric at one moment.

    Attributes:
        at: seconds since 1970.
        n: values.
        mean: of them; for `error` the mean logarithm of the ratio of errors; NaN becomes None in JSON.
        lower, upper: limits that hold at all times together.
        margin: that the mean is compared with.
        worse, fine: log evidence that it is above, below the margin; None for the Fréchet distance.
        state: "worse", "fine", or "open".
        needs: values until it is no longer open, about; None if it is not, or if that is out of sight.
    """

    at: float
    n: int
    mean: float | None
    lower: float
    upper: float
    margin: float
    worse: float | None
    fine: float | None
    state: State
    needs: int | None


def state_of(worse: bool, fine: bool) -> State:
    """The state of a metric: worse counts where both were concluded at some time."""
    return "worse" if worse else "fine" if fine else "open"


@dataclass(frozen=True)
class Override:
    """That a person decided otherwise.

    Attributes:
        action: what that person said.
        who, why: as they were given.
        at: seconds since 1970.
        instead_of: what the numbers said then.
    """

    action: Action
    who: str
    why: str
    at: float
    instead_of: Action


@dataclass(frozen=True)
class Verdict:
    """What is to be done; nothing is done here.

    Attributes:
        action: "promote", "hold" or "roll_back".
        reason: in one sentence.
        needs: further requests until a verdict, about; None if there is one, or none is in sight.
        judgement: "anytime-valid" or "naive".
        at: seconds since 1970.
        requests: compared so far.
        findings: by metric.
        override: of an operator, if there was one.
    """

    action: Action
    reason: str
    needs: int | None
    judgement: Judgement
    at: float
    requests: int
    findings: dict[Metric, Finding]
    override: Override | None = None

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


class Curve:
    """The findings of one metric over time, thinned as they become many: the first, the newest, and some between."""

    def __init__(self, points: list[dict[str, Any]] | None = None, every: int = 1, seen: int = 0) -> None:
        self._points, self._every, self._seen = points or [], every, seen

    def add(self, finding: Finding) -> None:
        """Take the finding of one look; a second one of as many values takes its place."""
        if self._points and self._points[-1]["n"] == finding.n:
            self._points[-1] = {**vars(finding)}
            return
        if self._seen % self._every and len(self._points) > 1:
            self._points[-1] = {**vars(finding)}  # only the newest of those between
        else:
            self._points.append({**vars(finding)})
        self._seen += 1
        if len(self._points) > MOST_POINTS:
            self._points = [*self._points[:-1:2], self._points[-1]]
            self._every *= 2

    def to_json(self) -> dict[str, Any]:
        """As JSON; `points` are findings, oldest first."""
        return {"points": [*self._points], "every": self._every, "seen": self._seen}
