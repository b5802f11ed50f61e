"""What rows are compared by: features, from extractors that are plug-ins and are known by their hash.

Nothing is downloaded. Numbers from extractors with different hashes are different quantities.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lowerbound.errors import DataError, NotSupportedError, UsageError
from lowerbound.files import sha256
from lowerbound.lab.checkpoint import read_tensors
from lowerbound.lab.evaluation.clips import motion
from lowerbound.lab.evaluation.solids import descriptors
from lowerbound.lab.generation import use
from lowerbound.lab.onnx import OnnxNetwork
from lowerbound.lab.run import Run
from lowerbound.model.families.family import Family
from lowerbound.model.networks.pictures import PictureNetwork
from lowerbound.model.spec import DataSpec

RAW, OWN, SHAPE, MOTION = "raw", "own", "shape", "motion"
ROWS = 256  # at a time


@dataclass(frozen=True)
class Extractor:
    """A function from raw rows (N, *event) to features (N, D).

    Attributes:
        name: stands in the name of each number.
        hash: of what decides the features; equal hashes mean comparable numbers.
        function: of some rows.
    """

    name: str
    hash: str
    function: Callable[[Tensor], Tensor]

    def __call__(self, raw: Tensor) -> Tensor:
        """Features (N, D) in single precision, some rows at a time.

        Raises:
            DataError: a feature is not a number.
        """
        found = torch.cat([self.function(part).flatten(1).float().cpu() for part in raw.split(ROWS)])
        if not bool(torch.isfinite(found).all()):
            raise DataError(f"the features `{self.name}` hold NaN or an infinity.")
        return found


def make_extractor(name: str, spec: DataSpec, model: Family | None = None) -> Extractor:
    """The extractor of a setting.

    Args:
        name: "raw" values; "own", the codes of the judged model; "shape", the size and form of solids; "motion", how
            what is bright in clips moves; a network in a file .onnx, or the weights of AlexNet or VGG-16 in a file
            .safetensors; or the folder of a run, for the codes of its model.
        spec: facts about the rows.
        model: that is judged, if one is.

    Raises:
        UsageError: there is no such file or run.
        NotSupportedError: codes that are discrete, and raw values in no order.
    """
    if name == SHAPE:
        return Extractor(SHAPE, SHAPE, lambda raw: descriptors(raw, spec))
    if name == MOTION:
        return Extractor(MOTION, MOTION, lambda raw: motion(raw, spec))
    if name == RAW:
        if spec.geometry != "grid":
            raise NotSupportedError("the points of a row have no order, so its values cannot be compared; use `shape`.")
        return Extractor(RAW, RAW, lambda raw: _unit_range(raw, spec))
    if name == OWN:
        if model is None:
            raise UsageError('`features` names "own" codes, but no model is judged here; name a run.')
        return _codes(OWN, model)
    path = Path(name)
    if path.suffix == ".onnx":
        return _onnx(path, spec)
    if path.suffix == ".safetensors":
        return _weights(path, spec)
    if not path.is_dir():
        raise UsageError(
            f'`features` names {name}, which is neither "raw", "own", "shape", "motion", a file of a network nor a run.'
        )
    return _codes(path.name, Run(path).model())


def hash_of(model: Family) -> str:
    """A hash of a model's weights, by name and bytes."""
    found = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _codes(name: str, model: Family) -> Extractor:
    """The points of the posterior of each row, all groups side by side."""
    if model.values:
        raise NotSupportedError("these codes are discrete, and distances between them mean nothing; choose `raw`.")

    def encode(raw: Tensor) -> Tensor:
        return torch.cat([codes.flatten(1) for codes in use.encode(model, raw.to(torch.float32)).values()], dim=1)

    return Extractor(name, hash_of(model), encode)


def _onnx(path: Path, spec: DataSpec) -> Extractor:
    """The first output of a network of one input: values from 0 to 1, as floats; maps are averaged over places."""
    network = OnnxNetwork(path)

    def run(raw: Tensor) -> Tensor:
        found = network(_unit_range(raw, spec))[network.outputs[0]]
        if found.ndim < 2 or len(found) != len(raw):
            raise DataError(
                f"{path} makes features of shape {list(found.shape)} of {len(raw)} rows; one line a row is needed."
            )
        return found.flatten(2).mean(dim=2) if found.ndim > 2 else found

    return Extractor(path.stem, sha256(path), run)


def _weights(path: Path, spec: DataSpec) -> Extractor:
    """The deepest features of AlexNet or VGG-16, averaged over places; grey images are taken as colour."""
    network = PictureNetwork(read_tensors(path), str(path))
    if len(spec.event) != 3 or spec.event[0] not in (1, 3):
        raise NotSupportedError(f"{path} takes grey or colour images, and these rows have shape {list(spec.event)}.")

    def run(raw: Tensor) -> Tensor:
        x = 2 * _unit_range(raw, spec) - 1
        return network(x.expand(-1, 3, -1, -1))[-1].flatten(2).mean(dim=2)

    return Extractor(path.stem, sha256(path), torch.no_grad()(run))


def _unit_range(raw: Tensor, spec: DataSpec) -> Tensor:
    return raw.float() / (spec.levels - 1) if spec.levels else raw.float()
