"""Facts of rows are those of the verbs, and rates those of the evidence."""

from __future__ import annotations

import pytest
import torch
from tables import FAMILIES, context_rows, raw_rows

from lowerbound.errors import NotSupportedError, ShapeError
from lowerbound.lab.evaluation.latents import collect
from lowerbound.lab.facts import Facts, facts_of
from lowerbound.lab.generation import use
from lowerbound.noise import BatchNoise

each = pytest.mark.parametrize("name", [name for name, row in FAMILIES.items() if row.codes])


@each
def test_facts_are_what_the_verbs_give(name: str) -> None:
    model = FAMILIES[name].make().eval()
    raw, context = raw_rows(model.data), context_rows(model.data)
    facts = Facts(model)
    found = facts_of(facts, raw, context)
    assert tuple(found) == facts.names
    for group, codes in use.encode(model, raw, context).items():
        assert torch.equal(found[group], codes)
    torch.testing.assert_close(
        found["reconstruction"], use.reconstruct(model, raw.float(), context), check_dtype=False, equal_nan=True
    )
    assert found["error"].shape == (len(raw),)
    assert torch.isfinite(found["error"]).all()
    if "rates" in found:
        torch.testing.assert_close(found["rates"].sum(dim=1), found["rate"])


@each
def test_facts_of_a_row_do_not_depend_on_its_batch_mates(name: str) -> None:
    model = FAMILIES[name].make().eval()
    raw, context = raw_rows(model.data), context_rows(model.data)
    facts = Facts(model)
    every = facts_of(facts, raw, context)
    alone = facts_of(facts, raw[2:3], None if context is None else context.select(slice(2, 3)))
    for fact in facts.names:
        torch.testing.assert_close(every[fact][2:3], alone[fact], rtol=1e-5, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("name", ["vae", "vae-convolutional", "conditional"])
def test_rates_of_one_group_are_those_of_the_evidence(name: str) -> None:
    model = FAMILIES[name].make().eval()
    raw, context = raw_rows(model.data), context_rows(model.data)
    x = model.preparation.prepare(raw, None)
    group = collect(model, [(x, context, BatchNoise(0, 0, len(x)))])["z"]
    torch.testing.assert_close(facts_of(Facts(model), raw, context)["rates"], torch.cat(group.rates))


@pytest.mark.parametrize("name", ["vae", "conditional"])
def test_variances_are_those_of_the_posteriors(name: str) -> None:
    model = FAMILIES[name].make().eval()
    raw, context = raw_rows(model.data), context_rows(model.data)
    latents = model.at_point(model.preparation.prepare(raw, None), context)
    known = torch.cat([latent.q.variance.flatten(1) for latent in latents.values()], dim=1)
    torch.testing.assert_close(facts_of(Facts(model), raw, context)["variances"], known)


def test_the_error_is_the_mean_square_on_the_raw_scale() -> None:
    model = FAMILIES["vae-levels"].make().eval()
    raw = raw_rows(model.data)
    found = facts_of(Facts(model), raw)
    by_hand = (found["reconstruction"] - raw).double().square().flatten(1).mean(dim=1)
    torch.testing.assert_close(found["error"].double(), by_hand)


def test_the_error_of_tokens_is_the_share_that_differs() -> None:
    model = FAMILIES["text"].make().eval()
    raw = raw_rows(model.data)
    found = facts_of(Facts(model), raw)
    assert torch.equal(found["error"], (found["reconstruction"] != raw).float().mean(dim=1))


def test_values_that_are_missing_do_not_count_in_the_error() -> None:
    model = FAMILIES["vae-table"].make().eval()
    raw = raw_rows(model.data).float()
    raw[0] = torch.nan
    raw[0, 0] = 1.5
    found = facts_of(Facts(model), raw)
    torch.testing.assert_close(found["error"][0], (found["reconstruction"][0, 0] - 1.5).square())


def test_a_rate_that_is_the_same_for_every_row_is_no_fact() -> None:
    assert "rate" not in Facts(FAMILIES["vq-vae-ema"].make().eval()).names
    assert "rate" in Facts(FAMILIES["vq-vae-gumbel"].make().eval()).names, "its codes are uncertain"
    assert "rate" not in Facts(FAMILIES["vae-diffusion-prior"].make().eval()).names, "it would be an estimate"


def test_units_that_depend_on_each_other_have_one_rate_together() -> None:
    assert Facts(FAMILIES["vae-full"].make().eval()).encoded == ("z", "rate")


def test_a_density_has_no_facts() -> None:
    with pytest.raises(NotSupportedError, match="no latents"):
        Facts(FAMILIES["density-mixture"].make())


def test_rows_of_another_shape_and_a_missing_context_are_refused() -> None:
    model = FAMILIES["vae"].make().eval()
    with pytest.raises(ShapeError, match="shape"):
        facts_of(Facts(model), torch.zeros(2, 3))
    conditional = FAMILIES["conditional"].make().eval()
    with pytest.raises(ShapeError, match="conditional"):
        facts_of(Facts(conditional), raw_rows(conditional.data))
