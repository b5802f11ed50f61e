"""What the dashboard shows of one model, as JSON: from telemetry, the registry, and what others left beside them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lowerbound.app.web import codes, records, traffic
from lowerbound.errors import LowerboundError, UsageError
from lowerbound.service.monitoring.telemetry.history import Choice, History
from lowerbound.service.registry import ledger
from lowerbound.service.registry.registry import Registry
from lowerbound.service.registry.version import Version

SCHEMA = 1
WIDTHS = {1: 1, 6: 5, 24: 15, 168: 60}  # hours that can be shown, and the minutes of a span of each
ENTRIES = 20  # of the history


@dataclass(frozen=True)
class Sources:
    """Where a board is from.

    Attributes:
        registry: of the versions.
        telemetry: folder of the store; None where none is kept.
    """

    registry: Registry
    telemetry: Path | None


def board(sources: Sources, name: str, hours: int, now: float) -> dict[str, Any]:
    """What is shown of a model.

    Args:
        sources: where it is from; what is not there is null.
        name: of the model in the registry.
        hours: until now: 1, 6, 24 or 168.
        now: seconds since 1970.

    Raises:
        UsageError: other hours.
        RegistryError: there is no such model.
    """
    if hours not in WIDTHS:
        raise UsageError(f"{hours} hours were asked for; the dashboard shows {', '.join(map(str, WIDTHS))}.")
    versions = _versions(sources.registry, name)
    stable = sources.registry.aliases(name).get("stable")
    folder = sources.telemetry
    return {
        "schema": SCHEMA,
        "made": now,
        "model": name,
        "hours": hours,
        "versions": versions,
        "telemetry": _telemetry(folder, name, stable, hours, now),
        "canary": None if folder is None else records.verdict(folder, name, versions["aliases"].get("canary")),
        "drift": None if folder is None else records.looks(folder, name),
        "incidents": None if folder is None else records.incidents(folder, name),
    }


def _telemetry(folder: Path | None, name: str, stable: Version | None, hours: int, now: float) -> dict[str, Any]:
    if folder is None:
        return {"here": False, "why": "This server keeps no telemetry (--no-telemetry)."}
    try:
        history = History(folder)
    except LowerboundError as error:
        return {"here": False, "why": str(error)}
    width_s = 60 * WIDTHS[hours]
    shown = Choice(since=(now - 3600 * hours) // width_s * width_s, until=now, model=name)
    own = Choice(shown.since, now, name, None if stable is None else stable.hash)
    newest = history.last_time(Choice(model=name))
    over_time, answers = traffic.traffic(history, shown, WIDTHS[hours])
    return {
        "here": True,
        "newest": newest,
        "lost": history.losses(shown.since),
        "traffic": over_time,
        "answers": answers,
        "latency": traffic.latency(history, shown, WIDTHS[hours]),
        "rolling": traffic.rolling(history, own),
        "codes": None if stable is None else _codes(history, own, stable),
    }


def _codes(history: History, choice: Choice, version: Version) -> dict[str, Any]:
    try:
        return codes.codes(history, choice, version)
    except LowerboundError as error:
        return {"rows": 0, "latent": None, "codebook": None, "why": str(error)}


def _versions(registry: Registry, name: str) -> dict[str, Any]:
    aliases = {alias: version.number for alias, version in registry.aliases(name).items()}
    entries = registry.history(name)
    way = ledger.way_back(entries, "stable")
    return {
        "aliases": aliases,
        "versions": [
            {"number": version.number, "hash": version.hash, "created": version.created, "parent": version.parent}
            for version in registry.versions(name)
        ],
        "history": [
            {key: value for key, value in asdict(entry).items() if key not in ("previous", "hash", "version", "name")}
            for entry in entries[: -ENTRIES - 1 : -1]
        ],
        "back": way[-2] if len(way) > 1 else None,
    }
