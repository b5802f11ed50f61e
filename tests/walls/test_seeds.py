"""Each kind of model that is to come, in small: it learns, by the same loop, and does what it is for."""

from __future__ import annotations

import math

import pytest
import torch
from tables import FAMILIES, OBJECTIVES, raw_rows
from torch import Tensor

from lowerbound.lab.data.load import load_data
from lowerbound.lab.data.rows import InMemory, Rows
from lowerbound.lab.training.loop import Loop
from lowerbound.lab.training.processes import Processes
from lowerbound.model.build import build_model, build_objective
from lowerbound.model.distributions import tree
from lowerbound.model.families.family import Family
from lowerbound.model.families.stack import Stack
from lowerbound.model.objectives.objective import Objective
from lowerbound.model.spec import Context, DataSpec
from lowerbound.noise import BatchNoise, generator
from lowerbound.recipe import Training

SMALL = {"encoder": {"kind": "mlp", "widths": [64]}, "decoder": {"kind": "mlp", "widths": [64]}}


def fit(model: Family, objective: Objective, rows: Rows, steps: int, **settings: object) -> list[dict[str, float]]:
    """Train and return the numbers of every step."""
    seen: list[dict[str, float]] = []
    table = {"steps": steps, "batch_size": 128, "learning_rate": 3e-3, **settings}
    loop = Loop(model, objective, rows, Training.model_validate(table), 0, torch.device("cpu"), Processes())
    loop.run(lambda step, parts: bool(seen.append({name: float(value) for name, value in parts.items()})))
    model.eval()
    return seen


def digits(**settings: object) -> tuple[DataSpec, InMemory, InMemory]:
    data = load_data({"kind": "digits", **settings})
    assert isinstance(data.train, InMemory)
    assert isinstance(data.test, InMemory)
    return data.spec, data.train, data.test


def mean(rows: list[dict[str, float]], name: str, part: slice) -> float:
    values = [row[name] for row in rows[part]]
    return sum(values) / len(values)


LEARNS_ROWS = {name for name, row in OBJECTIVES.items() if FAMILIES[row.family].likelihood}


@pytest.mark.parametrize("name", sorted(LEARNS_ROWS - {"elbo-warm-up", "vae-gan", "focus-decoder-vae-gan"}))
def test_every_objective_lowers_what_it_minimises(name: str) -> None:
    """60 steps on one small batch of noise (which a critic would keep a VAE-GAN from learning by heart)."""
    row = OBJECTIVES[name]
    model = FAMILIES[row.family].make()
    context = None
    if model.data.context:
        context = Context.labels(torch.arange(32) % 3, 3, torch.arange(32) % 2 == 0)
    rows = InMemory(raw_rows(model.data, 32), context)
    seen = fit(model, row.make(model), rows, 60, batch_size=32, learning_rate=1e-2)
    what = "loss" if row.table["kind"] == "penalties" else "distortion_nats"  # whose weights are not those of the bound
    assert mean(seen, what, slice(-10, None)) < mean(seen, what, slice(0, 3))
    assert all(math.isfinite(value) for step in seen for value in step.values())


def test_importance_weighting_tightens_the_bound_of_the_encoder_it_trains() -> None:
    spec, train, test = digits()
    raw = test.raw
    found = {}
    for kind in ("importance", "doubly-reparameterised"):
        model = build_model({"kind": "vae", "latent": 8, **SMALL}, spec, 0)
        fit(model, build_objective({"kind": kind, "samples": 8}, model, 0), train, 300)
        with torch.no_grad():
            x = model.preparation.prepare(raw, BatchNoise(0, 0, len(raw)))
            evidence = model.evidence(x, None, BatchNoise(0, 1, len(raw)), 100)
        found[kind] = evidence.importance_bound().mean().item()
        assert evidence.importance_bound().mean() > evidence.elbo().mean()
        assert found[kind] > -26.5  # an untrained model costs 64 ln 2 = 44.4 nats
    assert abs(found["importance"] - found["doubly-reparameterised"]) < 1.0


def test_doubly_reparameterised_gradient_has_the_mean_of_the_plain_one_and_less_noise() -> None:
    """Tucker et al. 2019, figure 2: the same expected gradient of the encoder, a smaller variance.

    Means of 400 gradients agree within 4.5 standard errors on each of 20 parameters: false alarms 1e-4.
    """
    spec, _, test = digits()
    linear = {"kind": "mlp", "widths": []}
    model = build_model({"kind": "vae", "latent": 4, "encoder": linear, "decoder": linear}, spec, 0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    raw = test.raw[:8].repeat(1, 1, 1, 1)
    gradients: dict[str, list[Tensor]] = {}
    for kind in ("importance", "doubly-reparameterised"):
        objective = build_objective({"kind": kind, "samples": 16}, model, 0)
        x = model.preparation.prepare(raw, BatchNoise(0, 0, 8))
        for draw in range(400):
            model.zero_grad()
            noise = BatchNoise(1, draw, 8)
            objective(model.evidence(x, None, noise, 16), 0, "model", noise).value.backward()
            bias = model.get_parameter("encoder.layers.0.bias").grad
            assert bias is not None
            gradients.setdefault(kind, []).append(bias.clone())
    plain, double = (torch.stack(gradients[kind]) for kind in ("importance", "doubly-reparameterised"))
    error = ((plain.var(dim=0) + double.var(dim=0)) / 400).sqrt()
    assert ((plain.mean(dim=0) - double.mean(dim=0)).abs() < 4.5 * error).all()
    assert double.var(dim=0).sum() < plain.var(dim=0).sum()


def test_vector_quantised_model_uses_its_codes() -> None:
    spec, train, test = digits()
    model = build_model(
        {
            "kind": "vq-vae",
            "positions": [4],
            "quantizer": {"kind": "ema", "size": 32, "dimension": 8, "decay": 0.9},
            **SMALL,
        },
        spec,
        0,
    )
    objective = build_objective({"kind": "elbo", "penalties": {"commitment": 0.25}}, model, 0)
    seen = fit(model, objective, train, 300)
    assert seen[-1]["rate_nats"] == pytest.approx(4 * math.log(32), rel=1e-5)
    assert seen[-1]["distortion_nats"] < seen[5]["distortion_nats"]
    codes = model.encode(model.preparation.prepare(test.raw, None))["codes"]
    assert len(codes.unique()) >= 8


def test_top_down_model_uses_both_groups() -> None:
    spec, train, _ = digits()
    narrow = {"kind": "mlp", "widths": [64]}
    table = {
        "kind": "top-down",
        "latents": [4, 8],
        "width": 32,
        "encoder": narrow,
        "network": narrow,
        "decoder": narrow,
    }
    model = build_model(table, spec, 0)
    objective = build_objective({"kind": "elbo", "beta": {"kind": "linear", "steps": 200}}, model, 0)
    seen = fit(model, objective, train, 400)
    assert seen[-1]["rate_z1_nats"] > 0.5
    assert seen[-1]["rate_z2_nats"] > 0.5
    assert seen[-1]["elbo_nats"] > -26


def test_vamp_prior_is_the_mixture_of_posteriors() -> None:
    model = FAMILIES["vae-vamp"].make()
    evidence = model.evidence(torch.rand(6, 1, 8, 8), None, BatchNoise(0, 0, 6))
    z = evidence.latents["z"].z
    u = model.get_parameter("prior.pseudo_inputs")
    parts = torch.stack([model.q(u[k : k + 1], None).log_prob(z) for k in range(len(u))])  # type: ignore[operator]
    expected = torch.logsumexp(parts, dim=0) - math.log(len(u))
    torch.testing.assert_close(evidence.latents["z"].log_p, expected)


def test_adversarial_autoencoder_matches_its_prior() -> None:
    spec, train, test = digits()
    table = {"kind": "vae", "latent": 2, "posterior": {"kind": "deterministic"}, **SMALL}
    model = build_model(table, spec, 0)
    objective = build_objective({"kind": "adversarial-prior", "weight": 2.0}, model, 0)
    fit(model, objective, train, 1000, learning_rate=1e-3, betas=[0.5, 0.999])
    z = model.encode(model.preparation.prepare(test.raw, None))["z"]
    assert z.mean(dim=0).abs().max() < 0.5
    assert z.std(dim=0).min() > 0.6
    assert z.std(dim=0).max() < 1.5


def test_vae_gan_balances_its_gradients() -> None:
    spec, train, _ = digits()
    model = build_model({"kind": "vae", "latent": 8, **SMALL}, spec, 0)
    seen = fit(model, build_objective({"kind": "vae-gan", "weight": 0.5}, model, 0), train, 200, learning_rate=1e-3)
    assert seen[0]["adversarial_weight"] == 0
    assert seen[-1]["adversarial_weight"] > 0
    assert mean(seen, "elbo_nats", slice(-20, None)) > mean(seen, "elbo_nats", slice(0, 5)) + 5


def test_geco_reaches_its_target() -> None:
    spec, train, _ = digits()
    model = build_model({"kind": "vae", "latent": 8, **SMALL}, spec, 0)
    seen = fit(model, build_objective({"kind": "geco", "target": 22.0}, model, 0), train, 700)
    assert mean(seen, "distortion_nats", slice(-50, None)) == pytest.approx(22.0, abs=0.8)


def test_total_correlation_is_decomposed_without_a_rest() -> None:
    model = FAMILIES["vae"].make()
    rows = InMemory(raw_rows(model.data, 64))
    seen = fit(model, OBJECTIVES["total-correlation"].make(model), rows, 30, batch_size=64)
    last = seen[-1]
    whole = last["mutual_information_nats"] + last["total_correlation_nats"] + last["dimension_wise_kl_nats"]
    assert whole == pytest.approx(last["rate_nats"], abs=1.0)  # the one closed, the other from one draw


def test_conditional_model_generates_the_class_it_is_asked_for() -> None:
    """A nearest-centroid classifier fitted on real digits names most of what is generated."""
    spec, train, _ = digits(context="label")
    model = build_model({"kind": "vae", "latent": 6, **SMALL}, spec, 0)
    fit(model, build_objective({"kind": "elbo"}, model, 0), train, 600)
    assert train.labels is not None
    centres = torch.stack([train.raw[train.labels == k].float().mean(dim=0).flatten() for k in range(10)])
    asked = torch.arange(10).repeat(20)
    px = model.sample(BatchNoise(0, 0, 200), Context.labels(asked, 10))
    made = model.preparation.restore(tree.point(px)).flatten(1)
    assert (torch.cdist(made, centres).argmin(dim=1) == asked).float().mean() > 0.9


def test_text_model_learns_a_language() -> None:
    """Sequences that count upwards from a random start: given the first token all others are certain."""
    start = torch.randint(5, (512, 1), generator=generator(0))
    tokens = (start + torch.arange(7)) % 5
    model = build_model(FAMILIES["text"].table, FAMILIES["text"].data, 0)
    seen = fit(model, build_objective({"kind": "elbo"}, model, 0), InMemory(tokens), 300, learning_rate=1e-2)
    assert seen[-1]["elbo_nats"] == pytest.approx(-math.log(5), abs=0.15)
    made, _ = tree.draw(model.sample(BatchNoise(0, 0, 50)), BatchNoise(0, 1, 50))
    assert ((made[0, :, 1:] - made[0, :, :-1]) % 5 == 1).float().mean() > 0.97


def test_semi_supervised_model_learns_from_few_labels() -> None:
    spec, train, test = digits(context="label", labelled=100)
    narrow = {"kind": "mlp", "widths": [64]}
    model = build_model({"kind": "semi-supervised", "latent": 6, "classifier": narrow, **SMALL}, spec, 0)
    objective = build_objective({"kind": "elbo", "penalties": {"label": 20.0}}, model, 0)
    fit(model, objective, train, 400)
    guess = model.encode(model.preparation.prepare(test.raw, None))["y"]
    assert test.labels is not None
    assert (guess == test.labels).float().mean() > 0.8


def test_labelled_rows_bound_the_joint_and_unlabelled_the_marginal() -> None:
    """The unlabelled ELBO is the mean of the joint ones plus the entropy of q(y|x): Kingma et al. 2014, eq. 7."""
    model = FAMILIES["semi-supervised"].make()
    x = (torch.rand(1, 1, 8, 8) > 0.5).float()
    noise = BatchNoise(0, 0, 1)
    nobody = Context.labels(torch.zeros(1), 3, torch.zeros(1, dtype=torch.bool))
    free = model.evidence(x, nobody, noise)
    belief = free.latents["y"].q.probs[0]  # type: ignore[attr-defined]
    joint = torch.stack([model.evidence(x, Context.labels(torch.tensor([k]), 3), noise).elbo()[0] for k in range(3)])
    entropy = -(belief * belief.log()).sum()
    torch.testing.assert_close(free.elbo()[0], (belief * joint).sum() + entropy)


def test_stack_generates_better_latents_than_the_prior_of_its_first_stage() -> None:
    """A diffusion model over the latents of a frozen VAE; both stages by the same loop, and the whole is a bound."""
    spec, train, test = digits()
    first = build_model({"kind": "vae", "latent": 2, **SMALL}, spec, 0)
    fit(first, build_objective({"kind": "elbo", "beta": 0.05}, first, 0), train, 400)
    codes = first.encode(first.preparation.prepare(train.raw, None))["z"]
    latents = InMemory(codes.detach())
    table = {"kind": "density", "density": {"kind": "diffusion", "network": {"kind": "mlp", "widths": [64, 64]}}}
    second = build_model(table, DataSpec((2,), examples=len(codes)), 0)
    fit(second, build_objective({"kind": "elbo"}, second, 0), latents, 1500)
    stack = Stack(first, second).eval()
    x = stack.preparation.prepare(test.raw, BatchNoise(0, 0, len(test.raw)))
    with torch.no_grad():
        ours = torch.stack([stack.evidence(x, None, BatchNoise(1, k, len(x))).elbo().mean() for k in range(20)]).mean()
        theirs = first.evidence(x, None, BatchNoise(1, 0, len(x)), 20).elbo().mean()
    assert ours > theirs  # with a weak rate the aggregate posterior is far from N(0, I), and the second stage knows
    px = stack.sample(BatchNoise(0, 0, 16))
    assert torch.isfinite(tree.point(px)).all()
