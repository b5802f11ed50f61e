"""Extractors are plug-ins: what they give, what names them, and what they refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

import lowerbound
from lowerbound.errors import DataError, NotSupportedError, UsageError
from lowerbound.files import sha256
from lowerbound.lab.evaluation.features import make_extractor
from lowerbound.lab.export import parts_of, write_part
from lowerbound.lab.generation import use
from lowerbound.model.build import build_model
from lowerbound.model.families.family import Family
from lowerbound.model.spec import DataSpec
from lowerbound.noise import generator

TABLE = {"kind": "vae", "latent": 3, "likelihood": {"kind": "bernoulli"}}


@pytest.fixture
def model() -> Family:
    return build_model(TABLE, DataSpec((1, 8, 8), levels=17), 0).eval()


@pytest.fixture
def rows() -> Tensor:
    return torch.randint(0, 17, (300, 1, 8, 8), generator=generator(0), dtype=torch.uint8)


def test_raw_values_are_between_0_and_1(model: Family, rows: Tensor) -> None:
    extractor = make_extractor("raw", model.data, model)
    assert torch.equal(extractor(rows), rows.flatten(1).float() / 16)


def test_own_codes_have_the_hash_of_the_weights(model: Family, rows: Tensor) -> None:
    extractor = make_extractor("own", model.data, model)
    assert torch.allclose(extractor(rows), use.encode(model, rows)["z"])
    again = build_model(TABLE, model.data, 0)
    assert make_extractor("own", again.data, again).hash == extractor.hash
    with torch.no_grad():
        next(again.parameters()).view(-1)[0] += 1e-3
    assert make_extractor("own", again.data, again).hash != extractor.hash


def test_codes_of_another_run(model: Family, rows: Tensor, tmp_path: Path) -> None:
    overrides = ["training.steps=2", "model.latent=4"]
    run = lowerbound.train(lowerbound.read_recipe("digits", overrides), tmp_path / "judge")
    extractor = make_extractor(str(run.path), model.data)
    assert extractor.name == "judge"
    assert torch.allclose(extractor(rows), use.encode(run.model(), rows)["z"])


@pytest.mark.filterwarnings("ignore")  # PyTorch's exporter uses parts of PyTorch that are deprecated
def test_a_network_in_onnx_sees_values_from_0_to_1(model: Family, rows: Tensor, tmp_path: Path) -> None:
    encode = write_part(parts_of(build_model(TABLE, DataSpec((1, 8, 8)), 0))[0], tmp_path, "onnx")
    extractor = make_extractor(str(encode), model.data)
    assert (extractor.name, extractor.hash) == ("encode", sha256(encode))
    assert torch.allclose(extractor(rows), use.encode(model, rows)["z"], atol=1e-5)
    with pytest.raises(DataError, match="refuses rows of shape"):
        extractor(rows[:, :, :4])


def test_what_is_no_extractor_is_named(model: Family, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither"):
        make_extractor("inception", model.data, model)
    with pytest.raises(UsageError, match="no model is judged"):
        make_extractor("own", model.data)
    with pytest.raises(UsageError, match="no file"):
        make_extractor(str(tmp_path / "absent.onnx"), model.data)
    (tmp_path / "broken.onnx").write_bytes(b"no network")
    with pytest.raises(DataError, match=r"broken\.onnx is no network"):
        make_extractor(str(tmp_path / "broken.onnx"), model.data)
    discrete = build_model({"kind": "vq-vae", "likelihood": {"kind": "bernoulli"}}, DataSpec((1, 8, 8), levels=17), 0)
    with pytest.raises(NotSupportedError, match="discrete"):
        make_extractor("own", discrete.data, discrete)


def test_a_network_that_does_not_fit_is_named(model: Family, rows: Tensor, tmp_path: Path) -> None:
    def write(name: str, kind: int, made: list[int]) -> Path:
        given = [onnx.helper.make_tensor_value_info("x", kind, ["n", 1, 8, 8])]
        target = onnx.numpy_helper.from_array(np.array(made), "shape")
        nodes = [
            onnx.helper.make_node("Cast", ["x"], ["real"], to=onnx.TensorProto.FLOAT),
            onnx.helper.make_node("Reshape", ["real", "shape"], ["y"]),
        ]
        out = [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None] * len(made))]
        graph = onnx.helper.make_graph(nodes, "features", given, out, [target])
        path = tmp_path / f"{name}.onnx"
        made_of = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
        path.write_bytes(made_of.SerializeToString())
        return path

    bytes_ = write("bytes", onnx.TensorProto.UINT8, [-1, 64])
    with pytest.raises(DataError, match="only real numbers"):
        make_extractor(str(bytes_), model.data)
    flat = write("flat", onnx.TensorProto.FLOAT, [-1])
    with pytest.raises(DataError, match="one line a row"):
        make_extractor(str(flat), model.data)(rows)
