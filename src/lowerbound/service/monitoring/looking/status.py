"""What there is to know of served models at one glance."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lowerbound.errors import DataError
from lowerbound.files import read_json
from lowerbound.service.monitoring.incidents import Incidents
from lowerbound.service.monitoring.looking.monitor import FOLDER
from lowerbound.service.monitoring.looking.stretch import PASSED
from lowerbound.service.monitoring.telemetry.history import Choice, History
from lowerbound.service.registry.registry import Registry

NEWEST = 10_000  # rows, of which latency and the gate are said
CANARY = "verdicts"


@dataclass(frozen=True)
class Status:
    """A model in service.

    Attributes:
        model: its name.
        aliases: number of the version of each.
        hours: of which traffic is said.
        requests: answered or not.
        failed: share of the rows with a status from 400.
        p50_ms, p99_ms: of the newest answers; None without any.
        refused: share of the newest rows that the gate refused.
        drift: the last look: when, and its alerts; None before the first.
        canary: what is to be done with the candidate, and why; None without one.
        incidents: ids of the open ones.
    """

    model: str
    aliases: dict[str, int]
    hours: float
    requests: int
    failed: float
    p50_ms: float | None
    p99_ms: float | None
    refused: float
    drift: dict[str, Any] | None
    canary: dict[str, Any] | None
    incidents: tuple[str, ...]

    def json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def status(
    telemetry: Path, registry: Registry, now: float, name: str | None = None, hours: float = 24.0
) -> list[Status]:
    """Of one model or of all that are registered.

    Args:
        telemetry: folder of the store.
        registry: of the versions.
        now: seconds since 1970.
        name: of one model.
        hours: before now, of which traffic is said.

    Raises:
        RegistryError: there is no model of this name.
    """
    names = registry.names() if name is None else [name]
    return [_of(telemetry, registry, each, now, hours) for each in names]


def _of(telemetry: Path, registry: Registry, name: str, now: float, hours: float) -> Status:
    aliases = {alias: version.number for alias, version in registry.aliases(name).items()}
    since = now - 3600 * hours
    try:
        history: History | None = History(telemetry)
    except DataError:  # nothing was served yet
        history = None
    requests, failed, newest = (0, 0.0, None) if history is None else _traffic(history, name, since)
    times = np.empty(0) if newest is None else newest[0][np.isfinite(newest[0])]
    gate = np.empty(0, np.str_) if newest is None else newest[1]
    return Status(
        model=name,
        aliases=aliases,
        hours=hours,
        requests=requests,
        failed=failed,
        p50_ms=float(1000 * np.quantile(times, 0.5)) if len(times) else None,
        p99_ms=float(1000 * np.quantile(times, 0.99)) if len(times) else None,
        refused=float(1 - np.isin(gate, PASSED).mean()) if len(gate) else 0.0,
        drift=_newest(telemetry / FOLDER / name, ("time", "drift", "alerts", "report")),
        canary=_canary(telemetry / CANARY / name),
        incidents=tuple(one.id for one in Incidents(telemetry).all(name) if one.open),
    )


def _traffic(history: History, name: str, since: float) -> tuple[int, float, tuple[Any, Any] | None]:
    """Requests, the share of rows that failed, and latency and gate of the newest rows."""
    rolled = history.minutes(Choice(since=since, model=name, alias="stable"))
    rows, parts = int(rolled.rows.sum()), []
    for model, version in history.models():
        if model == name:
            parts.append(history.window(Choice(since, model=name, version=version, alias="stable", newest=NEWEST)))
    if not parts or not rows:
        return 0, 0.0, None
    order = np.argsort(np.concatenate([part.time for part in parts]))[-NEWEST:]
    times, gate = (np.concatenate([getattr(part, field) for part in parts])[order] for field in ("total_s", "gate"))
    return int(rolled.requests.sum()), float(rolled.failed.sum() / rows), (times, gate)


def _newest(folder: Path, names: tuple[str, ...]) -> dict[str, Any] | None:
    paths = sorted(folder.glob("*.json"))
    if not paths:
        return None
    found = read_json(paths[-1])
    return {name: found.get(name) for name in names}


def _canary(folder: Path) -> dict[str, Any] | None:
    """The verdict on the newest candidate."""
    paths = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
    if not paths:
        return None
    verdict = read_json(paths[-1]).get("verdict")
    if not isinstance(verdict, dict):
        return None
    return {"version": paths[-1].stem, "action": verdict.get("action"), "reason": verdict.get("reason")}
