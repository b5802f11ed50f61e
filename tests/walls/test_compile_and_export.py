"""`torch.compile`, `torch.export` and ONNX of encode and decode, equal to eager."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from tables import FAMILIES, QUANTIZERS, raw_rows

from lowerbound.lab.export import Decode, Encode, export_onnx

NAMES = ["vae", "vae-convolutional", "top-down", "top-down-grid", *(f"vq-vae-{name}" for name in QUANTIZERS)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the exporters' own
@pytest.mark.parametrize("name", NAMES)
def test_onnx_equals_eager_at_several_sizes(name: str, tmp_path: Path) -> None:
    model = FAMILIES[name].make().eval()
    paths = export_onnx(model, tmp_path)
    encode, decode = (onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]) for path in paths)
    for rows in (1, 3, 17):
        raw = raw_rows(model.data, rows).float()
        with torch.no_grad():
            codes = Encode(model)(raw)
            restored = Decode(model)(*codes)
        found = encode.run(None, {encode.get_inputs()[0].name: raw.numpy()})
        for ours, theirs in zip(codes, found, strict=True):
            np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-4, atol=1e-4)
        feed = {item.name: array for item, array in zip(decode.get_inputs(), found, strict=True)}
        np.testing.assert_allclose(restored.numpy(), decode.run(None, feed)[0], rtol=1e-4, atol=1e-3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("name", NAMES)
def test_compiled_equals_eager(name: str) -> None:
    model = FAMILIES[name].make().eval()
    raw = raw_rows(model.data, 4).float()
    with torch.no_grad():
        codes = Encode(model)(raw)
        compiled = torch.compile(Encode(model))(raw)
        for ours, theirs in zip(codes, compiled, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(Decode(model)(*codes), torch.compile(Decode(model))(*codes), rtol=1e-4, atol=1e-4)
