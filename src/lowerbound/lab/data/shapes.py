"""Coloured shapes with captions: pictures whose shape, colour, place and size a text says, generated."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lowerbound.kinds import Part
from lowerbound.lab.data.captions import Reading, Words, split_words
from lowerbound.lab.data.rows import Dataset, InMemory
from lowerbound.lab.data.splits import NAMES
from lowerbound.model.spec import Count, DataSpec
from lowerbound.noise import derive_seed

Array = NDArray[np.float64]

# Each attribute with its values, and what a caption may call a value; the first is the usual name.
SHAPES = {"circle": ("circle", "disc"), "square": ("square", "box"), "triangle": ("triangle",), "cross": ("cross",)}
COLOURS = {"red": (230, 40, 40), "green": (40, 190, 60), "blue": (60, 80, 240), "yellow": (240, 210, 40)}
PLACES = {
    "left": ("at the left", "on the left side"),
    "right": ("at the right", "on the right side"),
    "top": ("at the top", "in the upper part"),
    "bottom": ("at the bottom", "in the lower part"),
    "middle": ("in the middle", "in the centre"),
}
SIZES = {"small": ("small", "little"), "large": ("large", "big")}
ATTRIBUTES = {"shape": tuple(SHAPES), "colour": tuple(COLOURS), "place": tuple(PLACES), "size": tuple(SIZES)}

SIZED = (
    "a {size} {colour} {shape} {place}",
    "{place} there is a {size} {colour} {shape}",
    "a {shape} {place} that is {size} and {colour}",
    "one {colour} {shape} {place}, and it is {size}",
)
UNSIZED = ("a {colour} {shape} {place}", "{place} there is a {colour} {shape}", "a {shape} {place} that is {colour}")
SAID = 3  # attributes that every caption says
UNSAID = 0.3  # share of captions that do not say the size
LONGEST = 12  # words

FINE = 4  # points along a pixel's side
CENTRES = {"left": (0, -1), "right": (0, 1), "top": (-1, 0), "bottom": (1, 0), "middle": (0, 0)}
AWAY, RADII = 0.27, {"small": 0.15, "large": 0.21}  # shares of the picture's side
ASIDE, WIDER = 0.03, 0.08  # how far a centre lies from its place, at most, and by what share a radius differs
DARKEST = 0.85  # of a colour


def captioned_shapes(
    data_dir: Path | None,
    *,
    count: Count = 4000,
    size: Count = 16,
    context: Literal["none", "text"] = "text",
    text: Part[Reading] = Part(Words),
    seed: int = 0,
) -> Dataset:
    """Pictures (3, size, size) of one shape on black with 256 levels; a tenth each is held out.

    Shape, colour, place and size of each are its labels, in this order. Its exact place, radius and brightness are not
    said by its caption, and a part of the captions does not say the size.

    Args:
        data_dir: not used; the data are generated.
        count: rows of training; a tenth of it each for validation and testing.
        size: side of a picture, pixels.
        context: "text" makes models conditional on the caption.
        text: how captions become contexts.
        seed: of attributes, positions and wordings.
    """
    reading = text(vocabulary(), LONGEST)
    parts = {}
    for name in NAMES:
        number = count if name == "train" else max(1, count // 10)
        random = np.random.default_rng(derive_seed(seed, "captioned-shapes", name))
        labels = np.stack([random.integers(0, len(values), number) for values in ATTRIBUTES.values()], axis=1)
        raw = torch.from_numpy(draw(labels, *_chance(number, random), size))
        captions = [caption(row, random) for row in labels]
        known = reading.read(captions) if context == "text" else None
        parts[name] = InMemory(raw, known, torch.from_numpy(labels), names=_call(name, captions))
    first = parts["train"].context
    width = 0 if first is None else first.vector.shape[1]
    words = () if first is None else reading.words
    spec = DataSpec((3, size, size), 256, width, count, words=words, contexts="texts")
    read = read_attributes if context == "text" else None
    return Dataset("captioned-shapes", spec, parts["train"], parts["validation"], parts["test"], read=read)


def vocabulary() -> tuple[str, ...]:
    """All words that a caption may have, none first."""
    wordings = (wording.format(size="", colour="", shape="", place="") for wording in (*SIZED, *UNSIZED))
    phrases = [*wordings, *COLOURS, *itertools.chain(*SHAPES.values(), *PLACES.values(), *SIZES.values())]
    return ("", *sorted({word for phrase in phrases for word in split_words(phrase)}))


def caption(labels: Sequence[int] | NDArray[np.int64], random: np.random.Generator) -> str:
    """One of the wordings for a row's attributes."""
    shape, colour, place, size = (values[label] for values, label in zip(ATTRIBUTES.values(), labels, strict=True))
    wordings = UNSIZED if random.random() < UNSAID else SIZED
    wording = wordings[random.integers(len(wordings))]
    called = {"shape": SHAPES[shape], "place": PLACES[place], "size": SIZES[size], "colour": (colour,)}
    return wording.format_map({name: names[random.integers(len(names))] for name, names in called.items()})


def draw(labels: NDArray[np.int64], aside: Array, wider: Array, bright: Array, size: int) -> NDArray[np.uint8]:
    """Pictures (N, 3, size, size) of attributes (N, 4).

    Args:
        labels: shape, colour, place and size.
        aside: (N, 2), down and right, shares of the side.
        wider: (N,), share of the radius.
        bright: (N,), of the colour.
        size: side, pixels.
    """
    centres = 0.5 + AWAY * np.array(list(CENTRES.values()), dtype=float)[labels[:, 2]] + aside
    radii = np.array(list(RADII.values()))[labels[:, 3]] * (1 + wider)
    line = (np.arange(size * FINE) + 0.5) / (size * FINE)
    down = ((line[None] - centres[:, :1]) / radii[:, None])[:, :, None]
    right = ((line[None] - centres[:, 1:]) / radii[:, None])[:, None, :]
    inside = np.zeros((len(labels), len(line), len(line)), dtype=bool)
    for number, name in enumerate(SHAPES):
        chosen = labels[:, 0] == number
        inside[chosen] = _inside(name, down[chosen], right[chosen])
    cover = inside.reshape(len(labels), size, FINE, size, FINE).mean(axis=(2, 4))
    colours = np.array(list(COLOURS.values()), dtype=float)[labels[:, 1]] * bright[:, None]
    return np.rint(colours[:, :, None, None] * cover[:, None]).astype(np.uint8)


def read_attributes(rows: Tensor) -> Tensor:
    """Shape, colour and place (N, 3) of pictures (N, 3, H, W) in levels: those of the nearest of many drawn ones."""
    size = rows.shape[-1]
    kinds = np.array(list(itertools.product(*(range(len(values)) for values in ATTRIBUTES.values()))))
    steps = (-ASIDE, 0.0, ASIDE)
    variants = [(down, right, wider) for down in steps for right in steps for wider in (-WIDER / 2, WIDER / 2)]
    templates, labels = [], []
    for down, right, wider in variants:
        one = np.ones(len(kinds))
        drawn = draw(kinds, np.stack([down * one, right * one], axis=1), wider * one, 0.925 * one, size)
        templates.append(torch.from_numpy(drawn).flatten(1).float())
        labels.append(torch.from_numpy(kinds))
    every, known = torch.cat(templates), torch.cat(labels)
    chunks = [torch.cdist(part, every).argmin(dim=1) for part in rows.float().flatten(1).split(256)]
    return known[torch.cat(chunks)][:, :SAID]


def _inside(shape: str, down: Array, right: Array) -> NDArray[np.bool_]:
    """Where points lie in a shape of radius 1 around (0, 0)."""
    if shape == "circle":
        return down**2 + right**2 <= 1
    if shape == "square":
        return np.maximum(np.abs(down), np.abs(right)) <= 0.9
    if shape == "triangle":
        return (np.abs(right) <= (down + 1) / 1.7) & (down <= 0.8)
    return (np.minimum(np.abs(down), np.abs(right)) <= 0.3) & (np.maximum(np.abs(down), np.abs(right)) <= 1)


def _chance(number: int, random: np.random.Generator) -> tuple[Array, Array, Array]:
    """What a caption does not say of each picture: how far aside, how much wider and how bright it is."""
    aside = random.uniform(-ASIDE, ASIDE, (number, 2))
    return aside, random.uniform(-WIDER, WIDER, number), random.uniform(DARKEST, 1.0, number)


def _call(name: str, captions: list[str]) -> Callable[[int], str]:
    return lambda row: f"{name} row {row} ({captions[row]})"
