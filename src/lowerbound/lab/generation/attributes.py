"""The direction of an attribute in the space of codes, by two ways."""

from __future__ import annotations

from typing import Literal

import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from lowerbound.lab.generation.directions import codes_of_both, mean_direction
from lowerbound.model.families.family import Family, Latents
from lowerbound.model.spec import Context

Way = Literal["means", "logistic"]


def attribute_direction(
    model: Family,
    having: Tensor,
    lacking: Tensor,
    way: Way = "means",
    context: Context | None = None,
    lacking_context: Context | None = None,
) -> Latents:
    """The step in each continuous group of codes that adds an attribute, (*units) each.

    "means" is the difference of the mean codes, `mean_direction`. "logistic" is the normal of a logistic
    regression's boundary, with the length of that difference along it: it ignores what differs only because it varies
    anyway. In both, strength 1 goes from the middle of those that lack it as far as the middle of those that have it.

    Args:
        model: in evaluation mode.
        having, lacking: raw rows with and without the attribute, (N, *event).
        way: "means" or "logistic".
        context, lacking_context: of these rows, for a conditional model.

    Raises:
        NotSupportedError: all codes of the model are discrete.
        UsageError: an empty set of rows.
    """
    if way == "means":
        return mean_direction(model, having, lacking, context, lacking_context)
    present, absent = codes_of_both(model, having, lacking, context, lacking_context)
    return {name: _normal(code, absent[name]) for name, code in present.items()}


def _normal(having: Tensor, lacking: Tensor) -> Tensor:
    difference = having.mean(dim=0) - lacking.mean(dim=0)
    # One scale for all units: a scale for each would blow up units that carry nothing.
    codes = torch.cat([having, lacking]).flatten(1).double()
    scale = codes.std().clamp_min(1e-6)
    labels = [1] * len(having) + [0] * len(lacking)
    fitted = LogisticRegression(max_iter=1000, class_weight="balanced").fit((codes / scale).numpy(), labels)
    normal = torch.from_numpy(fitted.coef_[0])
    normal = normal / normal.norm().clamp_min(1e-12)
    return ((difference.flatten().double() @ normal) * normal).reshape(difference.shape).to(difference.dtype)
