"""How the codes of two versions differ on the rows that both saw."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lowerbound.errors import TooFewError
from lowerbound.service.monitoring.telemetry.history import Choice, History, Window
from lowerbound.service.monitoring.verdicts.halves import Side
from lowerbound.service.monitoring.verdicts.pairing import Array

LEAST = 2  # rows
ALIKE = 2e-3  # of a code's size: what half precision and two engines may differ by


@dataclass(frozen=True)
class Codes:
    """Codes of a candidate beside those of the stable version.

    Attributes:
        rows: that both coded.
        equal: share of them whose codes are the same.
        distance: root mean square difference of a unit, in standard deviations of the stable version's unit; of indices
            the share that differ.
        unit, most: the unit that differs most, and by how much.
    """

    rows: int
    equal: float
    distance: float
    unit: int
    most: float


def compare_codes(folder: Path, name: str, candidate: Side, stable: Side, newest: int = 20_000) -> Codes:
    """Compare codes of the newest rows that both versions saw.

    It says whether codes that are kept would still mean the same; of which version is better it says nothing.

    Args:
        folder: of the telemetry.
        name: of the model.
        candidate, stable: whose codes.
        newest: rows of each that are looked at, at most.

    Raises:
        TooFewError: there are no rows with codes of both, or the codes have other units.
        DataError: there is no telemetry.
    """
    history = History(folder)
    mine, theirs = (
        history.window(Choice(model=name, alias=side.alias, version=side.version, coded=True, newest=newest, idle=True))
        for side in (candidate, stable)
    )
    places = _joined(mine, theirs)
    if len(places) < LEAST:
        raise TooFewError(
            f"{len(places)} rows have codes of both versions, and {LEAST} are needed: let them see requests, with "
            "--privacy code or sample."
        )
    ours, others = mine.code[places[:, 0]], theirs.code[places[:, 1]]
    if ours.shape != others.shape or ours.dtype != others.dtype:
        raise TooFewError("the two versions have codes of other kinds or sizes, so no unit can be compared.")
    return _compared(ours, others)


def _joined(mine: Window, theirs: Window) -> Array:
    """Places of the rows that are in both, (N, 2)."""
    where = {key: place for place, key in enumerate(zip(theirs.request, theirs.row, strict=True))}
    keys = enumerate(zip(mine.request, mine.row, strict=True))
    return np.array([(place, where[key]) for place, key in keys if key in where], np.int64).reshape(-1, 2)


def _compared(ours: Array, others: Array) -> Codes:
    if ours.dtype.kind == "i":
        apart = (ours != others).astype(np.float64)
        equal, units = (apart == 0).all(axis=1), apart.mean(axis=0)
        distance = float(apart.mean())
    else:
        apart = np.abs(ours.astype(np.float64) - others)
        size = np.maximum(1.0, np.abs(others))
        equal = (apart <= ALIKE * size).all(axis=1)
        deviation = others.std(axis=0, dtype=np.float64)
        units = np.sqrt((apart**2).mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
        distance = float(np.sqrt((units**2).mean()))
    unit = int(units.argmax())
    return Codes(len(ours), float(equal.mean()), distance, unit, float(units[unit]))
