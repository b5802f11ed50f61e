"""Autoencoders of others, and folders of pictures, are judged by the same suite."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, VQModel
from PIL import Image

from lowerbound.errors import DataError, NotSupportedError, UsageError
from lowerbound.lab.export import parts_of, write_part
from lowerbound.lab.foreign import open_autoencoder
from lowerbound.lab.generation import use
from lowerbound.lab.judge_foreign import evaluate_foreign, evaluate_pictures, pictures_of
from lowerbound.model.build import build_model
from lowerbound.model.spec import DataSpec
from lowerbound.noise import generator
from lowerbound.recipe import Evaluation

DATA = DataSpec((3, 16, 16), levels=256)
SETTINGS = Evaluation(batch_size=8)
BLOCKS: dict[str, Any] = {"block_out_channels": (8, 16), "norm_num_groups": 4, "sample_size": 16}
TWO: dict[str, Any] = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}


def write_pictures(folder: Path, count: int, seed: int = 0) -> Path:
    folder.mkdir()
    chance = np.random.default_rng(seed)
    for number in range(count):
        Image.fromarray(chance.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(folder / f"{number:03}.png")
    return folder


def rows(count: int = 6) -> torch.Tensor:
    return torch.randint(0, 256, (count, *DATA.event), dtype=torch.uint8, generator=generator(0))


def test_a_gaussian_autoencoder_of_diffusers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = AutoencoderKL(**BLOCKS, **TWO).eval()
    theirs.save_pretrained(tmp_path / "kl")
    ours = open_autoencoder(tmp_path / "kl", DATA)
    x = rows().float() / 127.5 - 1
    with torch.no_grad():
        q = theirs.encode(x).latent_dist
        made = ((theirs.decode(q.mean).sample + 1) * 127.5).clamp(0, 255)
    assert torch.allclose(use.encode(ours, rows())["z"], q.mean, atol=1e-5)
    assert torch.allclose(use.reconstruct(ours, rows()), made, atol=1e-3)
    found = evaluate_foreign(tmp_path / "kl", pictures_of(write_pictures(tmp_path / "data", 12)), SETTINGS)
    assert found.protocol["model"] == "DiffusersKL"
    assert found.protocol["files"].keys() == {"config.json", "diffusion_pytorch_model.safetensors"}
    assert "elbo_nats" in found.refused
    data = torch.stack([torch.from_numpy(np.array(Image.open(f))) for f in sorted((tmp_path / "data").iterdir())])
    with torch.no_grad():
        rate = theirs.encode(data.permute(0, 3, 1, 2).float() / 127.5 - 1).latent_dist.kl()
    assert found.results["rate_nats"].value == pytest.approx(float(rate.mean()), rel=1e-4)


def test_a_quantised_autoencoder_of_diffusers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = VQModel(**BLOCKS, **TWO, num_vq_embeddings=16).eval()
    theirs.save_pretrained(tmp_path / "vq")
    ours = open_autoencoder(tmp_path / "vq", DATA)
    x = rows().float() / 127.5 - 1
    with torch.no_grad():
        made = ((theirs(x).sample + 1) * 127.5).clamp(0, 255)
    assert torch.allclose(use.reconstruct(ours, rows()), made, atol=1e-3)
    found = evaluate_foreign(tmp_path / "vq", pictures_of(write_pictures(tmp_path / "data", 12)), SETTINGS)
    assert found.results["codebook_size"].value == 16


def test_a_deterministic_autoencoder_of_diffusers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = AutoencoderTiny(
        encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8), num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    ).eval()  # fmt: skip
    theirs.save_pretrained(tmp_path / "tiny")
    ours = open_autoencoder(tmp_path / "tiny", DATA)
    x = rows().float() / 127.5 - 1
    with torch.no_grad():
        made = ((theirs.decode(theirs.encode(x).latents).sample + 1) * 127.5).clamp(0, 255)
    assert torch.allclose(use.reconstruct(ours, rows()), made, atol=1e-3)
    with pytest.raises(NotSupportedError, match="prior"):
        use.sample(ours, 2)
    found = evaluate_foreign(tmp_path / "tiny", pictures_of(write_pictures(tmp_path / "data", 12)), SETTINGS)
    assert "psnr_db" in found.results
    assert "two_sample_accuracy" in found.refused


@pytest.mark.filterwarnings("ignore")  # PyTorch's exporter uses parts of PyTorch that are deprecated
def test_a_pair_in_onnx_reconstructs_as_its_source(tmp_path: Path) -> None:
    source = build_model({"kind": "vae", "latent": 5}, DATA, 0).eval()
    for part in parts_of(source)[:2]:
        write_part(part, tmp_path, "onnx")
    ours = open_autoencoder(tmp_path, DATA)
    assert torch.allclose(use.reconstruct(ours, rows()), use.reconstruct(source, rows()), atol=1e-2)
    found = evaluate_foreign(tmp_path, pictures_of(write_pictures(tmp_path / "data", 12)), SETTINGS)
    assert found.protocol["files"].keys() == {"encode.onnx", "decode.onnx"}
    assert "rate_nats" not in found.results


def test_folders_of_pictures_are_compared_as_pairs_and_as_sets(tmp_path: Path) -> None:
    real = write_pictures(tmp_path / "real", 120)
    same = evaluate_pictures(real, pictures_of(real))
    assert same.results["psnr_db"].value == 100
    assert same.protocol["generated"] == {"rows": 60}  # a picture and its own pair are never in both sets
    accuracy = same.results["two_sample_accuracy_raw"]
    assert isinstance(accuracy.value, float)
    assert abs(accuracy.value - 0.5) < 0.2
    some = evaluate_pictures(real, pictures_of(real), Evaluation(examples=100))
    assert some.protocol["generated"] == {"rows": 50}
    other = evaluate_pictures(write_pictures(tmp_path / "other", 120, seed=1), pictures_of(real))
    assert other.results["psnr_db"].value == pytest.approx(7.8, abs=0.3)  # of independent uniform values: 1 / 6
    (tmp_path / "few").mkdir()
    Image.open(real / "000.png").save(tmp_path / "few" / "unknown.png")
    few = evaluate_pictures(tmp_path / "few", pictures_of(real))
    assert "no picture has the file name" in few.refused["squared_error"]
    assert "50 at least" in few.refused["two_sample_accuracy_raw"]


def test_what_is_no_autoencoder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither a run"):
        open_autoencoder(tmp_path, DATA)
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "UNet2DModel"}))
    with pytest.raises(UsageError, match="UNet2DModel of diffusers"):
        open_autoencoder(tmp_path, DATA)
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "AutoencoderKL"}))
    with pytest.raises(DataError, match="cannot be loaded"):
        open_autoencoder(tmp_path, DATA)
    with pytest.raises(DataError, match="3 channels"):
        open_autoencoder(tmp_path, DataSpec((1, 16, 16), levels=256))


def test_pickled_weights_are_not_loaded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    AutoencoderKL(**BLOCKS, **TWO).save_pretrained(tmp_path, safe_serialization=False)
    assert (tmp_path / "diffusion_pytorch_model.bin").exists()
    with pytest.raises(DataError, match="cannot be loaded"):
        open_autoencoder(tmp_path, DATA)


def test_sizes_that_do_not_come_back_are_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    AutoencoderKL(**BLOCKS, **TWO).save_pretrained(tmp_path)
    with pytest.raises(DataError, match="multiple of 8"):
        open_autoencoder(tmp_path, DataSpec((3, 17, 17), levels=256))
