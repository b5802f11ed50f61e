"""The circle closes: requests drift, a watcher sees it, and a candidate that learnt the new regime becomes canary."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import requests_of_digits as digits
import torch
from numpy.typing import NDArray

import lowerbound
from lowerbound.files import read_json
from lowerbound.lab.facts import Facts, facts_of
from lowerbound.model.spec import Context
from lowerbound.service.monitoring.looking.monitor import Monitor
from lowerbound.service.monitoring.looking.settings import Looking
from lowerbound.service.monitoring.telemetry.fact import Fact, Privacy
from lowerbound.service.monitoring.telemetry.store import Telemetry
from lowerbound.service.registry.registry import Registry
from lowerbound.service.retraining.watcher import Watcher, looking, noting, schedules

NOW, DAY = digits.NOW, 86400.0


def answer(place: Path, rows: NDArray[np.uint8], start: float) -> None:
    """Keep what the stable version makes of rows, and the rows, as a server would."""
    version = Registry(place / "registry").resolve(digits.NAME)
    absent = Context(torch.zeros(len(rows), 10), torch.zeros(len(rows), dtype=torch.bool))
    found = facts_of(Facts(lowerbound.load(version.path)), torch.from_numpy(rows), absent)
    with Telemetry(place / "telemetry", privacy=Privacy("sample", 1.0)) as telemetry:
        for row, at in enumerate(start + np.arange(len(rows))):
            fact = Fact(
                float(at),
                f"{at}",
                digits.NAME,
                version.hash,
                "stable",
                "score",
                gate="passed",
                error=float(found["error"][row]),
                rates=found["rates"][row].numpy(),
                code=found["z"][row].numpy(),
                input=rows[row],
            )
            assert telemetry(fact)
        assert telemetry.flush(30)


@pytest.mark.slow
def test_drift_is_seen_learnt_and_tried(trained: Path, tmp_path: Path) -> None:
    place, chance = Path(shutil.copytree(trained, tmp_path / "place")), np.random.default_rng(0)
    ordinary = np.concatenate([digits.moved(1297, seed) for seed in range(5)])
    answer(place, ordinary[chance.permutation(len(ordinary))], NOW - 20_000)
    (place / "plan.toml").write_text("\n".join([*digits.PLAN, "days=30.0", "training.epochs=15"]))
    registry, now = Registry(place / "registry"), [NOW]
    monitor = Monitor(place / "telemetry", registry, Looking(window=300, looks=4.0))
    watcher = Watcher(
        [digits.NAME],
        registry,
        place / "telemetry",
        place / "out",
        schedules({"on-drift": "emergency"}, place / "plan.toml"),
        looks=[looking(monitor)],
        after=[noting(monitor.incidents)],
        clock=lambda: now[0],
    )
    assert watcher.round() == []
    answer(place, digits.inverted(), NOW + 9 * DAY)
    now[0] = NOW + 10 * DAY
    events = watcher.round()
    assert [event.kind for event in events] == ["drift", "done"], events
    (look,) = sorted((place / "telemetry" / "drift" / digits.NAME).glob("*.json"))[1:]
    assert read_json(look)["drift"]
    (incident,) = monitor.incidents.all(digits.NAME)
    assert [event.step for event in incident.timeline][-2:] == ["fix", "validate"]
    assert "digits:2 is a candidate" in incident.timeline[-2].text
    assert registry.resolve(f"{digits.NAME}@canary").number == 2
    (job,) = (path for path in (place / "out" / digits.NAME).iterdir() if path.name != "suite")
    changes = {each["slice"]: each["change"] for each in read_json(job / "guard.json")["findings"]}
    new = next(name for name in changes if name.startswith("production"))
    assert changes[new] < -0.1
    assert watcher.round() == [], "one look is enough"
