"""The health of latents: known answers on Gaussians, codes that are counted, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution

import lowerbound
from lowerbound.errors import NotSupportedError
from lowerbound.lab.data.rows import Dataset, InMemory
from lowerbound.lab.evaluation.aggregate import aggregate_results, conditional_results
from lowerbound.lab.evaluation.latents import Group, collect, latent_results
from lowerbound.lab.evaluation.result import Result
from lowerbound.lab.judge import judge
from lowerbound.model.conditionals.priors import GaussianMixture
from lowerbound.model.distributions.codes import Codes
from lowerbound.model.distributions.delta import Delta
from lowerbound.model.distributions.tree import diagonal_normal, independent
from lowerbound.model.spec import Context, DataSpec
from lowerbound.noise import BatchNoise, generator
from lowerbound.recipe import Evaluation

N = 2000


def gaussian_group(means: Tensor, sigma: float, shift: float = 0.0, seed: int = 0) -> Group:
    """Posteriors N(mean, sigma^2) of rows, in batches, and the prior N(0, 1)."""
    noise = torch.randn(means.shape, generator=generator(seed + 1))
    group = Group()
    prior = diagonal_normal(torch.zeros(means.shape[1]), torch.zeros(means.shape[1]), 1)
    for mean, eps in zip((means + shift).split(700), noise.split(700), strict=True):
        q = diagonal_normal(mean, torch.full_like(mean, 2 * math.log(sigma)), 1)
        z = mean + sigma * eps
        rate = 0.5 * (mean.square() + sigma**2 - 1) - math.log(sigma)
        group.posteriors.append(q)
        group.priors.append(prior)
        group.z.append(z)
        group.log_p.append(prior.log_prob(z).double())
        group.rates.append(rate)
    return group


def means(units: int, sigma: float, seed: int = 0, rows: int = N) -> Tensor:
    """Means whose variance adds up with sigma^2 to 1: the aggregate is the prior."""
    return math.sqrt(1 - sigma**2) * torch.randn(rows, units, generator=generator(seed))


def close(result: Result, truth: float, slack: float = 0.0) -> None:
    """Within four standard errors, and the slack for a known bias."""
    assert isinstance(result.value, float)
    assert result.stderr is not None
    assert abs(result.value - truth) < 4 * result.stderr + slack, (result, truth)


def test_an_aggregate_that_is_the_prior() -> None:
    found = aggregate_results(gaussian_group(means(2, 0.5), 0.5))
    close(found["mutual_information_nats"], 2 * math.log(2))
    close(found["aggregate_kl_nats"], 0.0, slack=0.01)
    close(found["total_correlation_nats"], 0.0, slack=0.01)
    close(found["prior_hole_share"], 0.01, slack=0.005)
    placed = latent_results({"z": gaussian_group(means(2, 0.5), 0.5)})
    close(placed["outside_prior_share"], 0.01)
    for variance in placed["aggregate_variance_per_unit"].value:  # type: ignore[union-attr]
        assert abs(variance - 1) < 0.15  # four standard errors of a variance of 2,000 rows


def test_an_aggregate_beside_the_prior() -> None:
    shift = 1.5
    group = gaussian_group(means(2, 0.5), 0.5, shift)
    found, placed = aggregate_results(group), latent_results({"z": group})
    close(found["mutual_information_nats"], 2 * math.log(2))
    close(found["aggregate_kl_nats"], shift**2, slack=0.01)  # half of the squared shift, twice
    close(found["total_correlation_nats"], 0.0, slack=0.01)
    assert found["prior_hole_share"].value > 0.2  # type: ignore[operator]
    assert placed["outside_prior_share"].value > 0.1  # type: ignore[operator]
    for mean in placed["aggregate_mean_per_unit"].value:  # type: ignore[union-attr]
        assert abs(mean - shift) < 4 * math.sqrt(0.75 / N)


def given_label(sigma: float, within: float, aside: float = 0.0) -> Group:
    """Posteriors around a place for each of four labels, `within` apart, with priors N(place + aside, 1) by label."""
    labels = torch.arange(N) % 4
    places = 5.0 * labels[:, None] * torch.ones(2)
    group = gaussian_group(places + within * means(2, sigma), sigma)
    group.priors = [
        diagonal_normal(part + aside, torch.zeros_like(part), 1) for part in places.split([len(z) for z in group.z])
    ]
    group.log_p = [p.log_prob(z).double() for p, z in zip(group.priors, group.z, strict=True)]
    group.contexts = [Context.labels(part, 4) for part in labels.split([len(z) for z in group.z])]
    return group


def test_what_codes_say_beyond_a_label() -> None:
    """Within each label codes are N(place, 1) in all, and N(mean, 0.25) given the row: log 2 nats of each unit."""
    found = conditional_results(given_label(0.5, 1.0))
    close(found["conditional_mutual_information_nats"], 2 * math.log(2), slack=0.01)
    close(found["conditional_aggregate_kl_nats"], 0.0, slack=0.02)
    aside = conditional_results(given_label(0.5, 1.0, aside=1.5))
    close(aside["conditional_aggregate_kl_nats"], 1.5**2, slack=0.02)
    # Without the label they say two bits more: which of the four places.
    group = given_label(0.5, 1.0)
    group.priors = [diagonal_normal(torch.zeros(2), torch.zeros(2), 1)] * len(group.z)
    whole = aggregate_results(group)["mutual_information_nats"]
    close(whole, 2 * math.log(2) + math.log(4), slack=0.02)


def test_a_label_that_says_all_leaves_nothing_to_the_codes() -> None:
    found = conditional_results(given_label(0.5, 0.0))
    assert found["conditional_mutual_information_nats"].value == pytest.approx(0, abs=1e-9)
    group = given_label(0.5, 0.0)
    rate = (group.posterior().log_prob(group.draws.double()) - torch.cat(group.log_p)).mean()
    assert found["conditional_aggregate_kl_nats"].value == pytest.approx(float(rate), abs=1e-9)


def test_contexts_that_do_not_repeat_have_nothing_to_compare() -> None:
    group = given_label(0.5, 1.0)
    group.contexts = [
        Context.of(torch.randn(len(z), 3, generator=generator(len(z) + i))) for i, z in enumerate(group.z)
    ]
    with pytest.raises(NotSupportedError, match="context of its own"):
        conditional_results(group)
    group.contexts = []
    with pytest.raises(NotSupportedError, match="no context"):
        conditional_results(group)


def test_a_conditional_model_is_judged_given_its_label() -> None:
    data = lowerbound.load_data({"kind": "digits", "context": "label"})
    table = {"kind": "vae", "latent": 4, "prior": {"kind": "context"}, "likelihood": {"kind": "bernoulli"}}
    found = judge(lowerbound.build_model(table, data.spec, 0).eval(), data, Evaluation(samples=2, generated=60), {})
    assert found.results["conditional_mutual_information_nats"].kind == "lower_bound"
    assert "differs from row to row" in found.refused["mutual_information_nats"]


def test_correlated_codes_have_the_total_correlation_of_a_gaussian() -> None:
    correlation, sigma = 0.9, 0.5
    covariance = torch.tensor([[1.0, correlation], [correlation, 1.0]]) - sigma**2 * torch.eye(2)
    values, vectors = torch.linalg.eigh(covariance + 0.2 * torch.eye(2))
    rows = torch.randn(N, 2, generator=generator(3)) @ (vectors * values.sqrt()).T
    total = covariance + 0.2 * torch.eye(2) + sigma**2 * torch.eye(2)
    truth = -0.5 * math.log(float(torch.linalg.det(total) / total.diagonal().prod()))
    found = aggregate_results(gaussian_group(rows, sigma))
    close(found["total_correlation_nats"], truth, slack=0.02)


def test_information_and_divergence_add_up_to_the_sampled_rate() -> None:
    group = gaussian_group(means(5, 0.3), 0.3, 0.2)
    found = aggregate_results(group)
    q, z = group.posterior(), group.draws.double()
    rate = float((q.log_prob(z) - torch.cat(group.log_p)).mean())
    information, divergence = (found[f"{name}_nats"].value for name in ("mutual_information", "aggregate_kl"))
    assert information + divergence == pytest.approx(rate, abs=1e-9)  # type: ignore[operator]


def test_the_errors_have_the_stated_signs_where_posteriors_are_narrow() -> None:
    sigma, rows = 0.01, 200
    found = aggregate_results(gaussian_group(means(8, sigma, rows=rows), sigma))
    assert found["mutual_information_nats"].value <= math.log(rows) + 1e-9  # type: ignore[operator]
    assert found["mutual_information_nats"].value < -8 * math.log(sigma)  # type: ignore[operator]
    assert found["aggregate_kl_nats"].value > 10  # type: ignore[operator]  # the truth is 0


def test_holes_of_a_prior_with_a_gap() -> None:
    sides = torch.where(torch.arange(N) % 2 == 0, 2.0, -2.0)[:, None]
    found = aggregate_results(gaussian_group(sides + 0.05 * torch.randn(N, 1, generator=generator(5)), 0.1))
    inside = float(torch.distributions.Normal(0.0, 1.0).cdf(torch.tensor(1.7)))
    assert found["prior_hole_share"].value > 2 * inside - 1  # type: ignore[operator]


def test_the_region_of_a_prior_without_a_formula_is_found_by_draws() -> None:
    torch.manual_seed(0)
    from lowerbound.model.conditionals.conditional import Slot

    prior = GaussianMixture(Slot((2,), DataSpec((2,))), components=3, spread=4.0)(None, None)
    z = lowerbound.draw(prior, BatchNoise(7, 0, N))[0][0].detach()
    group = Group([diagonal_normal(z, torch.full_like(z, -20.0), 1)], [prior], [z], [prior.log_prob(z).detach()])
    close(latent_results({"z": group})["outside_prior_share"], 0.01)


def test_units_are_active_weak_or_dead() -> None:
    rows = means(3, 0.5)
    rows[:, 1] *= 0.4
    rows[:, 2] *= 0.0
    group = gaussian_group(rows, 0.5)
    for batch in group.rates:
        batch[:, 1:] -= 0.5 * (0.25 - 1) - math.log(0.5)  # as if sigma were 1 there
    found = latent_results({"z": group})
    assert [found[name].value for name in ("active_units", "units", "weak_units", "dead_units")] == [2, 3, 1, 1]


def test_codes_are_counted() -> None:
    codes = torch.tensor([[0, 1], [0, 1], [2, 2], [2, 2]])
    prior = independent(Categorical(logits=torch.zeros(2, 8)), 1)
    group = Group([Codes(codes, 1)], [prior], [codes], [torch.zeros(4).double()])
    found = latent_results({"codes": group})
    assert found["codebook_usage"].value == 3 / 8
    entropy = -(2 * 0.25 * math.log(0.25) + 0.5 * math.log(0.5))
    assert found["codebook_perplexity"].value == pytest.approx(math.exp(entropy))
    assert found["codebook_size"].value == 8


def test_what_has_no_density_is_refused() -> None:
    z = torch.randn(10, 2, generator=generator(0))
    prior = diagonal_normal(torch.zeros(2), torch.zeros(2), 1)
    group = Group([Delta(z, 1)], [prior], [z], [prior.log_prob(z)])
    with pytest.raises(NotSupportedError, match="no density"):
        aggregate_results(group)
    found = latent_results({"z": group})
    assert "rate_per_unit_nats" not in found
    torch.testing.assert_close(torch.tensor(found["aggregate_variance_per_unit"].value), z.var(dim=0))
    one = gaussian_group(means(2, 0.5, rows=1), 0.5)
    with pytest.raises(NotSupportedError, match="at least two"):
        aggregate_results(one)


def test_a_prior_that_differs_by_row_is_refused() -> None:
    group = gaussian_group(means(2, 0.5), 0.5)
    group.priors = list(group.posteriors)
    with pytest.raises(NotSupportedError, match="differs from row to row"):
        aggregate_results(group)
    assert "outside_prior_share" not in latent_results({"z": group})
    same: list[Distribution] = []
    for q in group.posteriors:
        zeros = torch.zeros(q.batch_shape[0], 2)
        same.append(diagonal_normal(zeros, zeros, 1))
    group.priors = same
    assert "prior_hole_share" in aggregate_results(group)


@pytest.mark.parametrize(
    ("table", "has", "lacks"),
    [
        ({"kind": "vae", "latent": 3}, ["mutual_information_nats", "weak_units"], ["codebook_usage"]),
        ({"kind": "vae", "latent": [2, 2, 2]}, ["total_correlation_nats", "aggregate_mean_per_unit"], []),
        ({"kind": "vae", "latent": 3, "prior": {"kind": "vamp", "components": 4}}, ["prior_hole_share"], []),
        ({"kind": "vae", "latent": 3, "prior": {"kind": "diffusion"}}, ["aggregate_kl_nats"], ["outside_prior_share"]),
        ({"kind": "vae", "latent": 3, "posterior": {"kind": "deterministic"}}, ["active_units"], ["dead_units"]),
        ({"kind": "vq-vae", "positions": [2]}, ["codebook_usage"], ["active_units", "mutual_information_nats"]),
        ({"kind": "top-down"}, ["mutual_information_z1_nats", "active_units_z2"], ["mutual_information_z2_nats"]),
        ({"kind": "density", "density": {"kind": "mixture"}}, [], ["active_units"]),
    ],
)
def test_every_family_gets_what_it_can_have(table: dict[str, object], has: list[str], lacks: list[str]) -> None:
    spec = DataSpec((1, 4, 4), 17)
    images = torch.randint(0, 17, (20, 1, 4, 4), generator=generator(0), dtype=torch.uint8)
    if table["kind"] == "density":
        spec, images = DataSpec((3,)), torch.randn(20, 3, generator=generator(0))
    rows = InMemory(images)
    model = lowerbound.build_model(table, spec, 0).eval()
    found = judge(model, Dataset("own", spec, rows, rows, rows), Evaluation(samples=2, batch_size=8), {})
    assert not [name for name in has if name not in found.results], found.results.keys()
    assert not [name for name in lacks if name in found.results]
    for result in found.results.values():
        assert torch.isfinite(torch.tensor(result.value)).all()


def test_batches_do_not_change_the_answer() -> None:
    model = lowerbound.build_model({"kind": "vae", "latent": 3}, DataSpec((4,)), 0).eval()
    x = torch.rand(12, 4, generator=generator(0))

    def found(size: int) -> dict[str, Result]:
        batches = [(part, None, BatchNoise(0, 0, len(part))) for part in x.split(size)]
        return latent_results(collect(model, batches))

    assert found(12)["rate_per_unit_nats"].value == pytest.approx(found(4)["rate_per_unit_nats"].value)
