"""Anomaly scores: exact for a linear model, the same at every call, and larger for what is strange."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from linear import exact_linear_vae
from torch import Tensor
from torch.distributions import MultivariateNormal

from lowerbound.errors import DataError, NotABoundError, UsageError
from lowerbound.lab.evaluation.anomaly import (
    Reference,
    code_scores,
    feature_scores,
    likelihood_regret,
    likelihood_scores,
    posterior_means,
)
from lowerbound.lab.evaluation.conformal import conformal_p_values, conformal_threshold
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
    assert likelihood_regret(model, rows, samples=500).max() < 0.05


def test_a_posterior_that_is_off_has_regret(model: Family, rows: Tensor) -> None:
    with torch.no_grad():
        model.get_submodule("encoder.layers.0").get_parameter("bias")[:LATENT] += 0.5
    assert likelihood_regret(model, rows).min() > 0.5


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


def lowdimensional(model: Family, count: int) -> Tensor:
    """Rows that the model made."""
    z = torch.randn(count, LATENT, generator=generator(5), dtype=torch.float64)
    with torch.no_grad():
        mean: Tensor = model.decode({"z": z}).mean
    return mean + SIGMA * torch.randn(mean.shape, generator=generator(6), dtype=torch.float64)


def test_scores_that_compare(model: Family) -> None:
    reference = Reference.of(model, lowdimensional(model, 400))
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


def test_a_missing_number_is_named(model: Family, rows: Tensor) -> None:
    rows[7, 1] = math.nan
    with pytest.raises(DataError, match="row 7 "):
        likelihood_scores(model, rows)
    with pytest.raises(DataError, match="give 4"):
        Reference.of(model, torch.zeros(3, DATA, dtype=torch.float64))


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
