"""Networks compute what they say."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from lowerbound.model.networks.convolutional import DoublingConvolution


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
