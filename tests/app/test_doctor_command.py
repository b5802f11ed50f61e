"""`lowerbound doctor`"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from harness import Cli
from PIL import Image

QUICK = ("--set", "training.epochs=40", "--set", 'training.guard.policy="off"')


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(30):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def test_a_collapsed_run_ends_with_1_and_a_page(cli: Cli, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert cli("train", "digits", *QUICK, "--set", "objective.beta=30", "--out", run).code == 0
    ended = cli("doctor", run)
    assert ended.code == 1
    assert "POSTERIOR COLLAPSE" in ended.out
    assert "what to do" in ended.out
    page = (run / "doctor.html").read_text()
    assert "posterior collapse" in page
    assert "data:image/png;base64" in page
    assert "http" not in page
    found = json.loads(cli("doctor", run, "--json").out)
    assert "posterior collapse" in [one["symptom"] for one in found["found"]]
    assert found["skipped"].keys() == {"seams"}


def test_a_healthy_run_ends_with_0(cli: Cli, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert cli("train", "gmm2d", "--out", run).code == 0
    ended = cli("doctor", run, "--out", tmp_path / "page.html")
    assert ended.code == 0
    assert "symptoms found: none" in ended.out
    assert "No symptom was found" in (tmp_path / "page.html").read_text()
    assert not (run / "doctor.html").exists()


def test_an_autoencoder_of_diffusers_is_examined(cli: Cli, pictures: Path, tmp_path: Path) -> None:
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    down, up = ("DownEncoderBlock2D",) * 2, ("UpDecoderBlock2D",) * 2
    folder = tmp_path / "kl"
    AutoencoderKL(
        block_out_channels=(8, 16), norm_num_groups=4, sample_size=16, down_block_types=down, up_block_types=up
    ).save_pretrained(folder)
    ended = cli("doctor", folder, "--data", pictures, "--out", tmp_path / "page.html", "--json")
    assert ended.code == 1
    found = json.loads(ended.out)
    assert "rate too low for the data" in [one["symptom"] for one in found["found"]]
    assert (tmp_path / "page.html").exists()


@pytest.mark.filterwarnings("ignore")  # PyTorch's exporter uses parts of PyTorch that are deprecated
def test_a_pair_in_onnx_on_the_wrong_scale_is_found(cli: Cli, pictures: Path, tmp_path: Path) -> None:
    """A pair that copies values from 0 to 255, asked as if they were from 0 to 1 and made to saturate."""
    program = torch.onnx.export(
        torch.nn.Hardtanh(0.0, 100.0), (torch.zeros(2, 3, 16, 16),), dynamo=True, verbose=False,
        dynamic_shapes=({0: torch.export.Dim("rows", min=1)},),
    )  # fmt: skip
    assert program is not None
    for name in ("encode.onnx", "decode.onnx"):
        program.save(str(tmp_path / name))
    found = json.loads(cli("doctor", tmp_path, "--data", pictures, "--json").out)
    assert "colour shift" in [one["symptom"] for one in found["found"]]
    found = json.loads(cli("doctor", tmp_path, "--data", pictures, "--scale", "unit", "--json").out)
    assert found["found"] == []


def test_what_cannot_be_examined_is_refused(cli: Cli, digits: Path, pictures: Path, tmp_path: Path) -> None:
    cli("doctor", tmp_path / "absent").refused(2, "absent")
    cli("doctor", tmp_path, "--data", pictures).refused(2, "neither a run")
    cli("doctor", digits, "--size", "8,8").refused(2, "--data")
    cli("doctor", digits, "--out", tmp_path / "page.json").refused(2, ".html")
    broken = tmp_path / "broken"
    shutil.copytree(digits, broken)
    (broken / "weights.safetensors").write_bytes(b"torn")
    cli("doctor", broken).refused(2, "weights.safetensors")
