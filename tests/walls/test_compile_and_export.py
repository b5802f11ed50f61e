"""`torch.compile` of encode and decode, and files for other engines: equal to eager, or refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from tables import FAMILIES, QUANTIZERS, raw_rows

from lowerbound.errors import NotSupportedError, ParityError
from lowerbound.files import sha256
from lowerbound.lab import export
from lowerbound.lab.export import Decode, Encode, export_model, parts_of, prove, row_sets, write_part
from lowerbound.lab.facts import Facts
from lowerbound.lab.onnx import OnnxNetwork
from lowerbound.lab.reference import Reference
from lowerbound.model.families.family import Family

NAMES = ["vae", "vae-convolutional", "top-down", "top-down-grid", *(f"vq-vae-{name}" for name in QUANTIZERS)]
EXPORTED = ["vae-convolutional", "top-down", "top-down-grid", "vq-vae-residual"]


def known(name: str, rows: int = 250) -> tuple[Family, Reference]:
    """A model with its reference; its weights are large enough that codes depend on rows, as those of a trained one."""
    model = FAMILIES[name].make().eval()
    with torch.no_grad():
        for weight in (each for each in model.parameters() if each.ndim > 1):
            weight.mul_(2)
    return model, Reference.of(model, raw_rows(model.data, rows))


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPORTED)
def test_onnx_files_are_proven_to_be_the_model(name: str, tmp_path: Path) -> None:
    model, reference = known(name)
    parity = export_model(model, reference, raw_rows(model.data, 40).float(), tmp_path)["onnx"]
    assert {path.name for path in tmp_path.iterdir()} == {"encode.onnx", "decode.onnx", "facts.onnx", "parity.json"}
    assert parity.files == {path.name: sha256(path) for path in tmp_path.glob("*.onnx")}
    assert json.loads((tmp_path / "parity.json").read_text())["onnx"]["files"] == parity.files
    assert parity.decisions > 0
    assert max(parity.outputs.values()) <= parity.tolerance
    raw = raw_rows(model.data, 5).float()  # a size that no proof saw
    with torch.no_grad():
        ours = Facts(model)(raw)
    found = OnnxNetwork(tmp_path / "facts.onnx")(raw)
    assert tuple(found) == tuple(ours)
    for fact, theirs in found.items():
        np.testing.assert_allclose(ours[fact].numpy(), theirs.numpy(), rtol=1e-4, atol=1e-3)


@pytest.mark.slow
def test_programs_of_torch_are_proven_too(tmp_path: Path) -> None:
    model, reference = known("vae")
    raw = raw_rows(model.data, 40).float()
    parity = export_model(model, reference, raw, tmp_path, ["torch"])["torch"]
    assert set(parity.files) == {"encode.pt2", "decode.pt2", "facts.pt2"}
    assert max(parity.outputs.values()) <= 1e-6


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ONNX files of the row "vae", not to be changed."""
    folder = tmp_path_factory.mktemp("written")
    for part in parts_of(known("vae")[0]):
        write_part(part, folder, "onnx")
    return folder


def nudge(path: Path, by: float) -> None:
    """Change the largest weight of an ONNX file a little."""
    file = onnx.load(path)
    largest = max(file.graph.initializer, key=lambda weight: int(np.prod(weight.dims)))
    values = onnx.numpy_helper.to_array(largest).copy()
    values.flat[0] += by
    largest.CopyFrom(onnx.numpy_helper.from_array(values, largest.name))
    onnx.save(file, path)


@pytest.mark.parametrize("part", ["encode", "decode", "facts"])
def test_a_planted_mismatch_is_refused_with_the_largest_difference(part: str, written: Path, tmp_path: Path) -> None:
    model, reference = known("vae")
    parts = parts_of(model)
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    raw = raw_rows(model.data, 40).float()
    prove(parts, tmp_path, reference, raw, "onnx")
    nudge(tmp_path / f"{part}.onnx", 0.05)
    with pytest.raises(ParityError, match=rf"of `({part}\.\w+|the score \w+)`, where 0\.0001") as refused:
        prove(parts, tmp_path, reference, raw, "onnx")
    assert refused.value.exit_code == 1


def test_files_that_are_refused_do_not_stay(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, reference = known("vae")
    raw = raw_rows(model.data, 40).float()
    (tmp_path / "facts.onnx").write_bytes(b"proven before")
    before = {path.name: sha256(path) for path in tmp_path.iterdir()}

    def broken(program: torch.export.ExportedProgram, part: export.Part, path: Path) -> None:
        shutil.copyfile(written / path.name, path)
        nudge(path, 0.05)

    monkeypatch.setitem(export.WRITERS, "onnx", broken)
    with pytest.raises(ParityError, match="the files are removed"):
        export_model(model, reference, raw, tmp_path)
    assert {path.name: sha256(path) for path in tmp_path.iterdir()} == before, "what was proven before stays"


def test_a_decision_that_differs_is_refused_though_numbers_are_near(monkeypatch: pytest.MonkeyPatch) -> None:
    model, reference = known("vae")
    parts = parts_of(model)

    class Strange:
        """An engine that is right but for the error, by less than a tolerance that is too wide."""

        def __call__(self, *inputs: torch.Tensor) -> dict[str, torch.Tensor]:
            found = parts[2](*inputs)
            return {**found, "error": found["error"] * 1.5}

    engines = {part.name: part for part in parts[:2]} | {"facts": Strange()}
    monkeypatch.setitem(export.ENGINES, "onnx", lambda path, part: engines[part.name])
    monkeypatch.setattr(export, "difference", lambda ours, theirs: 0.0)
    with pytest.raises(ParityError, match="decisions differ, first `error`"):
        prove(parts, Path(), reference, raw_rows(model.data, 40).float(), "onnx")


def test_integers_that_differ_are_never_near() -> None:
    assert export.difference(torch.tensor([1, 2]), torch.tensor([1, 3])) == float("inf")
    assert export.difference(torch.tensor([1.0]), torch.tensor([float("nan")])) == float("inf")
    assert export.difference(torch.tensor([1.0, 2.0]), torch.tensor([1.0])) == float("inf")
    assert export.difference(torch.tensor([200.0]), torch.tensor([201.0])) == pytest.approx(0.005)


def test_rows_of_three_kinds_are_of_the_models_values() -> None:
    for name in ("vae", "vae-table", "text"):
        model = FAMILIES[name].make().eval()
        raw = raw_rows(model.data, 12).float()
        sets = row_sets(raw)
        assert set(sets) == {"held-out", "shuffled", "extreme"}
        for rows in sets.values():
            assert rows.shape == (40, *model.data.event)
            model.check(rows)
        assert not torch.equal(sets["held-out"], sets["shuffled"])


@pytest.mark.parametrize(("name", "words"), [("conditional", "conditional"), ("density-mixture", "no latents")])
def test_what_cannot_be_exported_is_said(name: str, words: str) -> None:
    with pytest.raises(NotSupportedError, match=words):
        parts_of(FAMILIES[name].make())


@pytest.mark.slow
def test_an_operation_that_the_format_does_not_know_is_said(tmp_path: Path) -> None:
    model, reference = known("vae-sphere", 50)
    with pytest.raises(NotSupportedError, match="cannot be written as onnx"):
        export_model(model, reference, raw_rows(model.data, 40).float(), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("name", NAMES)
def test_compiled_equals_eager(name: str) -> None:
    model = FAMILIES[name].make().eval()
    facts = Facts(model)
    raw = raw_rows(model.data, 4).float()
    with torch.no_grad():
        codes = Encode(facts)(raw)
        compiled = torch.compile(Encode(facts))(raw)
        for ours, theirs in zip(codes, compiled, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
        groups = codes[: len(facts.groups)]
        torch.testing.assert_close(Decode(facts)(*groups), torch.compile(Decode(facts))(*groups), rtol=1e-4, atol=1e-4)
