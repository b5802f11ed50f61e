"""The batch axes of densities as one, for networks that take rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

from torch import Tensor


@overload
def folded(rows: Tensor, batch: Sequence[int], event: int = 1) -> Tensor: ...


@overload
def folded(rows: None, batch: Sequence[int], event: int = 1) -> None: ...


def folded(rows: Tensor | None, batch: Sequence[int], event: int = 1) -> Tensor | None:
    """As many rows as a batch has, (*any, *event) to (N, *event); none where there are none.

    Args:
        rows: whose axes before the event can be expanded to `batch`.
        batch: shape, of N rows.
        event: how many axes a row has.
    """
    if rows is None:
        return None
    own = rows.shape[rows.ndim - event :]
    return rows.expand(*batch, *own).reshape(-1, *own)
