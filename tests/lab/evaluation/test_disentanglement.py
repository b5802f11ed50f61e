"""Known answers: codes that are the factors, that are noise, that are rotated, shuffled and rescaled."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from lowerbound.errors import DataError, TooFewError
from lowerbound.lab.evaluation import disentanglement as d

ROWS, VALUES = 4000, (4, 5, 6)


@pytest.fixture(scope="module")
def factors() -> Any:
    chance = np.random.default_rng(0)
    return np.stack([chance.integers(0, count, ROWS) for count in VALUES], axis=1)


def noise(count: int = 3) -> Any:
    return np.random.default_rng(1).normal(size=(ROWS, count))


def rotated(factors: Any) -> Any:
    turn, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))
    return d._standard(factors.astype(float)) @ turn


def every(codes: Any, factors: Any) -> dict[str, float]:
    return {
        "mig": d.mutual_information_gap(codes, factors),
        "sap": d.separated_attribute_predictability(codes, factors),
        "modularity": d.modularity(codes, factors),
        "explicitness": d.explicitness(codes, factors),
        "factor_vae": d.factor_vae_score(codes, factors, votes=400),
        "beta_vae": d.beta_vae_score(codes, factors, votes=400),
        **d.disentanglement_completeness_informativeness(codes, factors),
    }


def test_codes_that_are_the_factors_have_full_marks(factors: Any) -> None:
    for name, value in every(factors.astype(float), factors).items():
        # A linear classifier ranks the middle values of a factor imperfectly, and forests look at noise now and then.
        assert value > {"explicitness": 0.6, "disentanglement": 0.9, "completeness": 0.9}.get(name, 0.97), name


def test_noise_has_none(factors: Any) -> None:
    found = every(noise(), factors)
    for name in ("mig", "sap", "disentanglement", "completeness", "modularity"):
        assert found[name] < 0.1, name
    assert abs(found["explicitness"]) < 0.1
    assert abs(found["factor_vae"] - 1 / 3) < 0.15
    assert found["beta_vae"] < 0.5
    assert found["informativeness"] < 0.3


def test_a_rotation_lies_between(factors: Any) -> None:
    found = every(rotated(factors), factors)
    for name in ("mig", "sap", "disentanglement", "completeness", "modularity"):
        assert found[name] < 0.75, name
    assert found["beta_vae"] > 0.9  # the weak test
    assert found["informativeness"] > 0.6


def test_order_sign_and_scale_of_units_do_not_matter(factors: Any) -> None:
    codes = rotated(factors) + 0.1 * noise()
    changed = codes[:, [2, 0, 1]] * np.array([-3.0, 0.1, 20.0])
    before, after = every(codes, factors), every(changed, factors)
    for name in ("sap", "beta_vae", "explicitness"):
        assert before[name] == pytest.approx(after[name], abs=0.02), name
    for name in ("mig", "modularity", "disentanglement", "completeness", "factor_vae"):
        assert before[name] == pytest.approx(after[name], abs=0.05), name


def test_the_gap_by_hand() -> None:
    factor = np.repeat([0, 1], 200)[:, None]
    half = np.where(np.arange(400) % 2 == 0, factor[:, 0], 0).astype(float)  # a unit that tells half of the ones
    codes = np.stack([factor[:, 0].astype(float), half], axis=1)
    known = 0.75 * math.log(0.75) * -1 + 0.25 * math.log(0.25) * -1 - 0.5 * math.log(2)  # H(half) - H(half | factor)
    assert d.mutual_information_gap(codes, factor) == pytest.approx((math.log(2) - known) / math.log(2))
    assert d.mutual_information_gap(codes[:, :1], factor) == pytest.approx(1.0)


def test_an_unused_unit_changes_nothing(factors: Any) -> None:
    codes = np.concatenate([factors.astype(float), 1e-4 * noise(1)], axis=1)
    assert d.factor_vae_score(codes, factors, votes=400) == 1
    assert d.mutual_information_gap(codes, factors) > 0.97


def test_models_alike_up_to_order_and_sign_rank_high(factors: Any) -> None:
    codes = noise(4)
    rates = np.array([1.0, 1.0, 1.0, 0.001])
    same = codes[:, [1, 0, 2, 3]] * np.array([-1, 1, 2, 1])
    found = d.unsupervised_disentanglement_ranking([codes, same], [rates, rates])
    assert found == pytest.approx([1, 1], abs=0.1)
    others = d.unsupervised_disentanglement_ranking(
        [codes, np.random.default_rng(9).normal(size=(ROWS, 4))], [rates, rates]
    )
    assert max(others) < 0.1


def test_what_means_nothing_is_refused(factors: Any) -> None:
    with pytest.raises(TooFewError, match="100 at least"):
        d.mutual_information_gap(noise()[:50], factors[:50])
    with pytest.raises(DataError, match="factor 1 has one value"):
        d.mutual_information_gap(noise(), factors * np.array([1, 0, 1]))
    broken = noise()
    broken[3, 0] = np.nan
    with pytest.raises(DataError, match="not a finite number"):
        d.modularity(broken, factors)
    with pytest.raises(TooFewError, match="give two"):
        d.unsupervised_disentanglement_ranking([noise()], [np.ones(3)])
