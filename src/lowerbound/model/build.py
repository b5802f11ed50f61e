"""From a recipe and one look at the data to a model and its objective: the one table of kinds.

An annotation `Part[Network]`, `Part[Prior]`, ... or `Schedule` on a setting says that it is itself a part: a table
with a `kind` of that group.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, get_args

import torch

from lowerbound.errors import ShapeError, UsageError
from lowerbound.kinds import Groups, Kinds, resolve, settings_of
from lowerbound.model.conditionals import (
    columns,
    counts,
    denoising,
    heavy_tailed,
    likelihoods,
    pixels,
    posteriors,
    priors,
    rasters,
    solids,
    text,
)
from lowerbound.model.distributions import tree
from lowerbound.model.distributions.diffusing import (
    bounds,
    lessons,
    predictions,
    samplers,
    spacings,
    weightings,
)
from lowerbound.model.distributions.diffusing import schedules as noise_schedules
from lowerbound.model.families.density import Density
from lowerbound.model.families.described import Described
from lowerbound.model.families.diffusion import Diffusion
from lowerbound.model.families.distilled import Distilled
from lowerbound.model.families.family import Family
from lowerbound.model.families.generator import Generator
from lowerbound.model.families.low_rank import LowRank
from lowerbound.model.families.semi_supervised import SemiSupervised
from lowerbound.model.families.stack import Stack
from lowerbound.model.families.topdown import TopDown
from lowerbound.model.families.vae import VAE
from lowerbound.model.families.vqvae import VQVAE
from lowerbound.model.networks import (
    attention,
    clips,
    convolutional,
    fourier,
    gated,
    glimpses,
    masking,
    minibatch,
    mlp,
    moving,
    network,
    points,
    radiance,
    residual,
    sequence,
    style,
    unet,
)
from lowerbound.model.networks import text as texts
from lowerbound.model.networks.bijections import autoregressive, bijection, continuous, couplings, mixing
from lowerbound.model.networks.quantizers import ema, learned, passing, quantizer, scalars
from lowerbound.model.networks.quantizers.residual import ResidualQuantizer
from lowerbound.model.objectives import (
    adversarial,
    adversarial_labels,
    adversarial_samples,
    controllers,
    distillation,
    divergences,
    elbo,
    focus,
    games,
    growing,
    importance,
    matching,
    moments,
    objective,
    penalties,
    perceptual,
    rates,
    reconstruction,
    schedules,
    settled,
    slopes,
)
from lowerbound.model.spec import Context, DataSpec, Outside, Settings
from lowerbound.noise import BatchNoise
from lowerbound.recipe import overridden

FAMILIES: Kinds = {
    "vae": VAE.assemble,
    "vq-vae": VQVAE.assemble,
    "top-down": TopDown.assemble,
    "semi-supervised": SemiSupervised.assemble,
    "density": Density.assemble,
    "generator": Generator.assemble,
    "diffusion": Diffusion.assemble,
    "distilled": Distilled.assemble,
    "stack": Stack.assemble,
    "described": Described.assemble,
    "low-rank": LowRank.assemble,
}
OBJECTIVES: Kinds = {
    "elbo": elbo.ELBO,
    "importance": importance.Importance,
    "growing-importance": importance.GrowingImportance,
    "combination-importance": importance.CombinationImportance,
    "multiple-importance": importance.MultipleImportance,
    "partial-importance": importance.PartialImportance,
    "doubly-reparameterised": importance.DoublyReparameterised,
    "total-correlation": divergences.TotalCorrelation,
    "factor-vae": adversarial.FactorVAE,
    "dip-i": moments.DIPI,
    "dip-ii": moments.DIPII,
    "info-vae": matching.InfoVAE,
    "wasserstein-mmd": matching.WassersteinMMD,
    "sliced-wasserstein": matching.SlicedWasserstein,
    "reconstruction": reconstruction.Reconstruction,
    "adversarial-prior": adversarial.AdversarialPrior,
    "adversarial-labels": adversarial_labels.AdversarialLabels,
    "vae-gan": adversarial.VAEGAN,
    "adversarial-samples": adversarial_samples.AdversarialSamples,
    "geco": controllers.GECO,
    "target-rate": controllers.TargetRate,
    "free-bits": rates.FreeBits,
    "capacity": rates.Capacity,
    "balanced": rates.Balanced,
    "perceptual": perceptual.Perceptual,
    "focus": focus.Focus,
    "settled": settled.Settled,
    "score-distillation": distillation.ScoreDistillation,
    "penalties": penalties.Penalties,
    "growing": growing.Growing,
}
PARTS: Groups = {
    Family: FAMILIES,
    objective.Objective: OBJECTIVES,
    perceptual.Comparison: {
        "random-features": perceptual.RandomFeatures,
        "encoder": perceptual.EncoderFeatures,
        "lpips": perceptual.LPIPS,
    },
    games.Game: {
        "saturating": games.Saturating,
        "non-saturating": games.NonSaturating,
        "wasserstein": games.Wasserstein,
        "hinge": games.Hinge,
    },
    slopes.Penalty: {
        "none": slopes.NoPenalty,
        "gradient": slopes.GradientPenalty,
        "real-gradient": slopes.RealGradientPenalty,
    },
    slopes.Weights: {
        "free": slopes.FreeWeights,
        "clipped": slopes.ClippedWeights,
        "spectral": slopes.SpectralWeights,
    },
    schedules.Schedule: {
        "constant": schedules.constant,
        "linear": schedules.linear,
        "cosine": schedules.cosine,
        "cyclical": schedules.cyclical,
    },
    network.Network: {
        "mlp": mlp.MLP,
        "modulated": mlp.ModulatedMLP,
        "convolutional-down": convolutional.ConvolutionalDown,
        "convolutional-up": convolutional.ConvolutionalUp,
        "tokens": sequence.TokenEncoder,
        "residual": residual.ResidualMLP,
        "skip-mlp": residual.SkipMLP,
        "residual-down": residual.ResidualDown,
        "residual-up": residual.ResidualUp,
        "gated": gated.GatedMLP,
        "gated-grid": gated.GatedGrid,
        "attention-down": attention.AttentionDown,
        "attention-up": attention.AttentionUp,
        "masking": masking.Masking,
        "minibatch": minibatch.Minibatch,
        "moving": moving.Moving,
        "unet": unet.UNet,
        "fourier": fourier.FourierFeatures,
        "style": style.StyleUp,
        "points": points.PointEncoder,
        "queries": points.QueryEncoder,
        "clip-down": clips.ClipDown,
        "clip-up": clips.ClipUp,
        "clip-glimpse": glimpses.ClipGlimpse,
        "clip-sprite": glimpses.ClipSprite,
        "clip-attention": clips.ClipAttention,
        "clip-transformer": clips.ClipTransformer,
        "radiance-field": radiance.RadianceField,
    },
    bijection.Bijection: {
        "coupling": couplings.Coupling,
        "additive": couplings.AdditiveCoupling,
        "spline": couplings.SplineCoupling,
        "masked-autoregressive": autoregressive.MaskedAutoregressive,
        "inverse-autoregressive": autoregressive.InverseAutoregressive,
        "glow": mixing.Glow,
        "continuous": continuous.Continuous,
    },
    quantizer.Quantizer: {
        "ema": ema.EMACodebook,
        "gradient": learned.GradientCodebook,
        "sim-vq": learned.SimVQ,
        "gumbel": learned.GumbelSoftmax,
        "fsq": scalars.FSQ,
        "lfq": scalars.LFQ,
        "residual": ResidualQuantizer,
    },
    passing.Passing: {
        "straight-through": passing.StraightThrough,
        "rotation": passing.Rotation,
    },
    texts.TextEncoder: {
        "attentive": texts.AttentiveText,
        "recurrent": texts.RecurrentText,
    },
    posteriors.Posterior: {
        "gaussian": posteriors.DiagonalGaussian,
        "gaussian-full": posteriors.FullGaussian,
        "inverse-autoregressive": posteriors.AutoregressiveFlow,
        "coupling": posteriors.CouplingFlow,
        "von-mises-fisher": posteriors.Hyperspherical,
        "deterministic": posteriors.Deterministic,
    },
    priors.Prior: {
        "standard": priors.StandardNormal,
        "mixture": priors.GaussianMixture,
        "vamp": priors.VampPrior,
        "flow": priors.FlowPrior,
        "autoregressive": priors.AutoregressivePrior,
        "uniform-sphere": priors.UniformSphere,
        "ring": priors.RingPrior,
        "context": priors.ContextGaussian,
        "diffusion": priors.Diffusion,
        "uniform-codes": priors.UniformCodes,
        "pixelcnn": rasters.PixelCNN,
        "transformer": rasters.Transformer,
    },
    likelihoods.Likelihood: {
        "bernoulli": likelihoods.BernoulliLikelihood,
        "gaussian": likelihoods.LearnedGaussian,
        "gaussian-fixed": likelihoods.FixedGaussian,
        "gaussian-pixel": likelihoods.PixelGaussian,
        "gaussian-optimal": likelihoods.OptimalGaussian,
        "tokens": likelihoods.TokenLikelihood,
        "bag-of-words": text.BagOfWords,
        "continuous-bernoulli": pixels.ContinuousBernoulliLikelihood,
        "logistic-mixture": pixels.LogisticMixtureLikelihood,
        "logistic-mixture-pixel": pixels.PixelLogisticLikelihood,
        "categorical": pixels.CategoricalLikelihood,
        "laplace": heavy_tailed.LaplaceLikelihood,
        "student-t": heavy_tailed.StudentLikelihood,
        "negative-binomial": counts.NegativeBinomialLikelihood,
        "zero-inflated": counts.ZeroInflatedLikelihood,
        "table": columns.TableLikelihood,
        "diffusion": denoising.DiffusionLikelihood,
        "categorical-pixel": pixels.PixelCategoricalLikelihood,
        "cloud-mixture": solids.MixtureCloud,
        "cloud-flow": solids.FlowCloud,
        "occupancy": solids.OccupancyLikelihood,
        "pixelcnn": rasters.PixelCNNLikelihood,
    },
    noise_schedules.NoiseSchedule: {
        "log-snr": noise_schedules.LogLinear,
        "cosine": noise_schedules.Cosine,
        "linear-beta": noise_schedules.LinearBeta,
        "exploding": noise_schedules.Exploding,
        "straight": noise_schedules.Straight,
    },
    predictions.Prediction: {
        "noise": predictions.PredictNoise,
        "row": predictions.PredictRow,
        "v": predictions.PredictV,
        "velocity": predictions.PredictVelocity,
        "preconditioned": predictions.Preconditioned,
    },
    weightings.Weighting: {
        "bound": weightings.OfBound,
        "simple": weightings.Simple,
        "target": weightings.OfTarget,
        "min-snr": weightings.MinSNR,
        "log-normal": weightings.LogNormal,
    },
    bounds.Bound: {
        "continuous": bounds.ContinuousTime,
        "discrete": bounds.DiscreteTime,
    },
    spacings.Spacing: {
        "time": spacings.EvenTime,
        "log-snr": spacings.EvenRatio,
        "polynomial": spacings.Polynomial,
        "trailing": spacings.Trailing,
    },
    samplers.Sampler: {
        "ancestral": samplers.Ancestral,
        "ddim": samplers.DDIM,
        "dpm-solver": samplers.DPMSolver,
        "edm-heun": samplers.EDMHeun,
        "euler": samplers.Euler,
        "heun": samplers.Heun,
        "langevin": samplers.Langevin,
        "renoise": samplers.Renoise,
    },
    lessons.Lesson: {
        "progressive": lessons.Progressive,
        "consistency": lessons.Consistency,
    },
}


def build_model(table: Mapping[str, Any], data: DataSpec, seed: int) -> Family:
    """The model of a recipe's `model` table for data, with weights that are a function of the seed.

    Raises:
        RecipeError: an unknown kind or setting, or a value of the wrong type.
        ShapeError: parts that do not fit together or to the data.
    """
    make, settings = resolve(table, FAMILIES, "model", PARTS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Family = make(data, **settings)
    if data.words and not model.reads_words:
        raise ShapeError(
            f'the context of these data are texts, and the family "{table["kind"]}" reads none; put it into one that '
            'does (`model = { kind = "described", inner = { ... } }`), or leave the context out.'
        )
    return model


def in_use(table: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """A recipe's `model` table with other settings of use, each `a.b=c` as for a recipe.

    Raises:
        UsageError: a setting that belongs to what was trained.
    """
    changes = list(overrides)
    names = list(_of_use(table)) if changes else []
    for key in (change.partition("=")[0].strip() for change in changes):
        if not any(f"{key}.".startswith(f"{name}.") for name in names):
            choice = f"only {', '.join(names)} can be" if names else "this family has none that could be"
            raise UsageError(
                f"--set {key}=... was given, but a trained {table['kind']} keeps the settings that it was trained "
                f"with; {choice} set in use."
            )
    return overridden(dict(table), changes)


def _of_use(table: Mapping[str, Any]) -> Iterator[str]:
    """Names of a model's settings of use, with those of models within it."""
    make, _ = resolve(table, FAMILIES, "model", PARTS)
    hints = settings_of(make)
    for name in make.__self__.of_use:  # type: ignore[attr-defined]  # all families are assembled by a class method
        if get_args(hints[name]) == (Family,):
            yield from (f"{name}.{inner}" for inner in _of_use(table[name]))
        else:
            yield name


def build_objective(
    table: Mapping[str, Any], model: Family, seed: int, outside: Outside | None = None
) -> objective.Objective:
    """The objective of a recipe's `objective` table for a model, rehearsed once: what does not go together is refused.

    Args:
        table: the recipe's.
        model: that it trains.
        seed: of its critics' weights.
        outside: where files of weights and other runs are read from; by default there are none.

    Raises:
        RecipeError: an unknown kind or setting, or a value of the wrong type.
        NotSupportedError, ShapeError: the objective asks for what the model does not have.
    """
    make, settings = resolve(table, OBJECTIVES, "objective", PARTS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        known = Settings(model.data, model.latents, _roles(model), model.preparation.restore, outside or Outside())
        result: objective.Objective = make(known, **settings)
        rehearse(model, result)
    return result


def rehearse(model: Family, objective: objective.Objective, rows: int = 2) -> None:
    """Compute the loss of every player once, on rows of zeros, so that parts that do not go together fail here.

    Raises:
        NotSupportedError, ShapeError: the objective asks for what the model does not have.
    """
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
    noise = BatchNoise(0, 0, rows, device=like.device, dtype=like.dtype)
    whole = model.data.levels is not None
    raw = torch.zeros(rows, *model.data.event, device=like.device, dtype=torch.uint8 if whole else like.dtype)
    x = model.preparation.prepare(raw, noise.child("prepare"))
    x = x.to(like.dtype) if x.is_floating_point() else x
    vector = like.new_zeros(rows, model.data.context)
    context = Context(vector.detach(), vector[:, :1].detach().flatten().bool()) if model.data.context else None
    actor = copy.deepcopy(objective).to(like)
    evidence = model.evidence(x, context, noise.child("evidence"), objective.needs.samples)
    if objective.needs.generated:
        evidence = replace(evidence, generated=tree.point(model.sample(noise.child("generated"), context)))
    for player in objective.players:
        actor(evidence, 0, player.role, noise.child("objective"))


def _roles(model: Family) -> tuple[str, ...]:
    """The roles of a model that have parameters to train."""
    return tuple(role for role in model.roles if any(p.requires_grad for _, p in model.role_parameters(role)))
