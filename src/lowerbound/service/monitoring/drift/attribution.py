"""What an incident is made of: groups of requests that the reference does not have, with their shares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import betabinom
from sklearn.cluster import HDBSCAN
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from lowerbound.errors import TooFewError
from lowerbound.service.monitoring.drift.coordinates import coordinates_of
from lowerbound.service.monitoring.drift.window import Array, Window

NORM_SHARE, SHARE = 0.001, 0.01  # of ordinary requests beyond the limit of the norm, and of the others
LEVEL = 0.001  # of a sign or a cause where there is none
SURE = 4.0  # standard errors that a share is above 0: the largest of many limits is taken, so 3 was too few (4 of 120)
NEIGHBOURS = 20
MOST_KNOWN = 5000  # codes that neighbours are looked for among
PARTS, LEAST_SPREAD = 4, 0.01  # of the mixture that says where codes are dense, and the least variance of a part
WIDEST = 32  # of the code, for the classifier; of wider ones as many principal components
FOLDS, TIMES = 5, 3
WEAK = 0.01  # of the classifier's weights: it has hundreds, and few rows
SMALLEST = 10  # requests in a group, and a fifth of those that are unlike the reference
CLEAR, NEW = 4, 5.0  # the clearest quarter of a new group is so many times larger than in the reference
FLAT = 0.1  # of what the flattest ordinary inputs vary by
FEWEST = 200  # requests of reference and of window
LEAST = 1e-12
LEARNT = ("norm of the code", "outlier factor of the code", "density of the code")
NAMES = {True: "a kind that the reference lacks", False: "a kind that became more frequent"}
RARE = ("norm of the code", "flat input")


@dataclass(frozen=True, eq=False)
class Sign:
    """The share of a window beyond a limit of the reference.

    Attributes:
        name: what is beyond it.
        share: of the window.
        expected: of ordinary requests, at most.
        alarm: whether chance does not explain the share, with requests that are independent.
        rows: which requests, indices.
    """

    name: str
    share: float
    expected: float
    alarm: bool
    rows: Array


@dataclass(frozen=True, eq=False)
class Cause:
    """A group of requests that the reference does not have, or has less of.

    Attributes:
        name: what they are.
        share: of the window.
        stderr: of the share.
        rows: requests that show it, the clearest first, indices.
        signs: share of these rows beyond the limit of each sign.
    """

    name: str
    share: float
    stderr: float
    rows: Array
    signs: dict[str, float]


@dataclass(frozen=True, eq=False)
class Attribution:
    """What a window is made of beside ordinary requests.

    Attributes:
        signs: every one that was looked for.
        causes: the largest first; each request belongs to one at most.
    """

    signs: tuple[Sign, ...]
    causes: tuple[Cause, ...]


class Attributor:
    """Finds groups of flat inputs by their pixels, and all others by their codes and errors.

    Limits are conformal. Those of scores by the reference's own codes (centre, neighbours, and the density under a
    mixture of Gaussians) are from one half of it, for models of the other half. A flat input varies by less than a
    tenth of what the flattest ordinary ones vary by.

    The other groups are found by a classifier of reference against window on the code, the rate and the error, asked
    about requests that it was not trained on. Above a score, a window has W of its requests and the reference R of its
    own: if all of a group lie above it, its share of the window is (W - R) / (1 - R), and otherwise it is larger
    (Blanchard et al. 2010, on the proportion of novelties).

    Args:
        reference: requests in which nothing was wrong; points or indices, and errors at least.
        statistics: names of the columns of `inputs`; those called pixel_mean... and pixel_variance... are used.

    Raises:
        TooFewError: fewer than 200 requests.
        DataError: there are no codes, no errors, or all codes are alike.
    """

    def __init__(self, reference: Window, statistics: Sequence[str] = ()) -> None:
        if reference.size < FEWEST:
            raise TooFewError(f"{reference.size} requests are too few to attribute by; give at least {FEWEST}.")
        self._reference, self._statistics = reference, tuple(statistics)
        self._codes = coordinates_of(reference)
        known = self._codes(reference)[::2]
        self._centre = known.mean(axis=0)
        self._precision = np.linalg.pinv(np.cov(known.T).reshape(known.shape[1], -1))
        distinct = np.unique(known, axis=0)
        few = distinct[:: -(-len(distinct) // MOST_KNOWN)]
        self._neighbours = LocalOutlierFactor(n_neighbors=NEIGHBOURS, novelty=True).fit(few)
        self._dense = _mixture(known.shape[1]).fit(known)
        apart = self._scores(reference.select(slice(1, None, 2)))
        every = self._scores(reference)
        self._limits = {name: _limit(name, (apart if name in LEARNT else every)[name]) for name in every}

    def attribute(self, window: Window, seed: int = 0) -> Attribution:
        """Look for causes; they are no alarm: a detector with a budget says that there is something to look for.

        Raises:
            TooFewError: fewer than 200 requests.
            DataError: the window lacks a fact.
        """
        if window.size < FEWEST:
            raise TooFewError(f"{window.size} requests are too few to attribute; give at least {FEWEST}.")
        signs = self.signs(window)
        flat = self._flat(window, signs)
        taken = flat.rows if flat else np.empty(0, dtype=np.int64)
        rest = np.setdiff1d(np.arange(window.size), taken)
        others = self._unlike(window, rest, signs, seed) if len(rest) >= FEWEST else []
        causes = [*([flat] if flat else []), *others]
        return Attribution(signs, tuple(sorted(causes, key=lambda cause: -cause.share)))

    def signs(self, window: Window, level: float = LEVEL) -> tuple[Sign, ...]:
        """The share of a window beyond each limit, and whether it is too many.

        Args:
            window: with the facts of the reference.
            level: of each sign, the probability of an alarm where there is nothing, with independent requests.

        Raises:
            DataError: the window lacks a fact.
        """
        return tuple(self._sign(name, values, level) for name, values in self._scores(window).items())

    def _scores(self, window: Window) -> dict[str, Array]:
        """What limits are on; larger is stranger."""
        codes = self._codes(window)
        offset = codes - self._centre
        scores = {
            "norm of the code": np.sqrt(np.maximum(((offset @ self._precision) * offset).sum(axis=1), 0)),
            "outlier factor of the code": -self._neighbours.score_samples(codes),
            "density of the code": -self._dense.score_samples(codes),
            "high error": window.fact("errors"),
            "low error": -window.fact("errors"),
        }
        if spread := self._named("pixel_variance"):
            scores["flat input"] = -window.fact("inputs")[:, spread].max(axis=1)
        return scores

    def _named(self, start: str) -> list[int]:
        return [column for column, name in enumerate(self._statistics) if name.startswith(start)]

    def _sign(self, name: str, values: Array, level: float) -> Sign:
        limit = self._limits[name]
        rows = np.flatnonzero(values > limit.value)
        usual = betabinom.isf(level, len(values), limit.beyond, limit.rows + 1 - limit.beyond)
        return Sign(name, len(rows) / len(values), limit.beyond / (limit.rows + 1), bool(len(rows) > usual), rows)

    def _flat(self, window: Window, signs: tuple[Sign, ...]) -> Cause | None:
        found = next((sign for sign in signs if sign.name == "flat input" and sign.alarm), None)
        if found is None:
            return None
        rows = found.rows[np.argsort(window.fact("inputs")[found.rows][:, self._named("pixel_variance")].max(axis=1))]
        stderr = math.sqrt(found.share * (1 - found.share) / window.size)
        return Cause(f"flat {self._shade(window, rows)}inputs", found.share, stderr, rows, _shown(rows, signs))

    def _shade(self, window: Window, rows: Array) -> str:
        """Whether most of some inputs are darker, or brighter, than any of the reference."""
        columns = self._named("pixel_mean")
        if not columns:
            return ""
        brightness = window.fact("inputs")[rows][:, columns].mean(axis=1)
        known = self._reference.fact("inputs")[:, columns].mean(axis=1)
        dark, bright = np.mean(brightness < known.min()), np.mean(brightness > known.max())
        return "dark " if dark > 0.5 else "bright " if bright > 0.5 else ""

    def _unlike(self, window: Window, rows: Array, signs: tuple[Sign, ...], seed: int) -> list[Cause]:
        """Groups of requests that a classifier tells from the reference."""
        known, seen = self._features(self._reference), self._features(window)[rows]
        strange = _told_apart(known, seen, seed)
        of_reference, of_window = strange[: len(known)], strange[len(known) :]
        limit, share, stderr = _mixed_in(of_reference, of_window)
        if share <= SURE * stderr:
            return []
        above, ordinary = np.flatnonzero(of_window >= limit), known[of_reference >= limit]
        every = 1 - len(ordinary) / len(known)
        groups, of_ordinary = _groups(seen[above], ordinary)
        causes = []
        for group in range(groups.max() + 1):
            members = above[groups == group]
            part, usual = len(members) / len(rows), np.sum(of_ordinary == group) / len(known)
            error = math.sqrt(part * (1 - part) / len(rows) + usual * (1 - usual) / len(known)) / every
            mixed = (part - usual) / every
            if mixed <= SURE * error:
                continue
            order = members[np.argsort(-of_window[members])]
            clear = of_window[order[len(order) // CLEAR]]
            as_clear = np.sum(of_reference[of_reference >= limit][of_ordinary == group] >= clear) / len(known)
            kind = NAMES[part / CLEAR >= NEW * as_clear]
            shown = rows[order]
            scale = len(rows) / window.size
            causes.append(Cause(kind, mixed * scale, error * scale, shown, _shown(shown, signs)))
        return causes

    def _features(self, window: Window) -> Array:
        """What the classifier sees: the code, the logarithm of the error, and the rate where it is known."""
        parts = [self._codes(window), np.log(np.maximum(window.fact("errors"), LEAST))[:, None]]
        if window.rates is not None and self._reference.rates is not None:
            parts.append(window.rates.sum(axis=1, dtype=np.float64, keepdims=True))
        return np.concatenate(parts, axis=1)


@dataclass(frozen=True)
class _Limit:
    """A score that `beyond` of so many ordinary rows and a new one are above, on average."""

    value: float
    beyond: int
    rows: int


def _limit(name: str, values: Array) -> _Limit:
    """At its share, or the smallest that so many rows can say."""
    rows = len(values)
    beyond = max(1, int((NORM_SHARE if name in RARE else SHARE) * (rows + 1)))
    value = float(np.sort(values)[rows - beyond])
    return _Limit(value * FLAT if name == "flat input" else value, beyond, rows)


def _shown(rows: Array, signs: tuple[Sign, ...]) -> dict[str, float]:
    return {sign.name: float(np.isin(rows, sign.rows).mean()) for sign in signs}


def _told_apart(known: Array, seen: Array, seed: int) -> Array:
    """How much like the window each request is to a classifier that was not trained on it, (M + N,)."""
    truth, rows = np.repeat([0, 1], [len(known), len(seen)]), np.concatenate([known, seen])
    found = np.zeros(len(rows))
    for time in range(TIMES):
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed + time)
        found += cross_val_predict(_classifier(rows.shape[1]), rows, truth, cv=folds, method="decision_function")
    return found


def _classifier(width: int) -> Pipeline:
    """Logistic regression on values and their products: exact for two Gaussians of any covariance."""
    return make_pipeline(
        StandardScaler(),
        *([PCA(WIDEST, random_state=0)] if width > WIDEST else []),
        PolynomialFeatures(2, include_bias=False),
        StandardScaler(),
        LogisticRegression(C=WEAK, max_iter=5000),
    )


def _mixture(width: int) -> Pipeline:
    """A mixture of Gaussians: low between clusters of codes, where the norm is ordinary."""
    return make_pipeline(
        StandardScaler(),
        *([PCA(WIDEST, random_state=0)] if width > WIDEST else []),
        GaussianMixture(PARTS, reg_covar=LEAST_SPREAD, max_iter=500, random_state=0),
    )


def _mixed_in(known: Array, seen: Array) -> tuple[float, float, float]:
    """From scores of reference and window: a limit, the share of the window that is not of the reference, its error.

    The limit is the one at which that share is surest to be large.
    """
    limits = np.quantile(known, np.linspace(0.7, 0.99, 30))
    above, usual = (1 - np.searchsorted(np.sort(scores), limits) / len(scores) for scores in (seen, known))
    shares = (above - usual) / (1 - usual)
    errors = np.sqrt(above * (1 - above) / len(seen) + usual * (1 - usual) / len(known)) / (1 - usual)
    best = int(np.argmax(shares - SURE * errors))
    return float(limits[best]), float(shares[best]), float(errors[best])


def _groups(rows: Array, others: Array) -> tuple[Array, Array]:
    """The group of each row, and of each other row, from 0 on; those between groups belong to the nearest."""
    scaler = StandardScaler().fit(rows)
    values = scaler.transform(rows)
    smallest = max(SMALLEST, len(rows) // 5)
    labels = (
        HDBSCAN(min_cluster_size=smallest, copy=True).fit_predict(values)
        if len(rows) > smallest
        else np.zeros(len(rows))
    )
    names = np.unique(labels[labels >= 0])
    if len(names) < 2:
        return np.zeros(len(rows), dtype=np.int64), np.zeros(len(others), dtype=np.int64)
    centres = np.stack([values[labels == name].mean(axis=0) for name in names])

    def nearest(part: Array) -> Array:
        found: Array = ((part[:, None] - centres) ** 2).sum(axis=2).argmin(axis=1)
        return found

    return nearest(values), nearest(scaler.transform(others)) if len(others) else np.zeros(0, dtype=np.int64)
