"""Raw rows and where they come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from lowerbound.lab.data.findings import Finding
from lowerbound.lab.data.shuffle import permuted
from lowerbound.model.spec import Context, DataSpec
from lowerbound.noise import derive_seed, generator


@dataclass(frozen=True)
class Batch:
    """Some rows of data.

    Attributes:
        raw: (B, *event), as stored; a likelihood's preparation turns them into x.
        context: what each row is conditioned on, if the model is conditional.
    """

    raw: Tensor
    context: Context | None = None

    def to(self, device: torch.device) -> Batch:
        """The batch on `device`."""
        return Batch(self.raw.to(device), None if self.context is None else self.context.to(device))

    def narrow(self, start: int, length: int) -> Batch:
        """`length` rows from `start` on."""
        rows = slice(start, start + length)
        return Batch(self.raw[rows], None if self.context is None else self.context.select(rows))


class Rows(ABC):
    """A finite sequence of rows that can be taken in any order.

    Attributes:
        labels: (N,) or (N, K), for evaluation, where there are any; not seen by a model unless they are its context.
        weights: (N,), how often each row is drawn in training, in proportion; None: each once in an epoch.
    """

    labels: Tensor | None = None
    weights: Tensor | None = None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def take(self, index: Tensor) -> Batch:
        """The rows at `index` (int64, (B,))."""

    def name(self, row: int) -> str:
        """What a person calls this row: a file, or a place in one."""
        return f"row {row}"

    def order(self, seed: int, batch_size: int) -> Order:
        """Which rows each batch of training has."""
        if self.weights is not None:
            return WeightedOrder(seed, self.weights, batch_size)
        return Order(seed, len(self), batch_size)


class InMemory(Rows):
    """Rows held as one tensor, in their stored type (8-bit pixels stay 8-bit), gathered per batch.

    Args:
        raw: (N, *event).
        context: of all rows.
        labels: (N,), for evaluation; not seen by a model unless they are its context.
        names: what a person calls a row, from its number.
        weights: (N,), how often each is drawn in training, in proportion.
    """

    def __init__(
        self,
        raw: Tensor,
        context: Context | None = None,
        labels: Tensor | None = None,
        names: Callable[[int], str] | None = None,
        weights: Tensor | None = None,
    ) -> None:
        self.raw, self.context, self.labels, self.names, self.weights = raw, context, labels, names, weights

    def __len__(self) -> int:
        return len(self.raw)

    def take(self, index: Tensor) -> Batch:
        return Batch(self.raw.index_select(0, index), None if self.context is None else self.context.select(index))

    def name(self, row: int) -> str:
        return super().name(row) if self.names is None else self.names(row)


class Subset(Rows):
    """Some rows of others.

    Args:
        rows: the others.
        index: which of them, (N,).
    """

    def __init__(self, rows: Rows, index: Tensor) -> None:
        self.rows, self.index = rows, index
        self.labels = None if rows.labels is None else rows.labels[index]
        self.weights = None if rows.weights is None else rows.weights[index]

    def __len__(self) -> int:
        return len(self.index)

    def take(self, index: Tensor) -> Batch:
        return self.rows.take(self.index[index])

    def name(self, row: int) -> str:
        return self.rows.name(int(self.index[row]))


class Joined(Rows):
    """The rows of several, one after the other.

    Args:
        parts: those.
    """

    def __init__(self, parts: Sequence[Rows]) -> None:
        self.parts = [part for part in parts if len(part)]
        self.starts = torch.tensor([0, *(len(part) for part in self.parts)]).cumsum(0)
        labels = [part.labels for part in self.parts]
        self.labels = torch.cat(labels) if all(label is not None for label in labels) else None  # type: ignore[arg-type]

    def __len__(self) -> int:
        return int(self.starts[-1])

    def take(self, index: Tensor) -> Batch:
        return Batch(torch.stack([self._one(int(row)) for row in index]))

    def name(self, row: int) -> str:
        part = int(torch.searchsorted(self.starts, row, right=True)) - 1
        return self.parts[part].name(row - int(self.starts[part]))

    def _one(self, row: int) -> Tensor:
        part = int(torch.searchsorted(self.starts, row, right=True)) - 1
        return self.parts[part].take(torch.tensor([row - int(self.starts[part])])).raw[0]


@dataclass(frozen=True)
class Mixture:
    """The known truth of a generated mixture of Gaussians: centres (K, D) and the standard deviation of each."""

    centres: Tensor
    sigma: float


@dataclass(frozen=True)
class Dataset:
    """A data set in three parts.

    Attributes:
        name: for records.
        spec: the facts that shape a model.
        train, validation, test: the rows.
        truth: the distribution that the rows were drawn from, where it is known.
        source: the folder or file that it was read from, if any.
        findings: what was found wrong while reading.
        read: the first of the labels (N, K) of rows (N, *event), where they can be read off them and contexts ask for
            them.
    """

    name: str
    spec: DataSpec
    train: Rows
    validation: Rows
    test: Rows
    truth: Mixture | None = None
    source: Path | None = None
    findings: tuple[Finding, ...] = ()
    read: Callable[[Tensor], Tensor] | None = None

    def split(self, name: str) -> Rows:
        """The rows of "train", "validation" or "test"."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]

    def without(self, left_out: dict[str, list[int]]) -> Dataset:
        """The data without some rows, by split."""

        def kept(name: str) -> Rows:
            rows = self.split(name)
            mask = torch.ones(len(rows), dtype=torch.bool)
            mask[torch.tensor(left_out.get(name, []), dtype=torch.long)] = False
            return rows if bool(mask.all()) else Subset(rows, mask.nonzero()[:, 0])

        train = kept("train")
        spec = replace(self.spec, examples=len(train))
        return replace(self, spec=spec, train=train, validation=kept("validation"), test=kept("test"), findings=())


LARGE = 10_000_000  # rows, from which on a permutation is computed place by place and not written down


class Order:
    """Which rows each batch has: a new permutation per epoch, a pure function of (seed, number of the batch).

    Every batch is full: rows that do not fill one at the end of an epoch wait for another epoch's order.

    Args:
        seed: the run's.
        rows: in the data.
        batch_size: of the batch of all processes; at most `rows`.
    """

    def __init__(self, seed: int, rows: int, batch_size: int) -> None:
        self.seed, self.rows, self.batch_size = seed, rows, batch_size
        self.per_epoch = rows // batch_size
        self._epoch, self._permutation = -1, torch.empty(0, dtype=torch.long)

    def batch(self, number: int) -> Tensor:
        """Indices of the rows of batch `number`, (batch_size,)."""
        epoch, place = divmod(number, self.per_epoch)
        if self.rows > LARGE:
            places = torch.arange(place * self.batch_size, (place + 1) * self.batch_size)
            return permuted(places, self.rows, self.seed, "order", epoch)
        if epoch != self._epoch:
            source = generator(derive_seed(self.seed, "order", epoch))
            self._epoch, self._permutation = epoch, torch.randperm(self.rows, generator=source)
        return self._permutation[place * self.batch_size : (place + 1) * self.batch_size]


class WeightedOrder(Order):
    """Rows drawn with replacement by their weights: a pure function of (seed, number of the batch).

    An epoch is as long as it would be if each row came once.

    Args:
        seed: the run's.
        weights: (N,), at least 0 and not all 0.
        batch_size: of the batch of all processes; at most N.
    """

    def __init__(self, seed: int, weights: Tensor, batch_size: int) -> None:
        super().__init__(seed, len(weights), batch_size)
        self.ends = weights.double().cumsum(0)

    def batch(self, number: int) -> Tensor:
        source = generator(derive_seed(self.seed, "weighted order", number))
        places = torch.rand(self.batch_size, generator=source, dtype=torch.float64) * self.ends[-1]
        return torch.searchsorted(self.ends, places, right=True).clamp_max(self.rows - 1)
