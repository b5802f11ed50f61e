"""What a served version takes and gives: facts about rows and codes, without the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from lowerbound.errors import NotSupportedError, UsageError
from lowerbound.model.families.family import Family
from lowerbound.service.serving.payload import Array
from lowerbound.service.serving.problems import RefusedError
from lowerbound.service.serving.settings import MOST_ROWS

FARTHEST = 1e6  # of a real value or code, where nothing else is known of it


@dataclass(frozen=True)
class Contract:
    """What rows and codes of one version look like.

    Attributes:
        event: shape of one row.
        levels: integer levels of a raw value, None for real numbers.
        latents: shape of each group of codes.
        values: how many values a unit of a discrete group has.
        classes: labels of a conditional model, 0 where it is none.
        needs_label: whether it cannot do without.
        gaps: whether values may be missing (NaN).
        inspect: what the model's preparation refuses beside that, where it does.
    """

    event: tuple[int, ...]
    levels: int | None
    latents: dict[str, tuple[int, ...]]
    values: dict[str, int]
    classes: int
    needs_label: bool
    gaps: bool
    inspect: Callable[[torch.Tensor], None] | None = None

    @staticmethod
    def of(model: Family, groups: tuple[str, ...]) -> Contract:
        """The contract of a model with these groups of codes.

        Raises:
            NotSupportedError: it is conditional, and not on labels.
        """
        data, preparation = model.data, model.preparation
        if data.context and data.contexts != "labels":
            raise NotSupportedError(
                f"this model is told what to make by {data.contexts}, and requests give labels; use "
                "`lowerbound sample --context`, or serve a model of labels."
            )
        plain = data.levels is not None and preparation.vocabulary is None
        return Contract(
            event=tuple(data.event),
            levels=data.levels,
            latents={name: tuple(model.latents[name]) for name in groups},
            values={name: count for name, count in model.values.items() if name in groups},
            classes=data.context,
            needs_label=bool(data.context) and not model.infers_context,
            gaps=bool(data.columns),
            inspect=None if plain else preparation.check,
        )

    @cached_property
    def coded(self) -> tuple[str, ...]:
        """The groups whose codes are facts: the continuous ones, or all where there are none."""
        return tuple(name for name in self.latents if name not in self.values) or tuple(self.latents)

    @property
    def pictures(self) -> bool:
        """Whether rows are pictures that are read from and written to files."""
        return len(self.event) == 3 and self.event[0] in (1, 3) and self.levels is not None and self.levels <= 256

    def rows(self, array: Array, name: str = "rows") -> Array:
        """Rows (B, *event) as the engine takes them, single precision, of those of a client, or of one of them.

        Raises:
            RefusedError: another shape, too many, or values that the model has no place for.
        """
        if array.shape == self.event:
            array = array[None]
        if array.shape[1:] != self.event or not len(array):
            raise RefusedError(
                "wrong-shape",
                f"`{name}` has shape {list(array.shape)}; this model needs (rows, {', '.join(map(str, self.event))}).",
            )
        _few(array, name)
        real = array if array.dtype == np.float32 else _single(array)
        if array.dtype != np.uint8 or self.levels != 256 or self.inspect is not None:  # else all values are in range
            self._within(real, name)
        return np.ascontiguousarray(real)

    def codes(self, array: Array, group: str) -> Array:
        """Codes (B, *latent) of a group, as the engine takes them.

        Raises:
            RefusedError: no such group, another shape, or values that are no codes.
        """
        if group not in self.latents:
            raise RefusedError(
                "wrong-shape", f"There is no group of codes of this name; there are {', '.join(self.latents)}."
            )
        shape = self.latents[group]
        if array.shape == shape:
            array = array[None]
        if array.shape[1:] != shape or not len(array):
            raise RefusedError(
                "wrong-shape",
                f"The codes `{group}` have shape {list(array.shape)}; this model needs "
                f"(rows, {', '.join(map(str, shape))}).",
            )
        _few(array, group)
        if group in self.values:
            return self._indices(array, group)
        real = _single(array)
        if not np.isfinite(real).all():
            raise RefusedError("not-finite", f"The codes `{group}` hold a value that is not a finite number.")
        if np.abs(real).max() > FARTHEST:
            raise RefusedError("out-of-range", f"The codes `{group}` hold a value beyond {FARTHEST:g}.")
        return np.ascontiguousarray(real)

    def label(self, label: int | None, rows: int) -> Array | None:
        """The labels of rows, (B,), or None where the model has none and needs none.

        Raises:
            RefusedError: a label that is missing, or that does not exist.
        """
        if label is None:
            if self.needs_label:
                raise RefusedError(
                    "bad-setting", f"This model is conditional: give a label from 0 to {self.classes - 1}."
                )
            return None
        if label >= self.classes:
            known = f"labels go from 0 to {self.classes - 1}" if self.classes else "this model has no labels"
            raise RefusedError("bad-setting", f"The label {label} was given; {known}.")
        return np.full(rows, label, np.int64)

    def _within(self, real: Array, name: str) -> None:
        low, high = real.min(), real.max()  # a NaN is both the least and the greatest
        if self.gaps and np.isnan(low):
            known = real[~np.isnan(real)]
            low, high = (known.min(), known.max()) if len(known) else (0, 0)
        if not (np.isfinite(low) and np.isfinite(high)):
            raise RefusedError("not-finite", f"`{name}` holds a value that is not a finite number.")
        least, top = (-FARTHEST, FARTHEST) if self.levels is None else (0, self.levels - 1)
        if low < least or high > top:
            raise RefusedError(
                "out-of-range",
                f"`{name}` holds values from {low:g} to {high:g}; this model's go from {least:g} to {top:g}.",
            )
        if self.inspect is not None:
            try:
                self.inspect(torch.from_numpy(np.ascontiguousarray(real)))
            except UsageError as error:
                raise RefusedError("out-of-range", str(error)) from None

    def _indices(self, array: Array, group: str) -> Array:
        last = self.values[group] - 1
        if not ((array >= 0) & (array <= last) & (array == np.rint(array))).all():
            raise RefusedError("out-of-range", f"The codes `{group}` are whole numbers from 0 to {last}.")
        return np.ascontiguousarray(array.astype(np.int64))


def _few(array: Array, name: str) -> None:
    if len(array) > MOST_ROWS:
        raise RefusedError("too-many-rows", f"`{name}` has {len(array):,} rows; one request has at most {MOST_ROWS:,}.")


def _single(array: Array) -> Array:
    if array.dtype.kind not in "buif":
        raise RefusedError("bad-array", f"The array holds values of type {array.dtype}; numbers are needed.")
    with np.errstate(over="ignore"):
        return array.astype(np.float32)
