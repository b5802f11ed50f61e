"""Distances of two sets of features: against torchmetrics, and against answers that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.kid import poly_mmd

from lowerbound.errors import DataError, TooFewError
from lowerbound.lab.evaluation.quality import (
    frechet_distance,
    kernel_distance,
    neighbourhoods,
    quality_results,
    two_sample_test,
)
from lowerbound.noise import generator


def normal(rows: int, size: int, seed: int, mean: float = 0.0, scale: float = 1.0) -> Tensor:
    return mean + scale * torch.randn(rows, size, generator=generator(seed))


def test_frechet_distance_equals_torchmetrics() -> None:
    mix = normal(12, 12, 9)
    real, made = normal(500, 12, 0) @ mix, normal(500, 12, 1, 0.3, 1.2)
    means = [features.double().mean(dim=0) for features in (real, made)]
    covariances = [torch.cov(features.double().T) for features in (real, made)]
    theirs = float(_compute_fid(means[0], covariances[0], means[1], covariances[1]))
    assert frechet_distance(real, made).value == pytest.approx(theirs, abs=1e-4)


def test_frechet_distance_of_gaussians_is_the_formula_within_its_standard_error() -> None:
    """Means 0.5 apart in each of 4 dimensions, deviations 1 and 1.5: 4 (0.25 + 0.25) = 2."""
    found = [
        frechet_distance(normal(5000, 4, seed), normal(5000, 4, 100 + seed, 0.5, 1.5)) for seed in range(20)
    ]  # fmt: skip
    values = np.array([result.value for result in found])
    errors = np.array([result.stderr for result in found], dtype=float)
    assert values.mean() == pytest.approx(2, abs=0.05)
    assert errors.mean() == pytest.approx(values.std(ddof=1), rel=0.5)


def test_too_few_rows_for_a_frechet_distance_are_refused_with_the_number_needed() -> None:
    with pytest.raises(TooFewError, match="more than 64"):
        frechet_distance(normal(60, 64, 0), normal(60, 64, 1))
    results, refused = quality_results(normal(60, 64, 0), normal(60, 64, 1), "raw")
    assert "frechet_distance_raw" in refused
    assert "kernel_distance_raw" in results


def test_kernel_distance_equals_torchmetrics_block_by_block() -> None:
    real, made = normal(600, 8, 0), normal(600, 8, 1, 0.2)
    pairs = zip(real.tensor_split(10), made.tensor_split(10), strict=True)
    theirs = np.mean([poly_mmd(one.double(), other.double()).item() for one, other in pairs])
    assert kernel_distance(real, made).value == pytest.approx(theirs, abs=1e-6)


def test_kernel_distance_of_equals_is_zero_within_its_standard_error() -> None:
    ratios = []
    for seed in range(60):
        found = kernel_distance(normal(400, 5, seed), normal(400, 5, 1000 + seed))
        assert isinstance(found.value, float)
        assert found.stderr is not None
        ratios.append(abs(found.value) / found.stderr)
    outside = np.mean(np.array(ratios) > 2.26)  # 5 % of Student's t with 9 degrees of freedom
    assert outside < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 60)


def test_neighbourhoods_of_the_same_rows_are_full() -> None:
    real = normal(300, 3, 0)
    found = neighbourhoods(real, real)
    assert found["precision"].value == found["recall"].value == found["coverage"].value == 1
    assert found["density"].value == pytest.approx(6 / 5, abs=0.05)  # five neighbours and the row itself, less rounding


def test_neighbourhoods_of_strangers_are_empty() -> None:
    found = neighbourhoods(normal(300, 3, 0), normal(300, 3, 1, 50.0))
    assert all(result.value == 0 for result in found.values())


def test_a_lost_mode_costs_recall_and_coverage_and_not_precision() -> None:
    """Naeem et al. 2020, section 3: one of two far modes is never made."""
    real = torch.cat([normal(400, 2, 0), normal(400, 2, 1, 40.0)])
    found = neighbourhoods(real, normal(800, 2, 2))
    values = {name: float(np.asarray(result.value)) for name, result in found.items()}
    assert values["precision"] > 0.95
    assert values["recall"] == pytest.approx(0.5, abs=0.05)
    assert values["coverage"] == pytest.approx(0.5, abs=0.05)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    real, made = normal(211, 4, 0), normal(211, 4, 1)
    whole = neighbourhoods(real, made)
    monkeypatch.setattr("lowerbound.lab.evaluation.quality.CHUNK", 1000)
    assert neighbourhoods(real, made) == whole


def test_the_two_sample_test_keeps_its_error_rate_and_finds_a_difference() -> None:
    p = [
        two_sample_test(normal(100, 2, seed), normal(100, 2, 500 + seed), seed)["two_sample_p_value"].value
        for seed in range(100)
    ]  # fmt: skip
    alarms = np.mean(np.array(p) <= 0.05)
    assert alarms <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 100)
    different = two_sample_test(normal(400, 2, 0), normal(400, 2, 1, 1.0))
    assert different["two_sample_p_value"].value < 1e-6  # type: ignore[operator]


def test_bad_features_are_named() -> None:
    good, bad = normal(100, 3, 0), normal(100, 3, 1)
    bad[5, 1] = math.nan
    with pytest.raises(DataError, match="made rows is NaN"):
        quality_results(good, bad, "raw")
    with pytest.raises(DataError, match="equally many"):
        quality_results(good, good[:90], "raw")
    with pytest.raises(TooFewError, match="50 at least"):
        quality_results(good[:20], good[:20], "raw")
