"""Laws of every family."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load, save
from tables import FAMILIES, ROWS, context_rows, open_gates, raw_rows

from lowerbound.errors import NotABoundError, NotSupportedError, ShapeError
from lowerbound.lab.generation import use
from lowerbound.model.build import build_objective
from lowerbound.model.distributions import tree
from lowerbound.model.evidence import Evidence
from lowerbound.model.families.family import Family
from lowerbound.noise import BatchNoise, RowNoise

each = pytest.mark.parametrize("name", FAMILIES)
explicit = pytest.mark.parametrize("name", [name for name, row in FAMILIES.items() if row.likelihood])
SINGLE = {"stack", "stack-diffusion", "stack-of-vaes", "stack-codes", "stack-labels"}


def evidence_of(model: Family, samples: int = 1, seed: int = 0, rows: int = ROWS) -> Evidence:
    noise = BatchNoise(seed, 0, rows)
    x = model.preparation.prepare(raw_rows(model.data, rows), noise.child("prepare"))
    return model.evidence(x, context_rows(model.data, rows), noise.child("evidence"), samples)


@explicit
@pytest.mark.parametrize("samples", [1, 3])
def test_evidence_has_samples_and_rows(name: str, samples: int) -> None:
    model = FAMILIES[name].make()
    if samples > 1 and name in SINGLE:
        with pytest.raises(ShapeError):
            evidence_of(model, samples)
        return
    evidence = evidence_of(model, samples)
    count = samples * model.data.context if name == "semi-supervised" else samples
    assert evidence.reconstruction().shape == (count, ROWS)
    assert evidence.rate().shape == (count, ROWS)
    for latent in evidence.latents.values():
        assert latent.z.shape[:2] == (count, ROWS)
        assert latent.log_q.shape == (count, ROWS)
    assert evidence.elbo().shape == (ROWS,)
    assert torch.isfinite(evidence.elbo()).all()


@explicit
def test_evidence_is_pure_and_a_function_of_its_noise(name: str) -> None:
    model = FAMILIES[name].make().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    first, again = evidence_of(model), evidence_of(model)
    assert torch.equal(first.elbo(), again.elbo())
    if model.latents or not first.exact or model.preparation.bound_needs_noise:  # else nothing is random
        assert not torch.equal(first.elbo(), evidence_of(model, seed=1).elbo())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@explicit
def test_gradient_of_the_bound_reaches_every_parameter(name: str) -> None:
    model = FAMILIES[name].make()
    open_gates(model)
    objective = build_objective({"kind": "elbo"}, model, 0)
    noise = BatchNoise(0, 0, ROWS)
    objective(evidence_of(model), 0, "model", noise).value.backward()
    for parameter_name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, parameter_name
            assert parameter.grad.abs().sum() > 0, parameter_name
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    assert all(parameter.grad is None for parameter in frozen)
    assert bool(frozen) == name.startswith(("stack", "low-rank"))


@each
def test_every_parameter_has_one_role_at_most(name: str) -> None:
    model = FAMILIES[name].make()
    named = [parameter_name for role in model.roles for parameter_name, _ in model.role_parameters(role)]
    assert len(named) == len(set(named))
    trained = {parameter_name for parameter_name, p in model.role_parameters("model") if p.requires_grad}
    assert set(named) == trained


@explicit
def test_importance_bound_of_one_sample_is_its_weight_and_more_samples_tighten_it(name: str) -> None:
    row = FAMILIES[name]
    model = row.make()
    if not row.bound:
        with pytest.raises(NotABoundError):
            evidence_of(model).importance_bound()
        return
    if name not in SINGLE and name != "semi-supervised":
        one = evidence_of(model)
        torch.testing.assert_close(one.importance_bound(), one.log_weight()[0])
        many = evidence_of(model, 200)
        mean = many.log_weight().mean(dim=0)
        assert (many.importance_bound() >= mean - 1e-4).all()  # Jensen holds draw by draw


@explicit
def test_rows_of_evidence_can_be_selected(name: str) -> None:
    evidence = evidence_of(FAMILIES[name].make())
    rows = torch.tensor([4, 1])
    torch.testing.assert_close(evidence.select(rows).elbo(), evidence.elbo()[rows])


@each
def test_codes_and_samples_have_the_declared_shapes(name: str) -> None:
    row = FAMILIES[name]
    model = row.make().eval()
    context = context_rows(model.data)
    px = model.sample(RowNoise(range(ROWS)), context)
    assert px.batch_shape == (ROWS,)
    assert tree.point(px).shape == (ROWS, *model.data.event)
    x = model.preparation.prepare(raw_rows(model.data), None)
    if not row.codes:
        with pytest.raises(NotSupportedError):
            model.encode(x, context)
        if not model.latents:
            with pytest.raises(NotSupportedError):
                model.decode({}, context)
        return
    codes = model.encode(x, context)
    own = {group: shape for group, shape in model.latents.items() if not group.startswith("second_")}
    assert {group: tuple(z.shape[1:]) for group, z in codes.items()} == own
    assert tree.point(model.decode(codes, context)).shape == (ROWS, *model.data.event)
    drawn = model.encode(x, context, BatchNoise(0, 0, ROWS))
    assert {group: z.shape for group, z in drawn.items()} == {group: z.shape for group, z in codes.items()}


@each
def test_an_answer_does_not_depend_on_its_batch_mates(name: str) -> None:
    row = FAMILIES[name]
    model = row.make().eval()
    raw, context = raw_rows(model.data), context_rows(model.data)
    one = None if context is None else context.select(slice(0, 1))
    torch.testing.assert_close(
        use.sample(model, ROWS, 7, context)[:1], use.sample(model, 1, 7, one), rtol=1e-5, atol=1e-5
    )
    if row.codes:
        codes, alone = use.encode(model, raw, context), use.encode(model, raw[:1], one)
        for group, z in codes.items():
            torch.testing.assert_close(z[:1], alone[group], rtol=1e-5, atol=1e-5)
        both = use.reconstruct(model, raw, context), use.reconstruct(model, raw[:1], one)
        torch.testing.assert_close(both[0][:1], both[1], rtol=1e-5, atol=1e-5)


@explicit
def test_saved_and_loaded_is_equal_to_the_bit(name: str) -> None:
    model = FAMILIES[name].make()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    content = save({key: value.clone() for key, value in model.state_dict().items()})
    other = FAMILIES[name].make()
    other.load_state_dict(load(content))
    assert torch.equal(evidence_of(model).elbo(), evidence_of(other).elbo())


@explicit
def test_works_in_double_precision(name: str) -> None:
    model = FAMILIES[name].make().double()
    noise = BatchNoise(0, 0, ROWS, dtype=torch.float64)
    x = model.preparation.prepare(raw_rows(model.data).double(), noise.child("prepare"))
    context = context_rows(model.data)
    if context is not None:
        context = type(context)(context.vector.double(), context.present)
    if model.data == FAMILIES["text"].data:  # tokens stay integers
        x = x.long()
    evidence = model.evidence(x, context, noise.child("evidence"))
    assert torch.isfinite(evidence.elbo()).all()


@explicit
def test_absorbs_what_it_returns(name: str) -> None:
    model = FAMILIES[name].make()
    with torch.no_grad():
        model.absorb(evidence_of(model).statistics)
    assert torch.isfinite(evidence_of(model).elbo()).all()
