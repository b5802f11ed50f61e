"""The forgetting guard on simulated slices: how often it is wrong, and how often it sees what there is."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lowerbound.errors import DataError
from lowerbound.service.retraining.guard import Scores, judge, paired_p_values

STREAMS, ROWS, SLICES = 2000, 500, 6
MARGIN, LEVEL = 0.02, 0.05
Array = NDArray[np.float64]


def errors(chance: np.random.Generator, rows: int, worse: float, spread: float = 0.1) -> tuple[Array, Array]:
    """Errors of images by two models, (STREAMS, rows): skewed, and close to one another on each image."""
    baseline = chance.lognormal(0.0, 0.6, (STREAMS, rows))
    ratio = np.exp(chance.normal(-(spread**2) / 2, spread, (STREAMS, rows)))  # of mean 1
    return baseline, baseline * ratio * (1 + worse)


def kept(worse: float, seed: int, rows: int = ROWS, spread: float = 0.1) -> float:
    p_kept, _ = paired_p_values(*errors(np.random.default_rng(seed), rows, worse, spread), MARGIN)
    return float((p_kept <= LEVEL).mean())


def test_a_model_at_the_margin_passes_with_the_level_at_most() -> None:
    # 2,000 streams: 5 % + 3 standard errors is 6.5 %; the test fails by chance once in 700.
    assert kept(MARGIN, 0) < 0.065
    assert kept(MARGIN, 1, rows=100) < 0.065
    assert kept(MARGIN, 2, spread=0.4) < 0.065


def test_an_equal_model_passes_and_a_worse_one_does_not() -> None:
    assert kept(0.0, 3) > 0.9
    assert kept(0.05, 4) < 0.001
    assert kept(-0.02, 5) > 0.999


def scores(baseline: Array, candidate: Array) -> list[Scores]:
    return [
        Scores(f"slice {number}", "error", "the stable version", own, new)
        for number, (own, new) in enumerate(zip(baseline, candidate, strict=True))
    ]


def test_one_forgotten_slice_among_many_is_refused_and_named() -> None:
    chance = np.random.default_rng(6)
    refused, named, accused = 0, 0, 0
    for _ in range(300):
        baseline = chance.lognormal(0.0, 0.6, (SLICES, ROWS))
        candidate = baseline * np.exp(chance.normal(-0.005, 0.1, baseline.shape))
        candidate[2] *= 1.06
        found = judge(scores(baseline, candidate), MARGIN, LEVEL)
        verdicts = [finding.verdict for finding in found.findings]
        refused += not found.passed
        named += verdicts[2] == "forgotten"
        accused += "forgotten" in verdicts[:2] + verdicts[3:]
    assert refused == 300
    assert named > 270
    assert accused <= 300 * LEVEL
    assert "the candidate forgot: error on slice 2" in found.sentence()


def test_equal_models_pass_all_slices() -> None:
    """With as many rows as are said to be needed for nine of ten, times what all slices together ask for."""
    chance = np.random.default_rng(7)
    passed = 0
    for _ in range(200):
        baseline = chance.lognormal(0.0, 0.6, (SLICES, 1200))
        passed += judge(scores(baseline, baseline * np.exp(chance.normal(-0.005, 0.1, baseline.shape)))).passed
    assert passed > 180


def test_too_few_rows_are_undecided_and_say_how_many_are_needed() -> None:
    chance = np.random.default_rng(8)
    baseline = chance.lognormal(0.0, 0.6, (1, 40))
    found = judge(scores(baseline, baseline * np.exp(chance.normal(-0.02, 0.2, baseline.shape))))
    (finding,) = found.findings
    assert not found.passed
    assert finding.verdict == "undecided"
    needed, power = finding.needed, []
    for seed in range(9, 12):
        power.append(kept(0.0, seed, needed, 0.2))
    assert 0.7 < np.mean(power) < 0.99, "the number is an estimate from 40 rows"
    assert f"about {needed:,} are needed to tell" in found.sentence()


def test_the_limit_is_where_the_test_turns() -> None:
    chance = np.random.default_rng(12)
    baseline = chance.lognormal(0.0, 0.6, (1, ROWS))
    candidate = baseline * np.exp(chance.normal(-0.005, 0.1, baseline.shape))
    limit = judge(scores(baseline, candidate)).findings[0].limit
    assert judge(scores(baseline, candidate), margin=limit + 1e-6).passed
    assert not judge(scores(baseline, candidate), margin=limit - 1e-6).passed


def test_identical_and_perfect_models_pass() -> None:
    ones, zeros = np.ones((1, 50)), np.zeros((1, 50))
    assert judge(scores(ones, ones)).passed
    assert not judge(scores(ones, ones * 1.03)).passed
    assert judge(scores(zeros, zeros)).passed
    assert not judge(scores(zeros, ones)).passed


def test_what_cannot_be_judged_is_refused() -> None:
    with pytest.raises(DataError, match="no slice"):
        judge([])
    with pytest.raises(DataError, match="at least 20"):
        judge(scores(np.ones((1, 19)), np.ones((1, 19))))
    with pytest.raises(DataError, match="not a finite number"):
        judge(scores(np.ones((1, 30)), np.full((1, 30), np.nan)))
