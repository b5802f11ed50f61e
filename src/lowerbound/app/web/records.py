"""What others left beside the telemetry: verdicts on canaries, looks for drift, incidents. All of it may be missing."""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path
from typing import Any

LOOKS, INCIDENTS, PICTURES = 48, 20, 6  # that are shown, the newest
PICTURE_BYTES = 300_000
RELATIVE = "error"  # the metric whose mean is a logarithm of a ratio

Record = dict[str, Any]


def verdict(folder: Path, name: str, number: int | None) -> Record | None:
    """What is known of a candidate: the verdict, and the curve of evidence of each metric.

    Args:
        folder: of the telemetry.
        name: of the model.
        number: of the canary; without one, the candidate that was judged last.
    """
    files = folder / "verdicts" / name
    path = files / f"{number}.json"
    if number is None or not path.is_file():
        there = sorted((each for each in files.glob("*.json") if each.stem.isdigit()), key=_changed)
        if not there:
            return None
        path = there[-1]
    state = _read(path)
    if state is None:
        return None
    judge, last = _table(state, "judge") or state, _table(state, "verdict")
    rules = _table(judge, "rules")
    curves = {
        metric: _curve(metric, curve.get("points") or [])
        for metric, curve in _table(judge, "curves").items()
        if isinstance(curve, dict)
    }
    return {
        "number": int(path.stem),
        "now": number is not None and path.stem == str(number),
        "started": judge.get("started"),
        "verdict": {
            key: last.get(key) for key in ("action", "reason", "needs", "judgement", "at", "requests", "override")
        },
        "rules": {key: rules.get(key) for key in ("share", "soak_s", "margin", "far", "wrong", "false_rollback")},
        "curves": {metric: curve for metric, curve in curves.items() if curve["n"]},
    }


def looks(folder: Path, name: str) -> Record:
    """The newest looks for drift, oldest first, and the newest one that has pictures, with them."""
    files = sorted((folder / "drift" / name).glob("*.json"))[-LOOKS:]
    found = [record for record in map(_read, files) if record is not None]
    drawn = next((record for record in reversed(found) if record.get("directions")), None)
    return {
        "looks": [_look(record) for record in found],
        "drawn": None if drawn is None else _drawn(folder / "drift" / name, drawn),
    }


def incidents(folder: Path, name: str) -> list[Record]:
    """Open incidents of a model and the last closed ones, the newest first."""
    found = [record for record in map(_read, (folder / "incidents").glob("*.json")) if record is not None]
    mine = [record for record in found if record.get("model") in (None, "", name)]
    mine.sort(key=lambda record: (record.get("closed") is None, _float(record.get("opened"))), reverse=True)
    return [_incident(record) for record in mine[:INCIDENTS]]


def _look(record: Record) -> Record:
    verdicts = _list(record.get("verdicts"))
    return {
        "time": _float(record.get("time")),
        "requests": record.get("requests"),
        "alerts": _list(record.get("alerts"), str),
        "drift": bool(record.get("drift")),
        "certificate": record.get("certificate"),
        "baseline": record.get("baseline"),
        "verdicts": [
            {key: each.get(key) for key in ("detector", "alarm", "p_value", "level", "effect", "label")}
            for each in verdicts
        ],
        "signs": [
            {key: each.get(key) for key in ("name", "share", "expected", "alarm")}
            for each in _list(record.get("signs"))
        ],
        "errors": {key: _table(record, "errors").get(key) for key in ("mean", "ordinary_mean", "suffered")}
        if record.get("errors")
        else None,
    }


def _drawn(folder: Path, record: Record) -> Record:
    """A look's directions, each with its picture as an address that holds it."""
    ways = []
    for way in _list(record.get("directions"))[:PICTURES]:
        path = folder / Path(str(way.get("picture"))).name
        try:
            content = path.read_bytes() if path.suffix == ".png" and path.stat().st_size < PICTURE_BYTES else b""
        except OSError:
            content = b""
        picture = f"data:image/png;base64,{base64.b64encode(content).decode()}" if content else None
        ways.append({key: way.get(key) for key in ("label", "moved", "spread")} | {"picture": picture})
    return {"time": _float(record.get("time")), "directions": ways, "causes": _causes(record)}


def _incident(record: Record) -> Record:
    timeline = [{key: event.get(key) for key in ("time", "step", "text")} for event in _list(record.get("timeline"))]
    return {
        **{key: record.get(key) for key in ("id", "kind", "opened", "closed", "version")},
        "alerts": _list(record.get("alerts"), str),
        "timeline": timeline,
        "causes": _causes(record),
        "reports": _list(record.get("reports"), str),
    }


def _causes(record: Record) -> list[Record]:
    return [{key: cause.get(key) for key in ("name", "share", "stderr")} for cause in _list(record.get("causes"))]


def _curve(metric: str, points: list[Record]) -> Record:
    """A curve as columns; ratios as percentages."""
    shown = [point for point in points if isinstance(point, dict) and point.get("n")]

    def column(key: str) -> list[float | None]:
        values = [point.get(key) for point in shown]
        return [None if value is None else _shown(metric, float(value)) for value in values]

    return {
        "n": [int(point["n"]) for point in shown],
        **{key: column(key) for key in ("mean", "lower", "upper", "margin")},
        "unit": "points" if metric == "frechet" else "%",
        "state": shown[-1].get("state") if shown else "open",
        "needs": shown[-1].get("needs") if shown else None,
    }


def _shown(metric: str, value: float) -> float:
    if metric == "frechet":
        return value
    return 100 * (math.expm1(min(value, 50.0)) if metric == RELATIVE else value)


def _read(path: Path) -> Record | None:
    """The object of a file; None where it is missing, being replaced, or not one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _table(record: Record, key: str) -> Record:
    found = record.get(key)
    return found if isinstance(found, dict) else {}


def _list(value: Any, kind: type = dict) -> list[Any]:
    return [each for each in value if isinstance(each, kind)] if isinstance(value, (list, tuple)) else []


def _float(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
