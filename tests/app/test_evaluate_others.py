"""`lowerbound evaluate` of what is no run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from harness import Cli
from PIL import Image


def write_pictures(folder: Path, count: int, size: int = 16) -> Path:
    folder.mkdir()
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def write_autoencoder(folder: Path) -> Path:
    torch.manual_seed(0)
    down, up = ("DownEncoderBlock2D",) * 2, ("UpDecoderBlock2D",) * 2
    model = AutoencoderKL(
        block_out_channels=(8, 16), norm_num_groups=4, sample_size=16, down_block_types=down, up_block_types=up
    )
    model.save_pretrained(folder)
    return folder


def test_an_autoencoder_of_diffusers(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    folder, data = write_autoencoder(tmp_path / "kl"), write_pictures(tmp_path / "data", 8)
    ended = cli("evaluate", folder, "--data", data, "--out", out, "--json")
    assert ended.code == 0
    found = json.loads(out.read_text())
    assert found == json.loads(ended.out)
    assert found["protocol"]["examples"] == 8
    assert found["results"]["psnr_db"]["n"] == 8
    shown = cli("evaluate", folder, "--data", data, "--size", "8,16").out
    assert "psnr_db" in shown


def test_a_folder_of_pictures(cli: Cli, tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "data", 3)
    assert json.loads(cli("evaluate", data, "--data", data, "--json").out)["results"]["psnr_db"]["value"] == 100


def test_a_run_on_pictures_of_ones_own(cli: Cli, tmp_path: Path) -> None:
    data, other = write_pictures(tmp_path / "data", 20), write_pictures(tmp_path / "other", 4, size=32)
    run = tmp_path / "run"
    small = ["--set", "training.steps=2", "--set", "training.batch_size=4", "--set", "model.latent=4"]
    assert cli("train", "images", "--set", f'data.path="{data}"', *small, "--out", run).code == 0
    found = json.loads(cli("evaluate", run, "--data", other, "--samples", 2, "--json").out)
    assert found["protocol"]["data"] == {"kind": "images", "source": str(other)}
    assert found["results"]["nll_nats"]["n"] == 4
    assert not (run / "evaluation.json").exists()


def test_what_cannot_be_judged_is_refused(cli: Cli, digits: Path, tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "data", 2)
    folder = write_autoencoder(tmp_path / "kl")
    cli("evaluate", folder).refused(2, "no run")
    cli("evaluate", folder, "--data", data, "--out", tmp_path / "x.html").refused(2, ".json")
    assert cli("evaluate", digits, "--seed", -1).code == 2
    cli("evaluate", folder, "--data", tmp_path / "absent").refused(2, "absent")
    cli("evaluate", folder, "--data", data, "--size", "wide").refused(2, "HEIGHT,WIDTH")
    cli("evaluate", folder, "--data", data, "--size", "17,17").refused(2, "multiple of 8")
    cli("evaluate", digits, "--out", tmp_path / "x.json").refused(2, "--data")
    cli("evaluate", digits, "--data", data).refused(2, "from 0 to 16")
    (folder / "diffusion_pytorch_model.safetensors").write_bytes(b"torn")
    cli("evaluate", folder, "--data", data).refused(2, "cannot be loaded")
