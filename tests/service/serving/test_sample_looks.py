"""Looks at what versions make: a frozen version, growth that is allowed, an alarm for one that was hardly trained."""

from __future__ import annotations

import json
import re
import sys
from base64 import b64decode
from pathlib import Path

import pytest

import lowerbound
from lowerbound.app.cli.main import main
from lowerbound.errors import DataError, TooFewError
from lowerbound.files import write_json
from lowerbound.service.monitoring.incidents import Incidents
from lowerbound.service.monitoring.looking.samples import look_at_samples
from lowerbound.service.registry.registry import Registry

ROWS = 800
UNJUDGED = {"protocol": {"examples": 0, "split": "test", "samples": 0}, "results": {}}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("samples")


@pytest.fixture(scope="module")
def registry(place: Path) -> Registry:
    """Version 1 and its twin of another seed, trained; version 3 is not."""
    folder = place
    made = Registry(folder / "registry")
    for name, settings in {
        "one": ("training.steps=100", "seed=1"),
        "twin": ("training.steps=100", "seed=2"),
        "hasty": ("training.steps=3", "seed=3"),
    }.items():
        lowerbound.train(lowerbound.read_recipe("digits", ("objective.beta.steps=20", *settings)), folder / name)
        write_json(folder / name / "evaluation.json", UNJUDGED)
        made.add(folder / name, "digits")
    return made


def look(place: Path, number: int, telemetry: Path, *more: str) -> int:
    """The command's exit code, with a version that is stable."""
    registry = Registry(place / "registry")
    if (stable := registry.aliases("digits").get("stable")) is None or stable.number != number:
        registry.promote("digits", number)
    where = ["--registry", str(place / "registry"), "--telemetry", str(telemetry), "--rows", str(ROWS), "--seed", "5"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["lowerbound", "monitor", "samples", "digits", *where, *more])
        with pytest.raises(SystemExit) as end:
            main()
    return int(end.value.code or 0)


@pytest.mark.usefixtures("registry")
def test_only_a_version_that_makes_worse_rows_alarms(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert look(place, 1, tmp_path, "--json") == 0
    frozen = json.loads(capsys.readouterr().out)
    assert frozen["frozen"] == 1
    assert frozen["verdict"]["low"] < 0 < frozen["verdict"]["high"]
    assert look(place, 2, tmp_path, "--features", "raw") == 0  # the twin is frozen for these
    assert look(place, 3, tmp_path) == 1
    assert "docs/runbook.md#drift-samples" in capsys.readouterr().out
    (incident,) = Incidents(tmp_path).all("digits")
    assert incident.alerts == ("drift-samples",)
    assert len(list((tmp_path / "samples" / "digits" / "looks").glob("*.json"))) == 3
    assert look(place, 3, tmp_path, "--freeze") == 0


def test_other_rows_than_frozen_are_refused(registry: Registry, tmp_path: Path) -> None:
    version = registry.resolve("digits:1")
    look_at_samples(version, registry, tmp_path, rows=ROWS)
    with pytest.raises(DataError, match="freeze anew"):
        look_at_samples(version, registry, tmp_path, rows=ROWS + 1)
    with pytest.raises(TooFewError, match="--rows"):
        look_at_samples(version, registry, tmp_path, rows=10_000, freeze=True)
    look_at_samples(version, registry, tmp_path, rows=ROWS)  # what was frozen before stands


@pytest.mark.usefixtures("registry")
def test_people_judge_pairs_and_do_not_know_whose(place: Path, tmp_path: Path) -> None:
    look(place, 1, tmp_path)
    look(place, 3, tmp_path, "--blind", str(tmp_path / "blind.html"))
    page = (tmp_path / "blind.html").read_text(encoding="utf-8")
    assert page.count("left picture of pair") == 40
    assert "digits:1" not in page
    found = re.search(r'atob\("([^"]+)"\)', page)
    assert found is not None
    key = json.loads(b64decode(found[1]))
    assert key["names"] == ["digits:1", "digits:3"]
    assert 5 < sum(key["turned"]) < 35
