"""Alarms: what the numbers of a step say is going wrong."""

from __future__ import annotations

from collections.abc import Mapping

USAGE = 0.5
USAGE_AFTER = 10_000  # steps


def alarms(step: int, numbers: Mapping[str, float]) -> dict[str, str]:
    """A sentence for each number that is not as it should be, by its name.

    Args:
        step: steps taken.
        numbers: of a row of the journal.
    """
    found = {}
    for name, value in numbers.items():
        if name.startswith("codebook_usage") and step >= USAGE_AFTER and value < USAGE:
            found[name] = (
                f"{value:.0%} of the codes are in use ({name}): choose a quantiser with a k-means start and `restart` "
                "above 0, fewer codes, or `fsq`."
            )
    return found
