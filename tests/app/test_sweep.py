"""Sweeps: trained and judged once, gone on with after a stop, and wrong ones refused before any work."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from harness import SMALL, Cli

import lowerbound
from lowerbound.errors import UsageError
from lowerbound.lab.sweep import Finding

QUICK = (*SMALL, "--set", "evaluation.samples=2", "--set", "evaluation.examples=50", "--set", "evaluation.generated=20")
OVER = ("--over", "objective.beta=0.5,2")


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished sweep of two values and two seeds; nobody changes it."""
    from lowerbound.app.cli.main import app

    out = tmp_path_factory.mktemp("sweep") / "out"
    app(["sweep", "gmm2d", *OVER, "--seeds", "2", *QUICK, "--out", str(out)], standalone_mode=False)
    return out


def test_a_sweep_writes_runs_numbers_and_a_page(swept: Path) -> None:
    record = json.loads((swept / "sweep.json").read_text())
    assert [run["run"] for run in record["runs"]] == ["0.5-0", "0.5-1", "2-0", "2-1"]
    assert record["key"] == "objective.beta"
    for run in record["runs"]:
        found = lowerbound.Run(swept / run["run"])
        judged = json.loads(found.evaluation_path.read_text())["results"]
        assert found.recipe().objective["beta"] == float(run["value"])
        assert found.recipe().seed == run["seed"]
        assert run["results"]["elbo_nats"] == judged["elbo_nats"]["value"]
        assert "udr" not in run["results"]  # under a mixture prior, a unit has no rate of its own
    assert (swept / "rate-distortion.png").exists()
    page = (swept / "sweep.html").read_text()
    assert "4 of 4 runs" in page
    assert "http" not in page


def test_finished_runs_are_skipped_and_missing_ones_made(cli: Cli, swept: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(swept, tmp_path / "out"))
    before = (out / "sweep.json").read_bytes()
    shutil.rmtree(out / "2-0")
    (out / "2-1" / "evaluation.json").write_text("torn")
    judged = json.loads((out / "0.5-0" / "evaluation.json").read_text())
    judged["protocol"]["settings"]["samples"] = 1  # judged in another way
    (out / "0.5-0" / "evaluation.json").write_text(json.dumps({**judged, "results": {}}))
    kept = {path: path.stat().st_mtime_ns for path in out.rglob("weights.safetensors")}
    result = cli("sweep", "gmm2d", *OVER, "--seeds", 2, *QUICK, "--out", out)
    assert result.code == 0, result
    assert "4/4" in result.out
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    assert json.loads(before) == json.loads((out / "sweep.json").read_bytes())


def test_a_sweep_grows_by_values(cli: Cli, swept: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(swept, tmp_path / "out"))
    result = cli("sweep", "gmm2d", "--over", "objective.beta=2,4", *QUICK, "--out", out, "--json")
    assert result.code == 0, result
    told = json.loads(result.out)
    assert [(run["value"], run["seed"]) for run in told["runs"]] == [("2", 0), ("4", 0)]


def test_another_recipe_in_a_folder_is_refused(cli: Cli, swept: Path) -> None:
    cli("sweep", "gmm2d", *OVER, *QUICK, "--set", "training.steps=21", "--out", swept).refused(2, "0.5-0", "recipe")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--over", "objective.beta"], ["--over objective.beta", "0.5,1,2"]),
        (["--over", "=1,2"], ["--over =1,2"]),
        (["--over", "objective.beta=1,,2"], ["--over"]),
        (["--over", "objective.beta=1,1"], ["value 1 twice"]),
        (["--over", "objective.betta=1,2"], ["betta", "beta"]),
        (["--over", "training.steps=3,many"], ["training.steps"]),
        (["--over", "seed=1,2", "--seeds", "2"], ["seed itself"]),
        (["--over", "model.latent=1, 01"], ["01"]),
        (["--over", "model.encoder.widths=[1],[1 ]"], ["share folders"]),
    ],
)
def test_wrong_sweeps_are_refused_before_any_work(
    cli: Cli, tmp_path: Path, options: list[str], words: list[str]
) -> None:
    result = cli("sweep", "gmm2d", *options, "--out", tmp_path / "out")
    assert result.code == 2, result
    assert all(word in result.err for word in words), result.err
    assert not list(tmp_path.iterdir())


def test_seeds_are_ranked_by_how_alike_their_units_are(tmp_path: Path) -> None:
    few = ["training.steps=60", "model.latent=4", "evaluation.examples=50"]
    trials = lowerbound.plan_sweep("digits", "objective.beta", ["0.1", "1"], 2, tmp_path, few)
    for trial in trials[:3]:
        lowerbound.train(trial.recipe, trial.path)
    findings = [Finding(trial.value, trial.recipe.seed, trial.path.name, {"mig": 0.0}) for trial in trials[:3]]
    one, other, alone = (finding.results.get("udr") for finding in lowerbound.rank_seeds(trials, findings))
    assert one is not None
    assert one == other
    assert alone is None
    shutil.rmtree(trials[1].path)
    shutil.copytree(trials[0].path, trials[1].path)
    twin = lowerbound.rank_seeds(trials, findings)[0].results["udr"]
    assert one < twin <= 1


def test_values_with_commas_stay_whole() -> None:
    assert lowerbound.parse_over('a.b=[1, 2],{c = 1, d = 2},"x,y"') == ("a.b", ["[1, 2]", "{c = 1, d = 2}", '"x,y"'])
    with pytest.raises(UsageError):
        lowerbound.parse_over("a b=1")


def test_a_stopped_sweep_says_how_to_go_on(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lowerbound.app.cli.train import Stop

    monkeypatch.setattr(Stop, "asked", lambda self: True)
    out = tmp_path / "out"
    result = cli("sweep", "gmm2d", *OVER, *QUICK, "--out", out)
    assert result.code == 0, result
    assert "0 of 2 runs; go on with the same command" in result.out
    monkeypatch.undo()
    assert cli("sweep", "gmm2d", *OVER, *QUICK, "--out", out).code == 0
    assert len(json.loads((out / "sweep.json").read_text())["runs"]) == 2


def test_runs_that_fail_are_told_and_do_not_stop_the_others(cli: Cli, tmp_path: Path) -> None:
    """A weight of 1e30 on the rate makes numbers that are not finite; one of 50 collapses; 1 is healthy."""
    out = tmp_path / "out"
    steps = (
        "--set",
        'training.guard.policy="off"',
        "--set",
        "training.steps=300",
        "--set",
        "evaluation.samples=2",
        "--set",
        "evaluation.examples=60",
    )
    ended = cli("sweep", "digits", "--over", "objective.beta=1e38,50,1", *steps, "--out", out)
    assert ended.code == 0
    failed = {run["value"]: run["failed"] for run in json.loads((out / "sweep.json").read_text())["runs"]}
    assert failed["1e38"]
    assert "collapse" in failed["50"]
    assert failed["1"] == ""
    page = (out / "sweep.html").read_text()
    assert page.count("1 of 1") == 2
    assert (out / "numbers.png").exists()
