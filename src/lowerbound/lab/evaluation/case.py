"""What is judged: a model, rows, and how."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lowerbound.errors import NotSupportedError
from lowerbound.lab.data.rows import Batch, Dataset
from lowerbound.lab.evaluation.latents import Group, collect
from lowerbound.lab.generation import use
from lowerbound.model.families.family import Family
from lowerbound.model.spec import Context
from lowerbound.noise import BatchNoise, Noise
from lowerbound.recipe import Evaluation

Prepared = tuple[Tensor, Context | None, Noise]
KNOWN_ROWS = 2000  # training rows that probes learn from, at most
SHOWN_ROWS = 2000  # judged rows that are reconstructed, at most


@dataclass(frozen=True)
class Case:
    """What is judged, with what several metrics need of it.

    Attributes:
        model: in evaluation mode.
        dataset: its rows.
        settings: how to judge.
    """

    model: Family
    dataset: Dataset
    settings: Evaluation

    @cached_property
    def count(self) -> int:
        """Judged rows."""
        rows = len(self.dataset.split(self.settings.split))
        return rows if self.settings.examples is None else min(self.settings.examples, rows)

    def first(self, count: int, split: str | None = None) -> Batch:
        """At most so many raw rows of a split, by default of those that are judged."""
        rows = self.dataset.split(split or self.settings.split)
        batch = rows.take(torch.arange(self._most(count, split)))
        self.model.check(batch.raw)
        return batch

    def labels(self, count: int, split: str | None = None) -> Tensor | None:
        """Of the same rows, (N,) or (N, K), where there are any."""
        found = self.dataset.split(split or self.settings.split).labels
        return None if found is None else found[: self._most(count, split)]

    def batches(
        self, count: int | None = None, split: str | None = None, watch: Callable[[int, int], None] | None = None
    ) -> Iterator[Prepared]:
        """Prepared rows with their noise; the noise of a batch is a function of (seed, number of the batch)."""
        device, settings = use.device_of(self.model), self.settings
        rows = self.dataset.split(split or settings.split)
        most = self._most(self.count if count is None else count, split)
        starts = range(0, most, settings.batch_size)
        for number, start in enumerate(starts):
            batch = rows.take(torch.arange(start, min(start + settings.batch_size, most))).to(device)
            self.model.check(batch.raw)
            noise = BatchNoise(settings.seed, number, len(batch.raw), device=device)
            yield self.model.preparation.prepare(batch.raw, noise.child("prepare")), batch.context, noise
            if watch is not None:
                watch(number + 1, len(starts))

    def needs_other_rows(self) -> None:
        """Refuse a number that is learnt from training rows where those are judged.

        Raises:
            NotSupportedError: the judged rows are training rows.
        """
        if self.settings.split == "train" or self.dataset.split(self.settings.split) is self.dataset.train:
            raise NotSupportedError("it is learnt from training rows, and these are judged; judge other rows.")

    @cached_property
    def groups(self) -> dict[str, Group]:
        """The latents of the judged rows."""
        return collect(self.model, self.batches())

    @cached_property
    def known_groups(self) -> dict[str, Group]:
        """The latents of some training rows."""
        return collect(self.model, self.batches(KNOWN_ROWS, "train"))

    @cached_property
    def shown(self) -> tuple[Tensor, Tensor]:
        """Some judged rows as they are, and as the model makes them."""
        batch = self.first(SHOWN_ROWS)
        return batch.raw, use.reconstruct(self.model, batch.raw, batch.context)

    def _most(self, count: int, split: str | None) -> int:
        return min(count, self.count if split is None else len(self.dataset.split(split)))
