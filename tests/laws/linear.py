"""A model whose exact posterior is known."""

from __future__ import annotations

import math

import torch

from lowerbound.model.build import build_model
from lowerbound.model.conditionals.posteriors import LOGVAR_RANGE
from lowerbound.model.families.family import Family
from lowerbound.model.spec import DataSpec
from lowerbound.noise import generator

LINEAR = {"kind": "mlp", "widths": []}
SCALE = 1.5  # length of the decoder's columns, which are orthogonal


def exact_linear_vae(data: int, latent: int, sigma: float) -> Family:
    """A linear VAE in double precision, x ~ N(Wz + b, sigma^2), whose q(z|x) is the exact posterior.

    Args:
        data, latent: sizes.
        sigma: standard deviation of the noise.
    """
    table = {
        "kind": "vae",
        "latent": latent,
        "posterior": {"kind": "gaussian"},
        "encoder": LINEAR,
        "decoder": LINEAR,
        "likelihood": {"kind": "gaussian-fixed", "sigma": sigma},
    }
    built = build_model(table, DataSpec((data,)), 0).double().eval()
    decoder = built.get_submodule("decoder.layers.0")
    weight, bias = decoder.get_parameter("weight"), decoder.get_parameter("bias")
    with torch.no_grad():
        weight.copy_(torch.linalg.qr(torch.randn(data, latent, generator=generator(0)).double()).Q * SCALE)
        precision = 1 + SCALE**2 / sigma**2  # of each unit, for the columns are orthogonal
        encoder = built.get_submodule("encoder.layers.0")
        mean = weight.T / sigma**2 / precision
        encoder.get_parameter("weight").copy_(torch.cat([mean, torch.zeros_like(mean)]))
        wanted, low = -math.log(precision), LOGVAR_RANGE[0]
        raw = wanted * low / (low - wanted)  # which `softly_bounded` maps to what is wanted
        encoder.get_parameter("bias").copy_(torch.cat([-mean @ bias, torch.full((latent,), raw, dtype=torch.float64)]))
    return built
