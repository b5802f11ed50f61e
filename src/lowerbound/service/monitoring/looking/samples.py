"""Whether what a model makes moved away from real rows since a version that was frozen: model drift."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from lowerbound.errors import DataError, TooFewError
from lowerbound.files import read_json, write_json
from lowerbound.lab.checkpoint import read_tensors, write_tensors
from lowerbound.lab.data.load import load_data
from lowerbound.lab.data.rows import Batch
from lowerbound.lab.evaluation.features import OWN, RAW, make_extractor
from lowerbound.lab.generation.use import sample
from lowerbound.lab.run import Run, load
from lowerbound.noise import generator
from lowerbound.service.monitoring.drift.model import POINTS, ROWS, ModelDrift, ModelVerdict
from lowerbound.service.monitoring.incidents import Incident, Incidents
from lowerbound.service.registry.registry import Registry
from lowerbound.service.registry.version import Version

FOLDER = "samples"
SHARE = 0.1  # of the frozen distance, by which it may grow where features have a scale of their own


@dataclass(frozen=True)
class Sampled:
    """A look at what a version makes.

    Attributes:
        model: its name.
        version, frozen: numbers of the version and of that which it is compared with.
        at: seconds since 1970.
        rows: made, and real ones.
        features: name of the extractor.
        allowed: points by which the Fréchet distance may grow.
        verdict: what was found.
    """

    model: str
    version: int
    frozen: int
    at: float
    rows: int
    features: str
    allowed: float
    verdict: ModelVerdict

    def json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    def said(self) -> str:
        """What was found, as a sentence."""
        found = self.verdict
        return (
            f"{self.rows:,} rows made by {self.model}:{self.version} lie {found.growth:+.3g} Fréchet points "
            f"({found.low:+.3g} to {found.high:+.3g}) farther from real ones than those of {self.model}:{self.frozen}, "
            f"by {self.features}; {self.allowed:.3g} are allowed."
        )


def look_at_samples(
    version: Version,
    registry: Registry,
    telemetry: Path,
    *,
    features: str = OWN,
    rows: int = ROWS,
    points: float | None = None,
    freeze: bool = False,
    seed: int = 0,
    data_dir: Path | None = None,
) -> Sampled:
    """Compare rows that a version makes with real ones, and with those that the frozen version made.

    The first version that is looked at is frozen: as many training rows, and what it makes, are kept in the
    telemetry's folder, and every later look has them.

    Args:
        version: to look at.
        registry: that it is in.
        telemetry: folder of the store.
        features: "raw", "own" (codes of the frozen version), or a file, as in the recipe's `evaluation.features`.
        rows: of each kind.
        points: by which the Fréchet distance may grow; by default 5 where a file makes the features, and a tenth of
            the frozen distance where they are values or codes, which have a scale of their own.
        freeze: take this version instead of the one that was frozen.
        seed: another one for each look.
        data_dir: where the run's data lie.

    Raises:
        TooFewError: fewer training rows.
        DataError: another number of rows than was frozen.
        NotSupportedError: codes that are discrete.
    """
    path = telemetry / FOLDER / version.name / f"{_plain(features)}.json"
    new = freeze or not path.is_file()
    kept = {"hash": version.hash, "number": version.number, "rows": rows} if new else read_json(path)
    if kept["rows"] != rows:
        raise DataError(
            f"{kept['rows']:,} rows of {version.name}:{kept['number']} were frozen, and distances of {rows:,} cannot "
            "be compared with theirs; give as many, or freeze anew."
        )
    frozen = next(each for each in registry.versions(version.name) if each.hash == kept["hash"])
    model = load(frozen.path)
    extractor = make_extractor(features, model.data, model)
    real = _real(frozen, rows, data_dir)
    store = path.with_name(f"{path.stem}-{frozen.hash[:16]}-{extractor.hash[:16]}.safetensors")
    if not store.is_file():
        made = extractor(sample(model, rows, seed, real.context))
        write_tensors(store, {"real": extractor(real.raw.float()), "made": made})
    if new:  # last: what was frozen before stays until this is whole
        write_json(path, kept)
    known = read_tensors(store)
    allowed, share = _allowed(points, features)
    drift = ModelDrift(known["real"], known["made"], extractor.hash, rows, allowed, share)
    judged = model if version.hash == frozen.hash else load(version.path)
    verdict = drift.update(extractor(sample(judged, rows, seed + 1, real.context)), extractor.hash)
    return Sampled(
        version.name, version.number, frozen.number, time.time(), rows, extractor.name, drift.points, verdict
    )


def keep_sampled(found: Sampled, version: Version, telemetry: Path) -> Incident | None:
    """Keep a look, and put an alarm into an incident; None where there is none."""
    name = time.strftime("%Y%m%d-%H%M%S", time.gmtime(found.at))
    write_json(telemetry / FOLDER / found.model / "looks" / f"{name}-{found.version}.json", found.json())
    if not found.verdict.alarm:
        return None
    incidents = Incidents(telemetry)
    incident, new = incidents.raise_alerts(found.model, version.hash, ("drift-samples",), found.at, found.said())
    if new:
        text = f"Go back with `lowerbound registry rollback {found.model}`, if what it makes is used."
        incident = incidents.note(incident.id, "mitigate", text, found.at)
    return incident


def _allowed(points: float | None, features: str) -> tuple[float, float]:
    """Points, and the share of the frozen distance, by which the distance may grow."""
    if points is not None:
        return points, 0.0
    return (0.0, SHARE) if features in (OWN, RAW) else (POINTS, 0.0)


def _real(version: Version, rows: int, data_dir: Path | None) -> Batch:
    """Training rows, always the same."""
    run = Run(version.path)
    data = load_data(run.recipe().data, data_dir, run.quarantine_path).train
    if len(data) < rows:
        raise TooFewError(
            f"{version.reference} was trained on {len(data):,} rows, and {rows:,} are asked for; give fewer --rows."
        )
    return data.take(torch.randperm(len(data), generator=generator(0))[:rows])


def _plain(features: str) -> str:
    return features if features in (OWN, RAW) else Path(features).stem
