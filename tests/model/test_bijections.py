"""Bijections and the densities made of them: inverses, Jacobians, and mass 1."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from scipy.special import ive
from torch import Tensor
from torch.distributions import Distribution

from lowerbound.errors import ShapeError
from lowerbound.kinds import Part
from lowerbound.model.distributions import tree
from lowerbound.model.distributions.autoregressive_mixture import AutoregressiveMixture
from lowerbound.model.distributions.flow import Flow
from lowerbound.model.distributions.von_mises_fisher import SphereUniform, VonMisesFisher, log_bessel
from lowerbound.model.evidence import Latent
from lowerbound.model.networks.bijections.autoregressive import (
    InverseAutoregressive,
    MaskedAutoregressive,
    MaskedMLP,
)
from lowerbound.model.networks.bijections.bijection import Bijection, Chain, Place
from lowerbound.model.networks.bijections.continuous import Continuous
from lowerbound.model.networks.bijections.couplings import AdditiveCoupling, Coupling, SplineCoupling
from lowerbound.model.networks.bijections.mixing import ChannelCoupling, Glow, Mixing
from lowerbound.model.networks.gated import GatedGrid
from lowerbound.model.networks.mlp import MLP
from lowerbound.noise import BatchNoise, generator

NETWORK = Part(MLP, widths=[16])
GRID = Part(GatedGrid, width=8, inner=4)
IMAGE = (2, 4, 4)


def vectors(part: Part[Bijection], step: int = 0) -> Callable[[], Bijection]:
    return lambda: part(Place((5,), 2, step))


# How to make each, and how near its inverse must be.
BIJECTIONS: dict[str, tuple[Callable[[], Bijection], float]] = {
    "coupling": (vectors(Part(Coupling, network=NETWORK)), 1e-9),
    "coupling-upper": (vectors(Part(Coupling, network=NETWORK), 1), 1e-9),
    "additive": (vectors(Part(AdditiveCoupling, network=NETWORK)), 1e-9),
    "spline": (vectors(Part(SplineCoupling, network=NETWORK)), 1e-9),
    "spline-upper": (vectors(Part(SplineCoupling, network=NETWORK, bound=1.5, bins=3), 1), 1e-9),
    "inverse-autoregressive": (vectors(Part(InverseAutoregressive, widths=[16, 16])), 1e-9),
    "inverse-autoregressive-reversed": (vectors(Part(InverseAutoregressive, widths=[16, 16]), 1), 1e-9),
    "masked-autoregressive": (vectors(Part(MaskedAutoregressive, widths=[16, 16])), 1e-9),
    "masked-autoregressive-reversed": (vectors(Part(MaskedAutoregressive, widths=[16, 16]), 1), 1e-9),
    "mixing": (vectors(Part(Mixing)), 1e-9),
    "continuous": (vectors(Part(Continuous, steps=40, network=Part(MLP, widths=[16], activation="tanh"))), 1e-5),
    "chain": (lambda: Chain([Coupling(Place((5,), 2, step), network=NETWORK) for step in range(4)]), 1e-9),
    "mixing-image": (lambda: Mixing(Place(IMAGE, 2)), 1e-9),
    "channel-coupling": (lambda: ChannelCoupling(Place(IMAGE, 2), GRID), 1e-9),
    "glow": (lambda: Glow(Place(IMAGE, 2), levels=2, depth=2, network=GRID), 1e-9),
}


def made(name: str) -> Bijection:
    """A bijection that is far from the identity."""
    torch.manual_seed(0)
    found = BIJECTIONS[name][0]().double()
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.mul_(1.2 if name in ("continuous", "glow") else 2)
    return found


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator(1), dtype=torch.float64)


@pytest.mark.parametrize("name", BIJECTIONS)
def test_inverse_undoes_and_the_log_determinant_is_that_of_the_jacobian(name: str) -> None:
    bijection, near = made(name), BIJECTIONS[name][1]
    size = 32 if name in ("mixing-image", "channel-coupling", "glow") else 5
    z, h = 2 * normal(7, size), normal(7, 2)
    y, log_det = bijection(z, h)
    assert (y - z).abs().max() > 0.05
    back, same = bijection.inverse(y, h)
    torch.testing.assert_close(back, z, rtol=near, atol=near)
    torch.testing.assert_close(same, log_det, rtol=near, atol=near)
    for row in range(7):
        jacobian = torch.autograd.functional.jacobian(
            lambda one, row=row: bijection(one[None], h[row : row + 1])[0][0], z[row]
        )
        torch.testing.assert_close(torch.linalg.slogdet(jacobian).logabsdet, log_det[row], rtol=near, atol=near)


@pytest.mark.parametrize("name", BIJECTIONS)
def test_inverse_holds_in_single_precision(name: str) -> None:
    torch.manual_seed(0)
    size = 32 if name in ("mixing-image", "channel-coupling", "glow") else 5
    bijection, z, h = BIJECTIONS[name][0](), normal(50, size).float(), normal(50, 2).float()
    assert (bijection.inverse(bijection(z, h)[0], h)[0] - z).abs().max() < 1e-4


def test_a_spline_is_the_identity_outside_of_its_bound_and_where_it_is_told_nothing() -> None:
    spline = made("spline")
    assert isinstance(spline, SplineCoupling)
    far = torch.full((1, 5), 5.5).double()
    torch.testing.assert_close(spline(far, normal(1, 2))[0], far)
    values = normal(9, 3)
    moved, log_slope = spline.move(values, torch.zeros(9, 3 * 23).double(), back=False)
    torch.testing.assert_close(moved, values)
    torch.testing.assert_close(log_slope, torch.zeros(9).double())


def test_a_continuous_flow_ends_where_the_equation_leads() -> None:
    """dz/dt = A z has the solution e^A z, whose log-determinant is the trace of A."""
    bijection = Continuous(Place((3,)), steps=20, network=Part(MLP, widths=[], activation="tanh")).double()
    layer = bijection.get_submodule("network.layers.0")
    assert isinstance(layer, torch.nn.Linear)
    with torch.no_grad():
        layer.bias.zero_()
        layer.weight[:, 3].zero_()  # of the time
    z = normal(4, 3)
    y, log_det = bijection(z, None)
    a = layer.weight[:, :3]
    torch.testing.assert_close(y, z @ torch.linalg.matrix_exp(a).T, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(log_det, a.trace().expand(4), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("bijection", [Part(Continuous), Part(MaskedAutoregressive), Part(Glow, network=GRID)])
def test_gradients_reach_every_parameter(bijection: Part[Bijection]) -> None:
    torch.manual_seed(0)
    made_ = bijection(Place((4, 4, 4), 2)).double()
    y, log_det = made_.inverse(normal(3, 64), normal(3, 2))
    (y.square().sum() + log_det.sum()).backward()
    silent = [name for name, p in made_.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert not [name for name in silent if "gate" not in name and "layers.1" not in name], silent


def test_masked_network_sees_earlier_units_only() -> None:
    torch.manual_seed(0)
    network = MaskedMLP(5, 3, 2, [16, 16]).double()
    z, h = normal(5), normal(2)
    jacobian = torch.autograd.functional.jacobian(lambda one: network(one[None], h[None])[0], z)
    seen = jacobian.abs().amax(dim=1) > 0  # (unit of the output, unit of the input)
    assert torch.equal(seen, torch.ones(5, 5, dtype=torch.bool).tril(-1))
    of_context = torch.autograd.functional.jacobian(lambda one: network(z[None], one[None])[0], h)
    assert (of_context.abs().amax(dim=(1, 2)) > 0).all()


def test_a_coupling_of_one_unit_is_refused() -> None:
    with pytest.raises(ShapeError, match="two units"):
        Coupling(Place((1,)), network=NETWORK)


def test_bijections_that_do_not_fit_their_place_are_refused() -> None:
    with pytest.raises(ShapeError, match="divide by 4"):
        Glow(Place((1, 6, 6)))
    with pytest.raises(ShapeError, match="images"):
        Glow(Place((16,)))
    with pytest.raises(ShapeError, match="at most 64"):
        Continuous(Place((1, 28, 28)))


def test_densities_in_the_plane_integrate_to_one() -> None:
    axis = torch.linspace(-25, 25, 501, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    torch.manual_seed(0)
    base = tree.diagonal_normal(torch.zeros(2).double(), torch.zeros(2).double(), 1)
    densities: dict[str, Distribution] = {
        **{
            kind.__name__: Flow(base, None, Chain([kind(Place((2,), 0, step)) for step in range(2)]).double())
            for kind in (Coupling, SplineCoupling, MaskedAutoregressive, InverseAutoregressive, Continuous)
        },
        "autoregressive": AutoregressiveMixture(None, MaskedMLP(2, 9, 0, [16]).double(), torch.Size([2])),
    }
    for name, density in densities.items():
        with torch.no_grad():
            mass = torch.stack([density.log_prob(rows).exp().sum() for rows in grid.split(50_000)]).sum()
        mass = mass * (axis[1] - axis[0]) ** 2
        assert float(mass) == pytest.approx(1, abs=1e-4), name


def test_detached_flow_keeps_the_path_through_z_only() -> None:
    """What doubly reparameterised gradients need: log q at z, with nothing of q in the graph but z."""
    torch.manual_seed(0)
    bijection = InverseAutoregressive(Place((3,), 2), widths=[16, 16]).double()
    features = normal(4, 2).requires_grad_()
    base = tree.diagonal_normal(normal(4, 3), normal(4, 3), 1)
    q = Flow(base, features, bijection)
    z, log_q = tree.draw(q, BatchNoise(0, 0, 4, dtype=torch.float64))
    cut = tree.detach(q)
    leaf = z.detach().requires_grad_()
    found = cut.log_prob(leaf)
    torch.testing.assert_close(found, log_q)
    (slope,) = torch.autograd.grad(found.sum(), leaf)
    assert slope.abs().sum() > 0
    assert cut.features is not None
    assert not cut.features.requires_grad
    assert not any(parameter.requires_grad for parameter in cut.bijection.parameters())
    assert all(parameter.requires_grad for parameter in bijection.parameters())


# -------------------------------------------------------------------------------------------------------- spheres


@pytest.mark.parametrize("order", [0.0, 0.5, 1.0, 3.5, 7.0, 31.0])
def test_bessel_functions_are_those_of_scipy(order: float) -> None:
    k = torch.logspace(-1.4, 4, 200, dtype=torch.float64)
    log_i, ratio = log_bessel(order, k)
    known = torch.as_tensor(ive(order, k.numpy())).log() + k
    following = torch.as_tensor(ive(order + 1, k.numpy()) / ive(order, k.numpy()))
    assert ((log_i - known).abs() / known.abs().clamp_min(1)).max() < 1e-9
    assert ((ratio - following).abs() / following).max() < 1e-9


@pytest.mark.parametrize("size", [2, 3, 8])
def test_von_mises_fisher_integrates_to_one_and_has_its_rate(size: int) -> None:
    """By the angle to mu: the area of the rest of the sphere times sin^(D-2)."""
    mu = torch.zeros(5, size).double()
    mu[:, 0] = 1
    density = VonMisesFisher(mu, torch.tensor([0.06, 1.0, 20.0, 300.0, 8000.0]).double())
    angle = torch.linspace(0, math.pi, 400_001, dtype=torch.float64)[1:-1]
    log_rest = math.log(2) + 0.5 * (size - 1) * math.log(math.pi) - math.lgamma(0.5 * (size - 1))
    log_p = density.log_density(angle.cos()[:, None])
    weight = (log_p + (size - 2) * angle.sin().log()[:, None] + log_rest).exp() * (angle[1] - angle[0])
    torch.testing.assert_close(weight.sum(dim=0), torch.ones(5).double(), rtol=1e-3, atol=1e-3)
    uniform = SphereUniform(torch.zeros(size).double())
    rate = (weight * (log_p + uniform.log_area)).sum(dim=0)
    torch.testing.assert_close(tree.closed_kl(density, uniform), rate, rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("size", [2, 3, 8])
def test_gradient_of_a_draw_on_the_sphere_is_right_on_average(size: int) -> None:
    """d/dk E[mu . z] = A'(k) = 1 - A^2 - (D - 1) A / k, and d/dk E[(mu . z)^2] likewise by E = 1 - (D - 1) A / k."""
    rows = 20_000
    for level in (0.3, 3.0, 40.0, 2000.0):
        k = torch.full((rows,), level, dtype=torch.float64, requires_grad=True)
        mu = torch.nn.functional.normalize(normal(1, size), dim=1).expand(rows, -1)
        density = VonMisesFisher(mu, k)
        z, log_q = tree.draw(density, BatchNoise(0, 0, rows, dtype=torch.float64))
        assert ((z.square().sum(dim=-1) - 1).abs() < 1e-9).all()
        torch.testing.assert_close(log_q, density.log_prob(z))
        cosine = (z[0] * mu).sum(dim=1)
        a = float(density.normaliser()[1][0].detach())
        first = 1 - a * a - (size - 1) * a / level
        known = {1: first, 2: -(size - 1) * (first / level - a / level**2)}
        for power, truth in known.items():
            (slope,) = torch.autograd.grad(cosine.pow(power).sum(), k, retain_graph=True)
            error = float(slope.std()) / math.sqrt(rows)
            assert abs(float(slope.mean()) - truth) < 4.5 * error + 1e-9, (level, power)


def test_gradient_to_the_direction_is_right_on_average() -> None:
    """E z = A mu, so the gradient of E[c . z] to the direction v, mu = v / |v|, is A (c - (c . mu) mu) / |v|."""
    rows, c = 20_000, torch.tensor([0.5, -1.0, 2.0]).double()
    v = torch.tensor([[1.0, 2.0, -0.5]]).double().expand(rows, -1).clone().requires_grad_()
    density = VonMisesFisher(v / v.norm(dim=1, keepdim=True), torch.full((rows,), 5.0).double())
    z, _ = tree.draw(density, BatchNoise(0, 0, rows, dtype=torch.float64))
    (slope,) = torch.autograd.grad((z[0] @ c).sum(), v)
    mu = density.mu[0].detach()
    truth = float(density.normaliser()[1][0]) * (c - (c @ mu) * mu) / v[0].norm().detach()
    error = slope.std(dim=0) / math.sqrt(rows)
    assert ((slope.mean(dim=0) - truth).abs() < 4.5 * error + 1e-9).all()


def test_a_rate_between_a_sphere_and_space_is_refused() -> None:
    q = VonMisesFisher(torch.eye(3), torch.ones(3))
    p = tree.diagonal_normal(torch.zeros(3), torch.zeros(3), 1)
    with pytest.raises(ShapeError, match="on the unit sphere"):
        Latent.drawn(q, p, BatchNoise(0, 0, 3), 1)
    with pytest.raises(ShapeError, match="on the unit sphere"):
        Latent.drawn(tree.diagonal_normal(torch.zeros(3, 3), torch.zeros(3, 3), 1), SphereUniform(torch.zeros(3)),
                     BatchNoise(0, 0, 3), 1)  # fmt: skip
