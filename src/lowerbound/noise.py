"""Noise as an argument.

Nothing in lowerbound draws from a hidden generator. Whoever needs randomness is handed a `Noise`, a *pure
function* from a path of names to random numbers: asking twice for the same path gives the same numbers, whatever was
asked in between. So a training step is a function of (seed, step), there is no generator state to save, and
recomputing a step (activation checkpointing, resuming) repeats it to the bit.

`BatchNoise` serves training: it draws for the whole batch of all processes and hands out this process's rows,
so that one process and two see the same numbers. `RowNoise` serves use: each row has its own stream, so that an
answer does not depend on its batch-mates (and costs about 50 times more, which is why training does not use it).
`SameNoise` serves scores: all rows share one stream, so that a score depends on nothing but its row.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import final

import torch
from torch import Tensor

Draw = Callable[[tuple[int, ...], torch.Generator], Tensor]


def derive_seed(*path: int | str) -> int:
    """A 63-bit seed from a path of integers and names (BLAKE2b, so that neighbouring paths are unrelated)."""
    digest = hashlib.blake2b("\x1f".join(map(str, path)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator at `seed` on `device`."""
    return torch.Generator(device=device).manual_seed(seed)


class Noise(ABC):
    """Random numbers for a batch of rows, addressed by name.

    All draws have shape (samples, rows, *event). Derive a named child before drawing
    (`noise.child("z")`): two draws from one address are the same numbers.
    """

    device: torch.device
    dtype: torch.dtype

    @property
    @abstractmethod
    def rows(self) -> int:
        """How many rows a draw has."""

    @property
    def first(self) -> int:
        """Place of the first row among the rows of all processes."""
        return 0

    def all_rows(self) -> Noise:
        """The same noise for the rows of all processes."""
        return self

    @abstractmethod
    def child(self, name: str) -> Noise:
        """The noise at address `name` below this one."""

    @abstractmethod
    def draw(self, draw: Draw, samples: int, event: Sequence[int]) -> Tensor:
        """Numbers of shape (samples, rows, *event) made by `draw(shape, generator)`."""

    def normal(self, samples: int = 1, event: Sequence[int] = ()) -> Tensor:
        """Standard normal numbers, (samples, rows, *event)."""
        return self.draw(
            lambda shape, g: torch.randn(shape, generator=g, device=self.device, dtype=self.dtype),
            samples,
            event,
        )

    def uniform(self, samples: int = 1, event: Sequence[int] = ()) -> Tensor:
        """Uniform numbers in [0, 1), (samples, rows, *event)."""
        return self.draw(
            lambda shape, g: torch.rand(shape, generator=g, device=self.device, dtype=self.dtype),
            samples,
            event,
        )

    def gumbel(self, samples: int = 1, event: Sequence[int] = ()) -> Tensor:
        """Standard Gumbel numbers, -log(-log U), (samples, rows, *event)."""
        tiny = torch.finfo(self.dtype).tiny
        return -torch.log(-torch.log(self.uniform(samples, event).clamp_min(tiny)))


@final
class BatchNoise(Noise):
    """Noise of one training batch: a function of (seed, step, name).

    Args:
        seed: the run's seed.
        step: the number of the batch, so that each has its own numbers.
        total: rows in the batch of all processes together.
        span: this process's rows, `start <= row < stop`; all of them by default.
        device, dtype: where and as what the numbers are made.
    """

    def __init__(
        self,
        seed: int,
        step: int,
        total: int,
        span: tuple[int, int] | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        path: tuple[str, ...] = (),
    ) -> None:
        self.seed, self.step, self.total = seed, step, total
        self.span = (0, total) if span is None else span
        self.device, self.dtype, self.path = torch.device(device), dtype, path

    @property
    def rows(self) -> int:
        return self.span[1] - self.span[0]

    @property
    def first(self) -> int:
        return self.span[0]

    def child(self, name: str) -> BatchNoise:
        return BatchNoise(self.seed, self.step, self.total, self.span, self.device, self.dtype, (*self.path, name))

    def all_rows(self) -> BatchNoise:
        return BatchNoise(self.seed, self.step, self.total, None, self.device, self.dtype, self.path)

    def narrow(self, start: int, length: int) -> BatchNoise:
        """The same noise for `length` of this process's rows from `start` on (a micro-batch)."""
        begin = self.span[0] + start
        return BatchNoise(self.seed, self.step, self.total, (begin, begin + length), self.device, self.dtype, self.path)

    def draw(self, draw: Draw, samples: int, event: Sequence[int]) -> Tensor:
        source = generator(derive_seed(self.seed, self.step, *self.path), self.device)
        everyone = draw((samples, self.total, *event), source)
        return everyone[:, self.span[0] : self.span[1]]


@final
class RowNoise(Noise):
    """Noise with one stream per row: a sample does not depend on its batch-mates.

    Args:
        seeds: one integer per row.
        device, dtype: where and as what the numbers are made.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        path: tuple[str, ...] = (),
    ) -> None:
        self.seeds = tuple(seeds)
        self.device, self.dtype, self.path = torch.device(device), dtype, path

    @property
    def rows(self) -> int:
        return len(self.seeds)

    def child(self, name: str) -> RowNoise:
        return RowNoise(self.seeds, self.device, self.dtype, (*self.path, name))

    def draw(self, draw: Draw, samples: int, event: Sequence[int]) -> Tensor:
        streams = (generator(derive_seed(seed, *self.path), self.device) for seed in self.seeds)
        return torch.stack([draw((samples, *event), stream) for stream in streams], dim=1)


@final
class SameNoise(Noise):
    """The same numbers for every row, so that a score is a function of its row alone, wherever the row stands.

    Args:
        seed: of the numbers.
        rows: how many rows a draw has.
        device, dtype: where and as what the numbers are made.
    """

    def __init__(
        self,
        seed: int,
        rows: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        path: tuple[str, ...] = (),
    ) -> None:
        self.seed, self._rows = seed, rows
        self.device, self.dtype, self.path = torch.device(device), dtype, path

    @property
    def rows(self) -> int:
        return self._rows

    def child(self, name: str) -> SameNoise:
        return SameNoise(self.seed, self._rows, self.device, self.dtype, (*self.path, name))

    def draw(self, draw: Draw, samples: int, event: Sequence[int]) -> Tensor:
        one = draw((samples, 1, *event), generator(derive_seed(self.seed, *self.path), self.device))
        return one.expand(samples, self._rows, *event)


@final
class Scaled(Noise):
    """Another noise whose normal numbers are multiplied by a temperature: it scales sigma when sampling, nothing else.

    Args:
        noise: the noise to scale.
        temperature: 1 changes nothing, less draws nearer to the mean.
    """

    def __init__(self, noise: Noise, temperature: float) -> None:
        self.noise, self.temperature = noise, temperature
        self.device, self.dtype = noise.device, noise.dtype

    @property
    def rows(self) -> int:
        return self.noise.rows

    @property
    def first(self) -> int:
        return self.noise.first

    def all_rows(self) -> Scaled:
        return Scaled(self.noise.all_rows(), self.temperature)

    def child(self, name: str) -> Scaled:
        return Scaled(self.noise.child(name), self.temperature)

    def draw(self, draw: Draw, samples: int, event: Sequence[int]) -> Tensor:
        return self.noise.draw(draw, samples, event)

    def normal(self, samples: int = 1, event: Sequence[int] = ()) -> Tensor:
        return self.temperature * self.noise.normal(samples, event)
