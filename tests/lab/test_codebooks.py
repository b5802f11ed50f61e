"""Codebooks in training: what the journal says of them, and the alarm."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

import lowerbound
from lowerbound.lab.data.rows import Dataset, InMemory
from lowerbound.lab.training.alarms import alarms
from lowerbound.lab.training.journal import read_journal
from lowerbound.model.spec import DataSpec
from lowerbound.noise import generator
from lowerbound.recipe import Recipe

LINEAR = {"kind": "mlp", "widths": []}


def recipe(quantizer: dict[str, object], steps: int) -> Recipe:
    model = {"kind": "vq-vae", "positions": [1], "quantizer": quantizer, "encoder": LINEAR, "decoder": LINEAR}
    training = {"steps": steps, "batch_size": 16, "journal_every": max(1, steps // 4)}
    table = {"name": "codes", "data": {"kind": "gmm2d"}, "model": model, "objective": {"kind": "elbo"}}
    return Recipe.model_validate({**table, "training": training})


def dataset(different: int = 64) -> Dataset:
    rows = InMemory(torch.randn(different, 2, generator=generator(0)).repeat(64 // different, 1))
    return Dataset("points", DataSpec((2,), examples=64), rows, rows, rows)


def test_the_journal_says_how_much_of_a_codebook_is_in_use(tmp_path: Path) -> None:
    run = lowerbound.train(recipe({"kind": "ema", "size": 8, "dimension": 2}, 8), tmp_path / "run", data=dataset())
    rows = read_journal(run.journal_path)
    assert all(0 < row["codebook_usage"] <= 1 for row in rows)
    assert all(1 <= row["codebook_perplexity"] <= 8 for row in rows)
    assert all(row["codebook_perplexity"] <= 8 * row["codebook_usage"] + 1e-5 for row in rows)
    assert not any("alarm" in name for row in rows for name in row)


def test_a_low_usage_is_an_alarm_after_ten_thousand_steps_only() -> None:
    assert alarms(9_999, {"codebook_usage": 0.1}) == {}
    assert alarms(10_000, {"codebook_usage": 0.5, "loss": 0.1}) == {}
    assert set(alarms(10_000, {"codebook_usage": 0.49, "codebook_usage_2": 0.2})) == {
        "codebook_usage",
        "codebook_usage_2",
    }


@pytest.mark.slow
def test_a_codebook_in_little_use_gives_an_alarm_and_a_healthy_one_does_not(tmp_path: Path) -> None:
    codes = {"kind": "ema", "size": 16, "dimension": 2, "restart": 0.0}
    with pytest.warns(UserWarning, match=r"step 10000: \d+% of the codes are in use"):
        run = lowerbound.train(recipe(codes, 10_000), tmp_path / "few", data=dataset(different=4))
    assert [row.get("alarm_codebook_usage") for row in read_journal(run.journal_path)][-2:] == [None, 1.0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = lowerbound.train(recipe(codes, 10_000), tmp_path / "healthy", data=dataset())
    assert not any("alarm_codebook_usage" in row for row in read_journal(run.journal_path))
