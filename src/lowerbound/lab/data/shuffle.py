"""Shuffles that need no list of all rows: pure functions of a seed."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lowerbound.noise import derive_seed

ROUNDS = 8


def permuted(place: Tensor, count: int, *seed: int | str) -> Tensor:
    """Where a pseudo-random permutation of 0 ... count - 1 sends some places, without writing it down.

    A Feistel network permutes the numbers of an even number of bits (Luby & Rackoff 1988); what leaves the range is
    sent through it again until it is inside, which gives a permutation of the range (Black & Rogaway 2002).

    Args:
        place: (B,) of integers from 0 to count - 1.
        count: how many there are.
        seed: path of the permutation's seed.
    """
    half = np.uint64(max(1, -(-max(count - 1, 1).bit_length() // 2)))
    keys = np.array([derive_seed(*seed, number) for number in range(ROUNDS)], np.uint64)
    value = _feistel(place.numpy().astype(np.uint64), half, keys)
    while (outside := value >= np.uint64(count)).any():
        value[outside] = _feistel(value[outside], half, keys)
    return torch.from_numpy(value.astype(np.int64))


def _feistel(value: NDArray[np.uint64], half: np.uint64, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = value >> half, value & mask
    for key in keys:
        left, right = right, left ^ (_mixed(right, key) & mask)
    return (left << half) | right


def _mixed(value: NDArray[np.uint64], key: np.uint64) -> NDArray[np.uint64]:
    """A well-mixed number of each value (the finaliser of SplitMix64)."""
    mixed = value ^ key
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def nearby(place: Tensor, count: int, block: int, window: int, *seed: int | str) -> Tensor:
    """Where a permutation sends some places that keeps what is read at one time near together on the disk.

    Blocks of neighbouring rows are shuffled, and the rows of each `window` blocks that then follow one another.

    Args:
        place: (B,) of integers from 0 to count - 1.
        count: rows in all.
        block: rows in a block.
        window: blocks whose rows are mixed.
        seed: path of the permutation's seed.
    """
    blocks = count // block
    mixed = blocks * block  # the rows after the last whole block stay at the end, among themselves
    span = block * window
    result = torch.empty_like(place)
    tail = place >= mixed
    result[tail] = mixed + permuted(place[tail] - mixed, count - mixed, *seed, "tail") if bool(tail.any()) else 0
    for number in torch.unique(place[~tail] // span).tolist():
        here = ~tail & (place // span == number)
        size = min(span, mixed - number * span)
        inside = permuted(place[here] - number * span, size, *seed, "window", number)
        of_block = permuted(number * window + inside // block, blocks, *seed, "blocks")
        result[here] = of_block * block + inside % block
    return result
