"""How requests are looked at."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from lowerbound.errors import UsageError
from lowerbound.service.monitoring.drift.budget import MONTH_HOURS, Budget

Span = tuple[float, float]
MONTH_S = 3600.0 * MONTH_HOURS
BUDGET = re.compile(r"([0-9.]+)(?:/month)?")
AGO = re.compile(r"([0-9.]+)([smhdw])")
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


@dataclass(frozen=True)
class Looking:
    """How requests are looked at.

    Attributes:
        window: requests of a look.
        false_alarms: a month, of all that is asked together.
        looks: a month, at most.
        alias: whose requests.
        reference: "auto" takes the span of telemetry that was adopted for these codes; else the rows that the version
            was registered with, where they are enough; else the first requests of its codes. "version" takes only those
            rows.
        seed: of the draws.
    """

    window: int = 1000
    false_alarms: float = 2.0
    looks: float = float(MONTH_HOURS)
    alias: str = "stable"
    reference: Literal["auto", "version"] = "auto"
    seed: int = 0

    @property
    def budget(self) -> Budget:
        """Of false alarms."""
        return Budget(self.false_alarms, self.looks)

    @property
    def apart_s(self) -> float:
        """Seconds between two looks, at least."""
        return MONTH_S / self.looks


def read_budget(text: str) -> float:
    """False alarms a month, from `2/month` or `2`.

    Raises:
        UsageError: it is neither.
    """
    found = BUDGET.fullmatch(text.strip())
    if found is None or text.count(".") > 1:
        raise UsageError(f"the budget {text} was given; write how many false alarms a month, such as 2/month.")
    return float(found[1])


def read_moment(text: str, now: float) -> float:
    """Seconds since 1970, from a time (ISO 8601, UTC without a zone), @SECONDS, a time ago (5m, 24h, 7d) or `now`.

    Raises:
        UsageError: it is neither.
    """
    if text == "now":
        return now
    if text.startswith("@") and text[1:].replace(".", "", 1).isdigit():
        return float(text[1:])
    if ago := AGO.fullmatch(text):
        return now - float(ago[1]) * SECONDS[ago[2]]
    try:
        given = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{text} is no time; write 2026-11-21T14:30, a time ago such as 24h or 7d, or @ and seconds since 1970."
        ) from None
    return (given if given.tzinfo else given.replace(tzinfo=UTC)).timestamp()


def read_span(text: str, now: float) -> Span:
    """Two times, from SINCE/UNTIL.

    Raises:
        UsageError: they are none.
    """
    since, _, until = text.partition("/")
    if not until:
        raise UsageError(f"the span {text} was given; write two times with a stroke between, such as 14d/7d.")
    return read_moment(since, now), read_moment(until, now)
