"""Likelihoods and their densities: known answers, from scipy and torch, and tables with missing values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch
from tables import COLOUR, COUNTS, DIGITS, FAMILIES, POINTS, TABLE, TEXT, raw_rows
from torch import Tensor
from torch.distributions import Distribution, Laplace, Normal, StudentT

from lowerbound.errors import DataError, ShapeError
from lowerbound.kinds import resolve
from lowerbound.lab.data.rows import InMemory
from lowerbound.lab.training.loop import Loop
from lowerbound.lab.training.processes import Processes
from lowerbound.model.build import PARTS, build_model, build_objective
from lowerbound.model.conditionals.conditional import Slot
from lowerbound.model.conditionals.likelihoods import Likelihood
from lowerbound.model.conditionals.preparation import Columns, Standardised
from lowerbound.model.distributions import tree
from lowerbound.model.distributions.columns import ColumnProduct
from lowerbound.model.distributions.continuous_bernoulli import ContinuousBernoulli
from lowerbound.model.distributions.counts import NegativeBinomial, ZeroInflatedNegativeBinomial
from lowerbound.model.distributions.logistic_mixture import LogisticMixture, PixelLogisticMixture
from lowerbound.model.networks.sequence import CausalTokens
from lowerbound.model.spec import Column, Context, DataSpec
from lowerbound.noise import BatchNoise, generator
from lowerbound.recipe import Training

ROWS = 6


def likelihood(kind: str, data: DataSpec, **settings: object) -> Likelihood:
    make, checked = resolve({"kind": kind, **settings}, PARTS[Likelihood], "likelihood", PARTS)
    torch.manual_seed(0)
    part: Likelihood = make(Slot(data.event, data), **checked)
    return part


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


# ------------------------------------------------------------------------------------------------------ densities


def test_continuous_bernoulli_is_torchs() -> None:
    logits = torch.tensor([-9.0, -4.0, -0.3, 0.3, 4.0, 9.0], dtype=torch.float64)
    ours, theirs = ContinuousBernoulli(logits), torch.distributions.ContinuousBernoulli(logits=logits)
    x = torch.rand(50, 6, generator=generator(0), dtype=torch.float64)
    torch.testing.assert_close(ours.log_prob(x), theirs.log_prob(x))
    torch.testing.assert_close(ours.mean, theirs.mean)
    torch.testing.assert_close(ours.variance, theirs.variance)
    torch.testing.assert_close(ours.quantile(x), theirs.icdf(x))


@pytest.mark.parametrize("logit", [0.0, 1e-9, 1e-4, 0.0999, 0.1001, 1.0, -1.0, 20.0, 300.0])
def test_continuous_bernoulli_integrates_to_one_near_and_far_from_one_half(logit: float) -> None:
    density = ContinuousBernoulli(torch.tensor(logit, dtype=torch.float64))
    x = torch.linspace(0, 1, 2_000_001, dtype=torch.float64)
    assert torch.trapezoid(density.log_prob(x).exp(), x).item() == pytest.approx(1, abs=1e-8)
    assert torch.trapezoid(x * density.log_prob(x).exp(), x).item() == pytest.approx(density.mean.item(), abs=1e-7)


def test_continuous_bernoulli_in_single_precision_equals_double() -> None:
    """To 2e-6 nats near 1/2, where quotients cancel."""
    logits = torch.cat([torch.logspace(-8, 2, 200), -torch.logspace(-8, 2, 200)]).requires_grad_()
    x = torch.rand(400, generator=generator(0))
    single = ContinuousBernoulli(logits).log_prob(x)
    torch.testing.assert_close(
        single.double(), ContinuousBernoulli(logits.double()).log_prob(x.double()), rtol=1e-6, atol=2e-6
    )
    single.sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    mean = ContinuousBernoulli(logits.detach()).mean
    torch.testing.assert_close(logits.grad, x - mean, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("density", [Laplace(0.3, 0.7), StudentT(4.5, 0.3, 0.7)], ids=["laplace", "student-t"])
def test_heavy_tails_are_scipys_and_drawn_exactly(density: Distribution) -> None:
    theirs = {"Laplace": scipy.stats.laplace(0.3, 0.7), "StudentT": scipy.stats.t(4.5, 0.3, 0.7)}
    scipys = theirs[type(density).__name__]
    x = torch.linspace(-40, 40, 801, dtype=torch.float64)
    np.testing.assert_allclose(density.log_prob(x).numpy(), scipys.logpdf(x.numpy()), rtol=1e-5)
    rows = tree.map_rows(density.expand((1,)), lambda tensor, axis: tensor)
    z, _ = tree.draw(rows, BatchNoise(0, 0, 1), 20_000)
    assert scipy.stats.kstest(z.flatten().numpy(), scipys.cdf).pvalue > 1e-4  # false alarms: 1e-4


def test_student_degrees_of_freedom_stay_above_two_and_are_learned() -> None:
    part = likelihood("student-t", POINTS)
    px = part(torch.zeros(ROWS, 2), None)
    assert px.base_dist.df.min().item() == pytest.approx(5.0)
    with torch.no_grad():
        part.get_parameter("raw_df").fill_(-1e6)
    assert part(torch.zeros(ROWS, 2), None).base_dist.df.min() >= 2


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_logistic_mixture_sums_to_one_over_all_levels(levels: int) -> None:
    for scale in (-7.0, -1.0, 5.0):
        mixture = LogisticMixture(normal(20, 3), 2 * normal(20, 3), normal(20, 3) + scale, levels)
        every = torch.arange(levels, dtype=torch.float64)[:, None].expand(-1, 20)
        total = mixture.log_prob(every).exp().sum(dim=0)
        torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-12, atol=1e-12)


def test_logistic_mixture_is_the_difference_of_distribution_functions() -> None:
    mixture = LogisticMixture(normal(20, 3), normal(20, 3), normal(20, 3) - 1, 256)
    x = torch.arange(1.0, 255, dtype=torch.float64)[:, None, None]
    away = 2 * x / 255 - 1 - mixture.loc
    upper, lower = (torch.sigmoid((away + side / 255) / mixture.log_scale.exp()) for side in (1, -1))
    expected = (torch.softmax(mixture.logits, -1) * (upper - lower)).sum(-1)
    found = mixture.log_prob(x.squeeze(-1).expand(-1, 20)).exp()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)  # far out the plain difference cancels to 0


def test_logistic_mixture_is_finite_with_gradient_far_out_in_single_precision() -> None:
    loc = torch.tensor([[-1e4], [-3.0], [0.0], [3.0], [1e4]], requires_grad=True)
    raw = torch.full((5, 1), -7.0, requires_grad=True)
    for level in (0.0, 100.0, 255.0):
        log_p = LogisticMixture(torch.zeros(5, 1), loc, raw, 256).log_prob(torch.full((5,), level))
        assert torch.isfinite(log_p).all()
        for gradient in torch.autograd.grad(log_p.sum(), [loc, raw]):
            assert torch.isfinite(gradient).all()


def test_bits_per_dim_of_levels_need_no_jacobian() -> None:
    """A flat categorical costs log2 L bits a value, and a flat logistic mixture about as much."""
    part = likelihood("categorical", COLOUR)
    assert part.features_shape is not None
    x = part.preparation.prepare(raw_rows(COLOUR), BatchNoise(0, 0, ROWS))
    bits = -(part(torch.zeros(ROWS, *part.features_shape), None).log_prob(x) + part.preparation.log_jacobian)
    torch.testing.assert_close(bits / (48 * math.log(2)), torch.full((ROWS,), 8.0))
    assert part.preparation.log_jacobian == 0.0
    assert not part.preparation.bound_needs_noise


def test_categorical_features_are_logits_of_each_channel() -> None:
    data = DataSpec((2, 3, 3), 4)
    part = likelihood("categorical", data)
    features = torch.zeros(1, 8, 3, 3)
    features[0, 4 + 2, 1, 0] = 50.0  # channel 1, level 2
    point = tree.point(part(features, None))
    assert point[0, 1, 1, 0] == 2
    assert point.sum() == 2


@pytest.mark.parametrize(("mean", "dispersion"), [(0.02, 0.1), (3.0, 2.0), (50.0, 0.3), (2e4, 5e3), (10.0, 2e4)])
def test_negative_binomial_is_scipys(mean: float, dispersion: float) -> None:
    ours = NegativeBinomial(torch.tensor(mean).log(), torch.tensor(dispersion).log())
    theirs = scipy.stats.nbinom(dispersion, dispersion / (dispersion + mean))
    x = np.unique(theirs.ppf(np.linspace(0.0001, 0.9999, 50)))
    np.testing.assert_allclose(ours.log_prob(torch.as_tensor(x)).numpy(), theirs.logpmf(x), rtol=1e-4, atol=1e-3)
    assert ours.mean.item() == pytest.approx(theirs.mean(), rel=1e-5)
    assert ours.variance.item() == pytest.approx(theirs.var(), rel=1e-5)
    shares = torch.tensor([0.0001, 0.3, 0.5, 0.9, 0.9999])
    found = ours.quantile(shares).double().numpy()
    np.testing.assert_allclose(found, theirs.ppf(shares.numpy()), atol=1 + 1e-6 * mean)


def test_counts_sum_to_one() -> None:
    x = torch.arange(5000, dtype=torch.float64)[:, None]
    for density in (
        NegativeBinomial(normal(1, 5), normal(1, 5)),
        ZeroInflatedNegativeBinomial(normal(1, 5), normal(1, 5, seed=2), normal(1, 5, seed=3)),
    ):
        total = density.log_prob(x.expand(-1, 5)).exp().sum(dim=0)
        torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-9, atol=1e-9)


# -------------------------------------------------------------------------------------------------- standardising


def test_standardised_rows_have_mean_0_and_scale_1_and_the_jacobian_of_it() -> None:
    rows = 5 + torch.tensor([3.0, 0.01]) * torch.randn(4000, 2, generator=generator(0))
    part = likelihood("gaussian", POINTS, per="channel", scaling="standard")
    assert part.preparation.learns
    part.preparation.fit(rows)
    x = part.preparation.prepare(rows, None)
    torch.testing.assert_close(x.mean(dim=0), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(x.std(dim=0), torch.ones(2), atol=1e-3, rtol=0)
    torch.testing.assert_close(part.preparation.restore(x), rows, rtol=1e-4, atol=1e-4)
    # log p(raw) = log p(x) + log |dx/draw| is the density of a Gaussian with the rows' own moments.
    ours = part(torch.zeros(4000, 2), None).log_prob(x) + part.preparation.log_jacobian
    assert isinstance(part.preparation, Standardised)
    theirs = Normal(part.preparation.mean, part.preparation.scale).log_prob(rows).sum(dim=1)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)


def test_standardising_images_adds_its_jacobian_to_that_of_dequantising() -> None:
    data = DataSpec((3, 4, 4), 256)
    plain, scaled = likelihood("gaussian", data), likelihood("gaussian", data, scaling="standard")
    scaled.preparation.fit(raw_rows(data, 100))
    assert isinstance(scaled.preparation, Standardised)
    expected = plain.preparation.log_jacobian - 16 * scaled.preparation.scale.log().sum().item()
    assert scaled.preparation.log_jacobian == pytest.approx(expected, rel=1e-6)
    restored = scaled.preparation.restore(scaled.preparation.prepare(raw_rows(data), None))
    assert torch.equal(restored.round().byte(), raw_rows(data))


def test_a_constant_column_is_left_at_its_scale() -> None:
    part = likelihood("gaussian", POINTS, scaling="standard")
    part.preparation.fit(torch.full((10, 2), 7.0))
    assert torch.isfinite(part.preparation.prepare(torch.full((10, 2), 7.0), None)).all()
    assert math.isfinite(part.preparation.log_jacobian)


def test_what_was_learned_ships_with_the_weights() -> None:
    for table, data in (
        ({"kind": "gaussian", "scaling": "standard"}, POINTS),
        ({"kind": "table"}, TABLE),
    ):
        model, other = (build_model({"kind": "vae", "latent": 2, "likelihood": table}, data, 0) for _ in range(2))
        model.preparation.fit(3 + raw_rows(data, 50))
        other.load_state_dict(model.state_dict())
        raw = raw_rows(data)
        first, second = (m.preparation.inputs(m.preparation.prepare(raw, None)) for m in (model, other))
        assert torch.equal(first, second)


# ----------------------------------------------------------------------------------------------------------- tables


def table_part() -> Likelihood:
    part = likelihood("table", TABLE)
    part.preparation.fit(raw_rows(TABLE, 500))
    return part


def test_a_table_is_the_product_of_its_columns() -> None:
    part = table_part()
    assert part.features_shape == (2 + 2 + 1 + 3 + 4,)
    features = torch.randn(ROWS, 12, generator=generator(2))
    px = part(features, None)
    assert isinstance(px, ColumnProduct)
    x = torch.tensor([[40.0, 2.0, 5.0, 1.0, 70.0, 3.0, 0.0]]).expand(ROWS, -1)
    prep = part.preparation
    assert isinstance(prep, Columns)
    age = Normal(prep.mean[0] + prep.scale[0] * features[:, 0], prep.scale[0]).log_prob(x[:, 0])
    town = torch.log_softmax(features[:, 5:8], dim=1)[:, 2]
    member = torch.nn.functional.logsigmoid(features[:, 4])
    each = px.log_prob_per_column(x)
    torch.testing.assert_close(each[:, 0], age)
    torch.testing.assert_close(each[:, 1], town)
    torch.testing.assert_close(each[:, 3], member)
    r = 1.0
    mean = (prep.count_mean[2] * features[:, 2].exp()).double()
    counts = torch.as_tensor(scipy.stats.nbinom(r, r / (r + mean.numpy())).logpmf(5)).float()
    torch.testing.assert_close(each[:, 2], counts, rtol=0.1, atol=0.1)  # means are bounded softly
    torch.testing.assert_close(px.log_prob(x), each.sum(dim=1))


def test_missing_values_are_left_out_and_change_nothing_else() -> None:
    px = table_part()(torch.randn(ROWS, 12, generator=generator(2)), None)
    x = raw_rows(TABLE, ROWS, seed=3).nan_to_num(1.0)
    whole = px.log_prob_per_column(x)
    for column in range(7):
        gone = x.clone()
        gone[:, column] = torch.nan
        torch.testing.assert_close(px.log_prob(gone), whole.sum(dim=1) - whole[:, column])
    assert torch.equal(px.log_prob(torch.full((ROWS, 7), torch.nan)), torch.zeros(ROWS))


def test_a_row_of_a_table_normalises() -> None:
    """Discrete columns summed, the real one integrated: 1 for each row."""
    data = DataSpec((3,), columns=(Column("c", "category", 3), Column("r", "real"), Column("b", "binary")))
    part = likelihood("table", data).double()
    px = part(torch.randn(2, 5, generator=generator(0)).double(), None)
    grid = torch.linspace(-30, 30, 6001, dtype=torch.float64)
    total = torch.zeros(2, dtype=torch.float64)
    for category in range(3):
        for bit in range(2):
            rows = torch.stack([torch.full_like(grid, category), grid, torch.full_like(grid, bit)], dim=1)
            total += px.log_prob(rows[:, None].expand(-1, 2, -1)).exp().sum(dim=0) * (grid[1] - grid[0])
    torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-8, atol=1e-8)


def test_the_encoder_sees_zeros_and_a_flag_where_a_value_is_missing() -> None:
    prep = table_part().preparation
    assert prep.inputs_shape == (2 + 4 + 2 + 2 + 2 + 5 + 2,)
    nothing = prep.inputs(torch.full((1, 7), torch.nan))
    assert torch.equal(nothing, torch.zeros(1, 19))
    something = prep.inputs(prep.prepare(raw_rows(TABLE, 500), None))
    assert torch.isfinite(something).all()
    age, there = something[:, 0], something[:, 1] == 1
    assert age[there].mean().abs() < 1e-4
    assert age[there].std(correction=0).item() == pytest.approx(1, abs=1e-3)
    assert (something[:, 2:5].sum(dim=1) == something[:, 5]).all()  # one-hot where it is there


def test_gradients_of_missing_values_are_never_nan() -> None:
    for kind in ("vae", "vq-vae", "top-down"):
        model = build_model({"kind": kind, "likelihood": {"kind": "table"}}, TABLE, 0)
        raw = raw_rows(TABLE, 20)
        raw[0] = torch.nan
        model.preparation.fit(raw)
        x = model.preparation.prepare(raw, None).requires_grad_()
        model.evidence(x, None, BatchNoise(0, 0, 20)).elbo().mean().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
        assert x.grad is not None
        assert torch.isfinite(x.grad).all()


def test_draws_of_a_table_have_the_kinds_of_its_columns() -> None:
    px = table_part()(torch.randn(ROWS, 12, generator=generator(2)), None)
    z, _ = tree.draw(px, BatchNoise(0, 0, ROWS), 200)
    assert set(z[..., 1].unique().tolist()) == {0.0, 1.0, 2.0}
    assert set(z[..., 3].unique().tolist()) == {0.0, 1.0}
    assert torch.equal(z[..., 2], z[..., 2].round())
    assert (z[..., 2] >= 0).all()


def test_a_table_needs_columns() -> None:
    with pytest.raises(ShapeError, match="columns"):
        likelihood("table", POINTS)
    with pytest.raises(ShapeError, match="levels"):
        likelihood("categorical", COUNTS)


def test_a_model_of_a_table_fills_in_what_is_missing() -> None:
    """Three columns that follow one hidden number: from what is there the model tells what is not."""
    source = generator(0)
    hidden = torch.randn(2000, 1, generator=source)
    noise = 0.1 * torch.randn(2000, 2, generator=source)
    rows = torch.cat([10 + 2 * (hidden + noise[:, :1]), -5 * (hidden + noise[:, 1:]), (hidden > 0).float()], dim=1)
    data = DataSpec((3,), columns=(Column("a", "real"), Column("b", "real"), Column("up", "binary")), examples=2000)
    seen = rows.masked_fill(torch.rand(rows.shape, generator=source) < 0.2, torch.nan)
    narrow = {"kind": "mlp", "widths": [32]}
    table = {"kind": "vae", "latent": 1, "likelihood": {"kind": "table"}, "encoder": narrow, "decoder": narrow}
    model = build_model(table, data, 0)
    model.preparation.fit(seen)
    training = Training.model_validate({"steps": 600, "batch_size": 200, "learning_rate": 5e-3})
    objective = build_objective({"kind": "elbo"}, model, 0)
    Loop(model, objective, InMemory(seen), training, 0, torch.device("cpu"), Processes()).run(lambda step, parts: False)
    model.eval()
    asked = rows.clone()
    asked[:, 1] = torch.nan
    with torch.no_grad():
        guess = tree.point(model.decode(model.encode(model.preparation.prepare(asked, None))))
    error = (guess[:, 1] - rows[:, 1]).std() / rows[:, 1].std()
    assert error < 0.4  # 1 would be the mean of the column
    assert ((guess[:, 2] > 0.5) == (rows[:, 2] > 0.5)).float().mean() > 0.9


def test_vae_of_a_table_reports_its_columns_missing_in_its_evidence() -> None:
    model = FAMILIES["vae-table"].make()
    evidence = model.evidence(raw_rows(TABLE), None, BatchNoise(0, 0, ROWS))
    assert torch.isfinite(evidence.elbo()).all()
    assert evidence.x.isnan().any()


# ------------------------------------------------------------------------------------------------- pixels and text


def test_a_pixel_mixture_without_followers_and_with_one_component_is_the_product_of_its_channels() -> None:
    loc, log_scale = normal(4, 3, 2, 2, 1), normal(4, 3, 2, 2, 1, seed=2) - 2
    none = torch.zeros(4, 3, 2, 2, 1, dtype=torch.float64)
    pixel = PixelLogisticMixture(torch.zeros(4, 1, 2, 2, 1, dtype=torch.float64), loc, log_scale, none, 256)
    each = LogisticMixture(torch.zeros_like(loc), loc, log_scale, 256)
    x = torch.randint(256, (4, 3, 2, 2), generator=generator(0)).double()
    torch.testing.assert_close(pixel.log_prob(x), each.log_prob(x).flatten(1).sum(dim=1))


def test_later_channels_of_a_pixel_follow_earlier_ones() -> None:
    """Two channels, the second exactly as the first: drawn so, and far more probable so."""
    shape = (1, 2, 1, 1, 1)
    loc, log_scale = torch.zeros(shape), torch.tensor([-1.0, -7.0]).reshape(shape)
    density = PixelLogisticMixture(torch.zeros(1, 1, 1, 1, 1), loc, log_scale, torch.ones(1, 1, 1, 1, 1), 256)
    z, _ = tree.draw(density, BatchNoise(0, 0, 1), 500)
    assert (z[:, :, 0] - z[:, :, 1]).abs().max() <= 2
    same, other = (torch.tensor([60.0, second]).reshape(1, 2, 1, 1) for second in (60.0, 180.0))
    assert density.log_prob(same) > density.log_prob(other) + 100


def test_word_dropout_acts_in_training_only() -> None:
    part = likelihood("tokens", TEXT, features=4, width=4, word_dropout=0.5)
    x = part.preparation.prepare(raw_rows(TEXT), None)
    features = torch.randn(ROWS, 4, generator=generator(0))
    assert not torch.equal(part(features, None).log_prob(x), part(features, None).log_prob(x))
    plain = likelihood("tokens", TEXT, features=4, width=4).eval()
    part.eval()
    assert torch.equal(part(features, None).log_prob(x), plain(features, None).log_prob(x))


def test_word_dropout_hides_the_share_it_says_and_never_the_start() -> None:
    torch.manual_seed(0)
    network = CausalTokens(5, 2, 3, word_dropout=0.2)
    before = torch.full((2000, 6), 4)
    before[:, 0] = network.start
    hidden = (network._seen(before) == 0).all(dim=2)
    assert not hidden[:, 0].any()
    assert abs(hidden[:, 1:].float().mean().item() - 0.2) < 4.5 * 0.4 / 100


def test_bag_of_words_is_the_cost_of_the_tokens_in_any_order_without_padding() -> None:
    data = DataSpec((4,), 3, vocabulary=("", "a", "b"))
    part = likelihood("bag-of-words", data, features=2, width=2)
    features = torch.randn(1, 2, generator=generator(0))
    one, other = (part.penalties(features, torch.tensor([row]))["bag_of_words"] for row in ([1, 2, 2, 0], [2, 0, 1, 2]))
    torch.testing.assert_close(one, other)
    log_p = torch.log_softmax(part.get_submodule("bag")(features), dim=-1)[0]
    torch.testing.assert_close(one, -(log_p[1] + 2 * log_p[2])[None])


def test_the_context_is_dropped_in_the_share_asked_for_and_absent_rows_stay_absent() -> None:
    labels = torch.arange(4000) % 3
    context = Context.labels(labels, 3, labels > 0)
    dropped = context.dropped(0.1, BatchNoise(0, 0, 4000))
    assert not dropped.present[labels == 0].any()
    share = 1 - dropped.present[labels > 0].float().mean().item()
    assert abs(share - 0.1) < 4.5 * (0.09 / 2667) ** 0.5
    assert torch.equal(context.dropped(0.0, BatchNoise(0, 0, 4000)).present, context.present)


def test_masking_and_dropout_leave_no_trace_in_evaluation() -> None:
    """Denoising: the encoder sees masked rows in training, and what is scored is the clean row."""
    plain = {"kind": "mlp", "widths": [8]}
    dropping = {"kind": "masking", "rate": 0.5, "network": plain}
    models = [
        build_model({"kind": "vae", "latent": 2, "encoder": encoder, "decoder": plain}, DIGITS, 0)
        for encoder in (plain, dropping)
    ]
    x = models[0].preparation.prepare(raw_rows(DIGITS), BatchNoise(0, 0, ROWS))
    noise = BatchNoise(0, 1, ROWS)
    clean, masked = (model.evidence(x, None, noise).elbo() for model in models)
    assert not torch.allclose(clean, masked)
    assert torch.equal(models[1].evidence(x, None, noise).x, x)
    clean, masked = (model.eval().evidence(x, None, noise).elbo() for model in models)
    assert torch.equal(clean, masked)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [("bernoulli", 1.5), ("continuous-bernoulli", -0.5), ("negative-binomial", -1.0), ("zero-inflated", 0.5)],
)
def test_values_that_a_likelihood_has_no_place_for_are_refused(kind: str, wrong: float) -> None:
    preparation = likelihood(kind, DataSpec((3,), None, examples=10)).preparation
    raw = torch.ones(4, 3)
    preparation.check(raw)
    raw[2, 1] = wrong
    with pytest.raises(DataError, match="choose another"):
        preparation.check(raw)
