"""Known answers: codes that are the factors, that are noise, that are rotated, shuffled and rescaled."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.special import entr
from scipy.stats import hypergeom

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


def one_hot(factors: Any) -> Any:
    return np.concatenate([np.eye(count)[factor] for count, factor in zip(VALUES, factors.T, strict=True)], axis=1)


def drawn(rows: int, *values: int, seed: int = 0) -> Any:
    """Independent factors, as few rows as a test wants."""
    chance = np.random.default_rng(seed)
    return np.stack([chance.integers(0, count, rows) for count in values], axis=1)


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
        assert value == pytest.approx(1, abs=0.005), name
    for name, value in every(one_hot(factors), factors).items():
        if name in ("explicitness", "modularity", "disentanglement", "informativeness", "factor_vae", "beta_vae"):
            assert value == pytest.approx(1, abs=0.005), name


def test_noise_has_none(factors: Any) -> None:
    found = every(noise(), factors)
    for name in ("mig", "sap", "disentanglement", "completeness", "modularity"):
        assert 0 <= found[name] < 0.01, name
    assert abs(found["explicitness"]) < 0.05
    assert found["factor_vae"] == pytest.approx(1 / 3)  # no unit votes
    assert abs(found["beta_vae"] - 1 / 3) < 0.1
    assert abs(found["informativeness"] - np.mean([1 / count for count in VALUES])) < 0.05


def test_a_rotation_lies_between(factors: Any) -> None:
    found = every(rotated(factors) + 0.2 * noise(), factors)
    for name in ("mig", "sap", "disentanglement", "completeness", "modularity"):
        assert 0.02 < found[name] < 0.95, name
    mixed = d._standard(factors.astype(float)) @ np.array([[1, 1, 0], [1, -1, 0], [0, 0, 1]])
    # Where either of two factors is held, both of two units vary less: which one does least is chance.
    assert d.factor_vae_score(mixed, factors) == pytest.approx(2 / 3, abs=0.1)
    assert found["beta_vae"] > 0.9  # the weak test
    assert 0.6 < found["informativeness"] < 1
    assert 0.3 < found["explicitness"] < 0.995


def test_order_sign_and_scale_of_units_do_not_matter(factors: Any) -> None:
    codes = rotated(factors) + 0.1 * noise()
    changed = codes[:, [2, 0, 1]] * np.array([-3.0, 0.1, 20.0])
    before, after = every(codes, factors), every(changed, factors)
    for name, value in before.items():
        # Bins and trees break ties by order and sign.
        assert value == pytest.approx(after[name], abs=0.02), name


def entropy_of(share: float) -> float:
    return float(entr([share, 1 - share]).sum())


def test_the_gap_by_hand() -> None:
    factor = np.repeat([0, 1], 200)[:, None]
    half = np.where(np.arange(400) % 2 == 0, factor[:, 0], 0).astype(float)  # a unit that tells half of the ones
    codes = np.stack([factor[:, 0].astype(float), half], axis=1)
    known = entropy_of(0.25) - 0.5 * math.log(2)  # H(half) - H(half | factor)
    # By chance, rows that are 1 in both (100 of the unit, 200 of the factor) are hypergeometric.
    both = np.arange(101)
    table = np.stack([both, 100 - both, 200 - both, 100 + both]) / 400
    by_chance = hypergeom(400, 200, 100).pmf(both) @ (entr(table).sum(axis=0) * -1 + entropy_of(0.25) + math.log(2))
    corrected = (known - by_chance) / (math.log(2) - by_chance)
    assert d.mutual_information_gap(codes, factor) == pytest.approx(1 - corrected)
    assert d.mutual_information_gap(codes[:, :1], factor) == pytest.approx(1.0)


UNUSED = {
    "noise": 1e-4 * noise(1)[:, 0],
    "constant": np.full(ROWS, 0.1),
    "constant but for rounding": 0.3 + np.arange(ROWS) % 3 * 2.0**-54,
    "on in one row": (np.arange(ROWS) == 7).astype(float),
    "on in four rows": (np.arange(ROWS) % 1000 == 7).astype(float),
}


@pytest.mark.parametrize("unused", UNUSED.values(), ids=UNUSED.keys())
def test_an_unused_unit_changes_nothing(factors: Any, unused: Any) -> None:
    found = every(np.concatenate([unused[:, None], factors.astype(float)], axis=1), factors)
    for name, value in found.items():
        if name != "explicitness":
            assert value == pytest.approx(1, abs=0.005), name


@pytest.mark.parametrize("level", [0.0, 0.1])
def test_constant_codes_know_nothing(factors: Any, level: float) -> None:
    found = every(np.full((ROWS, 3), level), factors)
    assert found.pop("factor_vae") == pytest.approx(1 / 3)
    assert abs(found.pop("beta_vae") - 1 / 3) < 0.1
    assert abs(found.pop("informativeness") - np.mean([1 / count for count in VALUES])) < 0.05
    assert found == dict.fromkeys(found, 0)


@pytest.mark.parametrize(("rows", "values"), [(200, 32), (100, 10), (1000, 40)])
def test_many_values_and_few_rows_are_no_hindrance(rows: int, values: int) -> None:
    factors = drawn(rows, values, values)
    codes = np.random.default_rng(5).permutation(factors).astype(float)
    assert d.mutual_information_gap(factors.astype(float), factors) > 0.9
    assert d.modularity(factors.astype(float), factors) > 0.95
    assert d.mutual_information_gap(codes, factors) < 0.1
    assert d.mutual_information_gap(np.random.default_rng(6).normal(size=(rows, 1)), factors) < 0.1


def test_information_of_independent_rows_is_0_on_average() -> None:
    found = [
        d.mutual_information(np.random.default_rng(100 + seed).normal(size=(200, 4)), drawn(200, 10, seed=seed))
        for seed in range(10)
    ]
    assert np.mean(found) < 0.05  # 40 pairs, cut off at 0; uncorrected, it would be 0.42


def test_one_outlier_or_a_heavy_tail_hides_nothing() -> None:
    factors = drawn(1000, 8, 10)
    codes = factors + 0.01 * np.random.default_rng(1).normal(size=factors.shape)
    codes[0] = 1e6
    assert d.mutual_information_gap(codes, factors) > 0.97
    assert d.mutual_information_gap(np.exp(codes[1:]), factors[1:]) > 0.97


def test_one_unit_of_each_kind_is_found_by_the_correlation_of_ranks(factors: Any) -> None:
    one = [noise(1), noise(1) ** 3]  # one unit each, of which the second has the same order
    assert d.unsupervised_disentanglement_ranking(one, [np.ones(1)] * 2) == pytest.approx([1, 1])
    dead = np.concatenate([noise(1), np.full((ROWS, 1), 0.1)], axis=1)
    assert d.unsupervised_disentanglement_ranking([dead, dead], [np.ones(2)] * 2) == pytest.approx([0.5, 0.5])
    for codes, rates in (
        ([noise(2), noise(2)[1:]], [np.ones(2)] * 2),
        ([noise(2), noise(2) * np.nan], [np.ones(2)] * 2),
        ([noise(2), noise(2)], [np.ones(2), np.ones(3)]),
    ):
        with pytest.raises(DataError, match="codes 1 of shape"):
            d.unsupervised_disentanglement_ranking(codes, rates)


def test_pairs_share_a_value_each_and_are_of_two_rows() -> None:
    values = drawn(200, 6)[:, 0]
    values[:3] = 6  # too rare to be shared
    common = d._common(values[:, None])[:, 0]
    chance = np.random.default_rng(0)
    one, other = np.concatenate([d._pairs(values, common, chance) for _ in range(50)], axis=1)
    assert (values[one] == values[other]).all()
    assert (one != other).all()
    assert len(np.unique(values[one[: d.BATCH]])) == 6  # in one batch
    assert set(one) == set(other) == set(np.flatnonzero(values < 6))


def test_values_that_one_row_has_do_not_mislead_votes() -> None:
    factors = drawn(1000, 3, 4)
    many = np.concatenate([factors, np.arange(1000)[:, None] % 700], axis=1)  # a value is on one row or two
    assert d.factor_vae_score(many.astype(float), many, votes=400) == 1
    assert d.beta_vae_score(many.astype(float), many, votes=400) > 0.97


def test_what_one_factor_or_unit_cannot_have_is_left_out(factors: Any) -> None:
    codes, one = factors.astype(float), factors[:400, :1]
    for score in (d.modularity, d.factor_vae_score, d.beta_vae_score):
        with pytest.raises(TooFewError, match="compares factors"):
            score(codes[:400], one)
    found = d.disentanglement_results(codes[:200], one[:200])
    assert set(found) == {"mig", "sap", "dci_completeness", "dci_informativeness", "explicitness"}
    assert found["mig"].value == pytest.approx(1, abs=0.02)
    found = d.disentanglement_results(codes[:200, :1], factors[:200, :2])
    assert "dci_completeness" not in found
    assert "dci_disentanglement" in found


def test_a_value_of_one_row_is_no_factor() -> None:
    factors = np.concatenate([drawn(200, 3, 4), np.arange(200)[:, None] == 3], axis=1)
    found = d.disentanglement_results(factors.astype(float), factors)
    assert found["mig"].value == pytest.approx(1, abs=0.03)
    assert len(found) == 9
    assert all(result.stderr is not None for result in found.values())
    numbered = np.concatenate([factors, np.arange(200)[:, None]], axis=1)
    assert d.disentanglement_results(factors.astype(float), numbered)["mig"] == found["mig"]
    with pytest.raises(TooFewError, match="no factor varies"):
        d.disentanglement_results(factors.astype(float), factors[:, 2:])


def test_explicitness_alone_is_left_out_where_values_are_rare() -> None:
    rows = np.arange(300)
    factors = np.stack([rows % 50, np.random.default_rng(0).permutation(rows) % 50], axis=1)  # six rows of each value
    found = d.disentanglement_results(factors.astype(float), factors)
    assert "explicitness" not in found
    assert found["mig"].value > 0.9


def test_standard_errors_are_of_the_rows_and_not_of_a_new_split() -> None:
    factors = drawn(300, 3, 6)
    codes = factors / factors.std(axis=0) + 0.8 * np.random.default_rng(50).normal(size=factors.shape)
    found = d.disentanglement_results(codes, factors)
    assert 0.02 < found["explicitness"].stderr < 0.07  # over 40 sets of data, it spreads by 0.036
    assert found["beta_vae_score"].stderr < 0.006


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
    with pytest.raises(DataError, match="below 0"):
        d.disentanglement_results(noise(), factors - 1)
    with pytest.raises(TooFewError, match="give two"):
        d.unsupervised_disentanglement_ranking([noise()], [np.ones(3)])
