"""Codes of a run as data, and labels that a model infers by itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import lowerbound
from lowerbound.errors import DataError, ShapeError
from lowerbound.lab.data.rows import Dataset

SMALL = ["training.steps=20", "training.batch_size=32", "model.encoder.widths=[16]", "model.decoder.widths=[16]"]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> lowerbound.Run:
    """A run of digits; nobody changes it."""
    return lowerbound.train(lowerbound.read_recipe("digits", SMALL), tmp_path_factory.mktemp("first") / "run")


def codes(first: lowerbound.Run, **settings: object) -> Dataset:
    return lowerbound.load_data({"kind": "latents", "run": str(first.path), **settings})


def test_codes_are_those_of_the_run(first: lowerbound.Run) -> None:
    rows, made = lowerbound.load_data({"kind": "digits"}), codes(first)
    assert made.spec == lowerbound.DataSpec((16,), None, 0, len(rows.train))
    index = torch.arange(40)
    expected = lowerbound.encode(first.model(), rows.test.take(index).raw)["z"]
    torch.testing.assert_close(made.test.take(index).raw, expected)
    assert made.test.labels is not None
    assert rows.test.labels is not None
    assert made.test.labels.equal(rows.test.labels)


def test_some_labels_of_codes_are_the_context(first: lowerbound.Run) -> None:
    data = codes(first, context="label", labelled=50)
    context = data.train.take(torch.arange(len(data.train))).context
    assert context is not None
    assert context.vector[context.present].sum(dim=0).tolist() == [5.0] * 10


def test_what_cannot_be_data_is_refused(first: lowerbound.Run, tmp_path: Path) -> None:
    deep = lowerbound.train(
        lowerbound.read_recipe("digits", ["training.steps=2", 'model={kind="top-down"}']), tmp_path / "deep"
    )
    with pytest.raises(ShapeError, match="one group of latents"):
        codes(deep)
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).poisson(2.0, (60, 5)).astype(np.float32))
    settings = ["training.steps=2", "training.batch_size=8", f'data.path="{tmp_path / "rows.npy"}"']
    counts = lowerbound.train(lowerbound.read_recipe("arrays", settings), tmp_path / "counts")
    with pytest.raises(DataError, match="no labels"):
        codes(counts, context="label")


def test_a_second_stage_says_how_often_its_label_is_wrong(first: lowerbound.Run, tmp_path: Path) -> None:
    overrides = [f'data.run="{first.path}"', "training.steps=60", "training.batch_size=200", "model.latent=4"]
    run = lowerbound.train(lowerbound.read_recipe("codes-labels", overrides), tmp_path / "second")
    settings = lowerbound.Evaluation(samples=2, generated=20)
    lowerbound.evaluate(run, settings)
    found = json.loads(run.evaluation_path.read_text())["results"]["label_error"]
    data = lowerbound.load_data(run.recipe().data)
    rows = data.test.take(torch.arange(len(data.test)))
    guess = lowerbound.encode(run.model(), rows.raw)["y"]
    assert data.test.labels is not None
    assert found["value"] == pytest.approx(float((guess != data.test.labels).double().mean()))
    assert found["value"] < 0.8  # by chance 0.9
    assert found["n"] == len(data.test)
