"""Replay: any span of telemetry, through any version: would it have alarmed?"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lowerbound.errors import NotSupportedError, TooFewError
from lowerbound.service.monitoring.looking.baseline import FOLDER, codes_of
from lowerbound.service.monitoring.looking.look import Look
from lowerbound.service.monitoring.looking.monitor import Monitor
from lowerbound.service.monitoring.looking.settings import Looking
from lowerbound.service.monitoring.looking.stretch import PASSED, PROBE
from lowerbound.service.monitoring.looking.through import facts_through
from lowerbound.service.monitoring.telemetry.history import Choice, History
from lowerbound.service.monitoring.telemetry.store import Telemetry
from lowerbound.service.registry.registry import Registry
from lowerbound.service.registry.version import Version
from lowerbound.service.serving.deployment import deploy

ENOUGH = 0.5  # of the requests must have kept their inputs, to go through an encoder again
WAITING = 10_000  # facts, until the store has written them


@dataclass(frozen=True)
class Replay:
    """What would have been seen.

    Attributes:
        version: NAME:NUMBER.
        through: "stored codes", or "kept inputs" where they went through the encoder again.
        requests: that there were in the span.
        looks: one of each window, in order.
    """

    version: str
    through: str
    requests: int
    looks: tuple[Look, ...]

    @property
    def alarms(self) -> tuple[Look, ...]:
        """The looks that alarm."""
        return tuple(look for look in self.looks if look.alerts)

    def json(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self), "looks": [look.json() for look in self.looks], "alarms": len(self.alarms)}


def replay(
    version: Version,
    registry: Registry,
    telemetry: Path,
    looking: Looking,
    since: float,
    until: float,
    *,
    level: float = 0.001,
) -> Replay:
    """Look at a span of telemetry as if a version had served it; nothing is kept of it.

    Stored codes are taken where all that served had the version's codes, to the bit. Otherwise requests go through its
    encoder again, if their inputs were kept, and through its gate.

    Args:
        version: any of the registry.
        registry: that it is in.
        telemetry: folder of the store.
        looking: how requests are looked at.
        since, until: times, seconds since 1970.
        level: of the gate, where requests go through it again.

    Raises:
        TooFewError: fewer requests than one window.
        NotSupportedError: other codes, and too few inputs.
    """
    with tempfile.TemporaryDirectory() as place:
        state = Path(place)
        if (telemetry / FOLDER).is_dir():
            shutil.copytree(telemetry / FOLDER, state / FOLDER)
        same = _same_codes(version, registry, telemetry, looking.alias, since, until)
        facts = telemetry if same else _again(version, telemetry, state / "facts", looking.alias, since, until, level)
        monitor = Monitor(facts, registry, looking, state=state)
        stretch = monitor.read(version, since, until)
        windows = stretch.cut(looking.window)
        if not windows:
            raise TooFewError(
                f"{len(stretch):,} requests of this span have facts, and a look is at {looking.window:,}; choose a "
                "longer span or a smaller window."
            )
        looks = tuple(monitor.examine(version, window) for window in windows)
    return Replay(version.reference, "stored codes" if same else "kept inputs", stretch.asked, looks)


def _same_codes(version: Version, registry: Registry, telemetry: Path, alias: str, since: float, until: float) -> bool:
    """Whether all versions that served had the codes of this one."""
    known = {other.hash: codes_of(other) for other in registry.versions(version.name)}
    history = History(telemetry)
    for name, served in history.models():
        if name == version.name and known.get(served) != codes_of(version):
            choice = Choice(since, until, model=name, version=served, alias=alias, newest=1)
            if len(history.window(choice)):
                return False
    return True


def _again(
    version: Version, telemetry: Path, place: Path, alias: str, since: float, until: float, level: float
) -> Path:
    """A store of what the version makes of the kept inputs of a span."""
    history, asked, rows = History(telemetry), 0, []
    for name, served in history.models():
        if name == version.name:
            choice = Choice(since, until, model=name, version=served, alias=alias)
            window, (ids, inputs) = history.window(choice), history.inputs(choice)
            asked += int((np.isin(window.gate, PASSED) & (window.code.shape[1] > 0)).sum())
            times = dict(zip(window.id.tolist(), zip(window.time, window.request, strict=True), strict=True))
            rows += [(*times[id], row) for id, row in zip(ids.tolist(), inputs, strict=True) if id in times]
    rows = sorted((row for row in rows if not str(row[1]).startswith(PROBE)), key=lambda row: row[0])
    if not rows or len(rows) < ENOUGH * asked:
        raise NotSupportedError(
            f"the requests of this span were encoded by another encoder than that of {version.reference}, and inputs "
            f"of {len(rows):,} of {asked:,} were kept: replay a version with the same codes, or serve with "
            "--privacy sample."
        )
    deployment = deploy(version.name, version, alias, "torch", level, 1)
    with Telemetry(place) as store:
        for start in range(0, len(rows), WAITING):
            part = rows[start : start + WAITING]
            raw = np.stack([row for _, _, row in part])
            for fact in facts_through(
                deployment, raw, [float(row[0]) for row in part], [str(row[1]) for row in part], alias=alias
            ):
                store(fact)
            store.flush(60)
    return place
