"""Hierarchies of latents: residual posteriors, depth, grids, and the penalty of their weights."""

from __future__ import annotations

import pytest
import torch
from tables import DIGITS, FAMILIES, ROWS, open_gates, raw_rows

from lowerbound.errors import RecipeError, ShapeError
from lowerbound.lab.data.load import load_data
from lowerbound.lab.data.rows import InMemory
from lowerbound.lab.training.loop import Loop
from lowerbound.lab.training.processes import Processes
from lowerbound.model.build import build_model, build_objective
from lowerbound.model.evidence import Evidence
from lowerbound.model.families.family import Family
from lowerbound.model.networks.gated import GatedGrid
from lowerbound.model.networks.network import Ports
from lowerbound.model.networks.spectral import SpectralNorms
from lowerbound.noise import BatchNoise
from lowerbound.recipe import Training

BOTH = pytest.mark.parametrize("name", ["top-down", "top-down-grid"])
GRID = {"kind": "gated-grid", "width": 8, "inner": 4}


def evidence_of(model: Family, samples: int = 1) -> Evidence:
    noise = BatchNoise(0, 0, ROWS)
    x = model.preparation.prepare(raw_rows(model.data), noise.child("prepare"))
    return model.evidence(x, None, noise.child("evidence"), samples)


def grid(latents: list[list[int]], **settings: object) -> Family:
    table = {"kind": "top-down", "latents": latents, "width": 8, "encoder": GRID, "network": GRID, "decoder": GRID}
    return build_model({**table, **settings}, DIGITS, 0)


@BOTH
def test_a_residual_of_zeros_is_the_prior_and_costs_nothing(name: str) -> None:
    model = FAMILIES[name].make()
    open_gates(model)
    before = evidence_of(model, 2)
    assert all((latent.closed() > 0).all() for latent in before.latents.values())
    with torch.no_grad():
        for group_name, parameter in model.named_parameters():
            if ".q_network." in group_name:
                parameter.zero_()
    for latent in evidence_of(model, 2).latents.values():
        assert torch.equal(latent.closed(), torch.zeros(2, ROWS))
        torch.testing.assert_close(latent.sampled(), torch.zeros(2, ROWS), rtol=0, atol=1e-5)  # log q is of the noise


@BOTH
def test_what_is_encoded_and_decoded_is_what_the_evidence_saw(name: str) -> None:
    model = FAMILIES[name].make().eval()
    open_gates(model)
    noise = BatchNoise(0, 0, ROWS)
    x = model.preparation.prepare(raw_rows(model.data), noise.child("prepare"))
    evidence = model.evidence(x, None, noise)
    codes = model.encode(x, None, noise)
    for group, latent in evidence.latents.items():
        torch.testing.assert_close(codes[group], latent.z[0])
    assert evidence.distortion is not None
    torch.testing.assert_close(-model.decode(codes).log_prob(x), evidence.distortion[0])


def test_a_deep_hierarchy_starts_tame_and_trains() -> None:
    model = grid([[2, 1, 1]] * 6 + [[1, 4, 4]] * 12)
    rows = load_data({"kind": "digits"}).train
    objective = build_objective({"kind": "elbo"}, model, 0)
    training = Training.model_validate({"steps": 20, "batch_size": 16, "learning_rate": 3e-3})
    seen: list[dict[str, float]] = []
    loop = Loop(model, objective, rows, training, 0, torch.device("cpu"), Processes())
    loop.run(lambda step, parts: bool(seen.append({key: float(value) for key, value in parts.items()})))
    assert seen[0]["gradient_norm_model"] < 100
    assert seen[-1]["elbo_nats"] > seen[0]["elbo_nats"] + 2
    assert seen[-1]["gradient_norm_model"] < 100


def test_groups_of_one_grid_share_its_state_and_others_change_it() -> None:
    model = grid([[3, 1, 1], [2, 4, 4], [1, 4, 4]])
    entrances = [len(list(model.get_submodule(f"groups.{index}.entrance").children())) for index in range(3)]
    assert entrances == [0, 1, 0]


def test_grids_that_do_not_halve_into_one_another_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"\[8, 8\] does not become one of \[3, 3\]"):
        grid([[2, 3, 3]])
    with pytest.raises(ShapeError, match="needs a signal"):
        GatedGrid(Ports((4,), (2, 4, 4)))


def test_a_hierarchy_without_groups_is_refused() -> None:
    with pytest.raises(RecipeError, match="latents"):
        build_model({"kind": "top-down", "latents": []}, DIGITS, 0)


# ------------------------------------------------------------------------------------------------ singular values


def test_power_iteration_finds_the_largest_singular_values() -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Conv2d(3, 4, 3))
    norms = SpectralNorms(network)
    with torch.no_grad():
        for _ in range(200):
            values, statistics = norms(network)
            norms.absorb({name: 3 * value for name, value in statistics.items()})
    truth = [torch.linalg.matrix_norm(layer.weight.flatten(1), 2) for layer in network]
    torch.testing.assert_close(values, torch.stack(truth), rtol=1e-4, atol=1e-5)


def test_gradient_of_a_singular_value_is_the_product_of_its_vectors() -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(5, 7))
    norms = SpectralNorms(network)
    for _ in range(300):
        values, statistics = norms(network)
        norms.absorb(statistics)
    values.sum().backward()
    u, _, vh = torch.linalg.svd(network[0].weight.detach())
    assert network[0].weight.grad is not None
    torch.testing.assert_close(network[0].weight.grad, torch.outer(u[:, 0], vh[0]), rtol=1e-3, atol=1e-4)


def test_the_penalty_lowers_singular_values_and_leaves_the_bound_alone() -> None:
    plain, kept = grid([[2, 4, 4]]), grid([[2, 4, 4]], spectral=0.5)
    kept.load_state_dict(plain.state_dict(), strict=False)
    assert torch.equal(evidence_of(plain).elbo(), evidence_of(kept).elbo())
    largest = []
    for model in (plain, kept):
        objective = build_objective({"kind": "elbo"}, model, 0)
        training = Training.model_validate({"steps": 40, "batch_size": 16, "learning_rate": 1e-2})
        rows = InMemory(raw_rows(DIGITS, 32))
        Loop(model, objective, rows, training, 0, torch.device("cpu"), Processes()).run(lambda step, parts: False)
        weights = [value.detach() for name, value in model.named_parameters() if name.endswith("weight")]
        largest.append(sum(float(torch.linalg.matrix_norm(weight.flatten(1), 2)) for weight in weights))
    assert largest[1] < 0.8 * largest[0]
