"""The fixed suite of a model: held-out rows of each slice, frozen once, and how well the version of that time did.

suite.json        which slices there are, each with the hash of its file
N.safetensors     rows of slice N, and their scores by the version that it was frozen with
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from lowerbound.errors import NotSupportedError, ShapeError, TamperedError
from lowerbound.files import exclusive, read_json, sha256, write_json
from lowerbound.lab.checkpoint import read_tensors, write_tensors
from lowerbound.lab.data.collected import Collected
from lowerbound.lab.evaluation.anomaly import likelihood_scores
from lowerbound.lab.facts import Facts, facts_of
from lowerbound.model.families.family import Family
from lowerbound.model.spec import Context
from lowerbound.service.retraining.collect import digest

INDEX, LOCK = "suite.json", ".lock"
SCORE = "score."  # before the name of a score in a file
DRAWS = 4  # of the posterior, the same for every row and version


@dataclass(frozen=True)
class Entry:
    """One slice of a suite.

    Attributes:
        name: of the slice.
        file: in the suite's folder.
        sha256: of the file.
        rows: in it.
        version: number of the version that it was frozen with.
        from_: hash of the collected rows that it is of.
    """

    name: str
    file: str
    sha256: str
    rows: int
    version: int
    from_: str


@dataclass(frozen=True)
class Slice:
    """Rows of a slice.

    Attributes:
        name: of it.
        raw: (N, *event).
        context: of them, for a conditional model.
        version: number of the version whose scores are kept; None where there are none.
        scores: of that version by name, (N,) each.
    """

    name: str
    raw: Tensor
    context: Context | None
    version: int | None
    scores: dict[str, Tensor]


class Suite:
    """Frozen slices in a folder; what is there never changes, and slices are only added.

    Args:
        folder: of the suite; made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def entries(self) -> dict[str, Entry]:
        """The slices by name, in the order in which they were frozen.

        Raises:
            TamperedError: the index is damaged.
        """
        path = self.folder / INDEX
        if not path.exists():
            return {}
        try:
            return {entry["name"]: Entry(**entry) for entry in read_json(path)["slices"]}
        except (KeyError, TypeError):
            raise TamperedError(f"{path} is no index of a suite; restore it from a copy.") from None

    @property
    def hash(self) -> str:
        """Of all slices: their names and contents."""
        known = sorted((entry.name, entry.sha256) for entry in self.entries().values())
        return hashlib.sha256(json.dumps(known).encode()).hexdigest()

    def slices(self) -> Iterator[Slice]:
        """The slices.

        Raises:
            TamperedError: a file is not what was frozen.
        """
        for entry in self.entries().values():
            path = self.folder / entry.file
            if not path.is_file() or sha256(path) != entry.sha256:
                raise TamperedError(f"{path} is not what was frozen ({entry.name}); restore it from a copy.")
            tensors = read_tensors(path)
            context = Context(tensors["vector"], tensors["present"]) if "vector" in tensors else None
            scores = {name.removeprefix(SCORE): value for name, value in tensors.items() if name.startswith(SCORE)}
            yield Slice(entry.name, tensors["raw"], context, entry.version, scores)

    def digests(self) -> set[bytes]:
        """Of all rows."""
        return {digest(row) for each in self.slices() for row in each.raw}

    def freeze(self, part: Slice, version: int, from_: str) -> None:
        """Add a slice, unless one of its name is there.

        Args:
            part: with the scores of the version.
            version: number of it.
            from_: hash of the collected rows.
        """
        with self._locked():
            known = self.entries()
            if part.name in known:
                return
            path = self.folder / f"{len(known)}.safetensors"
            tensors = {"raw": part.raw, **{f"{SCORE}{name}": value for name, value in part.scores.items()}}
            if part.context is not None:
                tensors |= {"vector": part.context.vector, "present": part.context.present}
            write_tensors(path, tensors)
            entry = Entry(part.name, path.name, sha256(path), len(part.raw), version, from_)
            write_json(self.folder / INDEX, {"slices": [asdict(each) for each in (*known.values(), entry)]})

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with exclusive(self.folder / LOCK, f"the suite {self.folder}"):
            yield


def slices_of(rows: Collected, most: int, least: int) -> list[Slice]:
    """The test rows of each slice that has at least so many, at most so many of each."""
    found = []
    for name in rows.slices:
        own = rows.of(name, "test")
        if len(own.raw) < least:
            continue
        own = own.select(torch.arange(min(most, len(own.raw))))
        found.append(Slice(name, own.raw, own.context, None, {}))
    return found


def scores_of(model: Family, part: Slice) -> dict[str, Tensor]:
    """What a candidate may not get worse at, (N,) each: `error`, and `nats`, the bound's cost of a row with levels.

    `nats` is minus the ELBO of raw rows, from draws that all versions share. Of a density, which may cost less than
    nothing, a share means nothing, so it is left out.

    Raises:
        NotSupportedError: the model has no codes.
    """
    found = {"error": facts_of(Facts(model), part.raw, part.context)["error"].double()}
    if model.data.levels is not None:
        try:
            cost = likelihood_scores(model, part.raw, part.context, DRAWS)
        except (NotSupportedError, ShapeError):
            return found
        nats = cost["elbo"].double().cpu() - model.preparation.log_jacobian
        if "nll" in cost and bool((nats >= 0).all()):
            found["nats"] = nats
    return found
