"""How the units of a code correspond to known factors of the data.

All are functions of codes (N, D) and factors (N, F), integers from 0. All are 1 for codes that are the factors (but for
explicitness of many ordered values) and near 0 for codes that know nothing of them (but for those whose chance is
given); none depends on order, sign or scale of the units. Which of them is wanted depends on the question: MIG, SAP and
completeness ask for one unit per factor; disentanglement, modularity and FactorVAE's score for one factor per unit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.metrics.cluster import expected_mutual_information

from lowerbound.errors import DataError, TooFewError
from lowerbound.lab.evaluation.result import Result, jackknife

Codes = NDArray[np.float64]
Factors = NDArray[np.int64]
Mask = NDArray[np.bool_]

BINS = 20  # of each unit at least, as in the comparisons of Locatello et al. 2019
BATCH = 64  # rows, or pairs of rows, for one vote
VOTES = 2000
SHUFFLES = 10  # of rows, for what units know by chance
TREES, LEAF, LOOKS = 30, 4, 32  # of a forest; the fewest rows in one leaf; units that a split looks at, at most
GROUPS = 10  # of rows, for standard errors
RARE = 8  # rows of a value, below which it is not asked about
FEWEST = 100  # rows for which these numbers mean anything
SAME = 1e-6  # of the size of a unit, below which what it varies by is rounding


def mutual_information(codes: Codes, factors: Factors, bins: int = BINS) -> NDArray[np.float64]:
    """I(z_d; v_f) in nats, (D, F), corrected for chance: 0 for independent rows, H(v_f) where the unit tells the value.

    H (I - E) / (H - E), with E the mean of I over all orders of rows (Vinh et al. 2010, eq. 24a, for the entropy of the
    factor). A unit's values are taken as they are where they are at most as many as bins, or as a factor's values; else
    it is cut into bins of about equal count, each at the widest gap near, so that heavy tails do no harm.
    """
    codes = _checked(codes, factors)
    bins = max(bins, *(len(np.unique(factor)) for factor in factors.T))
    cut = [_cut(unit, bins) for unit in codes.T]
    return np.array([[_information(unit, factor) for factor in factors.T] for unit in cut])


def entropy(factors: Factors) -> NDArray[np.float64]:
    """H(v_f) in nats, (F,)."""
    return np.array([_entropy(factor) for factor in factors.T])


def mutual_information_gap(codes: Codes, factors: Factors, bins: int = BINS) -> float:
    """MIG: the lead of the best unit over the second, as a share of the factor's entropy, mean over factors.

    Chen et al. 2018, eq. 6, with information that is corrected for chance. With one unit, the second is taken to know
    nothing.
    """
    found = np.sort(np.pad(mutual_information(codes, factors, bins), ((0, 1), (0, 0))), axis=0)[::-1]
    return float(np.mean((found[0] - found[1]) / entropy(factors)))


def separated_attribute_predictability(codes: Codes, factors: Factors) -> float:
    """SAP: the lead of the best unit over the second in R^2 of a linear fit to the factor, mean over factors.

    Kumar et al. 2018, section 3.3; for factors whose values are ordered.
    """
    found = np.square(_correlations(_checked(codes, factors), factors.astype(np.float64)))
    best = np.sort(np.pad(found, ((0, 1), (0, 0))), axis=0)[::-1]
    return float(np.mean(best[0] - best[1]))


def modularity(codes: Codes, factors: Factors, bins: int = BINS, seed: int = 0) -> float:
    """1 less the squared information of each unit on all but its best factor, relative to the best, mean over units.

    Ridgeway & Mozer 2018, eq. 2. Units that know no more than chance of any factor do not count; 0 without others.

    Raises:
        TooFewError: one factor only.
    """
    _at_least_two(factors.shape[1])
    used = _informed(codes, factors, bins, seed)
    if not used.any():
        return 0.0
    found = np.square(mutual_information(codes, factors, bins)[used])
    best = found.max(axis=1)
    return float(np.mean(1 - (found.sum(axis=1) - best) / (best * (factors.shape[1] - 1))))


def explicitness(codes: Codes, factors: Factors, seed: int = 0, kept: Mask | None = None) -> float:
    """How well linear classifiers find each value of each factor in all units: 2 (area under ROC - 1/2), held out.

    Ridgeway & Mozer 2018, section 2.3. Values that fewer than 8 rows have are left out. Below 1 even for codes that are
    the factors, where a factor has many values in order: linear classifiers tell neighbours apart badly.

    Args:
        codes, factors: as above.
        seed: of the choice of rows that are held out.
        kept: rows that count, (N,), for a jackknife; whatever is drawn is drawn as if all did.
    """
    codes, kept = _checked(codes, factors), _all(factors) if kept is None else kept
    areas = []
    for factor, common, held in zip(factors.T, _common(factors).T, _held(factors, seed).T, strict=True):
        known, asked = kept & common & ~held, kept & common & held
        values = np.intersect1d(factor[known], factor[asked])
        if len(values) < 2:
            continue
        known, asked = known & np.isin(factor, values), asked & np.isin(factor, values)
        said = LogisticRegression(max_iter=1000).fit(codes[known], factor[known]).predict_proba(codes[asked])
        areas += [roc_auc_score(factor[asked] == value, said[:, place]) for place, value in enumerate(values)]
    if not areas:
        raise TooFewError(f"no factor has two values with {RARE} rows each: give more rows.")
    return float(2 * (np.mean(areas) - 0.5))


def disentanglement_completeness_informativeness(
    codes: Codes, factors: Factors, seed: int = 0, kept: Mask | None = None
) -> dict[str, float]:
    """DCI (Eastwood & Williams 2018, section 2) from the importances of random forests, and their held-out accuracy.

    Args:
        codes, factors, seed, kept: as for `explicitness`.

    Returns:
        "disentanglement": one factor per unit; absent for one factor. "completeness": one unit per factor; absent for
        one unit. "informativeness": accuracy; by chance, that of always guessing the commonest value.
    """
    codes, kept = _checked(codes, factors), _all(factors) if kept is None else kept
    importance, accuracy = [], []
    for factor, held in zip(factors.T, _held(factors, seed).T, strict=True):
        # A split that does not see the one good unit takes a bad one: of D units, the usual choice is among sqrt(D).
        looks = min(LOOKS, codes.shape[1])
        forest = RandomForestClassifier(TREES, max_features=looks, min_samples_leaf=LEAF, random_state=seed)
        forest.fit(codes[~held], factor[~held], sample_weight=kept[~held].astype(float))
        importance.append(forest.feature_importances_)
        accuracy.append(forest.score(codes[held & kept], factor[held & kept]))
    table = np.array(importance).T  # (D, F)
    weights = table.sum(axis=1) / max(table.sum(), 1e-300)
    found = {}
    if table.shape[1] > 1:
        found["disentanglement"] = float(np.sum(weights * _concentration(table, axis=1)))
    if table.shape[0] > 1:
        found["completeness"] = float(np.mean(_concentration(table, axis=0)))
    return found | {"informativeness": float(np.mean(accuracy))}


def factor_vae_score(
    codes: Codes, factors: Factors, seed: int = 0, votes: int = VOTES, kept: Mask | None = None
) -> float:
    """Accuracy at telling which factor was held fixed from the unit that varies least (Kim & Mnih 2018, section 4).

    Rows that share a value are drawn from those given, without repetition; values that fewer than 8 have are not held.
    Chance is 1/F. Only units vote that know of some factor more than chance: one that is nearly always the same varies
    little in most batches, and would win their votes.

    Args:
        codes, factors, seed, kept: as for `explicitness`.
        votes: in all; one half says which factor a unit stands for, and the other is asked.

    Raises:
        TooFewError: fewer than two factors that can be held.
    """
    codes, kept = _checked(codes, factors), _all(factors) if kept is None else kept
    units = codes[:, _informed(codes[kept], factors[kept], BINS, seed)]
    common, asked = _common(factors), _holdable(factors)
    if not units.shape[1]:
        return 1 / len(asked)
    chance = np.random.default_rng(seed)
    counts = np.zeros((2, units.shape[1], len(asked)), dtype=int)
    for vote in range(votes):
        place = int(chance.integers(len(asked)))
        factor, choice = factors[:, asked[place]], np.flatnonzero(common[:, asked[place]])
        rows = chance.permutation(np.flatnonzero(factor == factor[chance.choice(choice)]))[:BATCH]
        rows = rows[kept[rows]]
        if len(rows) > 1:
            counts[vote % 2, units[rows].var(axis=0).argmin(), place] += 1
    judge = counts[0].argmax(axis=1)
    return float(counts[1, np.arange(len(judge)), judge].sum() / counts[1].sum())


def beta_vae_score(
    codes: Codes, factors: Factors, seed: int = 0, votes: int = VOTES, kept: Mask | None = None
) -> float:
    """Held-out accuracy of a linear classifier of the factor that pairs share, from their mean absolute difference.

    Higgins et al. 2017, section 3: each pair of a batch shares a value of its own. Pairs are of two rows of those
    given; values that fewer than 8 have are not shared. Chance is 1/F. It is 1 for rotated codes as well: a weak test.

    Args:
        codes, factors, seed, votes, kept: as for `factor_vae_score`.

    Raises:
        TooFewError: fewer than two factors that can be held.
    """
    codes, kept = _checked(codes, factors), _all(factors) if kept is None else kept
    common, asked = _common(factors), _holdable(factors)
    chance = np.random.default_rng(seed)
    shared = np.arange(votes) % len(asked)
    seen = np.zeros((votes, codes.shape[1]))
    for vote, factor in enumerate(asked[shared]):
        one, other = _pairs(factors[:, factor], common[:, factor], chance)
        there = kept[one] & kept[other]
        seen[vote] = there @ np.abs(codes[one] - codes[other]) / max(1, there.sum())
    seen, half = _standard(seen), votes // 2
    judge = LogisticRegression(max_iter=1000).fit(seen[:half], shared[:half])
    return float(judge.score(seen[half:], shared[half:]))


def disentanglement_results(codes: Codes, factors: Factors, seed: int = 0) -> dict[str, Result]:
    """All of them but the ranking, each with a jackknife standard error over ten groups of rows.

    Factors with fewer than 16 rows off their commonest value, or more values than a quarter of the rows, are left out.
    So are scores that cannot be had: those that compare factors where there is one, units where there is one, and
    explicitness where all values are rare.

    Raises:
        TooFewError: fewer than 200 rows, or no factor that varies.
        DataError: a code that is not a finite number, or a factor below 0.
    """
    counts = [np.unique(factor, return_counts=True)[1] for factor in factors.T]
    rows = len(codes)
    varied = factors[:, [rows - count.max() >= 2 * RARE and 4 * len(count) <= rows for count in counts]]
    if rows < 2 * FEWEST or not varied.shape[1]:
        raise TooFewError(f"{rows} rows are too few, or no factor varies: give {2 * FEWEST} rows at least.")
    whole = _scores(codes, varied, seed, _all(varied))
    groups = np.array_split(np.random.default_rng(seed).permutation(rows), GROUPS)
    left_out = [_scores(codes, varied, seed, ~np.isin(np.arange(rows), group)) for group in groups]
    return {
        name: Result(value, "estimate", rows, jackknife([scores[name] for scores in left_out if name in scores]))
        for name, value in whole.items()
    }


def unsupervised_disentanglement_ranking(codes: Sequence[Codes], rates: Sequence[NDArray[np.float64]]) -> list[float]:
    """UDR (Duan et al. 2020, eq. 3-4): how far a model's units are those of its fellows, up to order and sign.

    Args:
        codes: of the same rows by each of several models, (N, D) each; trained alike, from other seeds.
        rates: rate per unit of each, (D,), nats; units below 0.01 nats do not count.

    Returns:
        Of each model the median over its fellows; no factors are needed.

    Raises:
        TooFewError: one model only.
        DataError: codes that are not finite, of other rows than the first, or of other units than their rates.
    """
    if len(codes) < 2:
        raise TooFewError(
            f"this ranking compares models with one another, and {len(codes)} was given: give two at least."
        )
    for place, (found, rate) in enumerate(zip(codes, rates, strict=True)):
        if found.shape != (len(codes[0]), len(rate)) or not np.isfinite(found).all():
            raise DataError(
                f"codes {place} of shape {found.shape} are not finite numbers of the first's {len(codes[0])} rows and "
                f"of the {len(rate)} units that have rates: give codes of the same rows by all models."
            )
    used = [_standard(rankdata(found[:, rate > 0.01], axis=0)) for found, rate in zip(codes, rates, strict=True)]
    return [
        float(np.median([_likeness(own, other) for j, other in enumerate(used) if j != i]))
        for i, own in enumerate(used)
    ]


def _scores(codes: Codes, factors: Factors, seed: int, kept: Mask) -> dict[str, float]:
    """All scores that can be had of the rows that are kept, by name."""
    own = codes[kept], factors[kept]
    dci = disentanglement_completeness_informativeness(codes, factors, seed, kept)
    found = {
        "mig": mutual_information_gap(*own),
        "sap": separated_attribute_predictability(*own),
        **{f"dci_{name}": value for name, value in dci.items()},
    }
    demanding: dict[str, Callable[[], float]] = {
        "modularity": lambda: modularity(*own, seed=seed),
        "explicitness": lambda: explicitness(codes, factors, seed, kept),
        "factor_vae_score": lambda: factor_vae_score(codes, factors, seed, kept=kept),
        "beta_vae_score": lambda: beta_vae_score(codes, factors, seed, kept=kept),
    }
    for name, score in demanding.items():
        with suppress(TooFewError):
            found[name] = score()
    return found


def _likeness(one: Codes, other: Codes) -> float:
    """Of standardised ranks, (N, D) each."""
    if not one.shape[1] or not other.shape[1]:
        return 0.0
    table = np.abs(_correlations(one, other))
    rows = np.square(table.max(axis=1)) / np.maximum(table.sum(axis=1), 1e-300)
    columns = np.square(table.max(axis=0)) / np.maximum(table.sum(axis=0), 1e-300)
    return float((rows.sum() + columns.sum()) / (len(rows) + len(columns)))


def _informed(codes: Codes, factors: Factors, bins: int, seed: int) -> Mask:
    """Which units know of some factor twice as much as any unit when rows are shuffled, (D,)."""
    chance = np.random.default_rng(seed)
    shuffled = [mutual_information(chance.permutation(codes), factors, bins) for _ in range(SHUFFLES)]
    return np.asarray((mutual_information(codes, factors, bins) > 2 * np.max(shuffled, axis=(0, 1))).any(axis=1))


def _cut(unit: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    """The number of the bin of each value."""
    values, own = np.unique(unit, return_inverse=True)
    if len(values) <= bins:
        return own
    ordered = np.sort(unit)
    gaps = np.diff(ordered)
    widest = [near[gaps[near].argmax()] for near in np.array_split(np.arange(len(gaps)), bins - 1)]
    return np.searchsorted(ordered[[place for place in widest if gaps[place] > 0]], unit)


def _information(unit: NDArray[np.int64], factor: NDArray[np.int64]) -> float:
    """The corrected information of labels on labels, nats."""
    whole = _entropy(factor)
    found = _entropy(unit) + whole - _entropy(unit * (factor.max() + 1) + factor)
    chance = _by_chance(_counts(unit), _counts(factor))
    return max(0.0, whole * (found - chance) / (whole - chance)) if whole - chance > SAME else 0.0


def _entropy(labels: NDArray[np.int64]) -> float:
    share = np.array(_counts(labels)) / len(labels)
    return float(-(share * np.log(share)).sum())


def _counts(labels: NDArray[np.int64]) -> tuple[int, ...]:
    counts = np.bincount(labels)
    return tuple(counts[counts > 0].tolist())


@lru_cache(maxsize=4096)
def _by_chance(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    """The mean information of labels on labels over all orders of rows, given how many rows have each, nats."""
    unit, factor = np.repeat(np.arange(len(one)), one), np.repeat(np.arange(len(other)), other)
    table = np.bincount(unit * len(other) + factor, minlength=len(one) * len(other)).reshape(len(one), len(other))
    return float(expected_mutual_information(table, len(unit)))


def _all(factors: Factors) -> Mask:
    return np.ones(len(factors), dtype=bool)


def _common(factors: Factors) -> Mask:
    """Which rows share their value with enough others to be asked about, (N, F)."""
    return np.stack([np.bincount(factor)[factor] >= RARE for factor in factors.T], axis=1)


def _held(factors: Factors, seed: int) -> Mask:
    """Which rows are asked about rather than learned from, (N, F): a quarter of those of each value, at random."""
    chance, held = np.random.default_rng(seed), np.zeros(factors.shape, dtype=bool)
    for place, factor in enumerate(factors.T):
        held[np.lexsort((chance.random(len(factor)), factor))[3::4], place] = True
    return held


def _holdable(factors: Factors) -> NDArray[np.int64]:
    """The factors with a value that can be held fixed."""
    found = np.flatnonzero(_common(factors).any(axis=0))
    _at_least_two(len(found))
    return found


def _pairs(
    values: NDArray[np.int64], common: Mask, chance: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows with a common value, drawn at random, and for each another one with the same value."""
    order = np.argsort(values, kind="stable")
    one = chance.choice(np.flatnonzero(common[order]), BATCH)  # places in that order
    first = np.searchsorted(values[order], values[order[one]])
    count = np.bincount(values)[values[order[one]]]
    other = first + (one - first + chance.integers(1, count)) % count
    return order[one], order[other]


def _concentration(table: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """1 less the entropy along an axis of non-negative numbers, relative to the largest there can be; 0 of nothing."""
    total = table.sum(axis=axis, keepdims=True)
    share = table / np.maximum(total, 1e-300)
    terms = share * np.log(np.maximum(share, 1e-300))
    return np.asarray((total.squeeze(axis) > 0) * (1 + terms.sum(axis=axis) / np.log(table.shape[axis])))


def _correlations(one: Codes, other: Codes) -> NDArray[np.float64]:
    """Pearson correlation of each column of one with each of the other, (D, F); 0 where one is constant."""
    return _standard(one).T @ _standard(other) / len(one)


def _standard(values: Codes) -> Codes:
    """Columns of mean 0 and variance 1; a column is 0 where it varies by rounding only."""
    size = np.abs(values).max(axis=0)
    scaled = values / np.where(size > 0, size, 1)
    spread = scaled.std(axis=0)
    varies = spread > SAME
    return np.where(varies, scaled - scaled.mean(axis=0), 0) / np.where(varies, spread, 1)


def _at_least_two(factors: int) -> None:
    if factors < 2:
        raise TooFewError("this score compares factors with one another: give two at least with common values.")


def _checked(codes: Codes, factors: Factors) -> Codes:
    """The codes in units of their spread; what these numbers would be meaningless for is refused."""
    if codes.ndim != 2 or factors.ndim != 2 or len(codes) != len(factors):
        raise DataError(f"codes of shape {codes.shape} and factors of shape {factors.shape} do not belong together.")
    if len(codes) < FEWEST:
        raise TooFewError(f"{len(codes)} rows are too few for a number about factors: give {FEWEST} at least.")
    if not np.isfinite(codes).all():
        raise DataError("a code is not a finite number: the model is broken.")
    if factors.min() < 0:
        raise DataError("a factor is below 0: factors are whole numbers from 0; leave out rows where one is unknown.")
    if constant := [place for place, factor in enumerate(factors.T) if len(np.unique(factor)) < 2]:
        raise DataError(f"factor {constant[0]} has one value only in these rows: leave it out.")
    return _standard(codes)
