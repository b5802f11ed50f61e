"""Noise: addressed, not ordered."""

from __future__ import annotations

import pytest
import torch

from lowerbound.noise import BatchNoise, Noise, RowNoise, Scaled, derive_seed


def test_a_draw_is_a_function_of_its_address() -> None:
    noise = BatchNoise(0, 3, 8)
    first = noise.child("a").normal(2, (5,))
    noise.child("b").normal(7, (2,))
    assert torch.equal(first, noise.child("a").normal(2, (5,)))
    others = [
        noise.child("b"),
        BatchNoise(0, 4, 8).child("a"),
        BatchNoise(1, 3, 8).child("a"),
        noise.child("a").child("a"),
    ]
    assert all(not torch.equal(first, other.normal(2, (5,))) for other in others)


def test_processes_and_micro_batches_see_their_rows_of_the_whole() -> None:
    whole = BatchNoise(0, 0, 8).child("z").normal(2, (3,))
    halves = [BatchNoise(0, 0, 8, (start, start + 4)).child("z") for start in (0, 4)]
    assert torch.equal(whole, torch.cat([half.normal(2, (3,)) for half in halves], dim=1))
    micro = halves[1].narrow(2, 2)
    assert torch.equal(whole[:, 6:8], micro.normal(2, (3,)))
    assert torch.equal(whole, micro.all_rows().normal(2, (3,)))


def test_a_row_has_its_own_stream() -> None:
    together, alone = RowNoise([5, 6, 7]), RowNoise([6])
    assert torch.equal(together.normal(2, (3,))[:, 1:2], alone.normal(2, (3,)))


@pytest.mark.parametrize("noise", [BatchNoise(0, 0, 4000), RowNoise(range(4000))], ids=["batch", "row"])
def test_numbers_have_their_distributions(noise: Noise) -> None:
    """Mean and variance of 40,000 numbers within 4.5 standard errors: 12 numbers, false alarms below 1e-4."""
    for draw, mean, variance, fourth in (
        (noise.normal, 0.0, 1.0, 3.0),
        (noise.uniform, 0.5, 1 / 12, 1 / 80),
        (noise.gumbel, 0.5772157, torch.pi**2 / 6, 14.6),
    ):
        values = draw(1, (10,)).double()
        assert abs(values.mean() - mean) < 4.5 * (variance / 40_000) ** 0.5
        assert abs(values.var() - variance) < 4.5 * ((fourth - variance**2) / 40_000) ** 0.5


def test_temperature_scales_normal_numbers_only() -> None:
    noise = BatchNoise(0, 0, 4)
    cold = Scaled(noise, 0.5)
    assert torch.equal(cold.child("z").normal(1, (2,)), 0.5 * noise.child("z").normal(1, (2,)))
    assert torch.equal(cold.uniform(1, (2,)), noise.uniform(1, (2,)))


def test_seeds_of_different_paths_differ() -> None:
    seeds = {derive_seed(a, b) for a in range(100) for b in ("x", "y", "xy")}
    assert len(seeds) == 300
    assert derive_seed("a", "b") != derive_seed("ab")
