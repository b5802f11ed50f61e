"""A model of rows and a model of its codes, as one run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from harness import Cli

import lowerbound
from lowerbound.errors import ShapeError, UsageError
from lowerbound.model.families.stack import Stack

SMALL = ["training.steps=60", "training.batch_size=32"]
FIRST = [*SMALL, "model.positions=[4, 4]", "model.encoder.widths=[16]", "model.decoder.widths=[16]"]


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two stages of digits, and both as one run; nobody changes them."""
    folder = tmp_path_factory.mktemp("stages")
    lowerbound.train(lowerbound.read_recipe("digits-codes", FIRST), folder / "first")
    second = [*SMALL, f'data.run="{folder / "first"}"', "model.density.width=8", "model.density.depth=1"]
    lowerbound.train(lowerbound.read_recipe("mnist-codes-pixelcnn", second), folder / "second")
    lowerbound.stack_runs(folder / "second", folder / "both")
    return folder


def test_codes_are_whole_numbers_with_a_known_end(stages: Path) -> None:
    data = lowerbound.load_data({"kind": "latents", "run": str(stages / "first")})
    assert data.spec == lowerbound.DataSpec((4, 4), 64, 0, len(data.train))
    raw = data.train.take(torch.arange(20)).raw
    assert not raw.is_floating_point()
    assert 0 <= raw.min() <= raw.max() < 64


def test_a_stack_is_a_run_like_any_other(stages: Path, cli: Cli, tmp_path: Path) -> None:
    both = tmp_path / "both"
    shutil.copytree(stages / "both", both)  # it needs neither stage again
    assert cli("sample", both, "--out", tmp_path / "rows.npy", "--count", "5", "--label", "3").code == 0
    assert np.load(tmp_path / "rows.npy").shape == (5, 1, 8, 8)
    lowerbound.evaluate(both, lowerbound.Evaluation(samples=1, examples=40, generated=40))
    found = json.loads((both / "evaluation.json").read_text())["results"]
    assert found["nll_nats"]["kind"] == "upper_bound"


def test_a_stack_draws_codes_by_the_second_stage_and_rows_by_the_first(stages: Path) -> None:
    both = lowerbound.load(stages / "both")
    first, second = lowerbound.load(stages / "first"), lowerbound.load(stages / "second")
    context = lowerbound.label_context(both, 7, 4)
    rows = lowerbound.sample(both, 4, 5, context)
    assert isinstance(both, Stack)
    noise = lowerbound.RowNoise([1, 2, 3, 4])
    codes = lowerbound.point(second.sample(noise.child("second"), context))
    expected = lowerbound.point(first.decode({"codes": codes}))
    torch.testing.assert_close(lowerbound.point(both.sample(noise, context)), expected)
    assert rows.shape == (4, 1, 8, 8)


def test_the_bound_of_a_stack_is_that_of_both_stages(stages: Path) -> None:
    both = lowerbound.load(stages / "both")
    assert isinstance(both, Stack)
    data = lowerbound.load_data({"kind": "digits", "context": "label"})
    batch = data.test.take(torch.arange(6))
    noise = lowerbound.BatchNoise(0, 0, 6)
    x = both.preparation.prepare(batch.raw, noise.child("prepare"))
    below = both.first.evidence(x, None, noise.child("first"))
    above = both.second.evidence(below.latents["codes"].z[0], batch.context, noise)
    evidence = both.evidence(x, batch.context, noise)
    torch.testing.assert_close(evidence.elbo(), -(below.reconstruction() + above.reconstruction())[0])
    better = evidence.elbo().mean() > below.elbo().mean()  # than uniform codes
    assert bool(better)


def test_codes_outside_the_codebook_are_refused(stages: Path, cli: Cli, tmp_path: Path) -> None:
    np.save(tmp_path / "codes.npy", np.full((2, 4, 4), 64))
    given = ["--input", tmp_path / "codes.npy", "--out", tmp_path / "rows.npy", "--label", "1"]
    result = cli("decode", stages / "both", *given)
    result.refused(2, "codes", "0 to 63")
    with pytest.raises(UsageError, match="from 0 to 63"):
        lowerbound.load(stages / "second").check(torch.full((2, 4, 4), 64))


def test_stages_that_do_not_fit_are_refused(stages: Path, cli: Cli, tmp_path: Path) -> None:
    first = lowerbound.load(stages / "first")
    table = {"kind": "density", "density": {"kind": "transformer", "width": 8, "depth": 1, "heads": 1}}
    with pytest.raises(ShapeError, match=r"rows of shape \[9\]"):
        Stack(first, lowerbound.build_model(table, lowerbound.DataSpec((9,), 64), 0))
    with pytest.raises(ShapeError, match=r"from 0 to 31, but .* from 0 to 63"):
        Stack(first, lowerbound.build_model(table, lowerbound.DataSpec((4, 4), 32), 0))
    real = {"kind": "density", "density": {"kind": "mixture"}}
    with pytest.raises(ShapeError, match="real numbers"):
        Stack(first, lowerbound.build_model(real, lowerbound.DataSpec((4, 4)), 0))
    cli("stack", stages / "first", "--out", tmp_path / "out").refused(2, "digits", "second stage")
    cli("stack", stages / "second", "--out", stages / "both").refused(2, "not empty")
