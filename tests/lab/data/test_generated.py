"""Generated data: dSprites against its published frames, and Moving MNIST."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from lowerbound.errors import RecipeError
from lowerbound.lab.data.dsprites import TOTAL, draw, factors_of
from lowerbound.lab.data.load import load_data

REAL = os.environ.get("LOWERBOUND_DATA")
SQUARE, ELLIPSE, HEART = 0, 1, 2


def published(shape: int) -> list[list[int]]:
    """Factors of a shape's published frames: it grows, shrinks and grows, turns, the heart goes round, and shrinks."""
    found = [[shape, scale, 0, 0, 0] for scale in (*range(6), *reversed(range(6)), *range(6))]
    found += [[shape, 5, turn, 0, 0] for turn in range(40)]
    if shape == HEART:
        found += [[shape, 5, 39, 0, y] for y in range(32)] + [[shape, 5, 39, x, 31] for x in range(32)]
        found += [[shape, 5, 39, 31, y] for y in reversed(range(32))]
        found += [[shape, 5, 39, x, 0] for x in reversed(range(32))]
    return found + [[shape, scale, 39, 0, 0] for scale in reversed(range(6))]


@pytest.mark.real
@pytest.mark.skipif(REAL is None, reason="LOWERBOUND_DATA names no folder")
def test_sprites_are_those_that_were_published() -> None:
    """At most 20 of the 4,096 pixels of a picture differ; of a shape's white pixels 4.5, 2.5 and 0.5 % on average."""
    assert REAL is not None
    with Image.open(Path(REAL) / "dsprites_reference" / "dsprites.gif") as picture:
        frames = np.stack([np.asarray(frame.convert("L")) > 127 for frame in ImageSequence.Iterator(picture)])
    start = 0
    for shape, share in ((HEART, 0.045), (ELLIPSE, 0.025), (SQUARE, 0.005)):
        factors = published(shape)
        expected = frames[start : start + len(factors)]
        different = (draw(torch.tensor(factors))[:, 0].numpy().astype(bool) != expected).sum(axis=(1, 2))
        assert different.max() <= 20, shape
        assert different.sum() / expected.sum() <= share, shape
        start += len(factors)
    assert start == len(frames)


def test_the_published_order_of_pictures() -> None:
    assert factors_of(torch.tensor([0, 1, 32, 1024, 40 * 1024, TOTAL // 3, TOTAL - 1])).tolist() == [
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 1],
        [0, 0, 0, 1, 0],
        [0, 0, 1, 0, 0],
        [0, 1, 0, 0, 0],
        [1, 0, 0, 0, 0],
        [2, 5, 39, 31, 31],
    ]


@pytest.mark.parametrize("size", [64, 32])
def test_sprites_move_and_grow_by_their_factors(size: int) -> None:
    corners = torch.tensor([[shape, 5, 7, x, y] for shape in range(3) for x in (0, 31) for y in (0, 31)])
    pictures = draw(corners, size)[:, 0].double()
    assert pictures.shape == (12, size, size)
    assert set(pictures.unique().tolist()) == {0, 1}
    weight = pictures.sum((1, 2))
    place = torch.arange(size) + 0.5
    x = (pictures.sum(1) * place).sum(1) / weight
    y = (pictures.sum(2) * place).sum(1) / weight
    for first in range(0, 12, 4):
        moved = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]]) * size / 2
        assert torch.allclose(x[first : first + 4] - x[first], moved[:, 0].double(), atol=0.3)
        assert torch.allclose(y[first : first + 4] - y[first], moved[:, 1].double(), atol=0.3)
    sizes = draw(torch.tensor([[0, scale, 0, 0, 0] for scale in range(6)]), 64).sum((1, 2, 3))
    assert sizes.tolist() == [100, 144, 196, 256, 324, 400]


def test_a_choice_of_sprites() -> None:
    data = load_data({"kind": "dsprites", "count": 200, "size": 32})
    assert data.spec.event == (1, 32, 32)
    assert data.spec.levels == 2
    assert (len(data.train), len(data.validation), len(data.test)) == (160, 20, 20)
    assert data.test.labels is not None
    assert data.test.labels.shape == (20, 5)
    assert torch.equal(data.test.take(torch.arange(20)).raw, draw(data.test.labels, 32))
    by_shape = load_data({"kind": "dsprites", "count": 200, "split": {"kind": "stratum", "by": "shape"}})
    assert by_shape.test.labels is not None
    with pytest.raises(RecipeError, match="737,280"):
        load_data({"kind": "dsprites", "count": 10**6})


def test_digits_move_straight_and_bounce() -> None:
    table = {"kind": "moving-mnist", "count": 20, "frames": 12, "digits": 1}
    data = load_data(table)
    assert data.spec.event == (1, 12, 64, 64)
    assert (len(data.train), len(data.validation), len(data.test)) == (20, 2, 2)
    clips = data.train.take(torch.arange(20)).raw
    assert torch.equal(clips, load_data(table).train.take(torch.arange(20)).raw)
    assert not torch.equal(clips, load_data({**table, "seed": 1}).train.take(torch.arange(20)).raw)
    weight = clips.double().sum((-1, -2))
    assert torch.allclose(weight, weight[:, :, :1].expand_as(weight))  # a digit stays whole
    place = torch.arange(64).double()
    x = (clips.double().sum(-2) * place).sum(-1) / weight
    y = (clips.double().sum(-1) * place).sum(-1) / weight
    steps = torch.stack([x, y], -1)[:, 0].diff(dim=1).norm(dim=-1)
    assert float(steps.max()) < 3.6 + 1.5  # a tenth of the free 36 pixels, and whole pixels
    assert float(steps.mean()) > 2.5


def test_clips_need_room() -> None:
    with pytest.raises(RecipeError, match="28 pixels"):
        load_data({"kind": "moving-mnist", "size": 28})


@pytest.mark.real
@pytest.mark.skipif(REAL is None, reason="LOWERBOUND_DATA names no folder")
def test_clips_of_mnist() -> None:
    data = load_data({"kind": "moving-mnist", "count": 10})
    assert data.source is not None
    assert data.source.name == "mnist"
