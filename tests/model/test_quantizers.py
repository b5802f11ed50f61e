"""Quantisers against slow literal references and known answers."""

from __future__ import annotations

import math

import pytest
import torch
from tables import QUANTIZERS, Table
from torch import Tensor

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
