"""Papers: a tiny one from end to end, one that was stopped, wrong ones, and those that are shipped."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from harness import Cli

import lowerbound
from lowerbound.errors import DataError
from lowerbound.lab import checkpoint
from lowerbound.lab.papers import PaperFigure
from lowerbound.lab.sweep import Trial

HEAD = 'title = "On three points"\ncitation = "Nobody 2020"\ndiffers = "In all."\n'
SETTINGS = [
    *("training.steps=20", "training.checkpoint_every=10", "training.journal_every=5", "training.batch_size=32"),
    *("model.encoder.widths=[16]", "model.decoder.widths=[16]"),
    *("evaluation.samples=2", "evaluation.examples=50", "evaluation.generated=20"),
]
PAPER = f"""{HEAD}
[runs.plain]
recipe = "gmm2d"
settings = {SETTINGS}
seeds = 2
keep = true

[runs.heavy]
recipe = "gmm2d"
settings = {[*SETTINGS, "objective.beta=4.0"]}
more = "Twice as many points."

[[figures]]
what = "the bound"
where = "table 1"
published = -1000.0
run = "plain"
number = "nll_nats"

[[figures]]
what = "the rate, plain less heavy"
where = "figure 2"
target = -1000.0
run = "plain"
over = "heavy"
number = "rate_nats"
better = "more"
"""


def write_paper(folder: Path, text: str = PAPER) -> Path:
    path = folder / "points.toml"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reproduced paper and its file; nobody changes it but by the same command."""
    from lowerbound.app.cli.main import app

    folder = tmp_path_factory.mktemp("paper")
    app(["reproduce", str(write_paper(folder)), "--out", str(folder / "out")], standalone_mode=False)
    return folder


def test_a_paper_is_trained_judged_and_written(reproduced: Path) -> None:
    out = reproduced / "out"
    record = json.loads((out / "points.json").read_text())
    judged = {
        name: json.loads((out / "runs" / "points" / name / "evaluation.json").read_text())["results"]
        for name in ("plain-0", "plain-1", "heavy-0")
    }
    bound, rate = record["figures"]
    nll = [judged[name]["nll_nats"] for name in ("plain-0", "plain-1")]
    assert bound["value"] == pytest.approx((nll[0]["value"] + nll[1]["value"]) / 2)
    assert bound["spread"] == pytest.approx(abs(nll[0]["value"] - nll[1]["value"]) / math.sqrt(2))
    assert bound["stderr"] == pytest.approx((nll[0]["stderr"] + nll[1]["stderr"]) / 2)
    assert (bound["seeds"], bound["rows"], bound["reached"]) == (2, 50, False)
    rates = {name: judged[name]["rate_nats"]["value"] for name in judged}
    assert rate["value"] == pytest.approx((rates["plain-0"] + rates["plain-1"]) / 2 - rates["heavy-0"])
    assert (rate["seeds"], rate["spread"], rate["reached"]) == (1, None, True)
    assert [run["state"] for run in record["runs"]] == ["finished and judged"] * 3
    assert all(run["seconds"] > 0 and run["processor_seconds"] > 0 for run in record["runs"])


def test_the_page_says_what_was_reached(reproduced: Path) -> None:
    page, index = ((reproduced / "out" / name).read_text() for name in ("points.md", "README.md"))
    assert "On three points" in page
    assert "short of -1000 by" in page
    assert "Twice as many points." in page
    assert "lowerbound train gmm2d --set training.steps=20" in page
    assert "| [points](points.md) | the bound |" in index
    assert "| reached |" in index


def test_what_is_there_is_not_made_again(cli: Cli, reproduced: Path) -> None:
    out = reproduced / "out"
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file() and path.parent != out}
    pages = {path: path.read_bytes() for path in out.iterdir() if path.is_file()}
    assert cli("reproduce", reproduced / "points.toml", "--out", out).code == 0
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert pages == {path: path.read_bytes() for path in pages}


def test_kept_weights_can_be_judged_again(reproduced: Path) -> None:
    folder = reproduced / "out" / "weights" / "points-plain-0"
    recorded = json.loads((folder / "evaluation.json").read_text())["results"]["nll_nats"]
    again = lowerbound.evaluate(folder, lowerbound.read_recipe("gmm2d").evaluation, write=False)
    assert abs(float(again.results["nll_nats"].value) - recorded["value"]) < 5 * recorded["stderr"]  # type: ignore[arg-type]
    assert not (folder.parent / "points-heavy-0").exists()


def test_large_weights_are_rounded_and_larger_ones_refused(tmp_path: Path) -> None:
    def made(width: int) -> Trial:
        widths = [f"model.{part}.widths=[{width},{width}]" for part in ("encoder", "decoder")]
        recipe = lowerbound.read_recipe("gmm2d", [*SETTINGS, *widths, "training.steps=1"])
        trial = Trial("wide", recipe, tmp_path / f"{width}")
        lowerbound.train(recipe, trial.path)
        return trial

    wide, copy = made(850), tmp_path / "copy"
    lowerbound.keep_weights(wide, copy)
    exact, kept = (checkpoint.read_tensors(place / "weights.safetensors") for place in (wide.path, copy))
    assert (copy / "weights.safetensors").stat().st_size < 4_000_000
    assert kept["encoder.layers.0.weight"].equal(exact["encoder.layers.0.weight"].half())
    assert json.loads((copy / "evaluation.json").read_text())["results"]["nll_nats"]["n"] == 200
    with pytest.raises(DataError, match="4 MB"):
        lowerbound.keep_weights(made(1500), tmp_path / "other")


def test_a_stopped_run_is_told_and_gone_on_with(cli: Cli, reproduced: Path, tmp_path: Path) -> None:
    path, out = reproduced / "points.toml", tmp_path / "out"
    name, paper = lowerbound.read_paper(str(path))
    trial = lowerbound.plan_paper(paper, name, out, only=["heavy"])[0]
    steps = iter(range(100))
    run = lowerbound.train(trial.recipe, trial.path, stop=lambda: next(steps) == 11)
    assert not run.finished
    assert cli("reproduce", path, "--out", out, "--dry-run").code == 0
    record = json.loads((out / "points.json").read_text())
    assert [(one["run"], one["state"], one["steps"]) for one in record["runs"]] == [
        ("plain", "absent", 0),
        ("plain", "absent", 0),
        ("heavy", "stopped", 12),
    ]
    assert "not yet" in (out / "points.md").read_text()
    assert "12 of 20" in (out / "points.md").read_text()
    assert cli("reproduce", path, "--out", out, "--only", "heavy").code == 0
    whole = reproduced / "out" / "runs" / "points" / "heavy-0"
    tensors = checkpoint.read_tensors(whole / "weights.safetensors")
    for key, value in checkpoint.read_tensors(trial.path / "weights.safetensors").items():
        assert value.equal(tensors[key]), key
    times = [row["seconds"] for row in map(json.loads, (trial.path / "journal.jsonl").read_text().splitlines())]
    assert times == sorted(times)  # they go on where they were


def test_papers_are_listed(cli: Cli) -> None:
    told = cli("reproduce").out
    assert all(name in told for name in lowerbound.shipped_papers())
    assert json.loads(cli("reproduce", "--json").out)["vae-iwae"]["runs"]["vae"]["seeds"] == 1


@pytest.mark.parametrize("name", lowerbound.shipped_papers())
def test_recipes_of_shipped_papers_can_be_read(name: str, tmp_path: Path) -> None:
    _, paper = lowerbound.read_paper(name)
    trials = lowerbound.plan_paper(paper, name, tmp_path)
    assert {trial.value for trial in trials} == set(paper.runs)
    made = [lowerbound.look_at_trial(paper, trial) for trial in trials]
    record = lowerbound.write_reproduction(tmp_path / f"{name}.json", name, paper, made)
    assert all(figure["value"] is None for figure in record["figures"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("title = 1", ["title"]),
        ("title = ", ["TOML"]),
        (PAPER.replace('run = "plain"', 'run = "plan"'), ["plan", "plain"]),
        (PAPER.replace("published = -1000.0", ""), ["the bound", "published"]),
        (PAPER.replace("seeds = 2", "seeds = 0"), ["seeds"]),
        (PAPER.replace('"gmm2d"', '"gmm3d"'), ["gmm3d", "gmm2d"]),
        (PAPER.replace("seeds = 2", "sedes = 2"), ["sedes", "seeds"]),
    ],
)
def test_wrong_papers_are_refused(cli: Cli, tmp_path: Path, text: str, words: list[str]) -> None:
    cli("reproduce", write_paper(tmp_path, text), "--out", tmp_path / "out").refused(2, *words)
    assert not (tmp_path / "out").exists()


def test_wrong_names_are_refused(cli: Cli, tmp_path: Path) -> None:
    cli("reproduce", "vae-iwe", "--out", tmp_path).refused(2, "vae-iwe", "vae-iwae")
    cli("reproduce", write_paper(tmp_path), "--only", "plan", "--out", tmp_path / "out").refused(2, "plan", "plain")


def test_a_figure_is_reached_from_its_better_side() -> None:
    facts = {"what": "a", "where": "b", "run": "c", "number": "d", "published": 2.0}
    assert PaperFigure.model_validate(facts).reached(1.9)
    assert not PaperFigure.model_validate(facts).reached(2.1)
    assert PaperFigure.model_validate({**facts, "better": "more", "target": 1.5}).reached(1.6)
