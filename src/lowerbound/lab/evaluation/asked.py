"""Whether made rows are what was asked for, where attributes can be read off a row."""

from __future__ import annotations

from torch import Tensor

from lowerbound.lab.evaluation.result import Result, mean_result, number


def asked_results(found: Tensor, asked: Tensor) -> dict[str, Result]:
    """Shares of made rows with the attributes that were asked for.

    Args:
        found: attributes of the made rows, (N, K), whole numbers.
        asked: those that their contexts say, (N, K).
    """
    right = (found == asked).double()
    return {
        "asked_share": mean_result(right.amin(dim=1), "estimate"),
        "asked_share_per_attribute": number(right.mean(dim=0), "estimate", len(right)),
    }
