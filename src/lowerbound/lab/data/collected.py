"""Rows that were collected from several sources, each with the slice that it belongs to; pinned by their hash."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from lowerbound.errors import DataError, TamperedError
from lowerbound.files import read_json, sha256, write_json
from lowerbound.lab.checkpoint import read_tensors, write_tensors
from lowerbound.lab.data.assemble import located
from lowerbound.lab.data.rows import Dataset, InMemory
from lowerbound.lab.data.splits import NAMES
from lowerbound.model.spec import Context, DataSpec

ROWS, RECORD = "rows.safetensors", "collected.json"
SCHEMA = 1


@dataclass(frozen=True)
class Collected:
    """N rows of several slices.

    Attributes:
        raw: (N, *event), as stored.
        part: (N,), 0 for training, 1 for validation, 2 for test.
        slice: (N,), place of each row's slice in `slices`.
        slices: names.
        weight: (N,), how often a training row is drawn, in proportion.
        spec: facts that shape a model.
        context: of all rows, for a conditional model.
        about: where the rows come from, anything that JSON can say.
    """

    raw: Tensor
    part: Tensor
    slice: Tensor
    slices: tuple[str, ...]
    weight: Tensor
    spec: DataSpec
    context: Context | None = None
    about: dict[str, Any] = field(default_factory=dict)

    def counts(self) -> dict[str, dict[str, int]]:
        """Rows of each slice, by part."""
        return {
            name: {
                part: int(((self.slice == place) & (self.part == number)).sum()) for number, part in enumerate(NAMES)
            }
            for place, name in enumerate(self.slices)
        }

    def select(self, chosen: Tensor) -> Collected:
        """Some rows (a mask or places)."""
        context = None if self.context is None else self.context.select(chosen)
        return replace(
            self,
            raw=self.raw[chosen],
            part=self.part[chosen],
            slice=self.slice[chosen],
            weight=self.weight[chosen],
            context=context,
        )

    def of(self, name: str, part: str) -> Collected:
        """The rows of a slice in a part."""
        return self.select((self.slice == self.slices.index(name)) & (self.part == NAMES.index(part)))

    def dataset(self, source: Path | None = None) -> Dataset:
        """The rows as data in three parts."""
        spec = replace(self.spec, examples=int((self.part == 0).sum()))
        train, validation, test = (self._rows(number) for number in range(len(NAMES)))
        return Dataset("collected", spec, train, validation, test, source=source)

    def _rows(self, part: int) -> InMemory:
        places = (self.part == part).nonzero()[:, 0]
        own = self.select(places)

        def name(row: int) -> str:
            return f"{self.slices[int(own.slice[row])]}, row {int(places[row])}"

        return InMemory(own.raw, own.context, names=name, weights=own.weight if part == 0 else None)

    def save(self, folder: Path) -> str:
        """Write the rows, and last of all their record; returns the record's hash, which stands for everything."""
        tensors = {"raw": self.raw, "part": self.part, "slice": self.slice, "weight": self.weight}
        if self.context is not None:
            tensors |= {"vector": self.context.vector, "present": self.context.present}
        write_tensors(folder / ROWS, tensors)
        record = {
            "schema": SCHEMA,
            "slices": self.slices,
            "counts": self.counts(),
            "spec": asdict(self.spec),
            "about": self.about,
            "sha256": sha256(folder / ROWS),
        }
        write_json(folder / RECORD, record)
        return sha256(folder / RECORD)

    @staticmethod
    def load(folder: Path, expected: str | None = None) -> Collected:
        """The rows that `save` wrote.

        Args:
            folder: where they are.
            expected: hash of the record.

        Raises:
            DataError: there are none.
            TamperedError: they are not what was written.
        """
        if not (folder / RECORD).is_file():
            raise DataError(f"{folder} holds no collected rows; give the folder `data` of a retraining.")
        record = read_json(folder / RECORD)
        try:
            wrong = expected is not None and sha256(folder / RECORD) != expected
            if wrong or sha256(folder / ROWS) != record["sha256"]:
                raise TamperedError(
                    f"the rows in {folder} are not those that were collected (their hash differs); restore them from a "
                    "copy, or collect again."
                )
            tensors = read_tensors(folder / ROWS)
            context = Context(tensors["vector"], tensors["present"]) if "vector" in tensors else None
            return Collected(
                **{name: tensors[name] for name in ("raw", "part", "slice", "weight")},
                slices=tuple(record["slices"]),
                spec=TypeAdapter(DataSpec).validate_python(record["spec"]),
                context=context,
                about=record["about"],
            )
        except (KeyError, TypeError, OSError, ValidationError):
            raise TamperedError(f"{folder} does not hold rows as they are collected; collect again.") from None


def collected(data_dir: Path | None, *, path: str, sha256: str) -> Dataset:
    """Rows that a retraining collected: from requests, and of the data that its parent was trained on.

    Args:
        data_dir: where a relative path starts.
        path: the folder.
        sha256: of the record in it, which has the hash of the rows.
    """
    folder = located(path, data_dir)
    return Collected.load(folder, sha256).dataset(folder)


def join(parts: list[Collected], about: dict[str, Any]) -> Collected:
    """The rows of several with one spec, one after the other; slices of one name become one."""
    slices = tuple(dict.fromkeys(name for part in parts for name in part.slices))
    place = {name: number for number, name in enumerate(slices)}
    numbers = [torch.tensor([place[name] for name in part.slices])[part.slice] for part in parts]
    contexts = [part.context for part in parts if part.context is not None]
    return Collected(
        raw=torch.cat([part.raw for part in parts]),
        part=torch.cat([part.part for part in parts]),
        slice=torch.cat(numbers),
        slices=slices,
        weight=torch.cat([part.weight for part in parts]),
        spec=parts[0].spec,
        context=Context(torch.cat([c.vector for c in contexts]), torch.cat([c.present for c in contexts]))
        if contexts
        else None,
        about=about,
    )
