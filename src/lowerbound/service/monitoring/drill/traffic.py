"""Traffic for drills: held-out rows, drawn again and again, with or without trouble."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from lowerbound.errors import DataError, UsageError
from lowerbound.lab.data.rows import Rows
from lowerbound.service.monitoring.drift.window import Array
from lowerbound.service.monitoring.drill.injections import INJECTIONS, NEW_CLASS, NEW_SHARE, inject

MOST = 20_000  # different rows


@dataclass(frozen=True, eq=False)
class Traffic:
    """What requests are drawn from.

    Attributes:
        rows: raw, (N, *event).
        labels: (N,), None where the data have none.
        levels: of a raw value, None for real numbers.
        held_back: label whose rows ordinary traffic does not have, None for none.
    """

    rows: Array
    labels: Array | None
    levels: int | None
    held_back: int | None = None

    @staticmethod
    def of(data: Rows, levels: int | None, held_back: int | None = None) -> Traffic:
        """From held-out rows, at most 20,000 of them.

        Raises:
            DataError: there are no rows, or none of the label or beside it.
        """
        index = torch.linspace(0, len(data) - 1, min(len(data), MOST)).long() if len(data) else torch.zeros(0).long()
        if not len(index):
            raise DataError("there are no held-out rows to make traffic of; give data with a test part.")
        labels = None if data.labels is None or data.labels.ndim != 1 else data.labels[index].numpy()
        made = Traffic(data.take(index).raw.numpy(), labels, levels, held_back)
        made.ordinary(1, np.random.default_rng(0))
        return made

    def ordinary(self, count: int, chance: np.random.Generator) -> Array:
        """Rows as they usually come, (count, *event)."""
        return self.rows[chance.choice(self._known(), count)]

    def troubled(
        self, count: int, name: str, chance: np.random.Generator, share: float | None = None, severity: float = 0.5
    ) -> tuple[Array, Array]:
        """Rows with trouble among them, (count, *event), and which they are, (count,).

        Raises:
            UsageError: no such trouble, or none that these rows can have.
        """
        rows = self.ordinary(count, chance)
        if name != NEW_CLASS:
            return inject(rows, name, chance, self.levels, share, severity)
        if self.held_back is None:
            raise UsageError("a new class is a label that was held back before; say which with --hold-back.")
        changed = chance.random(count) < (NEW_SHARE if share is None else share)
        new = np.flatnonzero(self._labels() == self.held_back)
        rows[changed] = self.rows[chance.choice(new, int(changed.sum()))]
        return rows, changed

    def _known(self) -> Array:
        if self.held_back is None:
            return np.arange(len(self.rows))
        labels = self._labels()
        known, new = np.flatnonzero(labels != self.held_back), np.flatnonzero(labels == self.held_back)
        if not len(known) or not len(new):
            raise DataError(
                f"the label {self.held_back} was to be held back, and the rows have the labels "
                f"{', '.join(str(label) for label in np.unique(labels).tolist())}."
            )
        return known

    def _labels(self) -> Array:
        if self.labels is None:
            raise DataError("a class cannot be held back, for these rows have no labels.")
        return self.labels


KINDS = (*INJECTIONS, NEW_CLASS)
