"""The scikit-learn estimator."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.utils.estimator_checks import parametrize_with_checks

import lowerbound

QUICK: dict[str, Any] = {"members": 2, "steps": 15, "width": 16}


@parametrize_with_checks(
    [
        lowerbound.VAEDetector(**QUICK, random_state=0),
        lowerbound.VAEDetector(**QUICK, method="likelihood", random_state=0),
    ]
)
def test_it_is_an_estimator_as_scikit_learn_knows_them(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)


def ring(count: int, seed: int) -> np.ndarray[Any, Any]:
    """Points on a ring in the plane, with a third column that is constant and one on another scale."""
    chance = np.random.default_rng(seed)
    angle = chance.uniform(0, 2 * np.pi, count)
    plane = np.stack([np.cos(angle), np.sin(angle)], 1) + 0.05 * chance.normal(size=(count, 2))
    return np.concatenate([plane, np.full((count, 1), 7.0), 1e6 * plane[:, :1]], 1)


@pytest.mark.parametrize("method", ["neighbours", "likelihood"])
def test_columns_that_no_longer_belong_together_are_found(method: str) -> None:
    detector = lowerbound.VAEDetector(method=method, members=2, steps=400, width=64, random_state=0).fit(ring(400, 0))
    ordinary = ring(200, 1)
    strange = ordinary.copy()
    strange[:, 3] = np.roll(ordinary[:, 3], 1)
    rows, truth = np.concatenate([ordinary, strange]), np.repeat([1, 0], 200)
    assert roc_auc_score(truth, detector.score_samples(rows)) > 0.85
    assert np.mean(detector.predict(ordinary) == 1) > 0.5
    assert np.mean(detector.predict(ring(400, 0)) == -1) == pytest.approx(0.1, abs=0.01)
    again = pickle.loads(pickle.dumps(detector))  # noqa: S301
    np.testing.assert_array_equal(again.score_samples(rows), detector.score_samples(rows))


def test_the_same_seed_gives_the_same_scores_and_another_gives_others() -> None:
    rows = ring(100, 0)
    first, second, other = (lowerbound.VAEDetector(**QUICK, random_state=seed).fit(rows) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.score_samples(rows), second.score_samples(rows))
    assert (first.score_samples(rows) != other.score_samples(rows)).any()
