"""Networks compute what they say."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from lowerbound.errors import ShapeError
from lowerbound.model.networks.convolutional import DoublingConvolution
from lowerbound.model.networks.moving import Moving
from lowerbound.model.networks.network import Ports


@pytest.mark.parametrize("grid", [(6,), (6, 4), (4, 6, 2)])
def test_doubling_and_convolving_in_one_step_equals_both(grid: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer = DoublingConvolution(3, 5, grid).double()
    hidden = torch.randn(2, 3, *(size // 2 for size in grid), dtype=torch.float64)
    expected = layer.convolution(functional.interpolate(hidden, scale_factor=2.0, mode="nearest"))
    torch.testing.assert_close(layer(hidden), expected)


def test_an_odd_size_is_cut_from_the_doubled_one() -> None:
    torch.manual_seed(0)
    even, odd = DoublingConvolution(2, 2, (8, 6)), DoublingConvolution(2, 2, (7, 5))
    odd.load_state_dict(even.state_dict())
    hidden = torch.randn(1, 2, 4, 3)
    torch.testing.assert_close(odd(hidden), even(hidden)[..., :7, :5])


def spot(images: Tensor) -> Tensor:
    """Centre of mass of each image (N, 1, H, W): row and column, (N, 2)."""
    mass = images[:, 0].flatten(1)
    places = torch.cartesian_prod(*(torch.arange(float(size)) for size in images.shape[2:]))
    return mass @ places / mass.sum(dim=1, keepdim=True)


def test_images_that_are_moved_by_nothing_stay_what_they_are() -> None:
    torch.manual_seed(0)
    images = torch.rand(3, 2, 9, 7)
    network = Moving(Ports((2, 9, 7), (3,)), shift=0.0, slant=0.0, warp=0.0)
    torch.testing.assert_close(network.moved(images), images)


@pytest.mark.parametrize(("settings", "spread"), [({"shift": 2.0}, 2 / 3**0.5), ({"warp": 2.0}, None)])
def test_images_are_moved_by_pixels_along_both_axes(settings: dict[str, float], spread: float | None) -> None:
    torch.manual_seed(0)
    images = torch.zeros(2000, 1, 24, 16)
    images[:, :, 10:14, 6:10] = 1.0
    network = Moving(Ports((1, 24, 16), (3,)), **{"shift": 0.0, "slant": 0.0, "warp": 0.0, **settings})
    moves = spot(network.moved(images)) - spot(images)
    assert moves.mean(dim=0).abs().max() < 0.15
    if spread is not None:  # uniform on [-2, 2]
        assert moves.abs().max() < 2.01
        torch.testing.assert_close(moves.std(dim=0), torch.full((2,), spread), rtol=0.05, atol=0.0)
    else:  # a place sees the knots around it, each with the same standard deviation
        assert moves.std(dim=0).min() > 0.5
        assert moves.std(dim=0).max() < 2.0


def test_images_are_slanted_about_their_middle() -> None:
    torch.manual_seed(0)
    images = torch.zeros(500, 1, 21, 21)
    images[:, :, 2:19, 9:12] = 1.0
    moved = Moving(Ports((1, 21, 21), (3,)), shift=0.0, slant=0.25, warp=0.0).moved(images)
    assert (spot(moved) - 10).abs().max() < 0.1
    ends = spot(moved[:, :, :8])[:, 1] - 10  # where the upper end of the bar went
    assert -2.1 < ends.min() < -1 < 1 < ends.max() < 2.1


def test_only_images_can_be_moved() -> None:
    with pytest.raises(ShapeError, match="only images"):
        Moving(Ports((5,), (3,)))
