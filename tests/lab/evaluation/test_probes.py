"""Whether a code serves what comes after it: answers that are known."""

from __future__ import annotations

import pytest
import torch
from linear import SCALE, exact_linear_vae

from lowerbound.errors import NotSupportedError
from lowerbound.lab.evaluation.latents import collect
from lowerbound.lab.evaluation.probes import linear_probe, path_results, small_prior_gain
from lowerbound.lab.generation import use
from lowerbound.noise import BatchNoise, generator


def test_a_linear_probe_finds_what_is_linear_and_guesses_what_is_not_there() -> None:
    codes = torch.randn(600, 3, generator=generator(0))
    labels = (codes[:, 1] > 0).long()
    assert linear_probe(codes[:300], labels[:300], codes[300:], labels[300:]).value > 0.97  # type: ignore[operator]
    unknown = torch.randint(0, 2, (600,), generator=generator(1))
    guessed = linear_probe(codes[:300], unknown[:300], codes[300:], unknown[300:])
    assert guessed.value == pytest.approx(0.5, abs=4 * 0.03)


def test_a_probe_without_classes_is_refused() -> None:
    codes = torch.randn(20, 3, generator=generator(0))
    with pytest.raises(NotSupportedError, match="two classes"):
        linear_probe(codes, torch.zeros(20, dtype=torch.int64), codes, torch.zeros(20, dtype=torch.int64))
    with pytest.raises(NotSupportedError, match="5 labelled"):
        linear_probe(codes, torch.full((20,), -1), codes, torch.full((20,), -1))


def test_a_small_prior_gains_nothing_where_the_prior_fits_and_much_where_it_does_not() -> None:
    """Rows of the model itself have codes spread as the prior; rows twice as far out do not: their codes' variance is
    found from the posterior's variance v = 1 / (1 + 9) and mean, and the gain is KL(N(0, s), N(0, 1)) a unit."""
    model = exact_linear_vae(8, 2, 0.5)
    raw = use.sample(model, 4000, seed=1, observe="sample")
    gains = []
    for factor in (1.0, 2.0):
        halves = [
            collect(model, [(factor * part, None, BatchNoise(0, seed, 2000))])["z"]
            for seed, part in enumerate(raw.double().split(2000))
        ]
        gains.append(small_prior_gain(*halves))
    assert gains[0].value == pytest.approx(0, abs=0.05)
    precision = 1 + SCALE**2 / 0.25
    variance = 1 / precision + 4 * (1 - 1 / precision)
    exact = 2 * 0.5 * (variance - 1 - torch.tensor(variance).log().item())
    assert gains[1].value == pytest.approx(exact, abs=0.2)


def test_paths_of_a_linear_model_are_straight_and_even() -> None:
    model = exact_linear_vae(8, 2, 0.5)
    raw = use.sample(model, 100, observe="sample")
    found = path_results(model, raw)
    assert found["path_length"].value == pytest.approx(1, abs=1e-6)
    assert found["path_jump"].value == pytest.approx(1, abs=1e-6)
    shrinkage = 1 - 9 / 10  # what encoding takes from a decoded code: W'W / (W'W + sigma^2) is 9 / 10
    assert found["edit_round_trip"].value > 0  # type: ignore[operator]
    steps = use.encode(model, use.decode(model, {"z": torch.ones(1, 2).double()}))["z"]
    assert steps.flatten().tolist() == pytest.approx([1 - shrinkage] * 2)
