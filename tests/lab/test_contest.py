"""A contest: equal budgets, every number measured, sentences that follow from numbers, and one that goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import lowerbound
from lowerbound.errors import DataError, UsageError
from lowerbound.lab import contest
from lowerbound.lab.contest import Entrant, Measure, Outcome, Plan
from lowerbound.lab.standings import Standing, advice, best, standings, table
from lowerbound.recipe import shipped

FAMILIES = ["gmm2d", "gmm2d-flow"]


def entrant(name: str) -> Entrant:
    return Entrant(name, "digits", (), 100, 0.01)


def outcome(
    name: str, seed: int = 0, likelihood: str = "none", failed: str = "", encodes: bool = False, **changed: float
) -> Outcome:
    numbers = {
        "kernel_distance": 0.5,
        "two_sample_accuracy": 0.8,
        "two_sample_p_value": 1e-9,
        "precision": 0.7,
        "coverage": 0.6,
        "lost_share": 0.0,
        "sample_s": 1e-3,
        "units": 16.0,
        "steps": 100.0,
        "train_s": 1.0,
        "train_processor_s": 1.0,
        "parameters": 1000.0,
        **changed,
    }
    told = {"likelihood": "levels" if likelihood != "none" else "it has none."}
    told |= {} if encodes else {"encode": "it cannot encode."}
    return Outcome(name, seed, f"{name}-{seed}", {k: Measure(v) for k, v in numbers.items()}, likelihood, told, failed)


def stand(*outcomes: Outcome) -> list[Standing]:
    names = dict.fromkeys(each.name for each in outcomes)
    return standings(Plan("digits", 1.0, 3, tuple(entrant(name) for name in names)), outcomes)


def of(sentences: list[str], start: str) -> str:
    (found,) = (sentence for sentence in sentences if sentence.startswith(start))
    return found


def test_a_contest_is_trained_measured_and_gone_on_with(tmp_path: Path) -> None:
    plan = lowerbound.plan_contest("gmm2d", FAMILIES, tmp_path, budget_s=0.2, seeds=2)
    trials = lowerbound.trials_of(plan, tmp_path)
    assert [trial.path.name for trial in trials] == ["gmm2d-0", "gmm2d-flow-0", "gmm2d-1", "gmm2d-flow-1"]
    assert [trial.recipe.training.steps for trial in trials[:2]] == [entrant.steps for entrant in plan.entrants]
    outcomes = [found for trial in trials if (found := lowerbound.run_contestant(trial)) is not None]
    lowerbound.write_contest(tmp_path / "contest.json", plan, outcomes)
    assert len(json.loads((tmp_path / "contest.json").read_text())["runs"]) == 4
    vae, flow, *_ = standings(plan, outcomes)
    assert (vae.likelihood, flow.likelihood) == ("bound", "exact")
    assert vae.encodes
    assert not flow.encodes
    for one in (vae, flow):
        assert {"kernel_distance", "lost_share", "sample_s", "nll_nats", "centres_covered"} <= one.numbers.keys()
        assert len(one.numbers["kernel_distance"].values) == 2
    assert all(cell for line in table([vae, flow]) for cell in line.cells)
    page = lowerbound.write_contested(tmp_path, plan, outcomes).read_text()
    assert all(f"<li>{name}:" in page for name in FAMILIES)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    assert lowerbound.plan_contest("gmm2d", FAMILIES, tmp_path, budget_s=0.2, seeds=2) == plan
    assert [lowerbound.run_contestant(trial) for trial in trials] == outcomes
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")} == written
    with pytest.raises(UsageError, match="another contest"):
        lowerbound.plan_contest("gmm2d", FAMILIES, tmp_path, budget_s=0.3, seeds=2)
    (trials[0].path / "measures.json").write_text("{}")
    with pytest.raises(DataError, match="not what a contest wrote"):
        lowerbound.run_contestant(trials[0])


@pytest.mark.parametrize(
    ("data", "families", "told"),
    [
        ("digits", ["gan", "gan"], "twice"),
        ("digits", ["here/one.toml", "there/one.toml"], "one twice"),
        ("digits", ["gmm2d"], "is on gmm2d"),
        ("gmm2d", ["flow"], "no recipe of the family flow on gmm2d"),
        ("digits", ["gann"], "gann was asked for"),
    ],
)
def test_a_wrong_family_is_refused(data: str, families: list[str], told: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=told):
        lowerbound.plan_contest(data, families, tmp_path)


def test_every_word_has_a_recipe_on_its_data() -> None:
    for data, families in contest.RECIPES.items():
        assert set(families) == set(contest.WORDS)
        for recipe, *overrides in families.values():
            assert recipe in shipped()
            assert lowerbound.read_recipe(recipe, overrides).data["kind"] == data


def test_what_cannot_be_told_apart_is_not_ranked() -> None:
    noisy = [outcome("a", seed, kernel_distance=value) for seed, value in enumerate((0.1, 0.5, 0.9))]
    close = [outcome("b", seed, kernel_distance=0.45) for seed in range(3)]
    far = [outcome("c", seed, kernel_distance=2.0) for seed in range(3)]
    found = stand(*noisy, *close, *far)
    assert [one.name for one in best(found, "kernel_distance")] == ["b", "a"]
    told = of(advice(found), "Samples:")
    assert "b is nearest" in told
    assert "a cannot be told from it" in told
    assert "c has 2" in told


def test_sentences_follow_from_numbers_and_turn_with_them() -> None:
    quick = outcome("quick", sample_s=1e-5, lost_share=0.3)
    exact = outcome("exact", likelihood="exact", sample_s=1e-2, kernel_distance=0.1, bits_per_dim=2.0)
    coder = outcome("coder", likelihood="bound", encodes=True, linear_probe_accuracy=0.9, bits_per_dim=2.5)
    told = advice(stand(quick, exact, coder))
    assert "quick is fastest (10 µs), exact 1,000 times slower (10 ms)" in of(told, "Drawing:")
    assert "exact has an exact one; coder has a bound; quick has none" in of(told, "Likelihood:")
    assert "exact has the best" in of(told, "Likelihood:")
    assert "only coder encodes" in of(told, "Codes:")
    assert "quick leaves out places of 30% of the rows" in of(told, "Modes:")
    assert "quick 1 of 1" in of(told, "Seeds:")
    assert "an exact likelihood is asked for" in of(told, "exact:")
    assert "it leaves out modes" in of(told, "quick:")
    turned = advice(stand(outcome("quick", sample_s=1.0), exact, outcome("coder", encodes=True, kernel_distance=0.0)))
    assert "coder is nearest" in of(turned, "Samples:")
    assert "quick 1,000 times slower" in of(turned, "Drawing:")
    assert "no run failed" in of(turned, "Seeds:")


def test_failed_runs_are_counted_and_have_no_numbers() -> None:
    broken = Outcome("broken", 0, "broken-0", {}, failed="the loss is not finite.")
    found = stand(broken, outcome("a"), outcome("b"))
    assert found[0].failures == 1
    assert all(line.cells[0] == "failed" for line in table(found))
    told = advice(found)
    assert "broken 1 of 1" in of(told, "Seeds:")
    assert not any(sentence.startswith("broken:") for sentence in told)
