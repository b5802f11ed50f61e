"""How the units of a code correspond to known factors of the data.

All are functions of codes (N, D) and factors (N, F), integers from 0; all are 1 for codes that are the factors, and
near 0 for codes that know nothing of them, except where said. Which of them is wanted depends on the question: MIG, SAP
and completeness ask for one unit per factor; disentanglement, modularity and FactorVAE's score for one factor per unit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import mutual_info_score, roc_auc_score
from sklearn.model_selection import train_test_split

from lowerbound.errors import DataError, TooFewError
from lowerbound.lab.evaluation.result import Result, jackknife

Codes = NDArray[np.float64]
Factors = NDArray[np.int64]

BINS = 20  # of each unit, as in the comparisons of Locatello et al. 2019
BATCH = 64  # rows that share a factor, for one vote
VOTES = 2000
GROUPS = 10  # of rows, for standard errors
T = TypeVar("T")

RARE = 8  # rows of a value, below which it is not classified
FEWEST = 100  # rows for which these numbers mean anything


def mutual_information(codes: Codes, factors: Factors, bins: int = BINS) -> NDArray[np.float64]:
    """I(z_d; v_f) in nats, (D, F), with each unit cut into bins of equal width over its range."""
    _check(codes, factors)
    cut = [np.digitize(unit, np.histogram_bin_edges(unit, bins)[1:-1]) for unit in codes.T]
    return np.array([[mutual_info_score(factor, unit) for factor in factors.T] for unit in cut])


def entropy(factors: Factors) -> NDArray[np.float64]:
    """H(v_f) in nats, (F,)."""
    return np.array([mutual_info_score(factor, factor) for factor in factors.T])


def mutual_information_gap(codes: Codes, factors: Factors, bins: int = BINS) -> float:
    """MIG: the lead of the best unit over the second, as a share of the factor's entropy, mean over factors.

    Chen et al. 2018, eq. 6. With one unit, the second is taken to know nothing.
    """
    found = np.sort(np.pad(mutual_information(codes, factors, bins), ((0, 1), (0, 0))), axis=0)[::-1]
    return float(np.mean((found[0] - found[1]) / entropy(factors)))


def separated_attribute_predictability(codes: Codes, factors: Factors) -> float:
    """SAP: the lead of the best unit over the second in R^2 of a linear fit to the factor, mean over factors.

    Kumar et al. 2018, section 3.3; for factors whose values are ordered.
    """
    _check(codes, factors)
    found = np.square(_correlations(codes, factors.astype(np.float64)))
    best = np.sort(np.pad(found, ((0, 1), (0, 0))), axis=0)[::-1]
    return float(np.mean(best[0] - best[1]))


def modularity(codes: Codes, factors: Factors, bins: int = BINS) -> float:
    """1 less the squared information of each unit on all but its best factor, relative to the best, mean over units.

    Ridgeway & Mozer 2018, eq. 2. Units that know no more than chance of any factor do not count.
    """
    known = mutual_information(codes, factors, bins)
    values = np.array([len(np.unique(factor)) for factor in factors.T])
    by_chance = (bins - 1) * (values - 1) / (2 * len(codes))  # of independent variables, to first order
    used = (known > 3 * by_chance).any(axis=1)
    found = np.square(known)
    best = found.max(axis=1)
    if not used.any():
        return 0.0
    others = (found.sum(axis=1) - best)[used] / (best[used] * max(1, factors.shape[1] - 1))
    return float(np.mean(1 - others))


def explicitness(codes: Codes, factors: Factors, seed: int = 0) -> float:
    """How well linear classifiers find each value of each factor in all units: 2 (area under ROC - 1/2), held out.

    Ridgeway & Mozer 2018, section 2.3. Values that fewer than 8 rows have are left out.
    """
    _check(codes, factors)
    areas = []
    for factor in factors.T:
        kept = np.bincount(factor)[factor] >= RARE
        if len(np.unique(factor[kept])) < 2:
            continue
        train, test, known, asked = train_test_split(
            _standard(codes)[kept], factor[kept], stratify=factor[kept], random_state=seed
        )
        said = LogisticRegression(max_iter=1000).fit(train, known).predict_proba(test)
        areas += [roc_auc_score(asked == value, said[:, place]) for place, value in enumerate(np.unique(known))]
    if not areas:
        raise TooFewError(f"no factor has two values with {RARE} rows each: give more rows.")
    return float(2 * (np.mean(areas) - 0.5))


def disentanglement_completeness_informativeness(codes: Codes, factors: Factors, seed: int = 0) -> dict[str, float]:
    """DCI (Eastwood & Williams 2018, section 2) from the importances of random forests, and their held-out accuracy.

    Returns:
        "disentanglement": one factor per unit; "completeness": one unit per factor; "informativeness": accuracy.
    """
    _check(codes, factors)
    importance, accuracy = [], []
    for factor in factors.T:
        train, test, known, asked = train_test_split(codes, factor, random_state=seed)
        forest = RandomForestClassifier(50, max_depth=12, random_state=seed).fit(train, known)
        importance.append(forest.feature_importances_)
        accuracy.append(forest.score(test, asked))
    table = np.array(importance).T  # (D, F)
    weights = table.sum(axis=1) / table.sum()
    return {
        "disentanglement": float(np.sum(weights * (1 - _relative_entropy(table, axis=1)))),
        "completeness": float(np.mean(1 - _relative_entropy(table, axis=0))),
        "informativeness": float(np.mean(accuracy)),
    }


def factor_vae_score(codes: Codes, factors: Factors, seed: int = 0, votes: int = VOTES) -> float:
    """Accuracy at telling which factor was held fixed from the unit that varies least (Kim & Mnih 2018, section 4).

    Rows that share a value are drawn from those given. Chance is 1/F. Unused units need no
    threshold: relative to its own spread, noise varies as much as ever when a factor is held.
    """
    spread = codes.std(axis=0)
    units = np.flatnonzero(spread)

    def vote(rows: Codes, chance: np.random.Generator) -> int:
        return int(np.argmin((rows[:, units] / spread[units]).var(axis=0)))

    _check(codes, factors)
    found = _votes(codes, factors, vote, seed, votes)
    counts = np.zeros((len(units), factors.shape[1]), dtype=int)
    half = len(found) // 2
    for factor, unit in found[:half]:
        counts[unit, factor] += 1
    judge = counts.argmax(axis=1)
    return float(np.mean([judge[unit] == factor for factor, unit in found[half:]]))


def beta_vae_score(codes: Codes, factors: Factors, seed: int = 0, votes: int = VOTES) -> float:
    """Held-out accuracy of a linear classifier of the factor that pairs share, from their mean absolute difference.

    Higgins et al. 2017, section 3. Chance is 1/F. It is 1 for rotated codes as well: a weak test.
    """

    def difference(rows: Codes, chance: np.random.Generator) -> NDArray[np.float64]:
        half = len(rows) // 2
        found: NDArray[np.float64] = np.abs(rows[:half] - rows[half : 2 * half]).mean(axis=0)
        return found

    _check(codes, factors)
    found = _votes(_standard(codes), factors, difference, seed, votes)
    known, seen = np.array([factor for factor, _ in found]), np.array([values for _, values in found])
    half = len(found) // 2
    judge = LogisticRegression(max_iter=1000).fit(_standard(seen)[:half], known[:half])
    return float(judge.score(_standard(seen)[half:], known[half:]))


def disentanglement_results(codes: Codes, factors: Factors, seed: int = 0) -> dict[str, Result]:
    """All of them but the ranking, each with a jackknife standard error over ten groups of rows.

    Factors with one value only in these rows are left out.

    Raises:
        TooFewError: fewer than 200 rows, or no factor that varies.
        DataError: a code that is not a finite number.
    """
    varied = factors[:, [len(np.unique(factor)) > 1 for factor in factors.T]]
    if len(codes) < 2 * FEWEST or not varied.shape[1]:
        raise TooFewError(f"{len(codes)} rows are too few, or no factor varies: give {2 * FEWEST} rows at least.")
    whole = _scores(codes, varied, seed)
    order = np.random.default_rng(seed).permutation(len(codes))
    kept = [np.setdiff1d(order, part) for part in np.array_split(order, GROUPS)]
    left_out = [_scores(codes[rows], varied[rows], seed) for rows in kept]
    return {
        name: Result(value, "estimate", len(codes), jackknife([scores[name] for scores in left_out]))
        for name, value in whole.items()
    }


def unsupervised_disentanglement_ranking(codes: Sequence[Codes], rates: Sequence[NDArray[np.float64]]) -> list[float]:
    """UDR (Duan et al. 2020, eq. 3-4): how far a model's units are those of its fellows, up to order and sign.

    Args:
        codes: of the same rows by each of several models, (N, D) each; trained alike, from other seeds.
        rates: rate per unit of each, (D,), nats; units below 0.01 nats do not count.

    Returns:
        Of each model the median over its fellows; no factors are needed.
    """
    if len(codes) < 2:
        raise TooFewError(
            f"this ranking compares models with one another, and {len(codes)} was given: give two at least."
        )
    used = [found[:, rate > 0.01] for found, rate in zip(codes, rates, strict=True)]
    return [
        float(np.median([_likeness(own, other) for j, other in enumerate(used) if j != i]))
        for i, own in enumerate(used)
    ]


def _scores(codes: Codes, factors: Factors, seed: int) -> dict[str, float]:
    found = disentanglement_completeness_informativeness(codes, factors, seed)
    return {
        "mig": mutual_information_gap(codes, factors),
        "sap": separated_attribute_predictability(codes, factors),
        **{f"dci_{name}": value for name, value in found.items()},
        "modularity": modularity(codes, factors),
        "explicitness": explicitness(codes, factors, seed),
        "factor_vae_score": factor_vae_score(codes, factors, seed),
        "beta_vae_score": beta_vae_score(codes, factors, seed),
    }


def _likeness(one: Codes, other: Codes) -> float:
    if not one.shape[1] or not other.shape[1]:
        return 0.0
    both = spearmanr(np.concatenate([one, other], axis=1)).statistic
    table = np.abs(np.atleast_2d(both))[: one.shape[1], one.shape[1] :]
    rows = np.square(table.max(axis=1)) / table.sum(axis=1)
    columns = np.square(table.max(axis=0)) / table.sum(axis=0)
    return float((rows.sum() + columns.sum()) / (len(rows) + len(columns)))


def _votes(
    codes: Codes, factors: Factors, vote: Callable[[Codes, np.random.Generator], T], seed: int, votes: int
) -> list[tuple[int, T]]:
    """What `vote` says of batches of rows that share one factor's value, and which factor it was."""
    chance = np.random.default_rng(seed)
    found = []
    for _ in range(votes):
        factor = int(chance.integers(factors.shape[1]))
        value = factors[chance.integers(len(factors)), factor]
        alike = np.flatnonzero(factors[:, factor] == value)
        found.append((factor, vote(codes[chance.choice(alike, BATCH)], chance)))
    return found


def _relative_entropy(table: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """The entropy along an axis of non-negative numbers, as a share of the largest there can be."""
    share = table / np.maximum(table.sum(axis=axis, keepdims=True), 1e-12)
    terms = np.where(share > 0, share * np.log(np.maximum(share, 1e-300)), 0.0)
    return np.asarray(-terms.sum(axis=axis) / np.log(max(2, table.shape[axis])))


def _correlations(one: Codes, other: Codes) -> NDArray[np.float64]:
    """Pearson correlation of each column of one with each of the other, (D, F); 0 where one is constant."""
    return _standard(one).T @ _standard(other) / len(one)


def _standard(values: Codes) -> Codes:
    spread = values.std(axis=0)
    return (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1)


def _check(codes: Codes, factors: Factors) -> None:
    """Refuse what these numbers would be meaningless for."""
    if codes.ndim != 2 or factors.ndim != 2 or len(codes) != len(factors):
        raise DataError(f"codes of shape {codes.shape} and factors of shape {factors.shape} do not belong together.")
    if len(codes) < FEWEST:
        raise TooFewError(f"{len(codes)} rows are too few for a number about factors: give {FEWEST} at least.")
    if not np.isfinite(codes).all():
        raise DataError("a code is not a finite number: the model is broken.")
    if constant := [place for place, factor in enumerate(factors.T) if len(np.unique(factor)) < 2]:
        raise DataError(f"factor {constant[0]} has one value only in these rows: leave it out.")
