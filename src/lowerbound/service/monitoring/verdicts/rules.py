"""What a canary is held to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from lowerbound.errors import UsageError

Judgement = Literal["anytime-valid", "naive"]
Pairing = Literal["paired", "unpaired"]
Method = Literal["betting", "mixture"]
Metric = Literal["error", "far_worse", "frechet"]


@dataclass(frozen=True)
class Rules:
    """The configuration of a canary; as it stands it is "5 % of the traffic, 24 hours, 2 % worse", judged validly.

    Attributes:
        share: of the keys that the canary serves, in (0, 1].
        soak_s: a candidate is not promoted earlier, seconds; it is rolled back at any time.
        margin: of the reconstruction error, relative: a candidate that is worse by more is rolled back.
        far: a row whose error is larger by this factor counts as far worse; single rows weigh no more in the mean.
        far_margin: surplus of far worse rows over far better ones that is bearable, a share.
        frechet_points: by how much the Fréchet distance may be larger.
        metrics: that are judged; a candidate must hold all of them.
        pairing: "paired" where both versions score the same input, "unpaired" where each has its own.
        wrong: probability of any verdict, ever, on a candidate that is exactly at every margin.
        false_rollback: the part of it that rollbacks have, shared equally by the metrics.
        least: requests before a promotion.
        evidence: "betting", or "mixture", which is faster and holds asymptotically only.
        judgement: "anytime-valid", or "naive": the rule as it is often written, which promises no error rate.
    """

    share: float = 0.05
    soak_s: float = 86400.0
    margin: float = 0.02
    far: float = 1.5
    far_margin: float = 0.02
    frechet_points: float = 2.0
    metrics: tuple[Metric, ...] = ("error", "far_worse")
    pairing: Pairing = "paired"
    wrong: float = 0.05
    false_rollback: float = 0.01
    least: int = 100
    evidence: Method = "betting"
    judgement: Judgement = "anytime-valid"

    def __post_init__(self) -> None:
        for name in ("share", "margin", "far_margin", "wrong", "false_rollback"):
            if not 0 < getattr(self, name) < 1 and (name, self.share) != ("share", 1):
                raise UsageError(f"a canary with {name} = {getattr(self, name)} was given; it must lie in (0, 1).")
        if self.false_rollback >= self.wrong:
            raise UsageError(
                f"false_rollback is {self.false_rollback} and wrong is {self.wrong}; the first is a part of the second."
            )
        if self.far <= 1 + self.margin:
            raise UsageError(f"far is {self.far}; a row is far worse beyond 1 + margin = {1 + self.margin} only.")
        for name, kinds in (("judgement", Judgement), ("pairing", Pairing), ("evidence", Method)):
            if getattr(self, name) not in get_args(kinds):
                raise UsageError(
                    f"a canary with {name} = {getattr(self, name)} was given; choose {' or '.join(get_args(kinds))}."
                )
        if not self.metrics or set(self.metrics) - set(get_args(Metric)):
            raise UsageError(f"metrics are {self.metrics}; choose of {', '.join(get_args(Metric))}.")

    @property
    def level_worse(self) -> float:
        """Probability that one metric ever asks for a false rollback."""
        return self.false_rollback / len(self.metrics)

    @property
    def level_fine(self) -> float:
        """Probability that one metric is ever cleared falsely; all must be, so it is not shared."""
        return self.wrong - self.false_rollback

    @property
    def bound(self) -> float:
        """Where logarithms of ratios of errors are clipped: far out where inputs differ, for these differ by more."""
        return math.log(self.far) if self.pairing == "paired" else math.log(100.0)
