"""Autoencoders and pictures of others: the same suite judges them.

A foreign autoencoder becomes a `Family` without a likelihood: it has codes, reconstructions and, where its posterior is
a Gaussian or discrete, a rate; it has no bound. What is loaded are tensors and graphs; nothing is executed, nothing is
downloaded.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution

from lowerbound.errors import DataError, NotSupportedError, UsageError
from lowerbound.extras import need
from lowerbound.files import read_json
from lowerbound.lab.onnx import OnnxNetwork
from lowerbound.model.conditionals.preparation import Preparation
from lowerbound.model.distributions import tree
from lowerbound.model.distributions.codes import Codes
from lowerbound.model.distributions.delta import Delta
from lowerbound.model.evidence import Evidence, Latent
from lowerbound.model.families.family import Family, Latents
from lowerbound.model.spec import Context, DataSpec
from lowerbound.noise import Noise

Scale = Literal["raw", "unit", "symmetric"]
ENCODE, DECODE = ("encode.onnx", "encoder.onnx"), ("decode.onnx", "decoder.onnx")


class Rescaled(Preparation):
    """Values of L levels as a network of others wants them: as they are, on [0, 1], or on [-1, 1].

    Args:
        data: facts about the data.
        scale: which of them.
    """

    def __init__(self, data: DataSpec, scale: Scale) -> None:
        super().__init__(data)
        top = float(data.levels - 1) if data.levels else 1.0
        self.factor, self.offset = {"raw": (1.0, 0.0), "unit": (1 / top, 0.0), "symmetric": (2 / top, -1.0)}[scale]
        self.top = top if data.levels else None

    def prepare(self, raw: Tensor, noise: Noise | None) -> Tensor:
        return raw.float() * self.factor + self.offset

    def restore(self, x: Tensor) -> Tensor:
        raw = (x - self.offset) / self.factor
        return raw if self.top is None else raw.clamp(0, self.top)

    @property
    def log_jacobian(self) -> float:
        raise NotSupportedError("an autoencoder without a likelihood has no density of its data.")


class Foreign(Family):
    """An autoencoder of others.

    Args:
        data: facts about the data.
        scale: of the values that it takes and gives.
    """

    roles = {}  # noqa: RUF012

    def __init__(self, data: DataSpec, scale: Scale) -> None:
        super().__init__()
        self.data, self.scaling = data, Rescaled(data, scale)

    @property
    def preparation(self) -> Preparation:
        return self.scaling

    @abstractmethod
    def posteriors(self, x: Tensor) -> dict[str, Distribution]:
        """q(z|x) of each group of codes, batch shape (B,)."""

    def priors(self) -> dict[str, Distribution]:
        """p(z) of each group; a measure without a density where nothing is known of it."""
        return {name: Delta(torch.zeros(shape), len(shape)) for name, shape in self.latents.items()}

    @abstractmethod
    def restored(self, latents: Latents) -> Tensor:
        """x of codes, (B, *event)."""

    def evidence(self, x: Tensor, context: Context | None, noise: Noise, samples: int = 1) -> Evidence:
        priors = self.priors()
        latents = {
            name: Latent.drawn(q, priors[name], noise.child(name), samples) for name, q in self.posteriors(x).items()
        }
        return Evidence(x=x, context=context, distortion=None, latents=latents)

    def encode(self, x: Tensor, context: Context | None = None, noise: Noise | None = None) -> Latents:
        if noise is None:
            return {name: tree.point(q) for name, q in self.posteriors(x).items()}
        return {name: tree.draw(q, noise.child(name))[0][0] for name, q in self.posteriors(x).items()}

    def decode(self, latents: Latents, context: Context | None = None) -> Distribution:
        return Delta(self.restored(latents), len(self.data.event))

    def sample(self, noise: Noise, context: Context | None = None) -> Distribution:
        drawn = {}
        for name, p in self.priors().items():
            if not tree.has_density(p):
                raise NotSupportedError("nothing is known of this autoencoder's prior, so it cannot make samples.")
            drawn[name] = tree.draw(p, noise.child(name))[0][0]
        return self.decode(drawn)

    @torch.no_grad()
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Of each group, from one row of zeros."""
        blank = self.scaling.prepare(torch.zeros(1, *self.data.event), None)
        return {name: tuple(q.event_shape) for name, q in self.posteriors(blank).items()}


class DiffusersTiny(Foreign):
    """`AutoencoderTiny` of diffusers: a deterministic code.

    Args:
        data: facts about the data.
        network: the loaded network.
    """

    def __init__(self, data: DataSpec, network: nn.Module) -> None:
        super().__init__(data, "symmetric")
        self.network: Any = network
        self.latents = self._shapes()

    def posteriors(self, x: Tensor) -> dict[str, Distribution]:
        codes = self.network.encode(x).latents
        return {"z": Delta(codes, codes.ndim - 1)}

    def restored(self, latents: Latents) -> Tensor:
        made: Tensor = self.network.decode(latents["z"]).sample
        return made


class DiffusersKL(DiffusersTiny):
    """`AutoencoderKL` of diffusers: a Gaussian posterior, a standard normal prior."""

    def posteriors(self, x: Tensor) -> dict[str, Distribution]:
        q = self.network.encode(x).latent_dist
        return {"z": tree.diagonal_normal(q.mean, q.logvar, q.mean.ndim - 1)}

    def priors(self) -> dict[str, Distribution]:
        zeros = torch.zeros(self.latents["z"], device=next(self.parameters()).device)
        return {"z": tree.diagonal_normal(zeros, zeros, zeros.ndim)}


class DiffusersVQ(Foreign):
    """`VQModel` of diffusers: one code per place, with certainty, and a uniform prior.

    Args:
        data: facts about the data.
        network: the loaded network.
        size: of its codebook.
    """

    def __init__(self, data: DataSpec, network: nn.Module, size: int) -> None:
        super().__init__(data, "symmetric")
        self.network: Any = network
        self.values = {"codes": size}
        self.latents = self._shapes()

    def posteriors(self, x: Tensor) -> dict[str, Distribution]:
        h = self.network.encode(x).latents
        indices = self.network.quantize(h)[2][2]
        return {"codes": Codes(indices.reshape(len(x), *h.shape[2:]), h.ndim - 2)}

    def priors(self) -> dict[str, Distribution]:
        logits = torch.zeros(*self.latents["codes"], self.values["codes"], device=next(self.parameters()).device)
        return {"codes": tree.independent(Categorical(logits=logits), len(self.latents["codes"]))}

    def restored(self, latents: Latents) -> Tensor:
        codes = latents["codes"].long()
        vectors = self.network.quantize.embedding(codes).movedim(-1, 1)
        made: Tensor = self.network.decode(vectors, force_not_quantize=True).sample
        return made


class OnnxPair(Foreign):
    """An encoder and a decoder in ONNX.

    The codes are those outputs of the first that the second names as its inputs, or else all outputs in order.

    Args:
        data: facts about the data.
        encode, decode: files.
        scale: of the values that they take and give.
    """

    def __init__(self, data: DataSpec, encode: Path, decode: Path, scale: Scale) -> None:
        super().__init__(data, scale)
        self._encode, self._decode = OnnxNetwork(encode), OnnxNetwork(decode)
        self.latents = self._shapes()

    def posteriors(self, x: Tensor) -> dict[str, Distribution]:
        found, named = self._encode(x), self._decode.inputs
        codes = {name: found[name] for name in named} if set(named) <= set(found) else found
        return {name: Delta(each, each.ndim - 1) for name, each in codes.items()}

    def restored(self, latents: Latents) -> Tensor:
        return self._decode(*latents.values())[self._decode.outputs[0]]


DIFFUSERS: dict[str, Callable[[DataSpec, nn.Module, dict[str, Any]], Foreign]] = {
    "AutoencoderKL": lambda data, network, config: DiffusersKL(data, network),
    "VQModel": lambda data, network, config: DiffusersVQ(data, network, config["num_vq_embeddings"]),
    "AutoencoderTiny": lambda data, network, config: DiffusersTiny(data, network),
}


def open_autoencoder(path: Path, data: DataSpec, scale: Scale = "raw") -> Foreign:
    """The autoencoder of a folder: of diffusers (`config.json` and weights in safetensors), or a pair in ONNX.

    Args:
        path: of the folder.
        data: facts about the data that it is to be used on.
        scale: of the values that a pair in ONNX takes and gives; those of diffusers are on [-1, 1].

    Raises:
        UsageError: there is no such autoencoder.
        DataError: files that are broken, or data that do not fit it.
    """
    blank = torch.zeros(1, *data.event)
    try:
        found = _opened(path, data, scale)
        with torch.no_grad():
            made = found.restored(found.encode(found.preparation.prepare(blank, None)))
    except RuntimeError as error:  # what a network says of shapes that it cannot take
        reason = str(error).splitlines()[0]
        raise DataError(f"{path} does not take rows of shape {list(data.event)}: {reason}") from None
    if made.shape != blank.shape:
        raise DataError(
            f"{path} makes rows of shape {list(made.shape[1:])} of rows of shape {list(data.event)}: give it a size "
            "that its layers divide (often a multiple of 8)."
        )
    return found


def _opened(path: Path, data: DataSpec, scale: Scale) -> Foreign:
    if (path / "config.json").is_file():
        return _of_diffusers(path, data)
    pair = [next((path / name for name in names if (path / name).is_file()), None) for names in (ENCODE, DECODE)]
    if pair[0] is None or pair[1] is None:
        raise UsageError(
            f"{path} is neither a run, nor a folder of diffusers (config.json), nor a pair in ONNX ({ENCODE[0]} and "
            f"{DECODE[0]}), nor a folder of pictures."
        )
    return OnnxPair(data, pair[0], pair[1], scale).eval()


def _of_diffusers(path: Path, data: DataSpec) -> Foreign:
    module = need("diffusers", "diffusers", str(path))
    config = read_json(path / "config.json")
    name = config.get("_class_name") if isinstance(config, dict) else None
    if name not in DIFFUSERS:
        raise UsageError(f"{path} is a {name} of diffusers; those that can be judged are {', '.join(DIFFUSERS)}.")
    if len(data.event) != 3 or data.event[0] != config.get("in_channels", 3):
        raise DataError(
            f"{path} takes images with {config.get('in_channels', 3)} channels; these data are {data.event}."
        )
    try:
        network = getattr(module, name).from_pretrained(
            path, local_files_only=True, use_safetensors=True, low_cpu_mem_usage=False
        )
    except Exception as error:  # missing, truncated and mismatched files each raise a kind of their own
        raise DataError(f"{path} cannot be loaded: {str(error).splitlines()[0]}") from None
    return DIFFUSERS[name](data, network.eval().requires_grad_(False), config).eval()
