"""What becomes of stored codes when a model is replaced."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from tables import FAMILIES, context_rows, raw_rows
from torch import Tensor

from lowerbound.errors import NotSupportedError
from lowerbound.lab.compatibility import Compatibility, alignment, codes_hash, compare_codes
from lowerbound.model.build import build_model
from lowerbound.model.families.family import Family

NAMES = [
    "vae",
    "vae-convolutional",
    "top-down",
    "vq-vae-ema",
    "vq-vae-residual",
    "semi-supervised",
    "stack",
    "vae-table",
]


def compared(before: Family, after: Family, table: dict[str, object], rows: int = 40) -> Compatibility:
    same = codes_hash(before, table) == codes_hash(after, table)
    raw, context = raw_rows(before.data, rows), context_rows(before.data, rows)
    return compare_codes(before, after, raw, context, same_parts=same)


def changed(model: Family, parts: tuple[str, ...], preparation: bool = False) -> Family:
    """A copy with other values in every tensor of some parts."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for name, tensor in other.state_dict().items():
            if name.split(".")[0] in parts and (".preparation." in name) == preparation and tensor.is_floating_point():
                tensor.add_(torch.linspace(0.5, 1.5, max(1, tensor.numel())).reshape(tensor.shape))
    return other


@pytest.mark.parametrize("name", [name for name, row in FAMILIES.items() if row.codes])
def test_codes_do_not_depend_on_what_is_said_to_be_beyond_them(name: str) -> None:
    row = FAMILIES[name]
    model = row.make().eval()
    found = compared(model, changed(model, model.beyond_codes), row.table)
    assert found.verdict == "identical", found.reason
    assert found.equal_rows == 1
    assert "to the bit" in found.reason


@pytest.mark.parametrize("name", NAMES)
def test_another_encoder_is_breaking(name: str) -> None:
    row = FAMILIES[name]
    model = row.make().eval()
    encoding = tuple({key.split(".")[0] for key in model.state_dict()} - set(model.beyond_codes))
    found = compared(model, changed(model, encoding).eval(), row.table)
    assert found.verdict == "breaking", found.reason


def test_a_codebook_alone_is_breaking_even_where_indices_stay() -> None:
    row = FAMILIES["vq-vae-ema"]
    model = row.make().eval()
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.get_submodule("quantizer").get_buffer("codebook")[0, 0] += 1e-6
    found = compared(model, other, row.table)
    assert found.verdict == "breaking"
    assert found.equal_indices == 1
    assert "codebook" in found.reason
    found = compared(model, changed(model, ("quantizer",)), row.table)
    assert found.verdict == "breaking"


def test_what_a_preparation_learned_and_its_settings_count() -> None:
    row = FAMILIES["vae-table"]
    model = row.make().eval()
    assert codes_hash(model, row.table) != codes_hash(changed(model, ("likelihood",), preparation=True), row.table)
    table = {"kind": "vae", "encoder": {"activation": "relu"}, "decoder": {"kind": "mlp"}}
    assert codes_hash(model, table) != codes_hash(model, {**table, "encoder": {"activation": "silu"}})
    assert codes_hash(model, table) == codes_hash(model, {**table, "decoder": {"kind": "skip-mlp"}})


def points(rows: int, units: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, units)) * np.arange(1, units + 1)


def test_codes_that_are_turned_or_mapped_are_found_by_the_alignment_that_can() -> None:
    old = points(400, 3)
    turn = np.linalg.qr(points(3, 3, 1))[0]
    orthogonal, affine = alignment(old, 2 * old @ turn + 5)
    assert orthogonal == pytest.approx(0, abs=1e-12)
    assert affine == pytest.approx(0, abs=1e-12)
    orthogonal, affine = alignment(old, old @ points(3, 3, 2) + 1)
    assert orthogonal is not None
    assert orthogonal > 0.05
    assert affine == pytest.approx(0, abs=1e-12)
    orthogonal, affine = alignment(old, points(400, 3, 3))
    assert orthogonal == pytest.approx(1, abs=0.1)
    assert affine == pytest.approx(1, abs=0.1)
    assert alignment(old[:12], old[:12]) == (None, None), "too few rows to fit and to judge"


def linear(turn: Tensor) -> Family:
    """A VAE of points whose codes are a linear map of them."""
    table = {
        "kind": "vae",
        "latent": 2,
        "encoder": {"kind": "mlp", "widths": []},
        "likelihood": {"kind": "gaussian-fixed"},
    }
    model = build_model(table, FAMILIES["vae-pixel-gaussian"].make().data, 0).eval()
    with torch.no_grad():
        layer = model.get_submodule("encoder.layers.0")
        layer.get_parameter("weight")[:2] = turn
        layer.get_parameter("bias").zero_()
    return model


def test_turned_codes_keep_their_neighbours_and_strange_ones_do_not() -> None:
    quarter = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    raw = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
    found = compare_codes(linear(torch.eye(2)), linear(quarter), raw, same_parts=False)
    assert found.verdict == "breaking"
    assert found.equal_rows == 0
    assert found.orthogonal_error == pytest.approx(0, abs=1e-9)
    assert found.cka == pytest.approx(1, abs=1e-9)
    assert found.neighbour_overlap == pytest.approx(1, abs=0.01)
    crushed = compare_codes(linear(torch.eye(2)), linear(torch.tensor([[1.0, 0.0], [1.0, 0.0]])), raw, same_parts=False)
    assert crushed.neighbour_overlap is not None
    assert crushed.neighbour_overlap < 0.5
    assert crushed.cka is not None
    assert 0.3 < crushed.cka < 0.9


def test_codes_of_another_form_are_breaking_and_data_of_another_form_are_refused() -> None:
    first = FAMILIES["vae"].make().eval()
    other = build_model({**FAMILIES["vae"].table, "latent": 7}, first.data, 0).eval()
    found = compare_codes(first, other, raw_rows(first.data, 40), same_parts=False)
    assert found.verdict == "breaking"
    assert "z [4] before, z [7] now" in found.reason
    assert found.affine_error is not None
    with pytest.raises(NotSupportedError, match="no rows that both"):
        compare_codes(first, FAMILIES["vae-levels"].make().eval(), raw_rows(first.data), same_parts=False)
