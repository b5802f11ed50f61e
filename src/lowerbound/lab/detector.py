"""A scikit-learn estimator of what is strange in a table: a small bag of VAEs."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.neighbors import NearestNeighbors
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from lowerbound.lab.data.rows import InMemory
from lowerbound.lab.evaluation.anomaly import likelihood_scores
from lowerbound.lab.training.loop import Loop
from lowerbound.lab.training.processes import Processes
from lowerbound.model.build import build_model, build_objective
from lowerbound.model.families.vae import VAE
from lowerbound.model.spec import DataSpec
from lowerbound.noise import generator
from lowerbound.recipe import Training

Array = NDArray[np.float64]
EPOCH_ROWS = 4096  # small tables are repeated, with fresh noise each time, up to so many rows
LARGEST_LATENT = 10


class VAEDetector(OutlierMixin, BaseEstimator):  # type: ignore[misc]
    """Anomalies in a table of real numbers, by VAEs that were trained on ordinary rows.

    Columns are standardised, and each VAE of the bag is trained with a little noise on its rows. Its encoder says where
    a row lies among the codes, its decoder how far off each value is, in units of what it expected.

    "neighbours": the mean distance to the nearest training rows in [code / posterior deviation, residual / sigma],
    averaged over the bag. "likelihood": the reconstruction probability E_q[log p(x|z)] (An & Cho 2015, algorithm 4),
    averaged over the bag; no training row is kept.

    Scores are functions of a row: they do not change with the other rows, or from call to call. As everywhere in
    scikit-learn, larger is more normal.

    Args:
        method: which of the two.
        members: VAEs in the bag.
        steps: of training, each.
        width: of the hidden layers.
        noise: standard deviation of the noise on training rows, of the standardised columns.
        n_neighbors: for "neighbours".
        contamination: share of the training rows that `predict` calls anomalies. With "neighbours" each of them is its
            own nearest, so of new ordinary rows it calls more; for error rates that hold, use conformal p-values.
        random_state: seed.

    Attributes:
        members_: the VAEs, in double precision.
        mean_, scale_: of the columns, (D,).
        offset_: `decision_function` is `score_samples` less this.
        n_features_in_: D.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "method": [StrOptions({"neighbours", "likelihood"})],
        "members": [Interval(Integral, 1, None, closed="left")],
        "steps": [Interval(Integral, 1, None, closed="left")],
        "width": [Interval(Integral, 1, None, closed="left")],
        "noise": [Interval(Real, 0, None, closed="left")],
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "contamination": [Interval(Real, 0, 0.5, closed="right")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        *,
        method: Literal["neighbours", "likelihood"] = "neighbours",
        members: int = 4,
        steps: int = 1200,
        width: int = 128,
        noise: float = 0.3,
        n_neighbors: int = 5,
        contamination: float = 0.1,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.method, self.members, self.steps, self.width, self.noise = method, members, steps, width, noise
        self.n_neighbors, self.contamination, self.random_state = n_neighbors, contamination, random_state

    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Train on ordinary rows, (N, D); at least two of them."""
        self._validate_params()
        rows: Array = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        chance = check_random_state(self.random_state)
        self.mean_, self.scale_ = rows.mean(axis=0), rows.std(axis=0)
        self.scale_ = np.where(self.scale_ > 1e-12 * np.abs(self.mean_), self.scale_, 1.0)
        scaled = torch.from_numpy((rows - self.mean_) / self.scale_)
        seeds = chance.randint(np.iinfo(np.int32).max, size=self.members)
        self.members_ = [self._train(scaled, int(seed), number) for number, seed in enumerate(seeds)]
        if self.method == "neighbours":
            count = min(self.n_neighbors, len(rows) - 1)
            self.deviations_ = [_spread(member, scaled) for member in self.members_]
            self.neighbours_ = [
                NearestNeighbors(n_neighbors=count).fit(_place(member, scaled, deviation))
                for member, deviation in zip(self.members_, self.deviations_, strict=True)
            ]
        self.offset_ = float(np.quantile(self._score(scaled), self.contamination))
        return self

    def score_samples(self, X: ArrayLike) -> Array:
        """How normal rows (N, D) are, (N,); larger is more normal."""
        check_is_fitted(self)
        rows: Array = validate_data(self, X, dtype=np.float64, reset=False)
        return self._score(torch.from_numpy((rows - self.mean_) / self.scale_))

    def decision_function(self, X: ArrayLike) -> Array:
        """`score_samples` less the offset, (N,): negative for anomalies."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        """1 for normal rows and -1 for anomalies, (N,)."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def _train(self, scaled: Tensor, seed: int, number: int) -> VAE:
        """A VAE of standardised rows (N, D); every second member says for each value how wide it expects it."""
        columns = scaled.shape[1]
        chance = generator(seed)
        copies = max(1, EPOCH_ROWS // len(scaled))
        rows = scaled.float().repeat(copies, 1)
        rows = rows + self.noise * torch.randn(rows.shape, generator=chance)
        network = {"kind": "mlp", "widths": [self.width, self.width]}
        table = {
            "kind": "vae",
            "latent": min(LARGEST_LATENT, max(2, columns // 2)),
            "encoder": network,
            "decoder": network,
            "likelihood": {"kind": "gaussian", "per": "channel"} if number % 2 == 0 else {"kind": "gaussian-pixel"},
        }
        model = build_model(table, DataSpec((columns,), examples=len(rows)), seed)
        settings = {
            "steps": self.steps,
            "batch_size": 128,
            "learning_rate": 2e-3,
            "schedule": "cosine",
            "ema": 0.99,
            "clip": 100.0,
        }
        beta = {"kind": "linear", "start": 0.0, "end": 1.0, "steps": max(1, self.steps // 5)}
        loop = Loop(
            model,
            build_objective({"kind": "elbo", "beta": beta}, model, seed),
            InMemory(rows),
            Training.model_validate(settings),
            seed,
            torch.device("cpu"),
            Processes(),
        )
        loop.run(lambda step, parts: False)
        model.load_state_dict(loop.final_weights())
        assert isinstance(model, VAE)
        return model.double().eval()

    def _score(self, scaled: Tensor) -> Array:
        """How normal standardised rows are, (N,)."""
        if self.method == "likelihood":
            every = torch.stack([-likelihood_scores(member, scaled)["reconstruction"] for member in self.members_])
            return every.mean(dim=0).numpy()
        found = []
        for member, deviation, neighbours in zip(self.members_, self.deviations_, self.neighbours_, strict=True):
            distances, _ = neighbours.kneighbors(_place(member, scaled, deviation))
            found.append(-distances.mean(axis=1))
        return np.mean(found, axis=0)


@torch.no_grad()
def _spread(model: VAE, scaled: Tensor) -> Tensor:
    """The mean standard deviation of each unit's posterior over rows, (units,)."""
    return _normal(model.q(scaled, None)).scale.mean(dim=0)


@torch.no_grad()
def _place(model: VAE, scaled: Tensor, deviation: Tensor) -> Array:
    """Where rows lie: [code / posterior deviation, residual / sigma], (N, units + D)."""
    q = _normal(model.q(scaled, None))
    px = _normal(model.decode({"z": q.loc}))
    return torch.cat([q.loc / deviation, (scaled - px.loc) / px.scale], dim=1).numpy()


def _normal(distribution: Distribution) -> Normal:
    assert isinstance(distribution, Independent)
    assert isinstance(distribution.base_dist, Normal)
    return distribution.base_dist
