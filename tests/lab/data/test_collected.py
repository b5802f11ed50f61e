"""Rows of several slices: kept, pinned by a hash, and drawn by their weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lowerbound.errors import DataError, TamperedError
from lowerbound.lab.data.collected import RECORD, ROWS, Collected, join
from lowerbound.lab.data.load import load_data
from lowerbound.lab.data.rows import InMemory, Subset, WeightedOrder
from lowerbound.model.spec import Context, DataSpec


def rows(count: int, name: str, weight: float = 1.0, context: bool = False) -> Collected:
    return Collected(
        raw=torch.arange(count * 4).reshape(count, 1, 2, 2).to(torch.uint8),
        part=torch.arange(count) % 3,
        slice=torch.zeros(count, dtype=torch.long),
        slices=(name,),
        weight=torch.full((count,), weight, dtype=torch.float64),
        spec=DataSpec((1, 2, 2), 256, 3 if context else 0),
        context=Context(torch.zeros(count, 3), torch.arange(count) % 2 == 0) if context else None,
        about={"since": 0.0},
    )


@pytest.mark.parametrize("context", [False, True])
def test_what_is_kept_is_what_is_loaded(tmp_path: Path, context: bool) -> None:
    whole = join([rows(9, "old", context=context), rows(6, "new", 2.0, context)], {"window": [1, 2]})
    digest = whole.save(tmp_path)
    again = Collected.load(tmp_path, digest)
    assert torch.equal(again.raw, whole.raw)
    assert again.slices == ("old", "new")
    assert again.counts() == {
        "old": {"train": 3, "validation": 3, "test": 3},
        "new": {"train": 2, "validation": 2, "test": 2},
    }
    assert again.about == {"window": [1, 2]}
    data = load_data({"kind": "collected", "path": str(tmp_path), "sha256": digest})
    assert (len(data.train), len(data.validation), len(data.test)) == (5, 5, 5)
    assert data.spec.examples == 5
    assert data.train.name(4) == "new, row 12"
    assert torch.equal(data.test.take(torch.tensor([3])).raw[0], whole.raw[11])
    assert (data.train.take(torch.tensor([0])).context is not None) == context
    assert whole.save(tmp_path / "again") == digest


def test_other_rows_are_refused(tmp_path: Path) -> None:
    digest = rows(9, "old").save(tmp_path)
    table = {"kind": "collected", "path": str(tmp_path), "sha256": digest}
    for file in (ROWS, RECORD):
        content = (tmp_path / file).read_bytes()
        (tmp_path / file).write_bytes(content.replace(b"old", b"odd") if file == RECORD else content[:-1] + b"\x07")
        with pytest.raises(TamperedError, match="not those that were collected"):
            load_data(table)
        (tmp_path / file).write_bytes(content)
    load_data(table)
    (tmp_path / RECORD).unlink()
    with pytest.raises(DataError, match="holds no collected rows"):
        load_data(table)


def test_rows_are_drawn_by_their_weights() -> None:
    weights = torch.tensor([0.0, 1.0, 3.0, 0.0])
    every = InMemory(torch.zeros(4, 1), weights=weights)
    order = every.order(seed=0, batch_size=4)
    assert isinstance(order, WeightedOrder)
    drawn = torch.cat([order.batch(number) for number in range(1000)]).bincount(minlength=4)
    assert drawn[0] == drawn[3] == 0
    # A binomial of 4,000 draws with p = 0.75 has a deviation of 27: a false alarm at 5 deviations is 1 in 3 million.
    assert abs(int(drawn[2]) - 3000) < 137
    assert torch.equal(every.order(0, 4).batch(7), order.batch(7)), "a function of seed and number"
    other = torch.stack([every.order(1, 4).batch(number) for number in range(20)])
    assert not torch.equal(other, torch.stack([order.batch(number) for number in range(20)]))
    some = Subset(every, torch.tensor([1, 3])).order(0, 2)
    assert set(torch.cat([some.batch(number) for number in range(50)]).tolist()) == {0}
