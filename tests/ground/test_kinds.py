"""From a table to a part: what a constructor's signature says is what a recipe may say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pytest

from lowerbound.errors import RecipeError
from lowerbound.kinds import Part, resolve
from lowerbound.model.spec import Count, Positive


class Wheel:
    """A part that needs a shape."""

    def __init__(self, shape: int, *, spokes: Count = 8, radius: Positive) -> None:
        self.shape, self.spokes, self.radius = shape, spokes, radius


class Bell:
    """A part that needs no shape."""

    def __init__(self, *, tone: Literal["high", "low"] = "high") -> None:
        self.tone = tone


class Constant(Bell):
    """What a plain value stands for."""

    def __init__(self, *, value: float) -> None:
        self.value = value


def cart(*, wheel: Part[Wheel] = Part(Wheel, radius=1.0), bell: Bell, loads: Sequence[Count] = ()) -> object:
    """An assembly."""
    return wheel(3), bell, loads


KINDS = {"cart": cart}
GROUPS = {Wheel: {"wheel": Wheel}, Bell: {"bell": Bell, "constant": Constant}}


def made(**table: object) -> tuple[Wheel, Bell, Sequence[int]]:
    make, settings = resolve({"kind": "cart", **table}, KINDS, "cart", GROUPS)
    return make(**settings)


def test_parts_wait_for_their_shapes() -> None:
    wheel, bell, loads = made(wheel={"kind": "wheel", "radius": 2, "spokes": 3}, bell={"kind": "bell"}, loads=[1, 2])
    assert (wheel.shape, wheel.spokes, wheel.radius) == (3, 3, 2.0)
    assert bell.tone == "high"
    assert list(loads) == [1, 2]


def test_a_plain_value_stands_for_a_constant() -> None:
    _, bell, _ = made(bell=0.5)
    assert isinstance(bell, Constant)
    assert bell.value == 0.5


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({}, r"cart \(cart\) needs a setting `bell`"),
        ({"bell": {"kind": "bell"}, "whel": 3}, "has no setting `whel`; did you mean `wheel`?"),
        ({"bell": {"kind": "gong"}}, "`cart.bell.kind` is 'gong', which does not exist"),
        ({"bell": {"kind": "bell", "tone": "flat"}}, "`cart.bell.tone`: input should be 'high' or 'low', but \"flat\""),
        ({"bell": {"tone": "low"}}, "`cart.bell` must be a table with a `kind`: bell, constant"),
        ({"bell": float("inf")}, "`cart.bell.value`: input should be a finite number"),
        ({"bell": 1, "wheel": {"kind": "wheel"}}, r"cart.wheel \(wheel\) needs a setting `radius`"),
        ({"bell": 1, "wheel": {"kind": "wheel", "radius": 1, "shape": 3}}, "has no setting `shape`"),
        ({"bell": 1, "wheel": {"kind": "wheel", "radius": 1, "spokes": True}}, "`cart.wheel.spokes`.*integer"),
        ({"bell": 1, "wheel": "wheel"}, "`cart.wheel` must be a table"),
        ({"bell": 1, "loads": [1, 0]}, r"`cart.loads.1`: input should be greater than 0, but 0 was given\."),
        ({"bell": 1, "loads": 3}, "`cart.loads`: input should be a list, but 3 was given"),
    ],
)
def test_a_wrong_table_is_refused_with_its_place(table: dict[str, object], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        made(**table)


@pytest.mark.parametrize("table", [None, 3, "cart", [], {}, {"kind": 3}, {"kind": ["cart"]}])
def test_what_is_no_table_with_a_kind_is_refused(table: object) -> None:
    with pytest.raises(RecipeError, match="`cart` must be a table with a `kind`: cart"):
        resolve(table, KINDS, "cart", GROUPS)
