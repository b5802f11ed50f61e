"""Interpolation, traversal, the plane, directions and repair: against what is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import lowerbound
from lowerbound.errors import NotSupportedError, ShapeError, UsageError
from lowerbound.model.families.family import Family
from lowerbound.model.families.vae import VAE
from lowerbound.model.spec import Context, DataSpec
from lowerbound.noise import generator

SIGMA = 0.5


def linear(data: int = 3, latent: int = 2, **settings: Any) -> VAE:
    """A VAE with linear maps; its encoder knows nothing of its decoder."""
    table = {
        "kind": "vae",
        "latent": latent,
        "encoder": {"kind": "mlp", "widths": []},
        "decoder": {"kind": "mlp", "widths": []},
        "likelihood": {"kind": "gaussian-fixed", "sigma": SIGMA},
        **settings,
    }
    built = lowerbound.build_model(table, DataSpec((data,)), 1)
    assert isinstance(built, VAE)
    return built.eval()


def images(**settings: Any) -> Family:
    """An untrained VAE of small images."""
    table = {"kind": "vae", "latent": 4, **settings}
    return lowerbound.build_model(table, DataSpec((1, 4, 4), 17), 0).eval()


def rows(count: int, event: tuple[int, ...] = (3,), seed: int = 0) -> Tensor:
    return torch.randn(count, *event, generator=generator(seed))


def pixels(count: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 17, (count, 1, 4, 4), generator=generator(seed), dtype=torch.uint8)


# ---------------------------------------------------------------------------------------------------------------- paths


@pytest.mark.parametrize("method", ["linear", "spherical"])
def test_an_interpolation_begins_and_ends_with_reconstructions(method: Any) -> None:
    model, start, end = images(), pixels(3), pixels(3, seed=1)
    way = lowerbound.interpolate(model, start, end, 5, method)
    assert way.shape == (3, 5, 1, 4, 4)
    torch.testing.assert_close(way[:, 0], lowerbound.reconstruct(model, start), atol=1e-4, rtol=0)
    torch.testing.assert_close(way[:, -1], lowerbound.reconstruct(model, end), atol=1e-4, rtol=0)


def test_a_linear_interpolation_through_a_linear_decoder_is_a_line() -> None:
    way = lowerbound.interpolate(linear(), rows(2), rows(2, seed=1), 5)
    torch.testing.assert_close(way[:, 2], (way[:, 0] + way[:, 4]) / 2)


def test_a_great_circle_keeps_the_length_of_codes() -> None:
    from lowerbound.lab.generation.paths import _between

    start, end = torch.tensor([[3.0, 0.0], [1.0, 1.0]]), torch.tensor([[0.0, 3.0], [2.0, 2.0]])
    way = _between(start, end, torch.linspace(0, 1, 7), "spherical")
    torch.testing.assert_close(way[0].norm(dim=1), torch.full((7,), 3.0))
    torch.testing.assert_close(way[0, 2], torch.tensor([3 * math.cos(math.pi / 6), 1.5]))
    torch.testing.assert_close(way[1, 3], torch.tensor([1.5, 1.5]))  # parallel: a line


def test_a_traversal_moves_one_unit_by_standard_deviations_of_the_prior() -> None:
    model, base = linear(), rows(2)
    found = lowerbound.traverse(model, base, [1], steps=3, reach=2.0)
    z = lowerbound.encode(model, base)["z"]
    for step, value in enumerate((-2.0, 0.0, 2.0)):
        z[:, 1] = value
        torch.testing.assert_close(found[:, 0, step], lowerbound.decode(model, {"z": z}))


def test_a_traversal_from_the_prior_starts_at_its_mean_and_goes_by_its_sigma() -> None:
    prior = {"kind": "mixture", "components": 3}
    model = linear(prior=prior)
    p = model.p(None)
    z = p.mean[None].clone()
    z[0, 0] += 3 * p.variance[0].sqrt()
    found = lowerbound.traverse(model)
    assert found.shape == (1, 2, 11, 3)
    torch.testing.assert_close(found[0, 0, -1], lowerbound.decode(model, {"z": z})[0])
    torch.testing.assert_close(found[0, 0, 5], found[0, 1, 5])


def test_the_plane_has_equal_probability_between_its_codes() -> None:
    model = linear()
    plane = lowerbound.manifold(model, 4)
    level = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor([0.125, 0.375, 0.625, 0.875]))
    lowest = lowerbound.decode(model, {"z": torch.tensor([[level[0], level[0]]])})[0]
    torch.testing.assert_close(plane[-1, 0], lowest)
    right = lowerbound.decode(model, {"z": torch.tensor([[level[3], level[0]]])})[0]
    torch.testing.assert_close(plane[-1, 3], right)


def test_what_has_no_way_is_refused() -> None:
    codes = lowerbound.build_model({"kind": "vq-vae"}, DataSpec((3,)), 0).eval()
    with pytest.raises(NotSupportedError, match="discrete"):
        lowerbound.interpolate(codes, rows(1), rows(1))
    with pytest.raises(NotSupportedError, match="discrete"):
        lowerbound.traverse(codes, rows(1))
    with pytest.raises(NotSupportedError, match="discrete"):
        lowerbound.traverse(codes)
    with pytest.raises(NotSupportedError, match="two latents"):
        lowerbound.manifold(images())
    with pytest.raises(UsageError, match="at least 2"):
        lowerbound.interpolate(linear(), rows(1), rows(1), 1)
    with pytest.raises(UsageError, match="one end for each"):
        lowerbound.interpolate(linear(), rows(1), rows(2))
    with pytest.raises(UsageError, match="from 0 to 1"):
        lowerbound.traverse(linear(), rows(1), [2])
    with pytest.raises(UsageError, match="`w`"):
        lowerbound.traverse(linear(), rows(1), group="w")


def test_groups_of_a_hierarchy_are_traversed_by_name() -> None:
    model = lowerbound.build_model({"kind": "top-down", "latents": [2, 3]}, DataSpec((3,)), 0).eval()
    first, second = (lowerbound.traverse(model, rows(2).sigmoid(), steps=3, group=name) for name in (None, "z2"))
    assert (first.shape, second.shape) == ((2, 2, 3, 3), (2, 3, 3, 3))
    with pytest.raises(NotSupportedError, match="start from a row"):
        lowerbound.traverse(model)


# ----------------------------------------------------------------------------------------------------------- directions


@pytest.mark.parametrize("way", ["means", "logistic"])
def test_a_direction_leads_from_one_middle_to_the_other(way: Any) -> None:
    model = linear(latent=3)
    model.encoder.get_submodule("layers.0").weight.data = torch.cat([torch.eye(3), torch.zeros(3, 3)])
    model.encoder.get_submodule("layers.0").bias.data.zero_()
    lacking = rows(400)
    having = rows(400, seed=1) + torch.tensor([2.0, 0.0, 0.0])
    direction = lowerbound.attribute_direction(model, having, lacking, way)
    torch.testing.assert_close(direction["z"], torch.tensor([2.0, 0.0, 0.0]), atol=0.3, rtol=0)
    found = lowerbound.edit(model, lacking[:2], {"z": torch.tensor([1.0, 0.0, 0.0])}, [0.0, 2.0])
    torch.testing.assert_close(found[:, 0], lowerbound.reconstruct(model, lacking[:2]))
    there = lowerbound.reconstruct(model, lacking[:2] + torch.tensor([2.0, 0.0, 0.0]))
    torch.testing.assert_close(found[:, 1], there)


def test_a_direction_needs_both_kinds() -> None:
    with pytest.raises(UsageError, match="0 without"):
        lowerbound.attribute_direction(linear(), rows(2), rows(2)[:0])


# --------------------------------------------------------------------------------------------------------------- repair


def truth(model: VAE, x: Tensor, missing: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the missing values given the observed ones: probabilistic PCA is a Gaussian."""
    layer = model.decoder.get_submodule("layers.0")
    w, b = layer.weight.detach(), layer.bias.detach()
    covariance = w @ w.T + SIGMA**2 * torch.eye(len(b))
    gain = covariance[missing][:, ~missing] @ torch.linalg.inv(covariance[~missing][:, ~missing])
    mean = b[missing] + (x[:, ~missing] - b[~missing]) @ gain.T
    return mean, covariance[missing][:, missing] - gain @ covariance[~missing][:, missing]


def test_metropolis_finds_the_true_conditional_though_the_encoder_is_wrong() -> None:
    model, missing = linear(), torch.tensor([True, False, True])
    model.decoder.get_submodule("layers.0").weight.data *= 2
    x = model.sample(lowerbound.BatchNoise(0, 0, 1)).mean.detach()
    mean, covariance = truth(model, x, missing)
    many = x.expand(400, -1)
    found = lowerbound.fill(model, many, missing, 300)
    spread = covariance.diagonal().sqrt()
    # 400 chains of 150 kept states: the standard error is at most that of 400 draws, spread / 20; four of them.
    assert bool(((found.rows[:, missing].mean(dim=0) - mean[0]).abs() < 4 * spread / 20).all())
    drawn = lowerbound.fill(model, many, missing, 100, observe="sample").rows[:, missing]
    assert bool(((drawn.mean(dim=0) - mean[0]).abs() < 4 * spread / 20).all())
    torch.testing.assert_close(drawn.std(dim=0), spread, atol=0, rtol=0.2)
    assert 0.05 < float(found.accepted.mean()) < 0.95
    wrong = lowerbound.fill(model, many, missing, 100, "gibbs").rows[:, missing]
    assert bool(((wrong.mean(dim=0) - mean[0]).abs() > 4 * spread / 20).any()), "the test has no power"


FILLS: dict[str, Callable[[Family, Tensor], Tensor]] = {
    "interpolate": lambda model, x: lowerbound.interpolate(model, x, x.flip(-1)),
    "traverse": lambda model, x: lowerbound.traverse(model, x),
    "denoise": lambda model, x: lowerbound.denoise(model, x, 3),
    "fill": lambda model, x: lowerbound.fill(model, x, torch.eye(4).bool()[None], 30).rows,
    "fill-gibbs": lambda model, x: lowerbound.fill(model, x, torch.eye(4).bool()[None], 30, "gibbs").rows,
    "fill-sample": lambda model, x: lowerbound.fill(model, x, torch.eye(4).bool()[None], 30, observe="sample").rows,
}


@pytest.mark.parametrize("name", FILLS)
def test_rows_do_not_depend_on_their_batch_mates_and_answers_repeat(name: str) -> None:
    model, x = images(), pixels(5)
    together = FILLS[name](model, x)
    torch.testing.assert_close(together[:2], FILLS[name](model, x[:2]), atol=1e-4, rtol=0)
    assert torch.equal(together, FILLS[name](model, x))


def test_observed_values_stay_as_they_are() -> None:
    x, missing = pixels(4), torch.rand(4, 1, 4, 4, generator=generator(2)) < 0.5
    found = lowerbound.fill(images(), x, missing, 10).rows
    assert torch.equal(found[~missing], x[~missing].float())
    assert not torch.equal(found[missing], x[missing].float())
    gaps = torch.where(missing, torch.nan, x.float())
    assert torch.equal(lowerbound.fill(images(), gaps, missing, 10).rows, found), "what lies in a gap is not looked at"


def test_denoising_takes_noise_out() -> None:
    model = linear(data=6)
    layers = [part.get_submodule("layers.0") for part in (model.encoder, model.decoder)]
    w = torch.linalg.qr(rows(6, (2,)))[0]
    layers[1].weight.data, layers[0].weight.data = w, torch.cat([w.T, torch.zeros(2, 6)])
    for layer in layers:
        layer.bias.data.zero_()
    layers[0].bias.data[2:] = -8.0
    clean = rows(200, (2,)) @ w.T
    noisy = lowerbound.add_noise(clean, 0.3, model.data)
    error = (lowerbound.denoise(model, noisy) - clean).square().mean().sqrt()
    assert float(error) < 0.3 * math.sqrt(2 / 6) * 1.1  # a projection keeps 2 of the 6 dimensions of the noise


def test_wrong_repairs_are_refused() -> None:
    model, x = linear(), rows(2)
    with pytest.raises(ShapeError, match="mask of shape"):
        lowerbound.fill(model, x, torch.ones(2).bool())
    with pytest.raises(UsageError, match="nothing is missing"):
        lowerbound.fill(model, x, torch.zeros(3).bool())
    with pytest.raises(UsageError, match="not marked"):
        lowerbound.fill(model, torch.full_like(x, torch.nan), torch.tensor([True, False, False]))
    with pytest.raises(UsageError, match="at least one"):
        lowerbound.fill(model, x, torch.ones(3).bool(), 0)
    with pytest.raises(UsageError, match="at least one"):
        lowerbound.denoise(model, x, 0)
    for table in ({"kind": "vq-vae"}, {"kind": "top-down"}):
        other = lowerbound.build_model(table, DataSpec((1, 4, 4), 17), 0).eval()
        mask = torch.eye(4).bool()[None]
        with pytest.raises(NotSupportedError, match="gibbs"):
            lowerbound.fill(other, pixels(2), mask, 5)
        assert lowerbound.fill(other, pixels(2), mask, 5, "gibbs").rows.shape == (2, 1, 4, 4)


def test_a_conditional_model_is_asked_with_its_context() -> None:
    spec = DataSpec((1, 4, 4), 17, context=3)
    model = lowerbound.build_model({"kind": "vae", "latent": 2}, spec, 0).eval()
    context = Context.labels(torch.tensor([0, 2]), 3)
    x = pixels(2)
    assert lowerbound.interpolate(model, x, x.flip(0), 3, "linear", context).shape == (2, 3, 1, 4, 4)
    assert lowerbound.traverse(model, x, context=context).shape == (2, 2, 11, 1, 4, 4)
    assert lowerbound.manifold(model, 3, context.select(slice(0, 1))).shape == (3, 3, 1, 4, 4)
    assert lowerbound.fill(model, x, torch.eye(4).bool()[None], 4, context=context).rows.shape == x.shape
    assert lowerbound.denoise(model, x, 2, context).shape == x.shape
    direction = lowerbound.attribute_direction(model, x, x.flip(0), "means", context, context)
    assert lowerbound.edit(model, x, direction, [0, 1], context).shape == (2, 2, 1, 4, 4)
