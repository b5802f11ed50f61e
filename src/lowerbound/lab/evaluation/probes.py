"""Whether a code is good for what comes after it: classifying, a second-stage prior, paths, edits.

All take the points of codes of training rows and of judged rows, (N, D), all groups side by side.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from lowerbound.errors import NotSupportedError, TooFewError
from lowerbound.lab.evaluation.latents import Group
from lowerbound.lab.evaluation.result import Result, mean_result
from lowerbound.lab.generation import use
from lowerbound.model.families.family import Family, Latents
from lowerbound.model.spec import Context, DataSpec
from lowerbound.noise import generator

COMPONENTS = 10  # of the small prior
PATHS, STEPS = 64, 16  # pairs of rows, and steps from one to the other
FEWEST_PER_CLASS = 5


def linear_probe(known: Tensor, labels: Tensor, asked: Tensor, truth: Tensor) -> Result:
    """Accuracy of a linear classifier of the labels, trained on some codes and asked about others.

    Raises:
        TooFewError: too few labelled rows of some class, or one class only.
    """
    there, wanted = labels >= 0, truth >= 0
    counts = torch.bincount(labels[there])
    counts = counts[counts > 0]
    if len(counts) < 2 or int(counts.min()) < FEWEST_PER_CLASS or not bool(wanted.any()):
        raise TooFewError(
            f"a linear probe needs two classes at least with {FEWEST_PER_CLASS} labelled training rows each."
        )
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    probe.fit(_numpy(known[there]), labels[there].numpy())
    right = probe.predict(_numpy(asked[wanted])) == truth[wanted].numpy()
    return mean_result(torch.from_numpy(right).double(), "estimate")


def small_prior_gain(known: Group, asked: Group, seed: int = 0) -> Result:
    """How many nats a mixture of ten Gaussians, fitted to draws of training codes, adds to the ELBO of judged rows.

    E_q[log p_mixture(z) - log p(z)]: what a second stage would gain at least.

    Raises:
        NotSupportedError: a prior without a density.
        TooFewError: fewer than 100 training rows.
    """
    draws = _numpy(known.draws.flatten(1))
    if len(draws) < FEWEST_PER_CLASS * 2 * COMPONENTS:
        raise TooFewError(f"a small prior needs {FEWEST_PER_CLASS * 2 * COMPONENTS} training rows at least.")
    log_p = torch.cat(asked.log_p).double()
    if not bool(torch.isfinite(log_p).all()):
        raise NotSupportedError("the prior has no density to compare with.")
    mixture = GaussianMixture(COMPONENTS, covariance_type="diag", reg_covar=1e-4, random_state=seed).fit(draws)
    return mean_result(torch.from_numpy(mixture.score_samples(_numpy(asked.draws.flatten(1)))) - log_p, "lower_bound")


@torch.no_grad()
def path_results(model: Family, raw: Tensor, context: Context | None = None, seed: int = 0) -> dict[str, Result]:
    """What lies between the codes of two rows, and whether an edited code survives a round trip.

    "path_length": the decoded straight way from one code to another, over the distance of its ends; 1 is the shortest.
    "path_jump": the largest of its 16 steps over the mean one; 1 is even, 16 is one jump.
    "edit_round_trip": a code is moved half-way to another, decoded and encoded again; how far it comes back off, as a
    share of the move. 0 is consistent.

    Raises:
        NotSupportedError: discrete codes, rows in no order, or a context, which would change along the way.
    """
    if model.data.geometry != "grid":
        raise NotSupportedError("the points of a row have no order, so there is no straight way between rows.")
    if model.values or model.data.vocabulary:
        raise NotSupportedError("there is no straight way between discrete codes or rows.")
    if context is not None:
        raise NotSupportedError("the rows on the way have no label, and this model needs one.")
    if len(raw) < 2:
        raise TooFewError("a path needs two rows at least.")
    order = torch.randperm(len(raw), generator=generator(seed))
    pairs = min(PATHS, len(raw) // 2)
    ends = use.encode(model, raw[order[: 2 * pairs]])
    start = {name: codes[:pairs] for name, codes in ends.items()}
    move = {name: codes[pairs : 2 * pairs] - start[name] for name, codes in ends.items()}

    def decoded(share: float) -> Tensor:
        return use.decode(model, {name: codes + share * move[name] for name, codes in start.items()}).double()

    frames = torch.stack([decoded(step / STEPS) for step in range(STEPS + 1)]).flatten(2)  # (steps + 1, pairs, D)
    steps = frames.diff(dim=0).norm(dim=2)
    length, straight = steps.sum(dim=0), (frames[-1] - frames[0]).norm(dim=1)
    moving = straight > 1e-9 * frames.abs().max().clamp(min=1e-12)
    if not bool(moving.any()):
        raise NotSupportedError("all codes decode to the same row, so there is no way between them.")
    halfway: Latents = {name: codes + 0.5 * move[name] for name, codes in start.items()}
    back = use.encode(model, _as_raw(use.decode(model, halfway), raw, model.data))
    off = torch.cat([(back[name] - halfway[name]).flatten(1) for name in halfway], dim=1).norm(dim=1)
    moved = torch.cat([0.5 * codes.flatten(1) for codes in move.values()], dim=1).norm(dim=1)
    return {
        "path_length": mean_result((length / straight)[moving], "estimate"),
        "path_jump": mean_result((steps.max(dim=0).values / steps.mean(dim=0).clamp(min=1e-300))[moving], "estimate"),
        "edit_round_trip": mean_result((off / moved.clamp(min=1e-12))[moving], "estimate"),
    }


def _as_raw(made: Tensor, raw: Tensor, spec: DataSpec) -> Tensor:
    """Made rows as data would be stored: whole numbers where those are, in their range."""
    if spec.levels is not None:
        made = made.clamp(0, spec.levels - 1)
    whole = not raw.is_floating_point() or bool((raw == raw.round()).all())
    return (made.round() if whole else made).to(raw.dtype)


def _numpy(values: Tensor) -> NDArray[np.float64]:
    found: NDArray[np.float64] = values.flatten(1).double().cpu().numpy()
    return found
