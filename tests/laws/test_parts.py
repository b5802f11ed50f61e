"""Laws of networks and conditionals."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from tables import (
    DIGITS,
    LIKELIHOODS,
    NETWORKS,
    POINTS,
    POSTERIORS,
    PRIORS,
    ROWS,
    Table,
    context_rows,
    open_gates,
    raw_rows,
)

from lowerbound.kinds import resolve
from lowerbound.model.build import PARTS
from lowerbound.model.conditionals.conditional import Conditional, Slot, softly_bounded
from lowerbound.model.conditionals.likelihoods import Likelihood
from lowerbound.model.conditionals.posteriors import DiagonalGaussian, Posterior
from lowerbound.model.conditionals.priors import Prior
from lowerbound.model.distributions import tree
from lowerbound.model.networks.network import Ports
from lowerbound.model.spec import DataSpec, Shape
from lowerbound.noise import BatchNoise


def make(group: type, table: Table, event: Shape, data: DataSpec) -> Conditional:
    maker, settings = resolve(table, PARTS[group], "part", PARTS)
    torch.manual_seed(0)
    part: Conditional = maker(Slot(event, data), **settings)
    return part


def features_of(part: Conditional, rows: int = ROWS, scale: float = 1.0) -> torch.Tensor | None:
    torch.manual_seed(1)
    return None if part.features_shape is None else scale * torch.randn(rows, *part.features_shape)


# ------------------------------------------------------------------------------------------------------ networks


@pytest.mark.parametrize("name", NETWORKS)
def test_network_maps_its_input_shape_to_its_output_shape(name: str) -> None:
    maker, ports = NETWORKS[name]
    network = maker(ports).eval()
    inputs = _inputs(ports, 5)
    context = torch.randn(5, ports.context) if ports.context else None
    output = network(inputs, context)
    assert output.shape == (5, *ports.outputs)
    alone = network(inputs[2:3], None if context is None else context[2:3])
    torch.testing.assert_close(output[2:3], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_network_gradient_reaches_every_parameter(name: str) -> None:
    maker, ports = NETWORKS[name]
    network = maker(ports).eval()
    open_gates(network)
    context = torch.randn(5, ports.context) if ports.context else None
    network(_inputs(ports, 5), context).square().sum().backward()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


@pytest.mark.parametrize("name", [name for name in NETWORKS if "context" in name])
def test_network_output_depends_on_the_context(name: str) -> None:
    maker, ports = NETWORKS[name]
    network, inputs = maker(ports).eval(), _inputs(ports, 5)
    one, other = (network(inputs, torch.full((5, ports.context), value)) for value in (0.0, 1.0))
    assert not torch.allclose(one, other)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_random_in_training_only_where_they_drop_something(name: str) -> None:
    maker, ports = NETWORKS[name]
    network, inputs = maker(ports), _inputs(ports, 5)
    open_gates(network)
    context = torch.randn(5, ports.context) if ports.context else None
    drops = any(getattr(module, name, 0) for module in network.modules() for name in ("p", "rate", "shift"))
    one, other = network(inputs, context), network(inputs, context)
    assert torch.equal(one, other) == (not drops)
    network.eval()
    assert torch.equal(network(inputs, context), network(inputs, context))


def _inputs(ports: Ports, rows: int) -> torch.Tensor:
    torch.manual_seed(0)
    if ports.vocabulary is not None:
        return torch.randint(ports.vocabulary, (rows, *ports.inputs))
    return torch.randn(rows, *ports.inputs)


# -------------------------------------------------------------------------------------------------- conditionals


@pytest.mark.parametrize("name", POSTERIORS)
@pytest.mark.parametrize("event", [(4,), (2, 3, 3)], ids=str)
def test_posterior_is_one_distribution_per_row(name: str, event: Shape) -> None:
    part = make(Posterior, POSTERIORS[name], event, DIGITS)
    for batch in ((ROWS,), (3, ROWS)):
        q = part(torch.randn(*batch, *part.features_shape), None)
        assert q.batch_shape == batch
        assert q.event_shape == event


@pytest.mark.parametrize("name", PRIORS)
def test_prior_can_be_drawn_and_scored(name: str) -> None:
    table, data = PRIORS[name]
    part = make(Prior, table, (4,), data)
    features = None
    if part.inputs() is not None:
        features = tree.diagonal_normal(torch.randn(3, 4), torch.randn(3, 4), 1)
    p = tree.attach(part(features, context_rows(data)), BatchNoise(0, 0, ROWS))
    z, _ = tree.draw(p, BatchNoise(0, 0, ROWS), 2)
    assert z.shape == (2, ROWS, 4)
    log_p = p.log_prob(z.detach())
    assert log_p.shape == (2, ROWS)
    assert torch.isfinite(log_p).all()


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_likelihood_scores_what_it_prepared(name: str) -> None:
    table, data = LIKELIHOODS[name]
    part = make(Likelihood, table, data.event, data)
    x = part.preparation.prepare(raw_rows(data), BatchNoise(0, 0, ROWS))
    px = tree.attach(part(features_of(part), None), BatchNoise(0, 0, ROWS))
    assert px.log_prob(x).shape == (ROWS,)
    assert part.preparation.restore(tree.point(px)).shape == (ROWS, *data.event)
    before = {key: value.clone() for key, value in part.state_dict().items()}
    statistics = part.statistics(px, x)
    assert all(torch.equal(before[key], value) for key, value in part.state_dict().items()), "must be pure"
    part.absorb(statistics)


@pytest.mark.parametrize("name", [n for n in LIKELIHOODS if n.startswith("gaussian")])
def test_gaussian_likelihoods_integrate_to_one(name: str) -> None:
    table, data = LIKELIHOODS[name]
    part = make(Likelihood, table, data.event, data).double()
    px = part(features_of(part, scale=0.5).double(), None)
    grid = torch.linspace(-60, 60, 24_001, dtype=torch.float64)
    base = tree.factors(px)
    values = grid.reshape(-1, *(1,) * len(base.batch_shape)).expand(-1, *base.batch_shape)
    total = base.log_prob(values).exp().sum(dim=0) * (grid[1] - grid[0])
    torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-7, atol=1e-7)


def test_bernoulli_likelihood_sums_to_one() -> None:
    data = DataSpec((1, 2, 2), 2)
    part = make(Likelihood, {"kind": "bernoulli"}, data.event, data)
    px = part(features_of(part, 1), None)
    images = torch.tensor(list(itertools.product([0.0, 1.0], repeat=4))).reshape(16, 1, 2, 2)
    torch.testing.assert_close(px.log_prob(images).exp().sum(), torch.tensor(1.0))


def test_untrained_bernoulli_costs_ln_2_per_pixel() -> None:
    part = make(Likelihood, {"kind": "bernoulli"}, (1, 28, 28), DataSpec((1, 28, 28), 256))
    x = torch.zeros(1, 1, 28, 28)
    assert -part(torch.zeros(1, 1, 28, 28), None).log_prob(x).item() == pytest.approx(784 * math.log(2), rel=1e-6)


def test_dynamic_binarisation_has_the_intensity_as_its_mean() -> None:
    data = DataSpec((1, 8, 8), 17)
    part = make(Likelihood, {"kind": "bernoulli"}, data.event, data)
    raw = raw_rows(data, 1).expand(4000, -1, -1, -1)
    x = part.preparation.prepare(raw, BatchNoise(0, 0, 4000))
    assert set(x.unique().tolist()) == {0.0, 1.0}
    error = (x.mean(dim=0) - raw[0] / 16).abs()
    assert error.max() < 4.5 * 0.5 / 4000**0.5
    assert torch.equal(part.preparation.prepare(raw, None), raw / 16)


def test_dequantised_bits_per_dim_of_a_uniform_density_are_log2_of_the_levels() -> None:
    """log p(x) = 0 on [0, 1] and the Jacobian -D log L together say log2 L bits per dimension."""
    data = DataSpec((1, 8, 8), 256)
    part = make(Likelihood, {"kind": "gaussian"}, data.event, data)
    assert -part.preparation.log_jacobian / (64 * math.log(2)) == pytest.approx(8.0)
    x = part.preparation.prepare(raw_rows(data), BatchNoise(0, 0, ROWS))
    assert x.min() >= 0
    assert x.max() < 1
    assert torch.equal(part.preparation.restore(part.preparation.prepare(raw_rows(data), None)).byte(), raw_rows(data))


def test_optimal_sigma_is_the_mean_squared_error_of_what_was_absorbed() -> None:
    part = make(Likelihood, {"kind": "gaussian-optimal"}, (2,), POINTS)
    features, x = torch.zeros(ROWS, 2), torch.full((ROWS, 2), 3.0)
    part.absorb(part.statistics(part(features, None), x))
    assert part(features, None).stddev[0, 0].item() == pytest.approx(3.0)


def test_soft_bound_holds_keeps_order_and_never_loses_its_gradient() -> None:
    raw = torch.tensor([-1e6, -40.0, -1.0, 0.0, 1.0, 40.0, 1e6], dtype=torch.float64, requires_grad=True)
    bounded = softly_bounded(raw, -30.0, 10.0)
    assert bounded.min() > -30
    assert bounded.max() < 10
    assert (bounded.diff() > 0).all()
    bounded.sum().backward()
    assert raw.grad is not None
    assert (raw.grad > 1e-11).all()
    assert raw.grad[3] == 1


def test_gaussian_head_reaches_the_deterministic_limit() -> None:
    part = DiagonalGaussian(Slot((1,), DIGITS))
    q = part(torch.tensor([[2.0, -300.0]]), None)
    assert q.stddev.item() < 2e-6
