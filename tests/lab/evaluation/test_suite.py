"""The whole judgement: what stands in it, by kind of data and model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lowerbound.errors import TamperedError, UsageError
from lowerbound.lab.data.load import load_data
from lowerbound.lab.data.rows import Dataset, InMemory
from lowerbound.lab.evaluation.case import Case
from lowerbound.lab.evaluation.disentanglement import mutual_information_gap
from lowerbound.lab.evaluation.features import hash_of
from lowerbound.lab.evaluation.latents import points
from lowerbound.lab.judge import judge
from lowerbound.model.build import build_model
from lowerbound.model.spec import DataSpec
from lowerbound.noise import generator
from lowerbound.recipe import Evaluation

QUICK = Evaluation(samples=2, generated=60)


def test_factors_are_compared_with_codes() -> None:
    factors = torch.randint(0, 4, (300, 3), generator=generator(0))
    rows = InMemory(factors.float() + 0.01 * torch.randn(300, 3, generator=generator(1)), labels=factors)
    data = Dataset("factors", DataSpec((3,), examples=300), rows, rows, rows)
    model = build_model({"kind": "vae", "latent": 4, "likelihood": {"kind": "gaussian"}}, data.spec, 0).eval()
    found = judge(model, data, QUICK, {})
    codes = points(Case(model, data, QUICK).groups).numpy()
    assert found.results["mig"].value == mutual_information_gap(codes, factors.numpy())
    stderr = found.results["mig"].stderr
    assert stderr is not None
    assert 0 < stderr < 0.2
    assert {"sap", "dci_disentanglement", "modularity", "factor_vae_score"} <= found.results.keys()
    assert "linear_probe_accuracy" not in found.results


def test_too_few_rows_are_refused_number_by_number() -> None:
    data = load_data({"kind": "digits"})
    model = build_model({"kind": "vae", "latent": 4, "likelihood": {"kind": "bernoulli"}}, data.spec, 0).eval()
    found = judge(model, data, QUICK.model_copy(update={"examples": 20}), {})
    assert "50 at least" in found.refused["two_sample_accuracy_raw"]
    assert found.results["nll_nats"].n == 20


def test_own_features_stand_beside_raw_ones_with_their_hash() -> None:
    data = load_data({"kind": "digits"})
    model = build_model({"kind": "vae", "latent": 4, "likelihood": {"kind": "bernoulli"}}, data.spec, 0).eval()
    found = judge(model, data, QUICK.model_copy(update={"features": ["raw", "own"]}), {})
    assert found.protocol["extractors"] == {"raw": "raw", "own": hash_of(model)}
    assert {"frechet_distance_own", "kernel_distance_raw"} <= found.results.keys()
    assert "64 dimensions" in found.refused["frechet_distance_raw"]
    assert found.latents["z"]["active_units"] == found.results["active_units"]


def test_what_is_learnt_from_training_rows_is_not_judged_on_them() -> None:
    data = load_data({"kind": "digits"})
    model = build_model({"kind": "vae", "latent": 4, "likelihood": {"kind": "bernoulli"}}, data.spec, 0).eval()
    learnt = {"small_prior_gain_nats", "sample_hole_share", "linear_probe_accuracy", "linear_probe_raw_accuracy"}
    assert learnt <= judge(model, data, QUICK, {}).results.keys()
    found = judge(model, data, QUICK.model_copy(update={"split": "train", "examples": 300}), {})
    assert learnt.isdisjoint(found.results)
    assert all("training rows" in found.refused[name] for name in learnt)


def test_files_of_features_are_opened_before_the_long_work(tmp_path: Path) -> None:
    data = load_data({"kind": "digits"})
    model = build_model({"kind": "vae", "latent": 4, "likelihood": {"kind": "bernoulli"}}, data.spec, 0).eval()
    model.evidence = None  # type: ignore[method-assign, assignment]  # nothing is computed
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    with pytest.raises(TamperedError, match="torn"):
        judge(model, data, QUICK.model_copy(update={"perceptual": str(tmp_path / "torn.safetensors")}), {})
    with pytest.raises(UsageError, match="two extractors"):
        judge(model, data, QUICK.model_copy(update={"features": ["raw", "raw"]}), {})
