"""Encode and decode as plain functions of tensors, for `torch.export`, ONNX and other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lowerbound.files import replacing
from lowerbound.model.distributions import tree
from lowerbound.model.families.family import Family


class Encode(nn.Module):
    """Raw rows (B, *event), as floats, to the points of the posterior, one tensor per group of latents.

    Args:
        model: without a context.
    """

    def __init__(self, model: Family) -> None:
        super().__init__()
        self.model = model

    def forward(self, raw: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.model.encode(self.model.preparation.prepare(raw, None)).values())


class Decode(nn.Module):
    """Codes, one tensor per group of latents, to the point of p(x|z) on the scale of raw rows.

    Args:
        model: without a context.
    """

    def __init__(self, model: Family) -> None:
        super().__init__()
        self.model = model

    def forward(self, *latents: Tensor) -> Tensor:
        px = self.model.decode(dict(zip(self.model.latents, latents, strict=True)))
        return self.model.preparation.restore(tree.point(px))


def export_onnx(model: Family, folder: Path) -> tuple[Path, Path]:
    """Write `encode.onnx` and `decode.onnx`, with any number of rows; returns their paths.

    Args:
        model: in evaluation mode, without a context.
        folder: where to write.
    """
    encode, decode = Encode(model).eval(), Decode(model).eval()
    raw = torch.zeros(2, *model.data.event)
    with torch.no_grad():
        codes = encode(raw)
    written = []
    for name, module, inputs in (("encode", encode, (raw,)), ("decode", decode, codes)):
        path = folder / f"{name}.onnx"
        rows = torch.export.Dim("rows", min=1)
        sizes: tuple[Any, ...] = tuple({0: rows} for _ in inputs)
        program = torch.onnx.export(
            module, inputs, dynamic_shapes=sizes if name == "encode" else (sizes,), dynamo=True, verbose=False
        )
        assert program is not None
        with replacing(path) as draft:
            program.save(str(draft))
        written.append(path)
    return written[0], written[1]
