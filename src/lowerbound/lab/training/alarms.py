"""Alarms: what the numbers of a step say is going wrong."""

from __future__ import annotations

from collections.abc import Mapping

USAGE = 0.5
USAGE_AFTER = 10_000  # steps
REACH = 0.25
REACH_AFTER = 500  # steps


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
        if name == "made_reach" and step >= REACH_AFTER and value < REACH:
            found[name] = (
                f"made rows are the neighbours of {value:.0%} as many real rows as they should be ({name}), so the "
                "generator has lost modes: hold the critic's slope (`gradient` or `real-gradient`), let it step more "
                "often or faster, or let it compare rows (`minibatch`)."
            )
    return found
