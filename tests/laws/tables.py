"""One table per kind of part: whoever adds a part adds a row, and all laws run over it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import (
    Bernoulli,
    Categorical,
    Distribution,
    Independent,
    Laplace,
    MixtureSameFamily,
    Normal,
    StudentT,
)

from lowerbound.kinds import Part
from lowerbound.model.build import build_model, build_objective
from lowerbound.model.conditionals.pixels import ChannelHeads
from lowerbound.model.distributions.autoregressive import AutoregressiveTokens
from lowerbound.model.distributions.autoregressive_mixture import AutoregressiveMixture
from lowerbound.model.distributions.cloud import Cloud
from lowerbound.model.distributions.codes import Codes
from lowerbound.model.distributions.columns import ColumnProduct
from lowerbound.model.distributions.continuous_bernoulli import ContinuousBernoulli
from lowerbound.model.distributions.counts import NegativeBinomial, ZeroInflatedNegativeBinomial
from lowerbound.model.distributions.delta import Delta
from lowerbound.model.distributions.diffusing.predictions import PredictNoise
from lowerbound.model.distributions.diffusion import DiffusionDensity, Process
from lowerbound.model.distributions.flow import Flow
from lowerbound.model.distributions.full_normal import FullNormal
from lowerbound.model.distributions.logistic_mixture import LogisticMixture, PixelLogisticMixture
from lowerbound.model.distributions.occupancy import Occupancy
from lowerbound.model.distributions.pixel_categorical import PixelCategorical
from lowerbound.model.distributions.raster import Raster
from lowerbound.model.distributions.ring import Ring
from lowerbound.model.distributions.tree import diagonal_normal, independent
from lowerbound.model.distributions.von_mises_fisher import SphereUniform, VonMisesFisher
from lowerbound.model.families.density import Density
from lowerbound.model.families.family import Family
from lowerbound.model.families.stack import Stack
from lowerbound.model.networks import (
    attention,
    clips,
    convolutional,
    fourier,
    gated,
    glimpses,
    masking,
    mlp,
    moving,
    points,
    radiance,
    residual,
    sequence,
    style,
    unet,
)
from lowerbound.model.networks.bijections.autoregressive import (
    InverseAutoregressive,
    MaskedAutoregressive,
    MaskedMLP,
)
from lowerbound.model.networks.bijections.bijection import Bijection, Chain, Place
from lowerbound.model.networks.bijections.couplings import AdditiveCoupling, Coupling, SplineCoupling
from lowerbound.model.networks.low_rank import LowRankUpdate
from lowerbound.model.networks.network import Network, Ports
from lowerbound.model.objectives.objective import Objective
from lowerbound.model.spec import Column, Context, DataSpec, Outside
from lowerbound.noise import generator

ROWS = 6
Table = dict[str, Any]

DIGITS = DataSpec(event=(1, 8, 8), levels=17, examples=1000)
LABELLED = DataSpec(event=(1, 8, 8), levels=17, context=3, examples=1000)
CAPTIONED = DataSpec(event=(1, 8, 8), levels=17, context=3, examples=1000, words=("", "red", "circle"))
POINTS = DataSpec(event=(2,), examples=1000)
TEXT = DataSpec(event=(7,), levels=5, examples=1000)
COLOUR = DataSpec(event=(3, 4, 4), levels=256, examples=1000)
CLOUDS = DataSpec(event=(5, 3), examples=1000, geometry="cloud")
QUERIES = DataSpec(event=(5, 4), examples=1000, geometry="queries")
COUNTS = DataSpec(event=(3,), examples=1000, columns=tuple(Column(name, "count") for name in "abc"))
TABLE = DataSpec(
    event=(7,),
    examples=1000,
    columns=(
        Column("age", "real"),
        Column("town", "category", 3),
        Column("visits", "count"),
        Column("member", "binary"),
        Column("income", "real"),
        Column("colour", "category", 4),
        Column("children", "count"),
    ),
)


def open_gates(module: nn.Module) -> None:
    """Let gates that start at 0 pass: until they move, the layers behind them have no gradient, by design."""
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, gated.Gated):
                part.gate.fill_(0.5)
            if isinstance(part, LowRankUpdate):
                part.outer.fill_(0.5)


def raw_rows(data: DataSpec, rows: int = ROWS, seed: int = 0) -> Tensor:
    """Rows as they might be stored; a fifth of a mixed table is missing."""
    source = generator(seed)
    if data.columns:
        return _table_rows(data.columns, rows, source)
    if data.geometry == "queries":
        chance = torch.rand(rows, *data.event, generator=source)
        return torch.cat([chance[..., :3] - 0.5, chance[..., 3:].round()], dim=2)
    if data.levels is None:
        return torch.randn(rows, *data.event, generator=source)
    return torch.randint(data.levels, (rows, *data.event), generator=source).to(torch.uint8)


def _table_rows(columns: tuple[Column, ...], rows: int, source: torch.Generator) -> Tensor:
    kinds: dict[str, Callable[[Column], Tensor]] = {
        "real": lambda column: 50 + 20 * torch.randn(rows, generator=source),
        "count": lambda column: torch.randint(9, (rows,), generator=source).float(),
        "category": lambda column: torch.randint(column.categories, (rows,), generator=source).float(),
        "binary": lambda column: torch.randint(2, (rows,), generator=source).float(),
    }
    values = torch.stack([kinds[column.kind](column) for column in columns], dim=1)
    if len({column.kind for column in columns}) == 1:
        return values
    missing = torch.rand(values.shape, generator=source) < 0.2
    return values.masked_fill(missing, torch.nan)


def context_rows(data: DataSpec, rows: int = ROWS) -> Context | None:
    """Labels, absent in every third row."""
    if not data.context:
        return None
    index = torch.arange(rows)
    return Context.labels(index % data.context, data.context, index % 3 != 0)


# ------------------------------------------------------------------------------------------------- distributions


@dataclass(frozen=True)
class DistributionRow:
    """A density with batch shape (4,), or () if `shared`.

    Attributes:
        make: from a seed.
        moments: whether draws have the moments that `mean` and `variance` say.
        discrete: whether draws are integers or bits.
        exact: whether `draw` returns its log-density.
    """

    make: Callable[[], Distribution]
    shared: bool = False
    moments: bool = False
    discrete: bool = False
    exact: bool = True


def _normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator(1), dtype=torch.float64)


def _tokens() -> AutoregressiveTokens:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = sequence.CausalTokens(3, 2, 4).double()
    return AutoregressiveTokens(_normal(4, 2), network, 3)


def _flow(bijection: Part[Bijection]) -> Flow:
    """A flow of two steps over three units with two features of the row."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        chain = Chain([bijection(Place((3,), 2, step)) for step in range(2)]).double()
    return Flow(diagonal_normal(_normal(4, 3), _normal(4, 3), 1), _normal(4, 2), chain)


def _masked() -> AutoregressiveMixture:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoregressiveMixture(_normal(4, 2), MaskedMLP(3, 6, 2, [8]).double(), torch.Size([3]))


def _channels() -> PixelCategorical:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return PixelCategorical(_normal(4, 3, 1, 2), ChannelHeads(2, 3, 3).double(), 2)


# Densities of whole numbers on a grid.
RASTERS: dict[str, Table] = {
    "pixelcnn": {"kind": "pixelcnn", "width": 8, "depth": 2, "kernel": 3},
    "pixelcnn-embedded": {
        "kind": "pixelcnn",
        "width": 8,
        "depth": 1,
        "kernel": 3,
        "likelihood": {"kind": "categorical", "inputs": "tokens"},
    },
    "pixelcnn-mixture": {
        "kind": "pixelcnn",
        "width": 8,
        "depth": 1,
        "kernel": 5,
        "likelihood": {"kind": "logistic-mixture-pixel", "components": 2},
    },
    "pixelcnn-channels": {
        "kind": "pixelcnn",
        "width": 8,
        "depth": 1,
        "kernel": 3,
        "likelihood": {"kind": "categorical-pixel", "features": 8},
    },
    "transformer": {"kind": "transformer", "width": 8, "depth": 2, "heads": 2},
}


def raster(name: str, *event: int, levels: int = 3) -> Raster:
    """A density of four rows, each with a context of two numbers."""
    model = build_model({"kind": "density", "density": RASTERS[name]}, DataSpec(event, levels, 2), 1).double()
    assert isinstance(model, Density)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0)  # far from uniform
    p = model.density(None, Context.of(_normal(4, 2)))
    assert isinstance(p, Raster)
    return p


def _gaussians() -> Distribution:
    """A mixture of two Gaussians in the plane, one for each of four rows."""
    return MixtureSameFamily(
        Categorical(logits=_normal(4, 2), validate_args=False),
        diagonal_normal(_normal(4, 2, 2), _normal(4, 2, 2), 1),
        validate_args=False,
    )


def _occupancy() -> Occupancy:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Occupancy(_normal(4, 2), mlp.MLP(Ports((3,), (1,), 2), widths=[8]).double(), 3)


def _sphere(*shape: int) -> VonMisesFisher:
    mu = _normal(*shape)
    return VonMisesFisher(mu / mu.norm(dim=1, keepdim=True), torch.tensor([0.1, 2.0, 30.0, 900.0]).double())


def _ring(*event: int) -> Ring:
    return Ring(torch.tensor(1.0).double(), torch.tensor(0.8).double(), torch.Size(event))


DISTRIBUTIONS: dict[str, DistributionRow] = {
    "normal": DistributionRow(lambda: diagonal_normal(_normal(4, 3), _normal(4, 3), 1), moments=True),
    "normal-image": DistributionRow(lambda: diagonal_normal(_normal(4, 2, 2), _normal(4, 2, 2), 2), moments=True),
    "bernoulli": DistributionRow(
        lambda: independent(Bernoulli(logits=_normal(4, 3), validate_args=False), 1), moments=True, discrete=True
    ),
    "categorical": DistributionRow(
        lambda: independent(Categorical(logits=_normal(4, 3, 5), validate_args=False), 1), discrete=True
    ),
    "mixture": DistributionRow(
        lambda: MixtureSameFamily(
            Categorical(logits=_normal(5), validate_args=False),
            diagonal_normal(_normal(5, 3), _normal(5, 3), 1),
            validate_args=False,
        ),
        shared=True,
        moments=True,
    ),
    "mixture-per-pixel": DistributionRow(
        lambda: Independent(
            MixtureSameFamily(
                Categorical(logits=_normal(4, 3, 5), validate_args=False),
                Normal(_normal(4, 3, 5), _normal(4, 3, 5).exp(), validate_args=False),
                validate_args=False,
            ),
            1,
            validate_args=False,
        ),
        moments=True,
    ),
    "continuous-bernoulli": DistributionRow(
        lambda: independent(ContinuousBernoulli(5 * _normal(4, 3)), 1), moments=True
    ),
    "laplace": DistributionRow(
        lambda: independent(Laplace(_normal(4, 3), _normal(4, 3).exp(), validate_args=False), 1), moments=True
    ),
    "student-t": DistributionRow(
        lambda: independent(StudentT(10 + _normal(4, 3), _normal(4, 3), _normal(4, 3).exp(), validate_args=False), 1),
        moments=True,
    ),
    "logistic-mixture": DistributionRow(
        lambda: independent(LogisticMixture(_normal(4, 3, 2), _normal(4, 3, 2), _normal(4, 3, 2) - 1, 5), 1),
        discrete=True,
    ),
    "logistic-mixture-pixel": DistributionRow(
        lambda: PixelLogisticMixture(
            _normal(4, 1, 1, 2, 3), _normal(4, 2, 1, 2, 3), _normal(4, 2, 1, 2, 3) - 1, _normal(4, 1, 1, 2, 3).tanh(), 3
        ),
        discrete=True,
    ),
    "negative-binomial": DistributionRow(
        lambda: independent(NegativeBinomial(1 + _normal(4, 3), 1 + _normal(4, 3)), 1), moments=True, discrete=True
    ),
    "zero-inflated": DistributionRow(
        lambda: independent(ZeroInflatedNegativeBinomial(_normal(4, 3), 1 + _normal(4, 3), 1 + _normal(4, 3)), 1),
        moments=True,
        discrete=True,
    ),
    "columns": DistributionRow(
        lambda: ColumnProduct(
            (Normal(_normal(4, 2), _normal(4, 2).exp()), Categorical(logits=_normal(4, 1, 3))), ((0, 2), (1,))
        )
    ),
    "full-normal": DistributionRow(
        lambda: FullNormal(_normal(4, 3), _normal(4, 3, 3).tril(-1) + 0.5 * torch.eye(3).double()), moments=True
    ),
    "full-normal-image": DistributionRow(
        lambda: FullNormal(_normal(4, 1, 2, 2), _normal(4, 4, 4).tril(-1) + 0.5 * torch.eye(4).double()), moments=True
    ),
    "coupling": DistributionRow(lambda: _flow(Part(Coupling, network=Part(mlp.MLP, widths=[8])))),
    "additive-coupling": DistributionRow(lambda: _flow(Part(AdditiveCoupling, network=Part(mlp.MLP, widths=[8])))),
    "spline-coupling": DistributionRow(lambda: _flow(Part(SplineCoupling, bins=3, network=Part(mlp.MLP, widths=[8])))),
    "inverse-autoregressive": DistributionRow(lambda: _flow(Part(InverseAutoregressive, widths=[8]))),
    "masked-autoregressive": DistributionRow(lambda: _flow(Part(MaskedAutoregressive, widths=[8]))),
    "autoregressive-mixture": DistributionRow(_masked),
    "von-mises-fisher-circle": DistributionRow(lambda: _sphere(4, 2), moments=True),
    "von-mises-fisher": DistributionRow(lambda: _sphere(4, 3), moments=True),
    "von-mises-fisher-9": DistributionRow(lambda: _sphere(4, 9), moments=True),
    "uniform-sphere": DistributionRow(lambda: SphereUniform(torch.zeros(3).double()), shared=True, moments=True),
    "ring": DistributionRow(lambda: _ring(2), shared=True, moments=True),
    "ring-in-space": DistributionRow(lambda: _ring(1, 2, 2), shared=True, moments=True),
    "codes": DistributionRow(lambda: Codes(torch.arange(8).reshape(4, 2), 1), discrete=True),
    "delta": DistributionRow(lambda: Delta(_normal(4, 3), 1), exact=False),
    "tokens": DistributionRow(_tokens, discrete=True),
    "categorical-pixel": DistributionRow(_channels, discrete=True),
    "pixelcnn": DistributionRow(lambda: raster("pixelcnn", 1, 2, 2), discrete=True),
    "pixelcnn-embedded": DistributionRow(lambda: raster("pixelcnn-embedded", 2, 2), discrete=True),
    "pixelcnn-mixture": DistributionRow(lambda: raster("pixelcnn-mixture", 2, 2, 1), discrete=True),
    "pixelcnn-channels": DistributionRow(lambda: raster("pixelcnn-channels", 2, 1, 2), discrete=True),
    "transformer": DistributionRow(lambda: raster("transformer", 2, 2, 1), discrete=True),
    "cloud": DistributionRow(lambda: Cloud(_gaussians(), 3)),
    "cloud-flow": DistributionRow(lambda: Cloud(_flow(Part(Coupling, network=Part(mlp.MLP, widths=[8]))), 2)),
    "occupancy": DistributionRow(_occupancy),
    "diffusion": DistributionRow(
        lambda: DiffusionDensity(
            None,
            None,
            lambda x, h, c, level: PredictNoise().guess(0.5 * x, x, level),
            Process(torch.Size([3]), steps=5),
        ),
        shared=True,
        exact=False,
    ),
    "diffusion-features": DistributionRow(
        lambda: DiffusionDensity(
            _normal(4, 3),
            _normal(4, 1),
            lambda x, h, c, level: PredictNoise().guess(0.5 * x + h + c, x, level),
            Process(torch.Size([3]), steps=5),
        ),
        exact=False,
    ),
}

# ------------------------------------------------------------------------------------------------------ networks

NETWORKS: dict[str, tuple[Callable[[Ports], Network], Ports]] = {
    "mlp": (lambda p: mlp.MLP(p, widths=[8]), Ports((1, 4, 4), (3, 2))),
    "mlp-context": (lambda p: mlp.MLP(p, widths=[8]), Ports((5,), (3,), 4)),
    "mlp-linear": (lambda p: mlp.MLP(p, widths=[]), Ports((5,), (3,))),
    "convolutional-down": (lambda p: convolutional.ConvolutionalDown(p, widths=[4, 8]), Ports((3, 9, 7), (5,))),
    "convolutional-down-context": (
        lambda p: convolutional.ConvolutionalDown(p, widths=[4]),
        Ports((1, 8, 8), (2, 2, 2), 4),
    ),
    "convolutional-up": (lambda p: convolutional.ConvolutionalUp(p, widths=[8, 4]), Ports((5,), (3, 9, 7))),
    "convolutional-up-context": (
        lambda p: convolutional.ConvolutionalUp(p, widths=[8]),
        Ports((2, 2, 2), (1, 8, 8), 4),
    ),
    "mlp-dropout": (lambda p: mlp.MLP(p, widths=[8, 8], dropout=0.5), Ports((5,), (3,))),
    "residual": (lambda p: residual.ResidualMLP(p, width=8, depth=2), Ports((1, 4, 4), (3, 2))),
    "residual-context": (lambda p: residual.ResidualMLP(p, width=8, dropout=0.5), Ports((5,), (3,), 4)),
    "skip-mlp": (lambda p: residual.SkipMLP(p, widths=[8, 6]), Ports((5,), (3, 2))),
    "skip-mlp-context": (lambda p: residual.SkipMLP(p, widths=[8, 8], dropout=0.5), Ports((5,), (3,), 4)),
    "residual-down": (lambda p: residual.ResidualDown(p, widths=[4, 6, 8]), Ports((3, 9, 7), (5,))),
    "residual-down-context": (lambda p: residual.ResidualDown(p, widths=[4]), Ports((1, 8, 8), (2, 2, 2), 4)),
    "residual-up": (lambda p: residual.ResidualUp(p, widths=[8, 6, 4], depth=2), Ports((5,), (3, 9, 7))),
    "residual-up-context": (
        lambda p: residual.ResidualUp(p, widths=[8, 4], dropout=0.5),
        Ports((2, 2, 2), (1, 8, 8), 4),
    ),
    "convolutional-down-signal-context": (
        lambda p: convolutional.ConvolutionalDown(p, widths=[4, 8], dropout=0.5),
        Ports((2, 9), (5,), 4),
    ),
    "convolutional-up-video-context": (
        lambda p: convolutional.ConvolutionalUp(p, widths=[4, 4], dropout=0.5),
        Ports((5,), (3, 3, 5, 4), 4),
    ),
    "residual-down-video": (lambda p: residual.ResidualDown(p, widths=[4, 6]), Ports((3, 4, 5, 6), (2, 2))),
    "residual-up-signal": (lambda p: residual.ResidualUp(p, widths=[6, 4], dropout=0.5), Ports((2, 2), (3, 9))),
    "gated": (lambda p: gated.GatedMLP(p, width=8, depth=2), Ports((1, 4, 4), (3, 2))),
    "gated-context": (lambda p: gated.GatedMLP(p, width=8, dropout=0.5), Ports((5,), (3,), 4)),
    "gated-grid-down": (lambda p: gated.GatedGrid(p, width=8, inner=4, depth=2), Ports((3, 9, 7), (5, 3, 2))),
    "gated-grid-up": (lambda p: gated.GatedGrid(p, width=8, inner=4), Ports((5, 3, 2), (3, 9, 7))),
    "gated-grid-up-context": (lambda p: gated.GatedGrid(p, width=8, dropout=0.5), Ports((2, 1, 1), (4, 8, 8), 4)),
    "gated-grid-video": (lambda p: gated.GatedGrid(p, width=4, inner=4), Ports((2, 3, 4, 5), (3, 3, 4, 5))),
    "gated-grid-signal": (lambda p: gated.GatedGrid(p, width=4, inner=4), Ports((2, 9), (3, 5))),
    "attention-down": (lambda p: attention.AttentionDown(p, width=8, heads=2), Ports((3, 8, 4), (5,))),
    "attention-down-context": (lambda p: attention.AttentionDown(p, width=8), Ports((1, 8, 8), (2, 2, 2), 4)),
    "attention-down-tokens": (lambda p: attention.AttentionDown(p, width=8), Ports((6,), (3,), 0, 5)),
    "attention-up": (lambda p: attention.AttentionUp(p, width=8, heads=2), Ports((5,), (3, 8, 4))),
    "attention-up-context": (lambda p: attention.AttentionUp(p, width=8), Ports((2, 2, 2), (1, 8, 8), 4)),
    "masking-context": (lambda p: masking.Masking(p, network=Part(mlp.MLP, widths=[8])), Ports((5,), (3,), 4)),
    "moving-context": (lambda p: moving.Moving(p, network=Part(mlp.MLP, widths=[8])), Ports((2, 6, 5), (3,), 4)),
    "convolutional-down-dropout": (
        lambda p: convolutional.ConvolutionalDown(p, widths=[4, 8], dropout=0.5),
        Ports((3, 9, 7), (5,)),
    ),
    "convolutional-up-dropout": (
        lambda p: convolutional.ConvolutionalUp(p, widths=[8, 4], dropout=0.5),
        Ports((5,), (3, 9, 7)),
    ),
    "unet": (lambda p: unet.UNet(p, widths=[4, 8], dropout=0.5), Ports((3, 9, 7), (2, 9, 7))),
    "unet-context": (
        lambda p: unet.UNet(p, widths=[4, 8], depth=2, attention=[0, 1], heads=2),
        Ports((1, 8, 8), (1, 8, 8), 4),
    ),
    "unet-tokens-context": (
        lambda p: unet.UNet(p, widths=[4, 8], tokens=3, token_width=2),
        Ports((1, 6, 6), (1, 6, 6), 9),
    ),
    "unet-signal-context": (lambda p: unet.UNet(p, widths=[4, 8, 8], attention=[]), Ports((2, 9), (2, 9), 4)),
    "unet-video-context": (lambda p: unet.UNet(p, widths=[4, 4]), Ports((1, 3, 5, 4), (1, 3, 5, 4), 4)),
    "points": (lambda p: points.PointEncoder(p, widths=[8, 8], width=8), Ports((5, 3), (2, 2))),
    "points-context": (lambda p: points.PointEncoder(p, widths=[8], width=8), Ports((5, 4), (3,), 4)),
    "queries": (lambda p: points.QueryEncoder(p, widths=[8], width=8), Ports((5, 4), (2, 2))),
    "queries-context": (lambda p: points.QueryEncoder(p, widths=[8], width=8), Ports((5, 4), (3,), 4)),
    "modulated": (lambda p: mlp.ModulatedMLP(p, widths=[6, 5]), Ports((2, 3), (3,))),
    "modulated-context": (lambda p: mlp.ModulatedMLP(p, widths=[6, 5]), Ports((2, 3), (3,), 4)),
    "clip-down": (lambda p: clips.ClipDown(p, widths=[4, 6]), Ports((2, 3, 9, 6), (3, 3, 3, 2))),
    "clip-down-context": (lambda p: clips.ClipDown(p, widths=[4], reach=1), Ports((1, 3, 4, 4), (2, 3, 2, 2), 4)),
    "clip-up": (lambda p: clips.ClipUp(p, widths=[6, 4]), Ports((3, 3, 3, 2), (2, 3, 9, 6))),
    "clip-up-context": (lambda p: clips.ClipUp(p, widths=[4], reach=1), Ports((2, 3, 2, 2), (1, 3, 4, 4), 4)),
    "clip-glimpse": (lambda p: glimpses.ClipGlimpse(p, side=3), Ports((2, 3, 5, 6), (18, 3, 1, 1))),
    "clip-glimpse-context": (lambda p: glimpses.ClipGlimpse(p, side=4), Ports((1, 2, 4, 4), (14, 2, 1, 1), 4)),
    "clip-sprite": (lambda p: glimpses.ClipSprite(p, side=3), Ports((18, 3, 1, 1), (2, 3, 5, 6))),
    "clip-sprite-context": (lambda p: glimpses.ClipSprite(p, side=4), Ports((14, 2, 1, 1), (1, 2, 4, 4), 4)),
    "clip-attention": (lambda p: clips.ClipAttention(p, width=8, depth=2), Ports((2, 3, 4, 5), (2, 3, 4, 5))),
    "clip-attention-context": (lambda p: clips.ClipAttention(p, width=8), Ports((2, 3, 4, 4), (2, 3, 4, 4), 4)),
    "clip-attention-given-context": (
        lambda p: clips.ClipAttention(p, width=8, given=True),
        Ports((2, 3, 2, 2), (2, 3, 2, 2), 4 + 24 + 3 + 1),
    ),
    "clip-transformer": (lambda p: clips.ClipTransformer(p, width=8), Ports((2, 3, 4, 6), (2, 3, 4, 6))),
    "clip-transformer-context": (
        lambda p: clips.ClipTransformer(p, width=8, depth=2, patch=1),
        Ports((1, 3, 3, 2), (1, 3, 3, 2), 4),
    ),
    "clip-transformer-given-context": (
        lambda p: clips.ClipTransformer(p, width=8, given=True),
        Ports((2, 3, 2, 2), (2, 3, 2, 2), 4 + 24 + 3 + 1),
    ),
    "radiance-field": (lambda p: radiance.RadianceField(p, grid=4, samples=6), Ports((3,), (2, 5, 5))),
    "tokens": (lambda p: sequence.TokenEncoder(p, width=4), Ports((6,), (3,), 0, 5)),
    "tokens-context": (lambda p: sequence.TokenEncoder(p, width=4), Ports((6,), (3,), 4, 5)),
    "fourier-context": (
        lambda p: fourier.FourierFeatures(p, network=Part(mlp.MLP, widths=[8]), waves=4),
        Ports((2, 3), (3,), 4),
    ),
    "style": (lambda p: style.StyleUp(p, widths=[6, 4], mapping=[8], style=5), Ports((88,), (2, 8, 8))),
    "style-context": (lambda p: style.StyleUp(p, widths=[6, 4], mapping=[8], style=5), Ports((50,), (1, 7, 5), 4)),
}

# --------------------------------------------------------------------------------------------------- conditionals

POSTERIORS: dict[str, Table] = {
    "gaussian": {"kind": "gaussian"},
    "gaussian-full": {"kind": "gaussian-full"},
    "inverse-autoregressive": {"kind": "inverse-autoregressive", "widths": [8], "features": 3},
    "coupling": {"kind": "coupling", "steps": 2, "features": 3, "network": {"kind": "mlp", "widths": [8]}},
    "von-mises-fisher": {"kind": "von-mises-fisher"},
    "deterministic": {"kind": "deterministic"},
}
BIJECTIONS: dict[str, Table] = {
    "coupling": {"kind": "coupling", "network": {"kind": "mlp", "widths": [8]}},
    "additive": {"kind": "additive", "network": {"kind": "mlp", "widths": [8]}},
    "spline": {"kind": "spline", "bins": 3, "network": {"kind": "mlp", "widths": [8]}},
    "masked-autoregressive": {"kind": "masked-autoregressive", "widths": [8]},
    "inverse-autoregressive": {"kind": "inverse-autoregressive", "widths": [8]},
    "continuous": {"kind": "continuous", "steps": 4, "network": {"kind": "mlp", "widths": [8], "activation": "tanh"}},
    "glow": {"kind": "glow", "levels": 2, "depth": 1, "network": {"kind": "gated-grid", "width": 8, "inner": 4}},
}
PRIORS: dict[str, tuple[Table, DataSpec]] = {
    "standard": ({"kind": "standard"}, DIGITS),
    "mixture": ({"kind": "mixture", "components": 3}, DIGITS),
    "vamp": ({"kind": "vamp", "components": 3}, DIGITS),
    "context": ({"kind": "context"}, LABELLED),
    "flow": ({"kind": "flow", "steps": 2, "bijection": BIJECTIONS["coupling"]}, DIGITS),
    "flow-context": ({"kind": "flow", "steps": 2, "bijection": BIJECTIONS["coupling"]}, LABELLED),
    "flow-spline": ({"kind": "flow", "steps": 2, "bijection": BIJECTIONS["spline"]}, DIGITS),
    "autoregressive": ({"kind": "autoregressive", "components": 3, "widths": [8]}, DIGITS),
    "autoregressive-context": ({"kind": "autoregressive", "components": 3, "widths": [8]}, LABELLED),
    "uniform-sphere": ({"kind": "uniform-sphere"}, DIGITS),
    "ring": ({"kind": "ring", "radius": 1.5}, DIGITS),
    "diffusion": ({"kind": "diffusion", "steps": 5, "network": {"kind": "mlp", "widths": [8]}}, DIGITS),
}
LIKELIHOODS: dict[str, tuple[Table, DataSpec]] = {
    "bernoulli": ({"kind": "bernoulli"}, DIGITS),
    "bernoulli-threshold": ({"kind": "bernoulli", "binarisation": "threshold"}, DIGITS),
    "gaussian-fixed": ({"kind": "gaussian-fixed", "sigma": 0.3}, POINTS),
    "gaussian": ({"kind": "gaussian"}, POINTS),
    "gaussian-channel": ({"kind": "gaussian", "per": "channel"}, POINTS),
    "gaussian-pixel": ({"kind": "gaussian-pixel"}, POINTS),
    "gaussian-optimal": ({"kind": "gaussian-optimal"}, POINTS),
    "gaussian-images": ({"kind": "gaussian"}, DIGITS),
    "tokens": ({"kind": "tokens", "features": 4, "width": 4}, TEXT),
    "gaussian-standard": ({"kind": "gaussian", "per": "channel", "scaling": "standard"}, POINTS),
    "gaussian-optimal-standard": ({"kind": "gaussian-optimal", "scaling": "standard"}, DIGITS),
    "continuous-bernoulli": ({"kind": "continuous-bernoulli"}, DIGITS),
    "laplace": ({"kind": "laplace"}, POINTS),
    "laplace-standard": ({"kind": "laplace", "per": "channel", "scaling": "standard"}, DIGITS),
    "student-t": ({"kind": "student-t", "per": "channel"}, POINTS),
    "logistic-mixture": ({"kind": "logistic-mixture", "components": 3}, COLOUR),
    "logistic-mixture-pixel": ({"kind": "logistic-mixture-pixel", "components": 3}, COLOUR),
    "bag-of-words": ({"kind": "bag-of-words", "features": 4, "width": 4}, TEXT),
    "categorical": ({"kind": "categorical"}, DIGITS),
    "categorical-tokens": ({"kind": "categorical", "inputs": "tokens"}, TEXT),
    "negative-binomial": ({"kind": "negative-binomial"}, COUNTS),
    "zero-inflated": ({"kind": "zero-inflated"}, COUNTS),
    "table": ({"kind": "table"}, TABLE),
    "table-of-counts": ({"kind": "table"}, COUNTS),
    "categorical-pixel": ({"kind": "categorical-pixel", "features": 8}, COLOUR),
    "diffusion": ({"kind": "diffusion", "steps": 5, "network": {"kind": "mlp", "widths": [8]}}, POINTS),
    "pixelcnn": ({"kind": "pixelcnn", "features": 4, "width": 4, "depth": 1}, DIGITS),
    "cloud-mixture": ({"kind": "cloud-mixture", "components": 3}, CLOUDS),
    "cloud-flow": ({"kind": "cloud-flow", "features": 4, "steps": 2, "bijection": BIJECTIONS["coupling"]}, CLOUDS),
    "occupancy": ({"kind": "occupancy", "features": 4, "network": {"kind": "mlp", "widths": [8]}}, QUERIES),
    "diffusion-images": ({"kind": "diffusion", "steps": 5, "network": {"kind": "mlp", "widths": [8]}}, DIGITS),
}

DIFFUSIONS: dict[str, tuple[Table, DataSpec]] = {
    "simple": ({"schedule": {"kind": "linear-beta"}, "steps": 20}, DIGITS),
    "v": ({"prediction": {"kind": "v"}, "weighting": {"kind": "target"}, "sampler": {"kind": "ddim"}}, LABELLED),
    "row": (
        {"prediction": {"kind": "row"}, "weighting": {"kind": "min-snr"}, "sampler": {"kind": "dpm-solver"}},
        DIGITS,
    ),
    "flow": (
        {
            "schedule": {"kind": "straight"},
            "prediction": {"kind": "velocity"},
            "weighting": {"kind": "target"},
            "sampler": {"kind": "heun"},
        },
        POINTS,
    ),
    "exploding": (
        {
            "schedule": {"kind": "exploding"},
            "prediction": {"kind": "preconditioned"},
            "weighting": {"kind": "log-normal"},
            "sampler": {"kind": "edm-heun", "churn": 0.2},
        },
        POINTS,
    ),
    "learned-variance": ({"bound": {"kind": "discrete", "steps": 20}, "weighting": {"kind": "bound"}}, DIGITS),
    "guided": ({"guidance": 2.0, "schedule": {"kind": "cosine"}}, LABELLED),
    "unet": ({"network": {"kind": "unet", "widths": [4, 4], "heads": 2}}, LABELLED),
}

LESSONS: dict[str, tuple[Table, DataSpec]] = {
    "progressive": ({"kind": "progressive", "steps": 2}, DIGITS),
    "consistency": ({"kind": "consistency", "levels": 5, "steps": 2}, LABELLED),
}

# ----------------------------------------------------------------------------------------------------- quantisers

QUANTIZERS: dict[str, Table] = {
    "ema": {"kind": "ema", "size": 8, "dimension": 4},
    "ema-rotation": {"kind": "ema", "size": 8, "dimension": 4, "start": False, "passing": {"kind": "rotation"}},
    "gradient": {"kind": "gradient", "size": 8, "dimension": 4},
    "sim-vq": {"kind": "sim-vq", "size": 8, "dimension": 4},
    "gumbel": {"kind": "gumbel", "size": 8, "dimension": 4},
    "fsq": {"kind": "fsq", "levels": [3, 2, 4]},
    "lfq": {"kind": "lfq", "bits": 3},
    "residual": {"kind": "residual", "depth": 2, "stage": {"kind": "ema", "size": 8, "dimension": 4}},
    "residual-gradient": {"kind": "residual", "depth": 3, "stage": {"kind": "gradient", "size": 4, "dimension": 4}},
}

# -------------------------------------------------------------------------------------------------------- families

GATED = {"kind": "gated-grid", "width": 8, "inner": 4}
SMALL = {"encoder": {"kind": "mlp", "widths": [16]}, "decoder": {"kind": "mlp", "widths": [16]}}


@dataclass(frozen=True)
class FamilyRow:
    """A model of some data.

    Attributes:
        table: the recipe's `model`.
        data: what it is a model of.
        bound: whether its evidence has exact densities, so that it has an importance bound.
        codes: whether it can encode and decode.
        likelihood: whether it has one; one that has none is implicit.
        stacked: the first stage's table, where the model is the second.
    """

    table: Table
    data: DataSpec
    bound: bool = True
    codes: bool = True
    likelihood: bool = True
    stacked: Table | None = None

    def make(self) -> Family:
        if self.stacked is None:
            return build_model(self.table, self.data, 0)
        first = build_model(self.stacked, self.data, 0)
        shape = next(iter(first.latents.values()))
        levels = next(iter(first.values.values()), None)
        return Stack(first, build_model(self.table, DataSpec(shape, levels, 0, self.data.examples), 0))


FAMILIES: dict[str, FamilyRow] = {
    "vae": FamilyRow({"kind": "vae", "latent": 4, **SMALL}, DIGITS),
    "vae-convolutional": FamilyRow(
        {
            "kind": "vae",
            "latent": [2, 2, 2],
            "encoder": {"kind": "convolutional-down", "widths": [4, 8]},
            "decoder": {"kind": "convolutional-up", "widths": [8, 4]},
            "likelihood": {"kind": "gaussian-optimal"},
        },
        DIGITS,
    ),
    "vae-mixture": FamilyRow({"kind": "vae", "latent": 4, "prior": {"kind": "mixture"}, **SMALL}, DIGITS),
    "vae-vamp": FamilyRow({"kind": "vae", "latent": 4, "prior": {"kind": "vamp", "components": 3}, **SMALL}, DIGITS),
    "vae-diffusion-prior": FamilyRow(
        {"kind": "vae", "latent": 4, "prior": PRIORS["diffusion"][0], **SMALL}, DIGITS, bound=False
    ),
    "vae-full": FamilyRow({"kind": "vae", "latent": 4, "posterior": POSTERIORS["gaussian-full"], **SMALL}, DIGITS),
    "vae-inverse-autoregressive": FamilyRow(
        {"kind": "vae", "latent": 4, "posterior": POSTERIORS["inverse-autoregressive"], **SMALL}, DIGITS
    ),
    "vae-coupling": FamilyRow({"kind": "vae", "latent": 4, "posterior": POSTERIORS["coupling"], **SMALL}, DIGITS),
    "vae-sphere": FamilyRow(
        {
            "kind": "vae",
            "latent": 4,
            "posterior": {"kind": "von-mises-fisher"},
            "prior": {"kind": "uniform-sphere"},
            **SMALL,
        },
        DIGITS,
    ),
    "vae-vamp-sphere": FamilyRow(
        {
            "kind": "vae",
            "latent": 4,
            "posterior": {"kind": "von-mises-fisher"},
            "prior": {"kind": "vamp", "components": 3},
            **SMALL,
        },
        DIGITS,
    ),
    "vae-ring": FamilyRow({"kind": "vae", "latent": 4, "prior": {"kind": "ring"}, **SMALL}, DIGITS),
    "vae-flow-prior": FamilyRow({"kind": "vae", "latent": 4, "prior": PRIORS["flow"][0], **SMALL}, DIGITS),
    "vae-autoregressive-prior": FamilyRow(
        {"kind": "vae", "latent": 4, "prior": PRIORS["autoregressive"][0], **SMALL}, DIGITS
    ),
    "conditional-flow": FamilyRow({"kind": "vae", "latent": 4, "prior": PRIORS["flow"][0], **SMALL}, LABELLED),
    "conditional-autoregressive": FamilyRow(
        {"kind": "vae", "latent": 4, "prior": PRIORS["autoregressive"][0], **SMALL}, LABELLED
    ),
    "vae-pixel-gaussian": FamilyRow(
        {"kind": "vae", "latent": 2, "likelihood": {"kind": "gaussian-pixel"}, **SMALL}, POINTS
    ),
    "vae-table": FamilyRow({"kind": "vae", "latent": 3, "likelihood": {"kind": "table"}, **SMALL}, TABLE),
    "vae-counts": FamilyRow({"kind": "vae", "latent": 3, "likelihood": {"kind": "zero-inflated"}, **SMALL}, COUNTS),
    "vae-levels": FamilyRow(
        {"kind": "vae", "latent": 3, "likelihood": {"kind": "logistic-mixture", "components": 2}, **SMALL}, COLOUR
    ),
    "conditional": FamilyRow({"kind": "vae", "latent": 4, "prior": {"kind": "context"}, **SMALL}, LABELLED),
    "text": FamilyRow(
        {
            "kind": "vae",
            "latent": 4,
            "encoder": {"kind": "tokens", "width": 8},
            "decoder": {"kind": "mlp", "widths": [8]},
            "likelihood": {"kind": "tokens", "features": 8, "width": 8},
        },
        TEXT,
    ),
    "text-bag-of-words": FamilyRow(
        {
            "kind": "vae",
            "latent": 4,
            "encoder": {"kind": "tokens", "width": 8},
            "decoder": {"kind": "mlp", "widths": [8]},
            "likelihood": {"kind": "bag-of-words", "features": 8, "width": 8},
        },
        TEXT,
    ),
    "vae-pixelcnn-decoder": FamilyRow(
        {"kind": "vae", "latent": 4, "likelihood": LIKELIHOODS["pixelcnn"][0], **SMALL}, DIGITS
    ),
    "vae-diffusion-decoder": FamilyRow(
        {"kind": "vae", "latent": 4, "likelihood": LIKELIHOODS["diffusion"][0], **SMALL}, LABELLED, bound=False
    ),
    **{
        f"vae-{name}": FamilyRow(
            {
                "kind": "vae",
                "latent": 3,
                "likelihood": LIKELIHOODS[name][0],
                "encoder": {"kind": "points", "widths": [8], "width": 8},
                "decoder": {"kind": "mlp", "widths": [16]},
            },
            LIKELIHOODS[name][1],
        )
        for name in ("cloud-mixture", "cloud-flow", "occupancy")
    },
    "top-down": FamilyRow(
        {
            "kind": "top-down",
            "latents": [2, 3],
            "width": 8,
            "encoder": {"kind": "mlp", "widths": [8]},
            "network": {"kind": "mlp", "widths": [8]},
            "decoder": {"kind": "mlp", "widths": [8]},
        },
        DIGITS,
    ),
    "top-down-grid": FamilyRow(
        {
            "kind": "top-down",
            "latents": [[3, 1, 1], [2, 4, 4], [1, 4, 4]],
            "width": 8,
            "encoder": GATED,
            "network": GATED,
            "decoder": GATED,
            "spectral": 0.01,
        },
        DIGITS,
    ),
    "top-down-levels": FamilyRow(
        {
            "kind": "top-down",
            "latents": [[2, 1, 1], [2, 2, 2]],
            "width": 8,
            "encoder": GATED,
            "network": GATED,
            "decoder": GATED,
            "likelihood": {"kind": "logistic-mixture-pixel", "components": 2},
        },
        COLOUR,
    ),
    **{
        f"vq-vae-{name}": FamilyRow({"kind": "vq-vae", "positions": [2, 2], "quantizer": table, **SMALL}, DIGITS)
        for name, table in QUANTIZERS.items()
    },
    "vq-vae-prior": FamilyRow(
        {
            "kind": "vq-vae",
            "positions": [2, 2],
            "quantizer": QUANTIZERS["ema"],
            "prior": RASTERS["pixelcnn-embedded"],
            **SMALL,
        },
        LABELLED,
    ),
    "semi-supervised": FamilyRow(
        {"kind": "semi-supervised", "latent": 4, "classifier": {"kind": "mlp", "widths": [8]}, **SMALL}, LABELLED
    ),
    "density-mixture": FamilyRow({"kind": "density", "density": {"kind": "mixture"}}, POINTS, codes=False),
    **{
        f"density-{name}": FamilyRow(
            {"kind": "density", "density": {"kind": "flow", "steps": 2, "bijection": BIJECTIONS[name]}},
            POINTS,
            codes=False,
        )
        for name in ("additive", "spline", "masked-autoregressive", "continuous")
    },
    "density-glow": FamilyRow(
        {"kind": "density", "density": {"kind": "flow", "steps": 1, "bijection": BIJECTIONS["glow"]}},
        COLOUR,
        codes=False,
    ),
    "generator": FamilyRow(
        {"kind": "generator", "latent": 3, "network": {"kind": "mlp", "widths": [8]}},
        POINTS,
        codes=False,
        likelihood=False,
    ),
    "generator-labels": FamilyRow(
        {"kind": "generator", "latent": 3, "network": {"kind": "mlp", "widths": [8]}},
        LABELLED,
        codes=False,
        likelihood=False,
    ),
    "generator-style": FamilyRow(
        {"kind": "generator", "latent": 84, "network": {"kind": "style", "widths": [4, 4], "mapping": [5], "style": 3}},
        DIGITS,
        codes=False,
        likelihood=False,
    ),
    "density-diffusion": FamilyRow(
        {"kind": "density", "density": PRIORS["diffusion"][0]}, POINTS, bound=False, codes=False
    ),
    **{
        f"diffusion-{name}": FamilyRow(
            {"kind": "diffusion", "network": {"kind": "mlp", "widths": [8]}, "steps": 3, **table},
            data,
            bound=False,
            codes=False,
        )
        for name, (table, data) in DIFFUSIONS.items()
    },
    **{
        f"distilled-{name}": FamilyRow(
            {"kind": "distilled", "network": {"kind": "mlp", "widths": [8]}, "lesson": table},
            data,
            codes=False,
            likelihood=False,
        )
        for name, (table, data) in LESSONS.items()
    },
    **{
        f"density-{name}": FamilyRow(
            {"kind": "density", "density": table},
            LABELLED if name == "transformer" else COLOUR,
            codes=False,
        )
        for name, table in RASTERS.items()
    },
    "stack-codes": FamilyRow(
        {"kind": "density", "density": RASTERS["pixelcnn-embedded"]},
        DIGITS,
        stacked={"kind": "vq-vae", "positions": [2, 2], "quantizer": QUANTIZERS["ema"], **SMALL},
    ),
    "described": FamilyRow(
        {
            "kind": "described",
            "text": {"kind": "attentive", "tokens": 2, "width": 8, "depth": 1, "heads": 2},
            "inner": {"kind": "vae", "latent": 4, "likelihood": {"kind": "gaussian-optimal"}, **SMALL},
        },
        CAPTIONED,
    ),
    "described-density": FamilyRow(
        {
            "kind": "described",
            "text": {"kind": "recurrent", "width": 4},
            "inner": {"kind": "density", "density": RASTERS["transformer"]},
        },
        CAPTIONED,
        codes=False,
    ),
    "stack-labels": FamilyRow(
        {
            "kind": "stack",
            "first": {"kind": "vq-vae", "positions": [2, 2], "quantizer": QUANTIZERS["ema"], **SMALL},
            "second": {"kind": "density", "density": RASTERS["transformer"]},
        },
        LABELLED,
    ),
    "low-rank": FamilyRow({"kind": "low-rank", "inner": {"kind": "vae", "latent": 4, **SMALL}, "rank": 2}, DIGITS),
    "stack": FamilyRow(
        {"kind": "density", "density": PRIORS["diffusion"][0]},
        DIGITS,
        bound=False,
        stacked={"kind": "vae", "latent": 4, **SMALL},
    ),
    "stack-diffusion": FamilyRow(
        {"kind": "diffusion", "network": {"kind": "mlp", "widths": [8]}, "steps": 3},
        DIGITS,
        bound=False,
        stacked={"kind": "vae", "latent": 4, **SMALL},
    ),
    "stack-of-vaes": FamilyRow(
        {"kind": "vae", "latent": 2, "likelihood": {"kind": "gaussian"}, **SMALL},
        DIGITS,
        stacked={"kind": "vae", "latent": 4, **SMALL},
    ),
}

# ------------------------------------------------------------------------------------------------------ objectives


@dataclass(frozen=True)
class ObjectiveRow:
    """An objective and a family that it trains."""

    table: Table
    family: str = "vae"
    settings: Table = field(default_factory=dict)

    def make(self, model: Family) -> Objective:
        return build_objective(self.table, model, 0, ROWS_AS_RUNS)


# Where an objective names a run, it gets the untrained model of a row of the table of families.
ROWS_AS_RUNS = Outside(model=lambda name: FAMILIES[name].make().eval())


CRITIC = {"kind": "mlp", "widths": [8], "activation": "leaky_relu"}
GAN = {"kind": "adversarial-samples", "critic": CRITIC}
RANDOM = {"kind": "random-features", "features": 8, "network": {"kind": "convolutional-down", "widths": [4, 8]}}

OBJECTIVES: dict[str, ObjectiveRow] = {
    "elbo": ObjectiveRow({"kind": "elbo"}),
    "elbo-warm-up": ObjectiveRow({"kind": "elbo", "beta": {"kind": "linear", "start": 0.1, "steps": 4}}),
    **{
        f"elbo-vq-{name}": ObjectiveRow({"kind": "elbo", "penalties": {"commitment": 0.25}}, f"vq-vae-{name}")
        for name in QUANTIZERS
    },
    "elbo-described": ObjectiveRow({"kind": "elbo"}, "described"),
    "elbo-optimal-sigma": ObjectiveRow({"kind": "elbo"}, "vae-convolutional"),
    "elbo-semi-supervised": ObjectiveRow({"kind": "elbo"}, "semi-supervised"),
    "elbo-text": ObjectiveRow({"kind": "elbo"}, "text"),
    "elbo-bag-of-words": ObjectiveRow({"kind": "elbo", "penalties": {"bag_of_words": 0.5}}, "text-bag-of-words"),
    "elbo-top-down": ObjectiveRow({"kind": "elbo"}, "top-down"),
    "elbo-top-down-grid": ObjectiveRow({"kind": "elbo", "penalties": {"spectral": 0.5}}, "top-down-grid"),
    "elbo-conditional": ObjectiveRow({"kind": "elbo"}, "conditional"),
    **{f"elbo-{name}": ObjectiveRow({"kind": "elbo"}, f"density-{name}") for name in RASTERS},
    "saturating": ObjectiveRow(GAN | {"game": {"kind": "saturating"}}, "generator"),
    "non-saturating": ObjectiveRow(GAN, "generator-labels"),
    "wasserstein": ObjectiveRow(
        GAN | {"game": {"kind": "wasserstein"}, "weights": {"kind": "clipped", "limit": 0.3}, "turns": 2}, "generator"
    ),
    "wasserstein-gradient": ObjectiveRow(
        GAN | {"game": {"kind": "wasserstein"}, "penalty": {"kind": "gradient"}}, "generator"
    ),
    "real-gradient": ObjectiveRow(GAN | {"penalty": {"kind": "real-gradient"}}, "generator-labels"),
    "spectral": ObjectiveRow(GAN | {"game": {"kind": "hinge"}, "weights": {"kind": "spectral"}}, "generator"),
    "minibatch": ObjectiveRow(
        GAN | {"critic": {"kind": "minibatch", "network": CRITIC, "features": 4, "kernels": 3, "width": 2}}, "generator"
    ),
    "growing": ObjectiveRow({"kind": "growing", "objective": GAN, "doublings": 2, "steps": 2}, "generator-style"),
    "elbo-diffusion": ObjectiveRow({"kind": "elbo"}, "density-diffusion"),
    "penalties": ObjectiveRow({"kind": "penalties"}, "diffusion-v"),
    "penalties-flow": ObjectiveRow({"kind": "penalties"}, "diffusion-flow"),
    "penalties-variance": ObjectiveRow(
        {"kind": "penalties", "penalties": {"variance": 0.001}}, "diffusion-learned-variance"
    ),
    "penalties-progressive": ObjectiveRow({"kind": "penalties"}, "distilled-progressive"),
    "penalties-consistency": ObjectiveRow({"kind": "penalties"}, "distilled-consistency"),
    "elbo-table": ObjectiveRow({"kind": "elbo"}, "vae-table"),
    "elbo-counts": ObjectiveRow({"kind": "elbo"}, "vae-counts"),
    "elbo-diffusion-decoder": ObjectiveRow({"kind": "elbo"}, "vae-diffusion-decoder"),
    "elbo-levels": ObjectiveRow({"kind": "elbo"}, "vae-levels"),
    "importance": ObjectiveRow({"kind": "importance", "samples": 5}),
    "growing-importance": ObjectiveRow({"kind": "growing-importance", "samples": 5, "start": 1, "steps": 2}),
    "importance-vamp": ObjectiveRow({"kind": "importance", "samples": 5}, "vae-vamp"),
    "doubly-reparameterised": ObjectiveRow({"kind": "doubly-reparameterised", "samples": 5}),
    "doubly-reparameterised-flow": ObjectiveRow(
        {"kind": "doubly-reparameterised", "samples": 3}, "vae-inverse-autoregressive"
    ),
    "elbo-sphere": ObjectiveRow({"kind": "elbo"}, "vae-sphere"),
    "elbo-flow-prior": ObjectiveRow({"kind": "elbo"}, "vae-flow-prior"),
    "elbo-autoregressive-prior": ObjectiveRow({"kind": "elbo"}, "vae-autoregressive-prior"),
    "combination-importance": ObjectiveRow({"kind": "combination-importance", "samples": 5, "beta": 0.3}),
    "multiple-importance": ObjectiveRow({"kind": "multiple-importance", "samples": 3, "repeats": 2}),
    "partial-importance": ObjectiveRow({"kind": "partial-importance", "samples": 3, "repeats": 2}, "vae-mixture"),
    "total-correlation": ObjectiveRow({"kind": "total-correlation", "beta": 4.0}),
    "total-correlation-stratified": ObjectiveRow({"kind": "total-correlation", "beta": 4.0, "estimator": "stratified"}),
    "factor-vae": ObjectiveRow({"kind": "factor-vae", "critic": CRITIC, "gamma": 4.0}),
    "dip-i": ObjectiveRow({"kind": "dip-i"}),
    "dip-ii": ObjectiveRow({"kind": "dip-ii"}, "vae-convolutional"),
    "info-vae": ObjectiveRow({"kind": "info-vae", "kernel": "gaussian"}),
    "wasserstein-mmd": ObjectiveRow({"kind": "wasserstein-mmd"}, "vae-mixture"),
    "sliced-wasserstein": ObjectiveRow({"kind": "sliced-wasserstein", "directions": 4}),
    "geco": ObjectiveRow({"kind": "geco", "target": 30.0}),
    "elbo-cosine": ObjectiveRow({"kind": "elbo", "beta": {"kind": "cosine", "start": 0.1, "steps": 4}}),
    "elbo-cyclical": ObjectiveRow({"kind": "elbo", "beta": {"kind": "cyclical", "start": 0.1, "period": 2}}),
    "free-bits-unit": ObjectiveRow({"kind": "free-bits", "free_bits": 0.02, "beta": 0.5}),
    "free-bits-group": ObjectiveRow({"kind": "free-bits", "free_bits": 0.05, "per": "group"}, "top-down"),
    "free-bits-mixture": ObjectiveRow({"kind": "free-bits", "free_bits": 0.05, "per": "group"}, "vae-mixture"),
    "capacity": ObjectiveRow({"kind": "capacity", "capacity": {"kind": "linear", "end": 5.0, "steps": 20}}),
    "target-rate": ObjectiveRow({"kind": "target-rate", "target": 5.0}),
    "balanced": ObjectiveRow({"kind": "balanced", "beta": {"kind": "linear", "start": 0.1, "steps": 4}}, "top-down"),
    "reconstruction": ObjectiveRow({"kind": "reconstruction"}),
    "reconstruction-regularised": ObjectiveRow({"kind": "reconstruction", "code": 0.1, "smoothness": 0.01}),
    "adversarial-prior": ObjectiveRow({"kind": "adversarial-prior", "critic": CRITIC}, "vae-mixture"),
    "adversarial-ring": ObjectiveRow({"kind": "adversarial-prior", "critic": CRITIC}, "vae-ring"),
    "adversarial-labels": ObjectiveRow({"kind": "adversarial-labels", "critic": CRITIC}, "semi-supervised"),
    "vae-gan": ObjectiveRow({"kind": "vae-gan", "critic": CRITIC}),
    "perceptual": ObjectiveRow({"kind": "perceptual", "comparison": RANDOM}),
    "perceptual-vae-gan": ObjectiveRow(
        {"kind": "perceptual", "comparison": RANDOM, "objective": {"kind": "vae-gan", "critic": CRITIC}},
        "vae-convolutional",
    ),
    "settled": ObjectiveRow(
        {
            "kind": "settled",
            "objective": {"kind": "elbo", "beta": {"kind": "linear", "start": 0.1, "end": 0.5, "steps": 4}},
        }
    ),
    "settled-growing": ObjectiveRow(
        {"kind": "settled", "objective": {"kind": "growing-importance", "samples": 3, "steps": 2}}
    ),
    "focus-decoder": ObjectiveRow({"kind": "focus", "role": "decoder"}, "vae-convolutional"),
    "focus-decoder-codebook": ObjectiveRow(
        {"kind": "focus", "role": "decoder", "objective": {"kind": "elbo", "penalties": {"commitment": 0.25}}},
        "vq-vae-ema",
    ),
    "focus-decoder-vae-gan": ObjectiveRow(
        {"kind": "focus", "role": "decoder", "objective": {"kind": "vae-gan", "critic": CRITIC}}
    ),
    "score-distillation": ObjectiveRow({"kind": "score-distillation", "prior": "density-diffusion"}, "generator"),
    "score-distillation-labels": ObjectiveRow(
        {"kind": "score-distillation", "prior": "diffusion-guided", "first": 0.1, "last": 0.7, "guidance": 3.0},
        "generator-labels",
    ),
}
