"""Anomaly scores: exact for a linear model, the same at every call, and larger for what is strange."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from linear import SCALE, exact_linear_vae
from torch import Tensor
from torch.distributions import MultivariateNormal

from lowerbound.errors import DataError, NotABoundError, UsageError
from lowerbound.lab.evaluation.anomaly import (
    feature_scores,
    likelihood_regret,
    likelihood_scores,
    posterior_means,
)
from lowerbound.lab.evaluation.conformal import conformal_p_values, conformal_threshold
from lowerbound.lab.evaluation.ordinary import Ordinary, code_scores
from lowerbound.model.build import build_model
from lowerbound.model.families.family import Family
from lowerbound.model.spec import DataSpec
from lowerbound.noise import generator

DATA, LATENT, SIGMA = 4, 2, 0.5


@pytest.fixture
def model() -> Family:
    return exact_linear_vae(DATA, LATENT, SIGMA)


@pytest.fixture
def rows() -> Tensor:
    return torch.randn(50, DATA, generator=generator(1), dtype=torch.float64)


def log_likelihood(model: Family, x: Tensor) -> Tensor:
    layer = model.get_submodule("decoder.layers.0")
    weight, bias = layer.get_parameter("weight").detach(), layer.get_parameter("bias").detach()
    return MultivariateNormal(bias, weight @ weight.T + SIGMA**2 * torch.eye(DATA)).log_prob(x)


def test_with_the_exact_posterior_the_nll_is_exact(model: Family, rows: Tensor) -> None:
    found = likelihood_scores(model, rows, samples=3)
    torch.testing.assert_close(found["nll"], -log_likelihood(model, rows))


@pytest.mark.parametrize(("latent", "samples"), [(2, 16), (32, 1), (32, 16)])
def test_the_regret_is_how_far_the_posterior_is_from_the_best(latent: int, samples: int) -> None:
    model = exact_linear_vae(2 * latent, latent, SIGMA)
    rows = torch.randn(20, 2 * latent, generator=generator(1), dtype=torch.float64)
    assert likelihood_regret(model, rows, samples=samples).max() < 0.15  # an exact posterior's is 0
    with torch.no_grad():
        model.get_submodule("encoder.layers.0").get_parameter("bias")[:latent] += 0.5
    expected = latent * 0.5**2 / 2 * (1 + SCALE**2 / SIGMA**2)  # the KL divergence of two Gaussians of one variance
    off = likelihood_regret(model, rows, samples=samples)
    torch.testing.assert_close(off, torch.full_like(off, expected), rtol=0.03, atol=0)


def test_scores_do_not_depend_on_other_rows_or_on_the_call(model: Family, rows: Tensor) -> None:
    every = likelihood_scores(model, rows)
    order = torch.randperm(len(rows), generator=generator(2))
    for name, values in likelihood_scores(model, rows[order]).items():
        torch.testing.assert_close(values, every[name][order], rtol=1e-12, atol=1e-12)
    alone = torch.cat([likelihood_scores(model, row[None])["elbo"] for row in rows])
    torch.testing.assert_close(alone, every["elbo"], rtol=1e-12, atol=1e-12)


def test_the_strange_value_of_a_row_is_found(model: Family, rows: Tensor) -> None:
    ordinary = lowdimensional(model, 40)
    strange = ordinary.clone()
    weight = model.get_submodule("decoder.layers.0").get_parameter("weight").detach()
    planted = int(weight.norm(dim=1).argmin())  # the value that the code can least explain away
    strange[:, planted] += 8 * SIGMA
    assert (feature_scores(model, strange).argmax(dim=1) == planted).float().mean() > 0.9
    scores = likelihood_scores(model, strange)
    torch.testing.assert_close(feature_scores(model, strange).sum(dim=1), scores["reconstruction"])


def test_values_are_scored_where_all_samples_are_alike() -> None:
    quantizer = {"kind": "ema", "size": 8, "dimension": 4}
    table = {"kind": "vq-vae", "positions": [2], "quantizer": quantizer, "likelihood": {"kind": "gaussian"}}
    model = build_model(table, DataSpec((DATA,)), 0).eval()
    few = torch.randn(6, DATA, generator=generator(1))
    found = feature_scores(model, few, samples=3)
    assert found.shape == (6, DATA)
    torch.testing.assert_close(found.sum(dim=1), likelihood_scores(model, few, samples=3)["reconstruction"])


def lowdimensional(model: Family, count: int) -> Tensor:
    """Rows that the model made."""
    z = torch.randn(count, LATENT, generator=generator(5), dtype=torch.float64)
    with torch.no_grad():
        mean: Tensor = model.decode({"z": z}).mean
    return mean + SIGMA * torch.randn(mean.shape, generator=generator(6), dtype=torch.float64)


def test_scores_that_compare(model: Family) -> None:
    reference = Ordinary.of(model, lowdimensional(model, 400))
    codes = posterior_means(model, lowdimensional(model, 400))
    offset = codes - codes.mean(dim=0)
    expected = (offset @ torch.linalg.inv(torch.cov(codes.T)) * offset).sum(dim=1)
    with torch.no_grad():
        far = model.decode({"z": torch.full((1, LATENT), 3.5, dtype=torch.float64)}).mean
    ordinary, strange = code_scores(model, lowdimensional(model, 400), reference), code_scores(model, far, reference)
    torch.testing.assert_close(ordinary["mahalanobis"], expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ordinary["norm"], codes.norm(dim=1))
    for name in ("norm", "mahalanobis", "outlier_factor", "typicality"):
        assert strange[name] > ordinary[name].quantile(0.99), name
    broken = code_scores(model, far + 3 * SIGMA, reference)  # as far out, and explained badly
    assert strange["hallucination"] > broken["hallucination"] + 0.3
    middle = likelihood_scores(model, model.get_submodule("decoder.layers.0").get_parameter("bias").detach()[None])
    assert float(middle["nll"]) < reference.nll  # too likely to be typical
    assert float(code_scores(model, far * 0, reference)["typicality"]) > 0


def with_scales(model: Family, scales: list[float]) -> Family:
    """The model whose codes are multiplied by scales."""
    with torch.no_grad():
        encoder = model.get_submodule("encoder.layers.0")
        factor = torch.tensor(scales, dtype=torch.float64)
        encoder.get_parameter("weight")[: len(scales)] *= factor[:, None]
        encoder.get_parameter("bias")[: len(scales)] *= factor
    return model


def test_the_distance_from_the_others_is_that_of_leaving_each_out(model: Family) -> None:
    rows = lowdimensional(model, 7)
    codes = posterior_means(model, rows)
    expected = []
    for place in range(7):
        others = codes[torch.arange(7) != place]
        offset = codes[place] - others.mean(dim=0)
        expected.append(offset @ torch.linalg.inv(torch.cov(others.T)) @ offset)
    found = Ordinary.of(model, rows).distances
    torch.testing.assert_close(found, torch.stack(expected).sort().values, rtol=1e-3, atol=0)


def test_few_ordinary_rows_do_not_make_ordinary_ones_look_made_up() -> None:
    units = 16
    model = exact_linear_vae(2 * units, units, SIGMA)
    means = []
    for seed in range(20):
        rows = torch.randn(2 * units + 2 + 100, 2 * units, generator=generator(seed), dtype=torch.float64)
        known, asked = rows[: 2 * units + 2], rows[2 * units + 2 :]
        reference = Ordinary.of(model, known, samples=1)
        means.append(float(code_scores(model, asked, reference, samples=1)["hallucination"].mean()))
    assert abs(np.mean(means)) < 0.06  # 0 in expectation, with a standard error of 0.016


def test_the_distance_does_not_depend_on_the_scale_of_units(model: Family, rows: Tensor) -> None:
    before = code_scores(model, rows, Ordinary.of(model, rows))
    model = with_scales(model, [1e4, 1e-4])
    after = code_scores(model, rows, Ordinary.of(model, rows))
    torch.testing.assert_close(after["mahalanobis"], before["mahalanobis"], rtol=1e-6, atol=0)


def test_a_unit_that_never_varies_has_a_distance(model: Family, rows: Tensor) -> None:
    model = with_scales(model, [1.0, 0.0])
    reference = Ordinary.of(model, rows)
    codes = posterior_means(model, rows)[:, 0]
    expected = (codes - codes.mean()).square() / codes.var()
    torch.testing.assert_close(code_scores(model, rows, reference)["mahalanobis"], expected, rtol=1e-4, atol=1e-9)


def test_repeated_rows_make_no_other_row_an_outlier(model: Family) -> None:
    rows = lowdimensional(model, 200)
    repeated = torch.cat([rows, rows[:1].expand(30, -1)])
    alone = code_scores(model, rows, Ordinary.of(model, rows))["outlier_factor"]
    found = code_scores(model, rows, Ordinary.of(model, repeated))["outlier_factor"]
    torch.testing.assert_close(found, alone)
    assert found.max() < 10


def test_codes_that_are_all_alike_have_no_outliers_among_them(model: Family, rows: Tensor) -> None:
    model = with_scales(model, [0.0, 0.0])
    found = code_scores(model, rows, Ordinary.of(model, rows))
    torch.testing.assert_close(found["outlier_factor"], torch.ones(len(rows), dtype=torch.float64))
    torch.testing.assert_close(found["mahalanobis"], torch.zeros(len(rows), dtype=torch.float64))


def test_a_missing_number_is_named(model: Family, rows: Tensor) -> None:
    rows[7, 1] = math.nan
    with pytest.raises(DataError, match="row 7 "):
        likelihood_scores(model, rows)
    with pytest.raises(DataError, match="give 4"):
        Ordinary.of(model, torch.zeros(3, DATA, dtype=torch.float64))


def test_a_model_without_a_bound_says_so(rows: Tensor) -> None:
    table = {"kind": "vae", "latent": 2, "posterior": {"kind": "deterministic"}, "likelihood": {"kind": "gaussian"}}
    with pytest.raises(NotABoundError, match="no density"):
        likelihood_scores(build_model(table, DataSpec((DATA,)), 0).eval(), rows.float())


# ---------------------------------------------------------------------------------------------------- conformal


def test_p_values_by_hand() -> None:
    found = conformal_p_values(torch.tensor([1.0, 2.0, 2.0, 3.0]), torch.tensor([0.0, 2.0, 2.5, 4.0]))
    torch.testing.assert_close(found, torch.tensor([5, 4, 2, 1]) / 5)


def test_ordinary_rows_are_refused_as_often_as_was_said() -> None:
    chance = np.random.default_rng(0)
    alpha, n = 0.1, 39
    refused, over = [], []
    for _ in range(4000):
        calibration, score = torch.from_numpy(chance.normal(size=n)), torch.from_numpy(chance.normal(size=1))
        p = conformal_p_values(calibration, score)
        refused.append(bool(p <= alpha))
        over.append(bool(score > conformal_threshold(calibration, alpha)))
    assert refused == over
    assert abs(np.mean(refused) - alpha) < 3 * math.sqrt(alpha * (1 - alpha) / 4000)


@pytest.mark.parametrize(("alpha", "words"), [(0.01, "needs 99"), (0.0, "between 0 and 1"), (math.nan, "between")])
def test_levels_that_cannot_be_had_are_refused(alpha: float, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        conformal_threshold(torch.arange(50.0), alpha)


def test_scores_that_are_not_numbers_are_refused() -> None:
    with pytest.raises(DataError, match="not a number"):
        conformal_p_values(torch.tensor([1.0, math.nan]), torch.tensor([1.0]))
    with pytest.raises(DataError, match="there are none"):
        conformal_p_values(torch.zeros(0), torch.tensor([1.0]))
