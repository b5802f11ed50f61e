"""Training, validation and test: which rows go where."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from lowerbound.errors import DataError
from lowerbound.kinds import Kinds
from lowerbound.noise import derive_seed, generator

Share = Annotated[float, Field(gt=0, lt=1)]
Values = Callable[[str], NDArray[Any]]  # what each row has under a name: a column, or its label

NAMES = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """Numbers of the rows (int64) of each part; together they are all rows, each once."""

    train: Tensor
    validation: Tensor
    test: Tensor

    def parts(self) -> dict[str, Tensor]:
        """The parts by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


def no_values(name: str) -> NDArray[Any]:
    """For data whose rows have nothing to divide them by."""
    raise DataError(f"these data have nothing called `{name}` to divide rows by; use another kind of split.")


def at_random(count: int, values: Values, *, validation: Share = 0.1, test: Share = 0.1, seed: int = 0) -> Split:
    """Each row by itself, in an order that is a function of the seed.

    Right for rows that are independent of one another; frames of a video, or several rows of one patient, are not.

    Args:
        count: rows in all.
        values: not used.
        validation, test: shares of the rows.
        seed: of the order.
    """
    order = torch.randperm(count, generator=generator(derive_seed(seed, "split")))
    held_out, checked = _whole(count * test), _whole(count * validation)
    return _checked(
        Split(order[held_out + checked :], order[held_out : held_out + checked], order[:held_out]), count, "random"
    )


def by_time(count: int, values: Values, *, by: str = "", validation: Share = 0.1, test: Share = 0.1) -> Split:
    """The earliest rows for training, the next for validation, the latest for testing.

    Rows of one time stay together.

    Args:
        count: rows in all.
        values: the times of the rows.
        by: name of the times; "": rows are in their order already.
        validation, test: shares of the rows.
    """
    times = np.arange(count) if not by else values(by)
    if times.dtype.kind == "f" and np.isnan(times).any():
        raise DataError(f"`{by}` has rows without a time; leave them out, or divide by something else.")
    order = np.argsort(times, kind="stable")
    held_out = count - _whole(count * test)
    checked = held_out - _whole(count * validation)
    sorted_times = times[order]
    cuts = [
        int(np.searchsorted(sorted_times, sorted_times[cut])) if 0 < cut < count else cut for cut in (checked, held_out)
    ]
    parts = [torch.from_numpy(part.astype(np.int64)) for part in np.split(order, cuts)]
    return _checked(Split(*parts), count, "time")


def by_group(
    count: int, values: Values, *, by: str, validation: Share = 0.1, test: Share = 0.1, seed: int = 0
) -> Split:
    """Whole groups: rows that share a value (a patient, a machine) are in one part.

    Args:
        count: rows in all.
        values: the group of each row.
        by: name of the groups.
        validation, test: shares of the rows; reached as nearly as whole groups allow.
        seed: of the order in which groups are dealt.
    """
    _, group, sizes = np.unique(values(by), return_inverse=True, return_counts=True)
    order = torch.randperm(len(sizes), generator=generator(derive_seed(seed, "split"))).numpy()
    part = np.zeros(len(sizes), np.int64)
    left = {2: count * test, 1: count * validation}
    for number in order:
        fitting = [name for name, room in left.items() if room >= sizes[number] / 2]
        if fitting:
            part[number] = fitting[0]
            left[fitting[0]] -= sizes[number]
    return _checked(_from_parts(part[group]), count, "group")


def by_stratum(
    count: int, values: Values, *, by: str = "label", validation: Share = 0.1, test: Share = 0.1, seed: int = 0
) -> Split:
    """At random within each stratum, so that each part has the same shares of them.

    Args:
        count: rows in all.
        values: the stratum of each row.
        by: name of the strata; the labels by default.
        validation, test: shares of the rows of each stratum.
        seed: of the order.
    """
    _, stratum = np.unique(values(by), return_inverse=True)
    order = torch.randperm(count, generator=generator(derive_seed(seed, "split"))).numpy()
    order = order[np.argsort(stratum[order], kind="stable")]
    part = np.zeros(count, np.int64)
    for rows in np.split(order, np.flatnonzero(np.diff(stratum[order])) + 1):
        held_out, checked = _whole(len(rows) * test), _whole(len(rows) * validation)
        part[rows[:held_out]], part[rows[held_out : held_out + checked]] = 2, 1
    return _checked(_from_parts(part), count, "stratum")


def as_given(count: int, values: Values, *, by: str = "split") -> Split:
    """As the data say: each row names its part.

    Args:
        count: rows in all.
        values: "train", "validation" or "test" for each row.
        by: name of these values.
    """
    words = np.char.lower(values(by).astype(str))
    unknown = np.unique(words[~np.isin(words, NAMES)])
    if len(unknown):
        raise DataError(f"`{by}` says {str(unknown[0])!r} of a row; it must say train, validation or test.")
    part = np.zeros(count, np.int64)
    for number, name in enumerate(NAMES):
        part[words == name] = number
    return _checked(_from_parts(part), count, "given")


SPLITS: Kinds = {
    "random": at_random,
    "time": by_time,
    "group": by_group,
    "stratum": by_stratum,
    "given": as_given,
}


def _whole(share: float) -> int:
    """The nearest whole number, halves up."""
    return int(share + 0.5)


def _from_parts(part: NDArray[np.int64]) -> Split:
    return Split(*(torch.from_numpy(np.flatnonzero(part == number)) for number in range(len(NAMES))))


def _checked(split: Split, count: int, kind: str) -> Split:
    for name, rows in split.parts().items():
        if not len(rows):
            raise DataError(
                f"a split of {count:,} rows by {kind!r} leaves none for {name}; give more rows, or other shares."
            )
    return split
