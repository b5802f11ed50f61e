"""Relief of the rate: what a unit pays, and for how long."""

from __future__ import annotations

import pytest
import torch
from tables import FAMILIES, OBJECTIVES, context_rows, raw_rows

from lowerbound.model.evidence import Evidence
from lowerbound.model.objectives.relief import DECAY, Relief
from lowerbound.noise import BatchNoise


def made(name: str, floor: float = 1.0, steps: int = 10) -> tuple[Relief, Evidence]:
    """An objective of the table that can be relieved, and evidence for it."""
    row = OBJECTIVES[name]
    model = FAMILIES[row.family].make()
    noise = BatchNoise(0, 0, 6)
    x = model.preparation.prepare(raw_rows(model.data, 6), noise.child("prepare"))
    evidence = model.evidence(x, context_rows(model.data, 6), noise, 2)
    units = sum(latent.z[0, 0].numel() for latent in evidence.latents.values())
    return Relief(row.make(model), units, floor=floor, steps=steps), evidence


def value(objective: Relief, evidence: Evidence, step: int = 0) -> float:
    return float(objective(evidence, step, "model", BatchNoise(0, 0, 6)).value.detach())


@pytest.mark.parametrize("name", ["elbo", "elbo-top-down", "free-bits-mixture", "geco", "total-correlation"])
def test_before_it_begins_and_after_it_the_loss_is_the_other_objectives(name: str) -> None:
    objective, evidence = made(name)
    plain = float(objective.inner(evidence, 20, "model", BatchNoise(0, 0, 6)).value.detach())
    assert value(objective, evidence, 20) == plain
    objective.begin(10, 0.0)
    assert value(objective, evidence, 20) == plain
    assert value(objective, evidence, 19) < plain


@pytest.mark.parametrize("name", ["elbo", "elbo-top-down", "elbo-conditional"])
def test_a_unit_that_carries_nothing_pays_nothing(name: str) -> None:
    objective, evidence = made(name)
    objective.begin(0, 0.0)
    distortion = float(evidence.average(evidence.reconstruction()).mean().detach())
    assert value(objective, evidence) == pytest.approx(distortion, rel=1e-5)


def test_units_pay_in_proportion_up_to_the_floor() -> None:
    objective, evidence = made("elbo")
    objective.begin(0, 0.0)
    units = len(objective.carried)
    objective.carried.copy_(torch.linspace(0, 2, units))
    rates = evidence.average(evidence.rates_per_unit()["z"]).mean(dim=0)
    weights = torch.tensor([min(1.0, 2 * j / (units - 1)) for j in range(units)])
    distortion = evidence.average(evidence.reconstruction()).mean()
    assert value(objective, evidence) == pytest.approx(float((distortion + (weights * rates).sum()).detach()), rel=1e-5)


def test_the_floor_falls_to_what_stays() -> None:
    objective, evidence = made("elbo", floor=2.0, steps=10)
    objective.begin(5, 0.5)
    floors = [
        float(objective(evidence, s, "model", BatchNoise(0, 0, 6)).parts["relief_floor_nats"]) for s in (5, 10, 15, 99)
    ]
    assert floors == pytest.approx([2.0, 1.25, 0.5, 0.5])


def test_it_follows_the_rates_and_passes_on_the_rest() -> None:
    objective, evidence = made("geco")
    objective.begin(0, 0.0)
    loss = objective(evidence, 0, "model", BatchNoise(0, 0, 6))
    before = objective.inner.state_dict()["excess"].clone()
    objective.absorb({name: 3 * number for name, number in loss.statistics.items()})  # sums over processes
    rates = evidence.average(evidence.rates_per_unit()["z"]).mean(dim=0)
    assert torch.allclose(objective.carried, (1 - DECAY) * rates.detach(), rtol=1e-5)
    assert not torch.equal(objective.inner.state_dict()["excess"], before)


def test_its_state_goes_with_the_objective() -> None:
    one, evidence = made("geco")
    one.begin(3, 0.25)
    one.carried.uniform_()
    other, _ = made("geco")
    other.load_state_dict(one.state_dict())
    assert value(one, evidence, 5) == value(other, evidence, 5)
