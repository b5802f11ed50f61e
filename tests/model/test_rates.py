"""Schedules, and objectives that shape the rate: known answers."""

from __future__ import annotations

import pytest
import torch
from tables import FAMILIES, OBJECTIVES, raw_rows

from lowerbound.errors import NotSupportedError
from lowerbound.lab.data.rows import InMemory
from lowerbound.lab.training.loop import Loop
from lowerbound.lab.training.processes import Processes
from lowerbound.model.build import build_objective
from lowerbound.model.evidence import Evidence
from lowerbound.model.families.family import Family
from lowerbound.model.objectives import schedules
from lowerbound.model.objectives.objective import Loss
from lowerbound.model.objectives.rates import Balanced, FreeBits
from lowerbound.model.spec import Settings
from lowerbound.noise import BatchNoise
from lowerbound.recipe import Training

ROWS = 8
NOISE = BatchNoise(0, 0, ROWS)


def evidence_of(model: Family, samples: int = 1) -> Evidence:
    x = model.preparation.prepare(raw_rows(model.data, ROWS), NOISE.child("prepare"))
    return model.evidence(x, None, NOISE, samples)


def loss_of(table: dict[str, object], model: Family, evidence: Evidence, step: int = 0) -> Loss:
    loss: Loss = build_objective(table, model, 0)(evidence, step, "model", NOISE)
    return loss


def spread(model: Family) -> Family:
    """Weights large enough that rates differ between rows and units."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    return model


# ------------------------------------------------------------------------------------------------------- schedules


@pytest.mark.parametrize("make", [schedules.linear, schedules.cosine])
def test_warm_up_starts_ends_and_stays(make: type) -> None:
    beta = make(start=0.2, end=1.0, steps=10)
    values = [beta(step) for step in range(30)]
    assert values[0] == pytest.approx(0.2)
    assert values[5] == pytest.approx(0.6)
    assert values[10:] == pytest.approx([1.0] * 20)
    assert values == sorted(values)


def test_cosine_is_flat_at_both_ends() -> None:
    beta = schedules.cosine(steps=1000)
    assert beta(1) - beta(0) < 1e-5
    assert beta(501) - beta(500) == pytest.approx(torch.pi / 2000, rel=1e-3)


def test_cyclical_rises_in_every_cycle_and_then_stays() -> None:
    beta = schedules.cyclical(period=10, rise=0.5, cycles=2)
    rising = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert [beta(step) for step in range(25)] == pytest.approx([*rising, *rising, *[1.0] * 5])


# ------------------------------------------------------------------------------------------------------- free bits


def test_free_bits_clamp_the_batch_mean_of_each_unit_and_never_the_report() -> None:
    model = spread(FAMILIES["vae"].make())
    evidence = evidence_of(model, samples=3)
    means = evidence.rates_per_unit()["z"].mean(dim=(0, 1))
    floor = means.sort().values[1:3].mean().item()  # two of four units lie below
    loss = loss_of({"kind": "free-bits", "free_bits": floor, "beta": 0.5}, model, evidence)
    expected = evidence.reconstruction().mean() + 0.5 * means.clamp_min(floor).sum()
    torch.testing.assert_close(loss.value, expected)
    torch.testing.assert_close(loss.parts["elbo_nats"], evidence.elbo().mean())
    assert loss.parts["units_at_floor"] == 2
    # The clamp of each row is another number (truth 6).
    assert not torch.isclose(means.clamp_min(floor).sum(), evidence.rates_per_unit()["z"].clamp_min(floor).mean() * 4)


def test_free_bits_of_groups() -> None:
    model = spread(FAMILIES["top-down"].make())
    evidence = evidence_of(model)
    means = torch.stack([rate.mean() for rate in evidence.rates()[1].values()])
    floor = means.mean().item()
    loss = loss_of({"kind": "free-bits", "free_bits": floor, "per": "group"}, model, evidence)
    torch.testing.assert_close(loss.value, evidence.reconstruction().mean() + means.clamp_min(floor).sum())


def test_a_unit_below_its_floor_gets_no_gradient_from_the_rate() -> None:
    model = FAMILIES["vae"].make()
    evidence = evidence_of(model)
    FreeBits(Settings(model.data, model.latents), free_bits=schedules.constant(value=1e3))
    loss = loss_of({"kind": "free-bits", "free_bits": 1e3}, model, evidence)
    (gradient,) = torch.autograd.grad(loss.value - evidence.reconstruction().mean(), evidence.latents["z"].log_q,
                                      allow_unused=True)  # fmt: skip
    assert gradient is None or not gradient.any()


def test_units_of_a_mixture_prior_have_no_floor() -> None:
    model = FAMILIES["vae-mixture"].make()
    with pytest.raises(NotSupportedError, match="factorise"):
        loss_of({"kind": "free-bits"}, model, evidence_of(model))


def test_rates_per_unit_add_up_to_the_rate() -> None:
    for name in ("vae", "vae-convolutional", "top-down"):
        evidence = evidence_of(spread(FAMILIES[name].make()), samples=2)
        groups = evidence.rates()[1]
        for group, each in evidence.rates_per_unit().items():
            torch.testing.assert_close(each.flatten(2).sum(dim=2), groups[group], rtol=1e-4, atol=1e-4)


# --------------------------------------------------------------------------------------- capacity, target, balance


def test_capacity_is_the_distance_of_the_mean_rate() -> None:
    model = spread(FAMILIES["vae"].make())
    evidence = evidence_of(model)
    schedule = {"kind": "linear", "end": 10.0, "steps": 10}
    loss = loss_of({"kind": "capacity", "capacity": schedule, "weight": 7.0}, model, evidence, step=5)
    expected = evidence.reconstruction().mean() + 7 * (evidence.rate().mean() - 5.0).abs()
    torch.testing.assert_close(loss.value, expected)
    assert loss.parts["capacity_nats"] == 5.0


def train(name: str, steps: int, **table: object) -> tuple[Loop, dict[str, float]]:
    row = OBJECTIVES[name]
    model = FAMILIES[row.family].make()
    objective = build_objective({**row.table, **table}, model, 0)
    training = Training.model_validate({"steps": steps, "batch_size": 32, "learning_rate": 5e-3})
    loop = Loop(model, objective, InMemory(raw_rows(model.data, 32)), training, 0, torch.device("cpu"), Processes())
    last: dict[str, float] = {}
    loop.run(lambda step, parts: bool(last.update({key: float(value) for key, value in parts.items()})))
    return loop, last


@pytest.mark.parametrize(("name", "table"), [("capacity", {"capacity": 4.0}), ("target-rate", {"target": 4.0})])
def test_the_rate_reaches_what_was_asked_for(name: str, table: dict[str, object]) -> None:
    assert train(name, 400, **table)[1]["rate_nats"] == pytest.approx(4.0, abs=0.6)


def test_target_rate_lowers_beta_while_the_rate_is_too_low() -> None:
    model = FAMILIES["vae"].make()
    objective = build_objective({"kind": "target-rate", "target": 10.0, "decay": 0.0}, model, 0)
    evidence = evidence_of(model)
    loss = objective(evidence, 0, "model", NOISE)
    objective.absorb(loss.statistics)
    rate = evidence.rate().mean()
    expected = torch.exp(0.05 * (rate - 10) / 10)
    torch.testing.assert_close(objective(evidence, 1, "model", NOISE).parts["beta"], expected)
    assert expected < 1


def test_balance_is_in_proportion_to_the_rate_per_unit_and_only_while_beta_is_below_one() -> None:
    model = spread(FAMILIES["top-down"].make())
    evidence = evidence_of(model)
    means = torch.stack([rate.mean() for rate in evidence.rates()[1].values()])
    per_unit = (means + Balanced.LEAST) / torch.tensor([2.0, 3.0])
    weights = per_unit / per_unit.mean()
    table = {"kind": "balanced", "beta": {"kind": "linear", "start": 0.2, "end": 1.0, "steps": 4}}
    early, late = (loss_of(table, model, evidence, step) for step in (0, 4))
    torch.testing.assert_close(early.value, evidence.reconstruction().mean() + 0.2 * (weights * means).sum())
    assert early.parts["balance_z1"] + early.parts["balance_z2"] == pytest.approx(2.0)
    torch.testing.assert_close(late.value, -evidence.elbo().mean())


@pytest.mark.parametrize("name", ["geco", "target-rate", "elbo-cyclical", "free-bits-unit"])
def test_two_models_at_once_share_no_state(name: str) -> None:
    """Trained in turns, both end where each ends alone."""
    alone, _ = train(name, 6)
    loops = [train(name, 1)[0] for _ in range(2)]
    for loop in loops:
        loop.steps = 6
    for step in range(1, 6):
        for loop in loops:
            loop.run(lambda taken, parts, until=step: taken > until)
    for loop in loops:
        assert loop.step == 6
        for key, value in alone.objective.state_dict().items():
            assert torch.equal(value, loop.objective.state_dict()[key])
        for key, value in alone.model.state_dict().items():
            assert torch.equal(value, loop.model.state_dict()[key])
