"""What becomes of stored codes when a model is replaced: are the new model's codes the old one's?

Codes of two encoders mean different things, number by number, even where both models are equally good: units change
places, signs and directions. So they are compared after an alignment only, fitted to half of the rows and judged on the
other half. Codes that are equal to the bit need none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import lstsq, orthogonal_procrustes
from torch import Tensor

from lowerbound.errors import NotSupportedError
from lowerbound.lab.facts import Facts, facts_of
from lowerbound.model.families.family import Family
from lowerbound.model.spec import Context

Array = NDArray[np.float64]
ROWS = 2000  # at most: the work grows with their square
NEIGHBOURS = 10


@dataclass(frozen=True)
class Compatibility:
    """How the codes of a model relate to those of the one before it.

    Attributes:
        verdict: "identical" where every code of every row is equal to the bit and nothing that codes depend on differs;
            else "breaking": codes that were stored mean something else now.
        reason: why, as a sentence.
        rows: that it was measured on, which neither model was trained on.
        equal_rows: share of rows with the same codes.
        equal_indices: share of equal integers among discrete codes; None without such.
        orthogonal_error: of the new codes given the old ones, turned, mirrored, scaled as one and moved: the share of
            the new codes' variance that stays unexplained. None for discrete codes and too few rows.
        affine_error: the same by any linear map.
        cka: similarity of all distances, linear centred kernel alignment in [0, 1] (Kornblith et al. 2019, eq. 5); of
            discrete codes by the number of equal places.
        neighbour_overlap: share of a row's ten nearest neighbours that stay; chance is 10 / (rows - 1).
    """

    verdict: Literal["identical", "breaking"]
    reason: str
    rows: int
    equal_rows: float
    equal_indices: float | None
    orthogonal_error: float | None
    affine_error: float | None
    cka: float | None
    neighbour_overlap: float | None

    def json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def codes_hash(model: Family, table: Mapping[str, Any]) -> str:
    """The hash of all that codes depend on: the tensors and settings of every part but those that only decode.

    Models with the same give the same codes, to the bit, on the same machine.

    Args:
        model: the model.
        table: the recipe's `model` table.
    """
    without = set(model.beyond_codes) - {"likelihood"}  # which owns the preparation
    settings = {name: value for name, value in table.items() if name not in without}
    digest = hashlib.sha256(repr(sorted(settings.items())).encode())
    for name, tensor in sorted(model.state_dict().items()):
        if name.split(".")[0] not in model.beyond_codes or ".preparation." in name:
            digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def compare_codes(
    before: Family, after: Family, raw: Tensor, context: Context | None = None, *, same_parts: bool
) -> Compatibility:
    """Compare the codes of two models of the same data on held-out rows (N, *event), at most 2,000 of them.

    Args:
        before, after: in evaluation mode.
        raw, context: the rows.
        same_parts: whether all that codes depend on is the same in both (`codes_hash`).

    Raises:
        NotSupportedError: a model has no codes, or they are models of different data.
    """
    if before.data.event != after.data.event or before.data.context != after.data.context:
        raise NotSupportedError(
            f"one model is of rows of shape {list(before.data.event)} and the other of {list(after.data.event)}, so "
            "there are no rows that both have codes of."
        )
    raw = raw[:ROWS]
    context = None if context is None else context.select(slice(0, len(raw)))
    old, new = (_codes(model, raw, context) for model in (before, after))
    equal = _equal_rows(old, new)
    discrete = not any(codes.is_floating_point() for codes in (*old.values(), *new.values()))
    points = [_points(codes, discrete) for codes in (old, new)]
    grams = [_similarity(each, discrete) for each in points]
    orthogonal, affine = (None, None) if discrete else alignment(*points)
    identical = same_parts and bool(equal.all())
    return Compatibility(
        verdict="identical" if identical else "breaking",
        reason=_reason(same_parts, equal, before, after),
        rows=len(raw),
        equal_rows=float(equal.double().mean()),
        equal_indices=_equal_indices(old, new),
        orthogonal_error=orthogonal,
        affine_error=affine,
        cka=centred_alignment(*grams),
        neighbour_overlap=neighbour_overlap(*grams),
    )


def alignment(old: Array, new: Array) -> tuple[float | None, float | None]:
    """Unexplained share of the variance of new codes (N, E) given old ones (N, D): orthogonally, and by any linear map.

    Maps are fitted to the first half of the rows, and judged on the second. None where the rows are too few: half of
    them must be more than twice the units.
    """
    half, units = len(old) // 2, max(old.shape[1], new.shape[1])
    if half <= 2 * units:
        return None, None
    means = old[:half].mean(axis=0), new[:half].mean(axis=0)
    a, b = old - means[0], new - means[1]
    total = float((b[half:] ** 2).sum())
    if not total:
        return None, None
    wide_a, wide_b = (np.pad(each, ((0, 0), (0, units - each.shape[1]))) for each in (a, b))
    turn, strength = orthogonal_procrustes(wide_a[:half], wide_b[:half])
    size = float((wide_a[:half] ** 2).sum())
    turned = wide_a[half:] @ turn * (strength / size if size else 0)
    linear = a[half:] @ lstsq(a[:half], b[:half])[0]
    return float(((turned - wide_b[half:]) ** 2).sum()) / total, float(((linear - b[half:]) ** 2).sum()) / total


def centred_alignment(old: Array, new: Array) -> float | None:
    """Centred kernel alignment of two matrices of similarities (N, N), in [0, 1]; None where one is constant."""
    a, b = (each - each.mean(axis=0) - each.mean(axis=1, keepdims=True) + each.mean() for each in (old, new))
    sizes = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float((a * b).sum()) / sizes if sizes else None


def neighbour_overlap(old: Array, new: Array) -> float | None:
    """Mean share of the ten most similar rows that two matrices of similarities (N, N) have in common.

    None with fewer than twelve rows.
    """
    if len(old) < NEIGHBOURS + 2:
        return None
    nearest = []
    for similar in (old, new):
        size = np.diag(similar)
        distance = size[:, None] + size[None, :] - 2 * similar
        np.fill_diagonal(distance, np.inf)
        nearest.append(np.argsort(distance, axis=1, kind="stable")[:, :NEIGHBOURS])
    common = [len(np.intersect1d(a, b)) for a, b in zip(*nearest, strict=True)]
    return float(np.mean(common)) / NEIGHBOURS


def _codes(model: Family, raw: Tensor, context: Context | None) -> dict[str, Tensor]:
    facts = Facts(model)
    found = facts_of(facts, raw, context)
    return {name: found[name] for name in facts.groups}


def _equal_rows(old: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> Tensor:
    """Which rows have the same codes to the bit, (N,)."""
    rows = len(next(iter(old.values())))
    if {name: codes.shape for name, codes in old.items()} != {name: codes.shape for name, codes in new.items()}:
        return torch.zeros(rows, dtype=torch.bool)
    return torch.stack([(old[name] == new[name]).reshape(rows, -1).all(dim=1) for name in old]).all(dim=0)


def _equal_indices(old: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> float | None:
    shared = [name for name in old if not old[name].is_floating_point()]
    if not shared or any(name not in new or old[name].shape != new[name].shape for name in shared):
        return None
    return float(torch.cat([(old[name] == new[name]).flatten() for name in shared]).double().mean())


def _points(codes: Mapping[str, Tensor], discrete: bool) -> Array:
    """All codes that are numbers side by side, or all indices where every code is discrete, (N, D)."""
    chosen = [each for each in codes.values() if discrete or each.is_floating_point()]
    rows = len(next(iter(codes.values())))
    points: Array = torch.cat([each.reshape(rows, -1).double() for each in chosen], dim=1).numpy()
    return points


def _similarity(points: Array, discrete: bool) -> Array:
    """(N, N): inner products, or the number of equal places."""
    if not discrete:
        centred = points - points.mean(axis=0)
        product: Array = centred @ centred.T
        return product
    similar = np.zeros((len(points), len(points)))
    for place in points.T:
        similar += place[:, None] == place[None, :]
    return similar


def _reason(same_parts: bool, equal: Tensor, before: Family, after: Family) -> str:
    if before.latents != after.latents:
        return f"the codes have another form: {_form(before)} before, {_form(after)} now."
    if same_parts and bool(equal.all()):
        return f"all that codes depend on is the same, and so are the codes of {len(equal):,} rows, to the bit."
    if same_parts:
        return f"the codes of {int((~equal).sum()):,} of {len(equal):,} rows differ though their parts are the same."
    if bool(equal.all()):
        return (
            f"the codes of {len(equal):,} rows are equal, but what they depend on (encoder, codebook, preparation) "
            "differs, so others may not be, or mean something else."
        )
    return f"the codes of {int((~equal).sum()):,} of {len(equal):,} rows differ."


def _form(model: Family) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in model.latents.items())
