"""The version that a candidate is made from, and the rows that it was trained and judged on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from sklearn.cluster import KMeans
from torch import Tensor

from lowerbound.errors import DataError, RunError
from lowerbound.files import read_json
from lowerbound.lab.data.collected import Collected, join
from lowerbound.lab.data.load import load_data
from lowerbound.lab.data.rows import Rows
from lowerbound.lab.data.splits import NAMES
from lowerbound.lab.facts import Facts, facts_of
from lowerbound.lab.run import Run
from lowerbound.model.families.family import Family
from lowerbound.noise import derive_seed, generator
from lowerbound.recipe import Recipe, parse
from lowerbound.service.registry.pack import LINEAGE
from lowerbound.service.registry.version import Version
from lowerbound.service.retraining.plan import Plan

MOST_LABELS = 100  # different ones, of which each is a slice
OTHERS = "others"
SEED = 0


@dataclass(frozen=True)
class Parent:
    """A version to go on from.

    Attributes:
        version: registered.
        data_dir: where the data of its recipe lie.
    """

    version: Version
    data_dir: Path | None

    @cached_property
    def run(self) -> Run:
        """Its folder as a run."""
        return Run(self.version.path)

    @cached_property
    def model(self) -> Family:
        """In evaluation mode."""
        return self.run.model()

    def origin(self) -> Recipe:
        """The model's own recipe, as it was before it was ever retrained."""
        lineage = self.lineage()
        return self.run.recipe() if lineage is None else parse(lineage["origin"], str(self.version.path / LINEAGE))

    def lineage(self) -> dict[str, Any] | None:
        """What it was retrained from; None for a version that was trained by hand."""
        path = self.version.path / LINEAGE
        return read_json(path) if path.exists() else None

    def rows(self, plan: Plan) -> Collected:
        """The rows that it was trained and judged on, by slice; of those for training at most `plan.rows`.

        Raises:
            RunError: they are not where they were.
            DataError: they cannot be divided as the plan says.
        """
        whole = self._known(plan)
        train = (whole.part == 0).nonzero()[:, 0]
        if len(train) <= plan.rows:
            return whole
        kept = train[torch.randperm(len(train), generator=generator(derive_seed(SEED, "replay")))[: plan.rows]]
        return whole.select(torch.cat([kept.sort().values, (whole.part != 0).nonzero()[:, 0]]))

    def _known(self, plan: Plan) -> Collected:
        table = self.run.recipe().data
        try:
            if table["kind"] == "collected":  # by a retraining before, with its slices
                return Collected.load(Path(table["path"]), table["sha256"])
            data = load_data(table, self.data_dir, self.run.quarantine_path)
        except DataError as error:
            raise RunError(
                f"the data that {self.version.reference} was trained on cannot be read ({error}); put them back, or "
                "say with --data-dir where they are."
            ) from None
        parts = [_one_part(data.split(name), number, self.run) for number, name in enumerate(NAMES)]
        return _divided(join(parts, {}), [data.split(name).labels for name in NAMES], self.model, plan)


def points_of(model: Family, rows: Collected) -> Tensor:
    """The continuous codes of N rows, flattened, (N, D).

    Raises:
        NotSupportedError: the model has no codes.
        DataError: it has no continuous ones.
    """
    facts = Facts(model)
    found = facts_of(facts, rows.raw, rows.context)
    parts = [found[name].flatten(1) for name in facts.groups if found[name].is_floating_point()]
    if not parts:
        raise DataError("the codes of this model are discrete, and rows are compared by continuous ones; say `none`.")
    return torch.cat(parts, dim=1)


def _one_part(rows: Rows, number: int, run: Run) -> Collected:
    batch = rows.take(torch.arange(len(rows)))
    count = len(batch.raw)
    return Collected(
        raw=batch.raw,
        part=torch.full((count,), number, dtype=torch.uint8),
        slice=torch.zeros(count, dtype=torch.long),
        slices=("all",),
        weight=torch.ones(count, dtype=torch.float64),
        spec=run.data_spec(),
        context=batch.context,
    )


def _divided(whole: Collected, labels: list[Tensor | None], model: Family, plan: Plan) -> Collected:
    """Rows with their slices: by label or cluster, the small ones joined."""
    known = [each for each in labels if each is not None and each.ndim == 1 and not each.is_floating_point()]
    usable = len(known) == len(NAMES) and len(torch.cat(known).unique()) <= MOST_LABELS
    if plan.slices == "label" and not usable:
        raise DataError(
            f"these data have no labels of at most {MOST_LABELS} kinds to divide them by; choose `slices = 'cluster'`."
        )
    if plan.slices == "none":
        return whole
    if usable and plan.slices != "cluster":
        return _named(whole, torch.cat(known), "label", plan.smallest)
    if plan.slices == "auto" and model.latents.keys() <= model.values.keys():
        return whole
    points = points_of(model, whole)
    train = points[whole.part == 0]
    means = KMeans(min(plan.clusters, len(train)), n_init=4, random_state=SEED).fit(train.double().numpy())
    return _named(whole, torch.from_numpy(means.predict(points.double().numpy())), "cluster", plan.smallest)


def _named(whole: Collected, values: Tensor, word: str, smallest: int) -> Collected:
    kinds = values.unique().tolist()
    large = [kind for kind in kinds if int(((values == kind) & (whole.part == 2)).sum()) >= smallest]
    names = [f"{word} {kind}" for kind in large] + ([OTHERS] if len(large) < len(kinds) else [])
    place = {kind: large.index(kind) if kind in large else len(large) for kind in kinds}
    return replace(whole, slice=torch.tensor([place[value] for value in values.tolist()]), slices=tuple(names))
