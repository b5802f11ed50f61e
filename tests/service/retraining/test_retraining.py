"""Retraining a small model of the digits, from telemetry to a canary."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests_of_digits as digits
import torch

import lowerbound
from lowerbound.errors import ConflictError, DataError, RecipeError, RunError, TamperedError
from lowerbound.files import read_json
from lowerbound.lab.compatibility import codes_hash
from lowerbound.lab.data.collected import Collected
from lowerbound.lab.run import Run
from lowerbound.service.registry.registry import Registry
from lowerbound.service.retraining.collect import density_ratio, digest
from lowerbound.service.retraining.job import Job
from lowerbound.service.retraining.plan import read_plan
from lowerbound.service.retraining.states import STATES, retrain
from lowerbound.service.retraining.suite import INDEX, Suite

NAME = digits.NAME


@pytest.fixture(scope="module")
def made(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with a stable version, and telemetry of moved digits; not to be changed."""
    folder = Path(shutil.copytree(trained, tmp_path_factory.mktemp("made"), dirs_exist_ok=True))
    digits.send(folder / "telemetry", digits.moved())
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    """The same of one's own."""
    return Path(shutil.copytree(made, tmp_path / "place"))


def job_of(place: Path, tier: str, *settings: str, out: str = "job") -> Job:
    return digits.job(place, Registry(place / "registry"), tier, *settings, out=out)


def result(job: Job, state: str) -> dict[str, Any]:
    found: dict[str, Any] = read_json(job.folder / f"{state}.json")
    return found


def test_an_incremental_retraining_changes_the_decoder_alone_and_ends_as_canary(place: Path) -> None:
    job = job_of(place, "incremental")
    found = retrain(job)
    assert (found.outcome, found.number) == ("done", 2), found.why
    registry = Registry(place / "registry")
    stable, canary = (registry.resolve(f"{NAME}@{alias}").verify() for alias in ("stable", "canary"))
    assert (stable.number, canary.number, canary.parent) == (1, 2, 1)
    old, new = (lowerbound.load(version.path) for version in (stable, canary))
    for name, tensor in old.state_dict().items():
        if name.startswith(("encoder.", "posterior.")):
            assert torch.equal(new.state_dict()[name], tensor), name
    assert any(not torch.equal(new.state_dict()[name], value) for name, value in old.state_dict().items())
    assert codes_hash(old, Run(stable.path).recipe().model) == canary.manifest()["codes"]
    assert canary.compatibility()["verdict"] == "identical"  # type: ignore[index]
    assert result(job, "train")["codes"]["rows"] == result(job, "train")["codes"]["rows_equal"] > 300
    recipe = Run(canary.path).recipe()
    assert recipe.objective["kind"] == "focus"
    assert recipe.training.learning_rate == 1e-5
    assert "To be tried out." in (canary.path / "card.md").read_text()


def test_the_lineage_of_a_candidate_is_in_the_registry(place: Path) -> None:
    job = job_of(place, "incremental")
    retrain(job)
    version = Registry(place / "registry").resolve(f"{NAME}@canary")
    lineage, data = read_json(version.path / "lineage.json"), result(job, "collect")["data"]
    assert "lineage.json" in version.manifest()["files"]
    assert lineage["data"] == data
    assert (data["since"], data["until"]) == (digits.NOW - 7 * 86400, digits.NOW)
    assert data["counts"][data["requests"]]["train"] > 300
    assert data["shares"][data["requests"]] == pytest.approx(0.5)
    assert lineage["parent"]["number"] == 1
    assert lineage["suite"] == result(job, "evaluate")["suite"]
    assert lineage["guard"]["passed"]
    assert version.manifest()["data"]["table"]["sha256"] == data["sha256"]
    assert Run(version.path).recipe().data["kind"] == "collected"


def test_a_retraining_that_ended_is_not_done_again(place: Path) -> None:
    job = job_of(place, "incremental")
    first = retrain(job)
    states = read_json(job.folder / "job.json")["states"]
    assert list(states) == list(STATES)
    assert all(state["ended"] >= state["began"] for state in states.values())
    position = Registry(place / "registry").position()
    assert retrain(replace(job, clock=lambda: digits.NOW + 1e6)) == first
    assert Registry(place / "registry").position() == position
    with pytest.raises(RunError, match="another plan"):
        retrain(job_of(place, "full"))


def test_a_retrained_version_is_retrained_from_its_own_recipe(place: Path) -> None:
    retrain(job_of(place, "incremental"))
    registry = Registry(place / "registry")
    registry.promote(NAME, 2)
    later = digits.NOW + 7 * 86400
    digits.send(place / "telemetry", digits.moved(seed=1), start=later - 3600)
    job = replace(job_of(place, "full", out="second"), clock=lambda: later)
    before_it = place / "jobs" / "job" / "data"
    before_it.rename(place / "elsewhere")
    with pytest.raises(RunError, match="digits:2 was trained on cannot be read"):
        retrain(job)
    (place / "elsewhere").rename(before_it)
    found = retrain(job)
    assert (found.outcome, found.number) == ("done", 3), found.why
    before, after = (Run(registry.resolve(f"{NAME}:{number}").path).recipe() for number in (1, 3))
    assert (after.objective, after.training, after.model) == (before.objective, before.training, before.model)
    assert after.start is None
    counts = result(job, "collect")["data"]["counts"]
    assert [name.split(" ")[0] for name in counts] == ["cluster", "cluster", "production", "production"]
    suite = Suite(place / "jobs" / "suite").entries()
    assert [entry.version for entry in suite.values()] == [1, 1, 2, 3], "each regime is frozen once, and stays"
    findings = result(job, "guard")["findings"]
    assert {each["against"] for each in findings} == {"the stable version", "version 1"}


def test_a_candidate_that_forgets_is_refused_and_the_slices_are_named(place: Path) -> None:
    digits.send(place / "telemetry", digits.inverted(), start=digits.NOW - 1800)
    job = job_of(place, "emergency", "shares={production=1.0}", "training.epochs=15")
    found = retrain(job)
    assert found.outcome == "refused"
    assert "the candidate forgot" in found.why
    assert found.number is None
    refused = result(job, "refused")
    verdicts = {(each["slice"], each["metric"]): each["verdict"] for each in refused["findings"]}
    assert verdicts["cluster 0", "error"] == verdicts["cluster 1", "error"] == "forgotten"
    assert refused["error_rates"]["passed"]
    assert "cluster" in found.why
    registry = Registry(place / "registry")
    assert len(registry.versions(NAME)) == 1
    assert not (job.folder / "register.json").exists()
    assert retrain(job) == found


def test_a_regime_is_learnt_beside_the_old_data_without_forgetting(place: Path) -> None:
    digits.send(place / "telemetry", digits.inverted(), start=digits.NOW - 1800)
    found = retrain(job := job_of(place, "emergency", "shares={production=0.3}", "training.epochs=25"))
    assert found.outcome == "done", found.why
    changes = {(each["slice"], each["metric"]): each["change"] for each in result(job, "guard")["findings"]}
    new = result(job, "collect")["data"]["requests"]
    assert changes[new, "error"] < -0.3, "which is what it was for"
    frozen = Suite(place / "jobs" / "suite").entries()
    assert new in frozen, "and the regime stays in the suite"


def test_what_must_not_be_learnt_from_is_left_out(place: Path) -> None:
    known = lowerbound.load_data({"kind": "digits"})
    some = digits.moved(20, seed=5)
    telemetry = place / "telemetry"
    digits.send(telemetry, known.test.take(torch.arange(30)).raw.numpy(), start=digits.NOW - 900)
    digits.send(telemetry, np.zeros((15, 1, 8, 8), np.uint8), start=digits.NOW - 800)
    digits.send(telemetry, np.concatenate([some, some]), start=digits.NOW - 700)
    digits.send(telemetry, digits.inverted(50), start=digits.NOW - 600, gate="colour")
    digits.send(telemetry, digits.inverted(40), start=digits.NOW - 30 * 86400)
    digits.send(telemetry, digits.inverted(40), name="other", start=digits.NOW - 500)
    job = job_of(place, "incremental")
    assert retrain(job).outcome == "done"
    data = result(job, "collect")["data"]
    assert data["seen"] == 600 + 30 + 15 + 40
    left_out = data["left_out"]
    assert (left_out["known"], left_out["flat"], left_out["repeated"], left_out["no rows of this model"]) == (
        30,
        15,
        20,
        0,
    )
    rows = Collected.load(job.folder / "data", data["sha256"])
    trained = {digest(row) for row in rows.raw[rows.part != 2]}
    assert not trained & {digest(row) for row in known.test.take(torch.arange(len(known.test))).raw}
    assert not trained & Suite(place / "jobs" / "suite").digests()


def test_the_newest_requests_come_first(place: Path) -> None:
    digits.send(place / "telemetry", digits.inverted(300), start=digits.NOW - 1800)
    job = job_of(place, "emergency", "newest=250", "shares={production=0.1}", "training.epochs=1")
    retrain(job)
    data = result(job, "collect")["data"]
    assert data["seen"] == 250
    rows = Collected.load(job.folder / "data").of(data["requests"], "train").raw
    assert float(rows.float().mean()) > 8, "all of them are inverted"


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (digits.inverted(100) + np.uint8(100), "values such as"),
        (digits.inverted(100).astype(np.float32) + np.float32(0.5), "several shapes or types"),
        (np.zeros((100, 1, 9, 9), np.uint8), "several shapes or types"),
    ],
)
def test_requests_with_something_wrong_end_it_with_a_sentence(place: Path, rows: Any, words: str) -> None:
    digits.send(place / "telemetry", rows, start=digits.NOW - 1800)
    job = job_of(place, "full")
    found = retrain(job)
    assert found.outcome == "refused"
    assert words in found.why
    assert "train" not in found.states
    assert json.loads((job.folder / "job.json").read_text())["why"] == found.why


def test_numbers_that_are_none_are_found(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "registry", tmp_path / "registry")
    rows = digits.moved().astype(np.float32)
    rows[:60, 0, 0, 0] = np.nan
    digits.send(tmp_path / "telemetry", rows)
    found = retrain(job := job_of(tmp_path, "incremental"))
    assert found.outcome == "refused"
    assert "60 of 600 requests have something wrong with them" in found.why
    assert result(job, "refused")["requests"] == {"seen": 600, "wrong": 60}
    few = job_of(tmp_path, "incremental", "wrong=0.2", out="tolerant")
    assert retrain(few).outcome == "done"
    assert result(few, "collect")["data"]["left_out"]["no rows of this model"] == 60


def test_too_few_requests_are_said(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "registry", tmp_path / "registry")
    digits.send(tmp_path / "telemetry", digits.moved(30))
    found = retrain(job_of(tmp_path, "incremental"))
    assert found.outcome == "refused"
    assert "30 of them can be learnt from" in found.why
    assert "--privacy sample" in found.why
    with pytest.raises(DataError, match="telemetry"):
        retrain(replace(job_of(tmp_path, "incremental", out="none"), telemetry=tmp_path / "nowhere"))
    assert not (tmp_path / "jobs" / "none").exists(), "a wrong folder is no reason to end a retraining"


def stop_after(job: Job, state: str) -> Callable[[], bool]:
    return lambda: (job.folder / f"{state}.json").exists()


def test_rows_that_were_changed_on_the_disk_are_refused_until_they_are_restored(place: Path) -> None:
    job = job_of(place, "incremental")
    assert retrain(job, stop_after(job, "collect")).outcome == "open"
    path = job.folder / "data" / "rows.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(TamperedError, match="not those that were collected"):
        retrain(job)
    path.write_bytes(content)
    assert retrain(job).outcome == "done"


def test_a_suite_that_was_changed_is_refused(place: Path) -> None:
    retrain(job_of(place, "incremental"))
    suite = place / "jobs" / "suite"
    path = suite / "0.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    Registry(place / "registry").rollback(NAME, "canary")
    with pytest.raises(TamperedError, match="is not what was frozen"):
        retrain(job_of(place, "incremental", out="second"))
    (suite / INDEX).write_text("{}")
    with pytest.raises(TamperedError, match="no index of a suite"):
        retrain(job_of(place, "incremental", out="third"))


def test_another_canary_is_waited_for_and_another_stable_version_ends_it(place: Path, made: Path) -> None:
    registry, first = Registry(place / "registry"), job_of(place, "incremental")
    retrain(first)
    second = job_of(place, "incremental", "training.epochs=2", out="second")
    with pytest.raises(ConflictError, match="must wait"):
        retrain(second)
    registry.rollback(NAME, "canary", why="judged")
    assert retrain(second).outcome == "done"
    registry.rollback(NAME, "canary", why="judged too")
    assert retrain(second).outcome == "done", "and it is not promoted again"
    assert "canary" not in registry.aliases(NAME)
    third = job_of(place, "incremental", "training.epochs=3", out="third")
    retrain(third, stop_after(third, "guard"))
    registry.promote(NAME, 2)
    found = retrain(third)
    assert found.outcome == "refused"
    assert "no longer the stable version" in found.why
    assert found.number is not None


def test_an_encoder_is_not_trained_where_codes_are_stored(place: Path) -> None:
    Registry(place / "registry").add(place / "first", NAME, card="To be tried out.", stores_latents=True)
    for tier in ("full", "emergency"):
        found = retrain(job_of(place, tier, out=tier))
        assert found.outcome == "refused"
        assert "store codes" in found.why
    assert retrain(job_of(place, "incremental", out="incremental")).outcome == "done"


def test_rows_like_the_requests_weigh_more(place: Path) -> None:
    job = job_of(place, "incremental", "weighting='density-ratio'", "shares={production=0.4}")
    assert retrain(job).outcome == "done"
    data = result(job, "collect")["data"]
    rows = Collected.load(job.folder / "data")
    old = (rows.part == 0) & (rows.slice != rows.slices.index(data["requests"]))
    assert float(rows.weight[old].sum()) == pytest.approx(0.6)
    assert 50 < data["weighting"]["effective_rows"] < int(old.sum())


def test_the_ratio_of_densities_is_that_of_two_normals() -> None:
    chance = torch.Generator().manual_seed(0)
    old, new = torch.randn(4000, 2, generator=chance), torch.randn(4000, 2, generator=chance) + torch.tensor([1.0, 0.0])
    ratio, truth = density_ratio(new, old), (old[:, 0] - 0.5).exp().double()
    assert float(torch.corrcoef(torch.stack([ratio.log(), truth.log()]))[0, 1]) > 0.99
    assert float((ratio / truth).log().abs().mean()) < 0.15


def test_plans_are_checked() -> None:
    assert read_plan("incremental", None, ["days=3.0"]).days == 3.0
    for overrides, words in {
        ("share={}",): "no setting `share`",
        ("shares={production=0.8, old=0.4}",): "add up to 1.2",
        ("margin=0.0",): "greater than 0",
        ("role='encoder'",): "decoder",
    }.items():
        with pytest.raises(RecipeError, match=words):
            read_plan("full", None, overrides)
    with pytest.raises(RecipeError, match="no tier `ful`; did you mean `full`"):
        read_plan("ful")


def test_a_share_of_a_slice_that_is_not_there_is_refused(place: Path) -> None:
    found = retrain(job_of(place, "incremental", "shares={production=0.5, 'cluster 7'=0.1}"))
    assert found.outcome == "refused"
    assert "'cluster 7'; the slices are: cluster 0, cluster 1, production" in found.why
