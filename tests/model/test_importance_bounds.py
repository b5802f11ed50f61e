"""Importance-weighted objectives: the order of their bounds, and whose gradient is whose."""

from __future__ import annotations

import torch
from tables import FAMILIES, raw_rows

from lowerbound.model.build import build_objective
from lowerbound.model.evidence import Evidence
from lowerbound.model.families.family import Family
from lowerbound.noise import BatchNoise


def evidence_of(model: Family, samples: int, rows: int = 6) -> Evidence:
    noise = BatchNoise(0, 0, rows)
    x = model.preparation.prepare(raw_rows(model.data, rows), noise.child("prepare"))
    return model.evidence(x, None, noise.child("evidence"), samples)


def value(table: dict[str, object], model: Family, player: str = "model") -> torch.Tensor:
    objective = build_objective(table, model, 0)
    evidence = evidence_of(model, objective.needs.samples)
    return objective(evidence, 0, player, BatchNoise(0, 0, 6)).value


def sharp() -> Family:
    """A model whose weights differ from draw to draw."""
    model = FAMILIES["vae-mixture"].make()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    return model


def test_more_repeats_loosen_the_bound_and_more_samples_tighten_it() -> None:
    """For the same draws: by Jensen the mean of bounds of few draws lies below the bound of all."""
    model = sharp()
    losses = [
        value({"kind": "multiple-importance", "samples": 12 // repeats, "repeats": repeats}, model)
        for repeats in (1, 3, 12)
    ]
    assert losses[0] < losses[1] < losses[2]
    torch.testing.assert_close(losses[0], value({"kind": "importance", "samples": 12}, model))
    torch.testing.assert_close(losses[2], -evidence_of(model, 12).log_weight().mean())


def test_combination_lies_between_its_ends() -> None:
    model = sharp()
    ends = [value({"kind": "combination-importance", "samples": 12, "beta": beta}, model) for beta in (0.0, 0.25, 1.0)]
    torch.testing.assert_close(ends[0], value({"kind": "importance", "samples": 12}, model))
    torch.testing.assert_close(ends[1], 0.75 * ends[0] + 0.25 * ends[2])
    torch.testing.assert_close(ends[2], -evidence_of(model, 12).elbo().mean())


def test_partial_gives_the_encoder_the_loose_bound_and_the_rest_the_tight_one() -> None:
    model = sharp()
    table = {"kind": "partial-importance", "samples": 4, "repeats": 3}
    loose, tight = value(table, model, "encoder"), value(table, model, "decoder")
    torch.testing.assert_close(loose, value({"kind": "multiple-importance", "samples": 4, "repeats": 3}, model))
    torch.testing.assert_close(tight, value({"kind": "importance", "samples": 12}, model))
    assert [player.role for player in build_objective(table, model, 0).players] == ["encoder", "prior", "decoder"]
    standard = FAMILIES["vae"].make()
    assert [player.role for player in build_objective(table, standard, 0).players] == ["encoder", "decoder"]


def test_draws_grow_from_one_to_all() -> None:
    table = {"kind": "growing-importance", "samples": 50, "start": 10, "steps": 20}
    objective = build_objective(table, sharp(), 0)
    draws = [objective.needs_at(step).samples for step in range(40)]
    assert draws[:11] == [1] * 11
    assert draws[20] == 8  # the root of 50, rounded up
    assert draws == sorted(draws)
    assert draws[30:] == [50] * 10
    torch.testing.assert_close(value(table, sharp()), value({"kind": "importance", "samples": 1}, sharp()))
