"""Splits: every row once, shares, times, groups and strata."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lowerbound.errors import DataError
from lowerbound.lab.data import splits
from lowerbound.lab.data.splits import Split

COUNT = 1000
VALUES = {
    "time": np.random.default_rng(0).integers(0, 50, COUNT),
    "group": np.random.default_rng(1).integers(0, 60, COUNT),
    "label": np.random.default_rng(2).choice(4, COUNT, p=[0.7, 0.2, 0.08, 0.02]),
    "split": np.array(["train", "validation", "test", "train"] * (COUNT // 4)),
}


def values(name: str) -> NDArray[Any]:
    return VALUES[name]


def every() -> dict[str, Split]:
    return {
        "random": splits.at_random(COUNT, values),
        "order": splits.by_time(COUNT, values),
        "time": splits.by_time(COUNT, values, by="time"),
        "group": splits.by_group(COUNT, values, by="group"),
        "stratum": splits.by_stratum(COUNT, values),
        "given": splits.as_given(COUNT, values),
    }


@pytest.mark.parametrize("kind", list(every()))
def test_every_row_is_in_one_part_and_always_the_same(kind: str) -> None:
    split, again = every()[kind], every()[kind]
    assert torch.equal(torch.cat(list(split.parts().values())).sort().values, torch.arange(COUNT))
    assert all(torch.equal(split.parts()[name], again.parts()[name]) for name in splits.NAMES)
    if kind != "given":
        assert abs(len(split.test) - 100) <= 25
        assert abs(len(split.validation) - 100) <= 25


def test_time_does_not_run_backwards_and_rows_of_one_time_stay_together() -> None:
    split = every()["time"]
    train, validation, test = (VALUES["time"][part] for part in split.parts().values())
    assert train.max() < validation.min()
    assert validation.max() < test.min()


def test_groups_are_whole() -> None:
    parts = [set(VALUES["group"][part].tolist()) for part in every()["group"].parts().values()]
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert not parts[1] & parts[2]


def test_strata_have_the_same_shares_everywhere() -> None:
    split = every()["stratum"]
    for label in range(4):
        share = (VALUES["label"] == label).mean()
        for part in split.parts().values():
            assert abs((VALUES["label"][part] == label).mean() - share) < 0.01


def test_seeds_differ() -> None:
    assert not torch.equal(splits.at_random(COUNT, values).test, splits.at_random(COUNT, values, seed=1).test)


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(DataError, match="leaves none for"):
        splits.at_random(3, values)


def test_unknown_parts_are_refused() -> None:
    with pytest.raises(DataError, match="'later'"):
        splits.as_given(2, lambda name: np.array(["train", "later"]))
