"""Whether a version mends an incident: its errors on old rows and on new ones, beside those of the version before."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lowerbound.errors import TooFewError
from lowerbound.lab.data.load import load_data
from lowerbound.lab.facts import Facts, facts_of
from lowerbound.lab.run import Run, load
from lowerbound.service.monitoring.drift.window import Array
from lowerbound.service.monitoring.incidents import Incident
from lowerbound.service.monitoring.telemetry.history import Choice, History
from lowerbound.service.registry.registry import Registry
from lowerbound.service.registry.version import Version

ROWS = 2000  # of each, at most
FEWEST = 30
MARGIN = 0.02  # by which errors of old rows may grow
SURE = 1.645  # standard errors: one side, 5 %
LEAST = 1e-12


@dataclass(frozen=True)
class Side:
    """Errors of the same rows by two versions.

    Attributes:
        rows: how many.
        change: of the error, the mean of logarithms of ratios as a share: -0.1 is a tenth less.
        low, high: of an interval of 90 %.
    """

    rows: int
    change: float
    low: float
    high: float


@dataclass(frozen=True)
class Validation:
    """Whether a version mends an incident.

    Attributes:
        version, before: NAME:NUMBER.
        old: held-out rows of the version before.
        new: inputs of requests since the incident began.
        mended: whether new rows became better, and old ones by less than 2 % worse, both with certainty of 95 %.
    """

    version: str
    before: str
    old: Side
    new: Side
    mended: bool

    def said(self) -> str:
        """For a person."""
        verdict = "mends" if self.mended else "does not certainly mend"
        return (
            f"{self.version} {verdict} it: errors of {self.new.rows:,} new requests {self.new.change:+.1%} "
            f"({self.new.low:+.1%} to {self.new.high:+.1%}), of {self.old.rows:,} old rows {self.old.change:+.1%} "
            f"({self.old.low:+.1%} to {self.old.high:+.1%}) beside {self.before}."
        )

    def json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def validate_incident(
    incident: Incident, version: Version, registry: Registry, telemetry: Path, data_dir: Path | None = None
) -> Validation:
    """Compare a version with the one that the incident is of, on old rows and on new ones.

    Raises:
        TooFewError: fewer than 30 inputs were kept since it began, or there are no old rows.
        RegistryError: the version of the incident is not registered.
    """
    before = next((one for one in registry.versions(incident.model) if one.hash == incident.version), None)
    before = before or registry.resolve(incident.model)
    run = Run(before.path)
    test = load_data(run.recipe().data, data_dir, run.quarantine_path).test
    old = test.take(torch.linspace(0, len(test) - 1, min(len(test), ROWS)).long()).raw
    shown = {request for cause in incident.causes for request in cause.requests}
    new = _inputs(incident, telemetry, shown)
    sides = [_side(before, version, rows) for rows in (old, new)]
    mended = sides[1].high < 0 and sides[0].high < MARGIN
    return Validation(version.reference, before.reference, sides[0], sides[1], mended)


def _inputs(incident: Incident, telemetry: Path, shown: set[str]) -> torch.Tensor:
    """Kept inputs since an incident began: of the requests that show its causes, or of all."""
    history = History(telemetry)
    choice = Choice(
        since=incident.opened - 1, model=incident.model, version=incident.version, gate="passed", newest=5 * ROWS
    )
    ids, rows = history.inputs(choice)
    window = history.window(choice)
    named = dict(zip(window.id.tolist(), window.request.tolist(), strict=True))
    showing = [place for place, row in enumerate(ids.tolist()) if named.get(row) in shown]
    chosen = showing if len(showing) >= FEWEST else list(range(len(ids)))
    if len(chosen) < FEWEST:
        raise TooFewError(
            f"{len(chosen)} inputs of requests since the incident began were kept, and {FEWEST} are needed; serve with "
            "--privacy sample."
        )
    return torch.from_numpy(rows[chosen[-ROWS:]])


def _side(before: Version, after: Version, rows: torch.Tensor) -> Side:
    if len(rows) < FEWEST:
        raise TooFewError(f"{len(rows)} old rows are too few to validate by; give a version with {FEWEST} test rows.")
    errors: list[Array] = [
        np.log(np.maximum(facts_of(Facts(load(version.path)), rows)["error"].double().numpy(), LEAST))
        for version in (before, after)
    ]
    apart = errors[1] - errors[0]
    mean, reach = float(apart.mean()), SURE * float(apart.std(ddof=1)) / math.sqrt(len(apart))
    return Side(len(rows), math.expm1(mean), math.expm1(mean - reach), math.expm1(mean + reach))
