"""From raw rows to x and back: the only scaling, dequantising and binarising there is."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn

from lowerbound.errors import DataError, ShapeError
from lowerbound.model.spec import Column, DataSpec, Shape
from lowerbound.noise import Noise

Scaling = Literal["none", "standard"]


class Preparation(nn.Module, ABC):
    """How raw rows become the x that a density describes, and what an encoder sees of x.

    Args:
        data: facts about the data.

    Attributes:
        inputs_shape: shape of what an encoder sees of one row.
        vocabulary: number of token kinds where an encoder sees integers; None where it sees real numbers.
        learns: whether `fit` has anything to learn.
    """

    learns = False

    def __init__(self, data: DataSpec) -> None:
        super().__init__()
        self.inputs_shape: Shape = data.event
        self.vocabulary: int | None = None

    def fit(self, raw: Tensor) -> None:
        """Learn scales from raw training rows (N, *event), once, before training; they are kept with the weights."""

    def check(self, raw: Tensor) -> None:
        """Refuse raw rows with values that have no x here. Missing values are not looked for.

        Raises:
            DataError: there are such values.
        """

    def inputs(self, x: Tensor) -> Tensor:
        """What an encoder sees of x (B, *event), (B, *inputs_shape); x itself for most."""
        return x

    @abstractmethod
    def prepare(self, raw: Tensor, noise: Noise | None) -> Tensor:
        """Raw rows (B, *event) to x; without noise, the expected x (deterministic, for use; never for a bound)."""

    @abstractmethod
    def restore(self, x: Tensor) -> Tensor:
        """x, or a reconstruction of it, on the scale of raw values."""

    def settle(self, x: Tensor) -> Tensor:
        """A draw of x (B, *event) moved to the x of the raw row that it stands for; draws of whole levels are one."""
        return x

    @property
    @abstractmethod
    def log_jacobian(self) -> float:
        """log |dx / d raw| of one row in nats: log p(raw) = log p(x) + this."""

    @property
    def bound_needs_noise(self) -> bool:
        """Whether x is random given raw, so that figures depend on a seed."""
        return False


class Binary(Preparation):
    """x in {0, 1}: each pixel is 1 with its own intensity as probability, drawn anew each time, or cut at one half.

    Dynamic binarisation follows Burda et al. 2016, section 5. Real-valued data must lie in [0, 1].

    Args:
        data: facts about the data.
        binarisation: "dynamic" or "threshold".
    """

    def __init__(self, data: DataSpec, binarisation: Literal["dynamic", "threshold"]) -> None:
        super().__init__(data)
        self.maximum = 1 if data.levels is None else data.levels - 1
        self.binarisation = binarisation
        self.draws = binarisation == "dynamic" and data.levels != 2  # a bit is itself

    def check(self, raw: Tensor) -> None:
        _within(raw, 0, self.maximum)

    def prepare(self, raw: Tensor, noise: Noise | None) -> Tensor:
        intensity = _real(raw) / self.maximum
        if self.binarisation == "threshold":
            return (intensity >= 0.5).to(intensity.dtype)
        if noise is None or not self.draws:
            return intensity
        return (noise.child("binarise").uniform(1, raw.shape[1:])[0] < intensity).to(intensity.dtype)

    def restore(self, x: Tensor) -> Tensor:
        return x * self.maximum

    @property
    def log_jacobian(self) -> float:
        return 0.0

    @property
    def bound_needs_noise(self) -> bool:
        return self.draws


class Continuous(Preparation):
    """Real numbers as they are; integers of L levels as (raw + u) / L with uniform u, so that a density is a bound.

    With uniform dequantisation log p(x) - D log L is a lower bound of the log-probability of the integers
    (Theis et al. 2016, section 3.1).

    Args:
        data: facts about the data.
    """

    def __init__(self, data: DataSpec) -> None:
        super().__init__(data)
        self.levels, self.size = data.levels, data.size

    def prepare(self, raw: Tensor, noise: Noise | None) -> Tensor:
        x = _real(raw)
        if self.levels is None:
            return x
        inside = 0.5 if noise is None else noise.child("dequantise").uniform(1, raw.shape[1:])[0]
        return (x + inside) / self.levels

    def restore(self, x: Tensor) -> Tensor:
        return x if self.levels is None else (x * self.levels - 0.5).clamp(0, self.levels - 1)

    def settle(self, x: Tensor) -> Tensor:
        return x if self.levels is None else ((x * self.levels).floor().clamp(0, self.levels - 1) + 0.5) / self.levels

    @property
    def log_jacobian(self) -> float:
        return 0.0 if self.levels is None else -self.size * math.log(self.levels)

    @property
    def bound_needs_noise(self) -> bool:
        return self.levels is not None


class Tokens(Preparation):
    """Sequences of integers, as they are."""

    def __init__(self, data: DataSpec) -> None:
        super().__init__(data)
        if data.levels is None:
            raise ShapeError("a likelihood of tokens needs integer data with a known vocabulary.")
        self.vocabulary = data.levels

    def check(self, raw: Tensor) -> None:
        assert self.vocabulary is not None
        _within(raw, 0, self.vocabulary - 1)

    def prepare(self, raw: Tensor, noise: Noise | None) -> Tensor:
        return raw.long()

    def restore(self, x: Tensor) -> Tensor:
        return x

    @property
    def log_jacobian(self) -> float:
        return 0.0


class Levels(Preparation):
    """Integers of L levels, as they are, for a probability of integers; an encoder sees them on [-1, 1].

    Args:
        data: facts about the data.
    """

    def __init__(self, data: DataSpec) -> None:
        super().__init__(data)
        if data.levels is None or data.levels < 2:
            raise ShapeError(
                "a likelihood of levels needs integer data with a known number of levels (8-bit pixels, tokens); use "
                "`gaussian` for real numbers and `negative-binomial` for counts."
            )
        self.maximum = data.levels - 1

    def check(self, raw: Tensor) -> None:
        _within(raw, 0, self.maximum)

    def prepare(self, raw: Tensor, noise: Noise | None) -> Tensor:
        return _real(raw)

    def inputs(self, x: Tensor) -> Tensor:
        return 2 * x / self.maximum - 1

    def restore(self, x: Tensor) -> Tensor:
        return x

    @property
    def log_jacobian(self) -> float:
        return 0.0


class Counts(Preparation):
    """Integers from 0 without an upper end, as they are; an encoder sees log(1 + x)."""

    def check(self, raw: Tensor) -> None:
        _within(raw, 0, math.inf)
        if raw.is_floating_point() and bool((raw != raw.round()).logical_and(raw.isfinite()).any()):
            raise DataError("a likelihood of counts describes whole numbers, and some values are not; choose another.")

    def prepare(self, raw: Tensor, noise: Noise | None) -> Tensor:
        return _real(raw)

    def inputs(self, x: Tensor) -> Tensor:
        return torch.log1p(x)

    def restore(self, x: Tensor) -> Tensor:
        return x

    @property
    def log_jacobian(self) -> float:
        return 0.0


class Intensities(Continuous):
    """`Continuous` on [0, 1]."""

    def check(self, raw: Tensor) -> None:
        _within(raw, 0, 1 if self.levels is None else self.levels - 1)


class Standardised(Preparation):
    """(`Continuous` x - mean) / scale of each channel (a column, for vectors), learned from the training rows.

    Args:
        data: facts about the data.
    """

    learns = True
    mean: Tensor
    scale: Tensor

    def __init__(self, data: DataSpec) -> None:
        super().__init__(data)
        self.continuous, self.event = Continuous(data), data.event
        shape = (data.event[0], *(1,) * (len(data.event) - 1))
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(shape))

    def fit(self, raw: Tensor) -> None:
        x = self.continuous.prepare(raw, None).double().transpose(0, 1).flatten(1)
        self.mean.copy_(x.mean(dim=1).reshape(self.mean.shape))
        self.scale.copy_(_scale(x.std(dim=1, correction=0)).reshape(self.scale.shape))

    def prepare(self, raw: Tensor, noise: Noise | None) -> Tensor:
        return (self.continuous.prepare(raw, noise) - self.mean) / self.scale

    def restore(self, x: Tensor) -> Tensor:
        return self.continuous.restore(x * self.scale + self.mean)

    def settle(self, x: Tensor) -> Tensor:
        return (self.continuous.settle(x * self.scale + self.mean) - self.mean) / self.scale

    @property
    def log_jacobian(self) -> float:
        each = math.prod(self.event[1:])
        return self.continuous.log_jacobian - each * float(self.scale.double().log().sum())

    @property
    def bound_needs_noise(self) -> bool:
        return self.continuous.bound_needs_noise


def real_numbers(data: DataSpec, scaling: Scaling) -> Preparation:
    """The preparation of a density of real numbers: "none" leaves their scale, "standard" learns one per channel."""
    return Standardised(data) if scaling == "standard" else Continuous(data)


class Columns(Preparation):
    """A table of mixed types with missing values (NaN), as it is; an encoder sees features of each column.

    A real column is standardised, a count is log(1 + x) standardised, a category is one-hot, a binary is as it is.
    After each comes a flag, 1 where the value is there; where it is missing all features are 0. Means and scales are
    learned from the training rows.

    Args:
        data: facts about the data, with columns.
    """

    learns = True
    mean: Tensor
    scale: Tensor
    count_mean: Tensor

    def __init__(self, data: DataSpec) -> None:
        super().__init__(data)
        if not data.columns or data.event != (len(data.columns),):
            raise ShapeError(
                'the likelihood "table" needs data with named columns, and these have none; use data of kind "table", '
                "or a likelihood for a single kind of value."
            )
        self.columns = data.columns
        self.inputs_shape = (sum(max(1, column.categories) + 1 for column in data.columns),)
        self.register_buffer("mean", torch.zeros(data.event))
        self.register_buffer("scale", torch.ones(data.event))
        self.register_buffer("count_mean", torch.ones(data.event))

    def fit(self, raw: Tensor) -> None:
        rows = raw.double()
        for index, column in enumerate(self.columns):
            values = rows[:, index][~rows[:, index].isnan()]
            if not len(values) or column.kind not in ("real", "count"):
                continue
            seen = values.log1p() if column.kind == "count" else values
            self.mean[index], self.scale[index] = seen.mean(), _scale(seen.std(correction=0))
            self.count_mean[index] = values.mean().clamp_min(1e-3) if column.kind == "count" else 1.0

    def prepare(self, raw: Tensor, noise: Noise | None) -> Tensor:
        return _real(raw)

    def inputs(self, x: Tensor) -> Tensor:
        there = ~x.isnan()
        known = torch.where(there, x, torch.zeros_like(x))  # before any function of it, so that no gradient is NaN
        parts: list[Tensor] = []
        for index, column in enumerate(self.columns):
            flag = there[:, index : index + 1].to(x.dtype)
            parts += [self._features(known[:, index], index, column) * flag, flag]
        return torch.cat(parts, dim=1)

    def _features(self, values: Tensor, index: int, column: Column) -> Tensor:
        """Features of one column, (B,) -> (B, F)."""
        if column.kind == "category":
            return torch.nn.functional.one_hot(values.long().clamp(0, column.categories - 1), column.categories).to(
                values.dtype
            )
        if column.kind == "binary":
            return values[:, None]
        seen = torch.log1p(values.clamp_min(0)) if column.kind == "count" else values
        return ((seen - self.mean[index]) / self.scale[index])[:, None]

    def restore(self, x: Tensor) -> Tensor:
        return x

    @property
    def log_jacobian(self) -> float:
        return 0.0


def _scale(deviation: Tensor) -> Tensor:
    """A standard deviation to divide by: 1 where it is 0 (a constant column)."""
    return torch.where(deviation > 0, deviation, torch.ones_like(deviation))


def _within(raw: Tensor, low: float, high: float) -> None:
    if bool(((raw < low) | (raw > high)).any()):
        raise DataError(
            f"this likelihood describes values from {low} to {high}, and the data have values from {raw.min():g} to "
            f"{raw.max():g}; scale them, or choose another likelihood."
        )


def _real(raw: Tensor) -> Tensor:
    """Raw rows as real numbers: double precision stays, all else is single."""
    return raw if raw.dtype == torch.float64 else raw.float()
