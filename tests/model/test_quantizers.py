"""Quantisers against slow literal references and known answers."""

from __future__ import annotations

import math

import pytest
import torch
from tables import QUANTIZERS, Table
from torch import Tensor

from lowerbound.errors import RecipeError
from lowerbound.kinds import resolve
from lowerbound.model.build import PARTS
from lowerbound.model.networks.quantizers.passing import Rotation, StraightThrough
from lowerbound.model.networks.quantizers.quantizer import Quantized, Quantizer, Usage, nearest
from lowerbound.model.networks.quantizers.renewal import kmeans
from lowerbound.noise import BatchNoise, generator

each = pytest.mark.parametrize("name", QUANTIZERS)
ROWS = 6


def make(table: Table) -> Quantizer:
    torch.manual_seed(0)
    maker, settings = resolve(table, PARTS[Quantizer], "quantizer", PARTS)
    part: Quantizer = maker(**settings)
    return part


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed))


def step(part: Quantizer, h: Tensor, number: int = 0) -> Quantized:
    """One step of training with vectors h (B, *positions, inputs)."""
    found: Quantized = part.train()(h, BatchNoise(0, number, len(h)))
    with torch.no_grad():
        part.absorb(found.statistics)
    return found


# ------------------------------------------------------------------------------------------------ all quantisers


@each
@pytest.mark.parametrize("positions", [(), (3,), (2, 3)], ids=str)
def test_codes_and_vectors_have_the_declared_shapes(name: str, positions: tuple[int, ...]) -> None:
    part = make(QUANTIZERS[name])
    h = normal(ROWS, *positions, part.inputs)
    found = part(h, BatchNoise(0, 0, ROWS), 2)
    drawn = () if part.certain else (2,)
    assert found.codes.shape == (*drawn, ROWS, *part.grid(positions))
    assert found.vectors.shape == (*drawn, ROWS, *positions, part.dimension)
    assert (found.logits is None) == part.certain
    assert all(penalty.shape == (ROWS,) for penalty in found.penalties.values())
    assert int(found.codes.min()) >= 0
    assert int(found.codes.max()) < part.size


@each
def test_codes_look_up_what_the_decoder_saw(name: str) -> None:
    part = make(QUANTIZERS[name])
    found = part(normal(ROWS, 3, part.inputs), BatchNoise(0, 0, ROWS))
    codes = found.codes if part.certain else found.codes[0]
    vectors = found.vectors if part.certain else found.vectors[0]
    torch.testing.assert_close(part.lookup(codes), vectors.detach(), rtol=1e-5, atol=1e-6)


@each
def test_a_gradient_reaches_the_vectors(name: str) -> None:
    part = make(QUANTIZERS[name])
    h = normal(ROWS, 3, part.inputs).requires_grad_()
    part(h, BatchNoise(0, 0, ROWS)).vectors.square().sum().backward()
    assert h.grad is not None
    assert (h.grad.flatten(1).abs().sum(dim=1) > 0).all()


@each
def test_low_precision_around_changes_no_code(name: str) -> None:
    """All is computed in fp32: vectors that came in bf16 get the codes that they get in fp32, under autocast too."""
    part = make(QUANTIZERS[name]).eval()
    h = normal(200, 3, part.inputs).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = part(h, None)
    full = part(h.float(), None)
    assert torch.equal(low.codes, full.codes)
    assert low.vectors.dtype == torch.float32
    assert torch.equal(low.vectors, full.vectors)


@each
def test_statistics_of_parts_add_up_to_those_of_the_whole(name: str) -> None:
    part = make(QUANTIZERS[name]).train()
    h, noise = normal(ROWS, 3, part.inputs), BatchNoise(0, 0, ROWS)
    for number in range(2):  # the first step starts the codebook
        whole = part(h, noise).statistics
        parts = [part(h[i : i + 2], noise.narrow(i, 2)).statistics for i in range(0, ROWS, 2)]
        assert whole.keys() == parts[0].keys()
        for key, value in whole.items():
            torch.testing.assert_close(sum(other[key] for other in parts), value, rtol=1e-5, atol=1e-5, msg=key)
        assert part.eval()(h, noise).statistics == {}
        step(part, h, number)


@each
def test_usage_is_that_of_what_was_absorbed(name: str) -> None:
    part = make(QUANTIZERS[name])
    assert part.vitals() == {}
    codes = []
    for number in range(3):
        codes.append(step(part, normal(ROWS, 3, part.inputs, seed=number), number).codes)
    every = torch.stack(codes)
    stages = range(part.depth) if part.depth else [None]
    for stage in stages:
        suffix = "" if stage is None else f"_{stage + 1}"
        own = every if stage is None else every[:, :, stage]
        share = torch.bincount(own.flatten(), minlength=part.size).double() / own.numel()
        entropy = -torch.special.xlogy(share, share).sum()
        vitals = part.vitals()
        assert float(vitals[f"codebook_usage{suffix}"]) == pytest.approx(float((share > 0).double().mean()))
        assert float(vitals[f"codebook_perplexity{suffix}"]) == pytest.approx(math.exp(entropy), rel=1e-5)


def test_every_kind_stands_in_the_table() -> None:
    assert {table["kind"] for table in QUANTIZERS.values()} == set(PARTS[Quantizer])


# -------------------------------------------------------------------------------------------------------- pieces


def test_nearest_is_the_arg_min_of_distances_in_every_block() -> None:
    codebook, h = normal(40, 5).double(), normal(5000, 5, seed=1).double()
    distance = (h[:, None] - codebook).square().sum(dim=-1)
    assert torch.equal(nearest(codebook, h), distance.argmin(dim=1))


def test_usage_forgets_after_two_windows() -> None:
    usage = Usage(4)
    for _ in range(100):
        usage.absorb(torch.tensor([1.0, 0, 0, 0]))
    assert float(usage.vitals()["codebook_usage"]) == 0.25
    usage.absorb(torch.tensor([0.0, 1, 0, 0]))
    assert float(usage.vitals()["codebook_usage"]) == 0.5
    for _ in range(99):
        usage.absorb(torch.tensor([0.0, 1, 0, 0]))
    assert float(usage.vitals()["codebook_usage"]) == 0.25  # the first window is forgotten
    assert float(usage.vitals()["codebook_perplexity"]) == pytest.approx(1)


def test_kmeans_finds_clusters_that_are_far_apart() -> None:
    places = 100 * torch.eye(3)
    points = torch.cat([place + normal(50, 3, seed=number) for number, place in enumerate(places)])
    points = points.reshape(3, 50, 3).transpose(0, 1).reshape(150, 3)  # the first three are of three clusters
    centres, share = kmeans(points, 3)
    expected = points.reshape(50, 3, 3).mean(dim=0)
    torch.testing.assert_close(centres, expected)
    torch.testing.assert_close(share, torch.full((3,), 1 / 3))


def test_straight_through_copies_the_gradient() -> None:
    h, vectors = normal(5, 3).requires_grad_(), normal(5, 3, seed=1)
    passed = StraightThrough()(h, vectors)
    torch.testing.assert_close(passed, vectors)
    gradient = normal(5, 3, seed=2)
    passed.backward(gradient)
    assert torch.equal(h.grad, gradient)


def test_rotation_turns_the_gradient_with_the_vector() -> None:
    """The Jacobian is a rotation times |code| / |h| that maps h to the code."""
    h, code = normal(3).double(), normal(3, seed=1).double()
    jacobian = torch.autograd.functional.jacobian(lambda vector: Rotation()(vector[None], code[None])[0], h)
    scale = code.norm() / h.norm()
    torch.testing.assert_close(Rotation()(h[None], code[None])[0], code)
    torch.testing.assert_close(jacobian @ h, code)
    torch.testing.assert_close(jacobian.T @ jacobian, scale**2 * torch.eye(3, dtype=torch.double))
    assert torch.linalg.det(jacobian / scale).item() == pytest.approx(1)


@pytest.mark.parametrize("h", [[0.0, 0.0], [-1.0, 0.0], [1.0, 0.0]], ids=["zero", "opposite", "same"])
def test_rotation_is_finite_where_there_is_no_plane(h: list[float]) -> None:
    vector = torch.tensor([h], requires_grad=True)
    passed = Rotation()(vector, torch.tensor([[1.0, 0.0]]))
    passed.sum().backward()
    torch.testing.assert_close(passed.detach(), torch.tensor([[1.0, 0.0]]))
    torch.testing.assert_close(vector.grad, torch.ones(1, 2))


# ----------------------------------------------------------------------------------------------- moving codebooks


def test_codes_start_as_clusters_of_the_first_batch_and_all_are_used() -> None:
    part = make({"kind": "ema", "size": 32, "dimension": 4})
    h = 3 + 0.1 * normal(50, 8, 4)  # far from where codes are drawn
    step(part, h)
    found = step(part, h, 1)
    assert len(found.codes.unique()) == 32
    assert float(found.penalties["commitment"].mean()) < 8 * 4 * 0.01
    unstarted = make({"kind": "ema", "size": 32, "dimension": 4, "start": False, "restart": 0.0})
    step(unstarted, h)
    assert len(step(unstarted, h, 1).codes.unique()) < 8


def test_a_moving_average_is_that_of_the_paper() -> None:
    part = make({"kind": "ema", "size": 4, "dimension": 2, "decay": 0.9, "start": False, "restart": 0.0})
    counts, sums = torch.ones(4), part.codebook.clone()
    for number in range(5):
        h = normal(20, 2, seed=number)
        codes = (h[:, None] - part.codebook).square().sum(dim=-1).argmin(dim=1)
        step(part, h, number)
        for code in range(4):
            counts[code] = 0.9 * counts[code] + 0.1 * (codes == code).sum()
            sums[code] = 0.9 * sums[code] + 0.1 * h[codes == code].sum(dim=0)
        torch.testing.assert_close(part.codebook, sums / counts[:, None], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("restart", [0.0, 0.03])
def test_dead_codes_come_back_to_life(restart: float) -> None:
    """Data that move far away leave codes behind; with restarts, a part of the moved data each finds them again."""
    part = make({"kind": "ema", "size": 16, "dimension": 4, "decay": 0.9, "restart": restart})
    for number in range(100):
        step(part, normal(100, 4, seed=number) + (0 if number < 10 else 100), number)
    used = len(step(part, normal(1000, 4, seed=200) + 100, 200).codes.unique())
    assert used == 16 if restart else used < 16


# ------------------------------------------------------------------------------------------------- other codebooks


def test_a_gradient_codebook_starts_learns_and_comes_back_to_life() -> None:
    part = make({"kind": "gradient", "size": 16, "dimension": 4})
    optimizer = torch.optim.SGD(part.parameters(), lr=0.1)
    for number in range(500):
        h = normal(500, 4, seed=number) + (0 if number < 10 else 100)
        found = step(part, h, number)
        optimizer.zero_grad()
        found.penalties["codebook"].mean().backward()
        optimizer.step()
        if number == 1:
            assert len(found.codes.unique()) == 16
    assert len(step(part, normal(1000, 4, seed=600) + 100, 600).codes.unique()) == 16


def test_penalties_of_a_learned_codebook_move_one_side_each() -> None:
    for kind in ("gradient", "sim-vq"):
        part = make({"kind": kind, "size": 8, "dimension": 4})
        h = normal(20, 4).requires_grad_()
        penalties = part(h, None).penalties
        torch.testing.assert_close(penalties["codebook"], penalties["commitment"])
        (own,) = part.parameters()
        codebook = torch.autograd.grad(penalties["codebook"].sum(), [h, own], allow_unused=True, retain_graph=True)
        commitment = torch.autograd.grad(penalties["commitment"].sum(), [h, own], allow_unused=True)
        assert codebook[0] is None
        assert codebook[1] is not None
        assert commitment[1] is None
        assert commitment[0] is not None


def test_all_codes_of_sim_vq_move_with_the_few_that_are_chosen() -> None:
    part = make({"kind": "sim-vq", "size": 32, "dimension": 4})
    before = part.lookup(torch.arange(32)).detach().clone()
    part(normal(1, 4), None).penalties["codebook"].sum().backward()
    torch.optim.SGD(part.parameters(), lr=0.1).step()
    assert ((part.lookup(torch.arange(32)) - before).abs().sum(dim=1) > 0).all()


def test_gumbel_draws_have_the_posterior_that_is_said() -> None:
    """20,000 draws of one row: each frequency within 4.5 standard errors of the softmax; false alarms 6e-5."""
    part = make({"kind": "gumbel", "size": 5, "dimension": 2})
    h = normal(1, 5)
    found = part(h, BatchNoise(0, 0, 1), 20_000)
    share = torch.bincount(found.codes.flatten(), minlength=5) / 20_000
    expected = h[0].softmax(dim=0)
    assert ((share - expected).abs() < 4.5 * (expected * (1 - expected) / 20_000).sqrt()).all()
    assert torch.equal(part(h, None).codes[0], h.argmax(dim=-1))


@pytest.mark.parametrize("levels", [[2], [3], [8, 5, 5, 5], [2, 4, 7]], ids=str)
def test_fsq_rounds_to_the_nearest_level_and_reaches_all(levels: list[int]) -> None:
    part = make({"kind": "fsq", "levels": levels})
    every = part.lookup(torch.arange(part.size))
    assert len(every.unique(dim=0)) == part.size == math.prod(levels)
    h = 3 * normal(3000, len(levels))
    found = part(h, None)
    for channel, count in enumerate(levels):
        grid = torch.linspace(-1, 1, count)
        distance = (h[:, channel].tanh()[:, None] - grid).abs()
        torch.testing.assert_close(found.vectors[:, channel], grid[distance.argmin(dim=1)])
    assert torch.equal(part(every.clamp(-0.99999, 0.99999).atanh(), None).codes, torch.arange(part.size))


@pytest.mark.parametrize("bits", [1, 2, 5])
def test_lfq_penalties_are_those_of_the_whole_softmax(bits: int) -> None:
    part = make({"kind": "lfq", "bits": bits, "temperature": 0.7}).double().train()
    h = normal(50, 3, bits).double()
    step(part, h)
    found = part(h, BatchNoise(0, 1, 50))
    codebook = part.lookup(torch.arange(part.size))
    assert set(codebook.unique().tolist()) == {-1.0, 1.0}
    distance = (h[..., None, :] - codebook).square().sum(dim=-1)
    p = (-distance / 0.7).softmax(dim=-1)
    assert torch.equal(found.codes, distance.argmin(dim=-1))
    entropy = -torch.special.xlogy(p, p).sum(dim=-1)
    torch.testing.assert_close(found.penalties["entropy"], entropy.sum(dim=1))
    torch.testing.assert_close(found.statistics["mass"], p.flatten(0, 1).sum(dim=0))
    share = 0.9 / part.size + 0.1 * p.flatten(0, 1).mean(dim=0)
    torch.testing.assert_close(part.share, share)
    torch.testing.assert_close(found.penalties["diversity"], (p * share.log()).sum(dim=-1).sum(dim=1))


def test_lfq_diversity_has_the_gradient_of_the_entropy_of_the_mean() -> None:
    part = make({"kind": "lfq", "bits": 4, "decay": 0.0}).double().train()
    h = normal(200, 4).double().requires_grad_()
    step(part, h)  # the moving average is now the mean of this batch
    penalty = part(h, BatchNoise(0, 1, 200)).penalties["diversity"].mean()
    codebook = part.lookup(torch.arange(16))
    mean = (-(h[:, None] - codebook).square().sum(dim=-1)).softmax(dim=-1).mean(dim=0)
    plain = (mean * mean.log()).sum()
    torch.testing.assert_close(*(torch.autograd.grad(value, h)[0] for value in (penalty, plain)))
    torch.testing.assert_close(penalty, plain)


def test_each_stage_of_a_residual_quantiser_leaves_less() -> None:
    stage = {"kind": "ema", "size": 16, "dimension": 4, "decay": 0.9}
    part = make({"kind": "residual", "depth": 3, "stage": stage})
    h = normal(500, 4)
    for number in range(20):
        step(part, h, number)
    h.requires_grad_()
    found = part(h, None)
    errors = [(h - part.stages[0].lookup(found.codes[:, 0])).square().mean()]
    for stages in (2, 3):
        total = sum(part.stages[i].lookup(found.codes[:, i]) for i in range(stages))
        errors.append((h - total).square().mean())
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    gradient = normal(500, 4, seed=5)
    found.vectors.backward(gradient)
    assert torch.equal(h.grad, gradient)  # once, not once per stage


@pytest.mark.parametrize("stage", ["gumbel", "residual"])
def test_a_residual_quantiser_refuses_stages_that_cannot_be(stage: str) -> None:
    with pytest.raises(RecipeError, match="one code for each position"):
        make({"kind": "residual", "stage": {"kind": stage}})
