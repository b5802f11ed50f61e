"""The perceptual distance equals that of torchmetrics with the same weights."""

from __future__ import annotations

import sys
import types
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchmetrics.functional.image import lpips

from lowerbound.errors import DataError, NotSupportedError
from lowerbound.files import sha256
from lowerbound.lab.evaluation.features import make_extractor
from lowerbound.lab.evaluation.perceptual import Perceptual, perceptual_results
from lowerbound.model.spec import DataSpec
from lowerbound.noise import generator


def alexnet(**_: object) -> nn.Module:
    """The convolutions of AlexNet, numbered as torchvision numbers them."""
    network = nn.Module()
    network.features = nn.Sequential(
        nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, 1, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, 1, 1), nn.ReLU(), nn.Conv2d(384, 256, 3, 1, 1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(3, 2),
    )  # fmt: skip
    return network


def vgg16(**_: object) -> nn.Module:
    """The convolutions of VGG-16, numbered as torchvision numbers them."""
    layers: list[nn.Module] = []
    channels = 3
    for width in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
        layers += [nn.MaxPool2d(2, 2)] if width == 0 else [nn.Conv2d(channels, width, 3, 1, 1), nn.ReLU()]
        channels = width or channels
    network = nn.Module()
    network.features = nn.Sequential(*layers)
    return network


def images(seed: int, side: int = 64) -> Tensor:
    return 2 * torch.rand(3, 3, side, side, generator=generator(seed)) - 1


@pytest.mark.parametrize(("name", "make"), [("alex", alexnet), ("vgg", vgg16)])
def test_it_equals_torchmetrics(name: str, make: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = types.ModuleType("torchvision")
    fake.__spec__ = ModuleSpec("torchvision", None)
    fake.models = types.SimpleNamespace(alexnet=alexnet, vgg16=vgg16)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchvision", fake)
    monkeypatch.setattr(lpips, "_TORCHVISION_AVAILABLE", True)
    torch.manual_seed(0)
    theirs = lpips._LPIPS(pretrained=False, net=name, pnet_rand=True, use_dropout=False)
    weights: dict[str, Tensor] = {}
    for part in (theirs.net.slice1, theirs.net.slice2, theirs.net.slice3, theirs.net.slice4, theirs.net.slice5):
        weights |= {f"features.{key}": value for key, value in part.state_dict().items()}
    for place in range(5):
        lin = theirs.lins[place].model[-1].weight.detach().abs()
        theirs.lins[place].model[-1].weight.data = lin
        weights[f"lin{place}.model.1.weight"] = lin
    save_file({key: value.contiguous().clone() for key, value in weights.items()}, tmp_path / "lpips.safetensors")
    real, made = images(0), images(1)
    ours = Perceptual(tmp_path / "lpips.safetensors")(real, made)
    assert torch.allclose(ours, theirs.eval()(real, made).flatten().detach(), atol=1e-4)
    assert float(Perceptual(tmp_path / "lpips.safetensors")(real, real).abs().max()) == 0


def test_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    save_file({"features.0.weight": torch.zeros(64, 3, 11, 11)}, tmp_path / "half.safetensors")
    with pytest.raises(DataError, match=r"features\.0\.bias"):
        Perceptual(tmp_path / "half.safetensors")
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(DataError, match="AlexNet or VGG-16"):
        Perceptual(tmp_path / "other.safetensors")
    with pytest.raises(NotSupportedError, match="images"):
        perceptual_results(tmp_path / "other.safetensors", torch.zeros(2, 3), torch.zeros(2, 3), DataSpec((3,)))


def test_the_same_weights_are_an_extractor_of_features(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = alexnet().eval()
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, tmp_path / "alex.safetensors")
    spec = DataSpec((1, 64, 64), levels=256)
    raw = torch.randint(0, 256, (5, 1, 64, 64), dtype=torch.uint8, generator=generator(0))
    extractor = make_extractor(str(tmp_path / "alex.safetensors"), spec)
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    x = ((raw / 127.5 - 1).expand(-1, 3, -1, -1) - shift[:, None, None]) / scale[:, None, None]
    with torch.no_grad():
        wanted = network.features[:12](x).mean(dim=(2, 3))
    assert torch.allclose(extractor(raw), wanted, atol=1e-5)
    assert extractor.hash == sha256(tmp_path / "alex.safetensors")
    with pytest.raises(NotSupportedError, match="too small"):
        extractor(raw[..., :8, :8])
    with pytest.raises(NotSupportedError, match="images"):
        make_extractor(str(tmp_path / "alex.safetensors"), DataSpec((3,)))
