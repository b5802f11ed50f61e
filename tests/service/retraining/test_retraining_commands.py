"""`lowerbound retrain` and `lowerbound watch` as a person runs them."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest
import requests_of_digits as digits
from typer.testing import CliRunner, Result

from lowerbound.app.cli.main import app
from lowerbound.service.registry.registry import Registry


@pytest.fixture
def place(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a registry and a plan."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plan.toml").write_text("\n".join(digits.PLAN))
    return tmp_path


def lowerbound(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code, result.output
    return result


def recently() -> float:
    return time.time() - 3600


def test_retrain_and_what_it_says(place: Path) -> None:
    digits.send(place / "telemetry", digits.moved(), start=recently())
    said = lowerbound("retrain", "digits", "--tier", "incremental", "--plan", "plan.toml", "--out", "jobs/first").output
    assert "done: digits:2 is a candidate" in said
    assert "kept        cluster 0" in said
    again = json.loads(
        lowerbound(
            *("retrain", "digits", "--tier", "incremental", "--plan", "plan.toml", "--out", "jobs/first", "--json")
        ).output
    )
    assert (again["outcome"], again["number"]) == ("done", 2)
    assert Registry("registry").resolve("digits@canary").number == 2


def test_a_refused_candidate_ends_with_1(place: Path) -> None:
    digits.send(place / "telemetry", digits.inverted(), start=recently())
    settings = ("--set", "shares={production=1.0}", "--set", "training.epochs=15")
    said = lowerbound(
        "retrain", "digits", "--tier", "emergency", "--plan", "plan.toml", *settings, "--out", "jobs/bad", code=1
    ).output
    assert "forgotten   cluster 0" in said
    assert "refused: the candidate forgot" in said


def test_wrong_use_makes_nothing(place: Path) -> None:
    digits.send(place / "telemetry", digits.moved(10), start=recently())
    for arguments in (
        ("retrain", "digits", "--tier", "incremental", "--telemetry", "nowhere"),
        ("retrain", "nobody", "--tier", "incremental"),
        ("retrain", "digits", "--tier", "incremental", "--set", "days=0.0"),
        ("watch", "nobody", "--once"),
    ):
        assert CliRunner().invoke(app, arguments).exit_code != 0
    assert not (place / "retraining").exists()


def test_watch_once(place: Path) -> None:
    digits.send(place / "telemetry", digits.moved(), start=recently())
    tasks = ("--weekly", "incremental", "--monthly", "nothing", "--on-drift", "nothing", "--plan", "plan.toml")
    assert json.loads(lowerbound("watch", "digits", "--once", *tasks, "--json").output) == []
    leases = Registry("registry").leases()
    (task,) = leases.tasks()
    assert task.task == "weekly"
    assert leases.call("digits", "weekly", recently())
    assert (
        "done: weekly (incremental): digits:2 is a candidate" in lowerbound("watch", "digits", "--once", *tasks).output
    )
