"""The record of the bound's parts."""

from __future__ import annotations

import pytest
import torch
from tables import DIGITS, FAMILIES, OBJECTIVES
from torch.distributions import Categorical

from lowerbound.errors import NotABoundError, NotSupportedError
from lowerbound.lab.evaluation.bounds import bounds
from lowerbound.model.build import build_model, build_objective
from lowerbound.model.distributions import tree
from lowerbound.model.evidence import Evidence, Latent
from lowerbound.noise import BatchNoise

ROWS = 6


def x() -> torch.Tensor:
    return (torch.rand(ROWS, 1, 8, 8, generator=torch.Generator().manual_seed(0)) > 0.5).float()


def test_closed_and_sampled_rates_are_never_mixed() -> None:
    """One group with a closed form and one without: both are sampled."""
    q = tree.diagonal_normal(torch.zeros(ROWS, 2), torch.zeros(ROWS, 2), 1)
    mixture = FAMILIES["vae-mixture"].make().get_submodule("prior")(None, None)
    wide = tree.diagonal_normal(torch.zeros(ROWS, 4), torch.zeros(ROWS, 4), 1)
    groups = {
        "a": Latent.drawn(q, q, BatchNoise(0, 0, ROWS), 1),
        "b": Latent.drawn(wide, mixture, BatchNoise(0, 1, ROWS), 1),
    }
    evidence = Evidence(x(), None, torch.zeros(1, ROWS), groups)
    kind, rates = evidence.rates()
    assert kind == "sampled"
    torch.testing.assert_close(rates["a"], groups["a"].sampled())


def test_an_implicit_model_has_no_bound() -> None:
    evidence = Evidence(x(), None, None)
    for ask in (evidence.reconstruction, evidence.elbo, evidence.log_weight, evidence.importance_bound):
        with pytest.raises(NotABoundError, match="implicit"):
            ask()


def test_a_deterministic_code_has_no_rate() -> None:
    model = build_model({**FAMILIES["vae"].table, "posterior": {"kind": "deterministic"}}, DIGITS, 0)
    evidence = model.evidence(x(), None, BatchNoise(0, 0, ROWS))
    with pytest.raises(NotABoundError, match="no density"):
        evidence.elbo()
    with pytest.raises(NotABoundError):
        bounds(model, [(x(), None, BatchNoise(0, 0, ROWS))], 2)
    objective = build_objective(OBJECTIVES["adversarial-prior"].table, model, 0)
    loss = objective(evidence, 0, "model", BatchNoise(0, 0, ROWS))
    assert torch.isfinite(loss.value)
    assert not {name for name in loss.parts if "elbo" in name or "rate" in name}


def test_an_estimated_density_has_an_elbo_and_no_importance_bound() -> None:
    model = FAMILIES["vae-diffusion-prior"].make()
    found = bounds(model, [(x(), None, BatchNoise(0, 0, ROWS))], 3)
    assert torch.isfinite(found.elbo).all()
    assert found.importance == {}
    assert found.refused is not None
    assert "estimate" in found.refused


def test_enumerated_samples_are_weighted_by_their_probability() -> None:
    weights = torch.tensor([[0.2], [0.8]])
    evidence = Evidence(torch.zeros(1, 2), None, torch.tensor([[1.0], [3.0]]), weights=weights)
    assert evidence.elbo().item() == pytest.approx(-(0.2 * 1 + 0.8 * 3))
    expected = torch.log(0.2 * torch.exp(torch.tensor(-1.0)) + 0.8 * torch.exp(torch.tensor(-3.0)))
    assert evidence.importance_bound().item() == pytest.approx(expected.item())


def test_importance_bound_over_classes_is_above_the_elbo_and_chunks_do_not_matter() -> None:
    model = FAMILIES["semi-supervised"].make()
    found = bounds(model, [(x(), None, BatchNoise(0, 0, ROWS))], 64)
    assert (found.importance[64] >= found.elbo - 1e-6).all()


def test_a_pair_without_a_closed_form_says_so() -> None:
    flat = Categorical(logits=torch.zeros(3), validate_args=False)
    normal = tree.diagonal_normal(torch.zeros(2), torch.zeros(2), 1)
    with pytest.raises(NotSupportedError, match="no known closed form"):
        tree.closed_kl(normal, flat)


def test_doubly_reparameterised_gradients_refuse_a_hierarchy() -> None:
    with pytest.raises(NotSupportedError, match="one group"):
        build_objective({"kind": "doubly-reparameterised"}, FAMILIES["top-down"].make(), 0)


def test_parts_check_out_with_validation_switched_on() -> None:
    """Conditionals build distributions without torch's validation; here their parameters are checked."""
    for name in ("vae", "vae-convolutional", "text", "vae-pixel-gaussian"):
        model = FAMILIES[name].make()
        raw = torch.zeros(2, *model.data.event)
        prepared = model.preparation.prepare(raw, BatchNoise(0, 0, 2))
        evidence = model.evidence(prepared, None, BatchNoise(0, 0, 2))
        for distribution in (evidence.px, *(d for lat in evidence.latents.values() for d in (lat.q, lat.p))):
            base = getattr(distribution, "base_dist", distribution)
            for parameter, constraint in base.arg_constraints.items():
                if parameter in base.__dict__:
                    assert constraint.check(getattr(base, parameter)).all()
