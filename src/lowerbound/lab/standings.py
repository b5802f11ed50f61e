"""What a contest comes to: numbers over seeds with intervals, a table, and sentences that follow from them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lowerbound.lab.contest import COOL, Entrant, Measure, Outcome, Plan
from lowerbound.recipe import read_recipe

WIDE = 1.96  # standard errors of an interval of 95 %
LOST = 0.1  # share of the rows that samples may leave out
FAR = 5.0  # times the fastest from which drawing counts as slow


@dataclass(frozen=True)
class Spread:
    """A number over the seeds of a family.

    Attributes:
        values: of each run that has it.
        error: of the mean: the spread over seeds, and the mean error of one run, which all share through the rows.
    """

    values: tuple[float, ...]
    error: float

    @property
    def mean(self) -> float:
        """Over seeds."""
        return statistics.mean(self.values)

    @property
    def deviation(self) -> float:
        """Over seeds; 0 of one."""
        return statistics.stdev(self.values) if len(self.values) > 1 else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Of 95 % by a normal law."""
        return self.mean - WIDE * self.error, self.mean + WIDE * self.error

    def differs(self, other: Spread) -> bool:
        """Whether two means differ by more than the interval of their difference."""
        return abs(self.mean - other.mean) > WIDE * math.hypot(self.error, other.error)


@dataclass(frozen=True)
class Standing:
    """One family of a contest.

    Attributes:
        entrant: how it was trained.
        outcomes: its runs.
        numbers: over the runs that have them, by name.
        objective: what it was trained for, in words of its recipe.
    """

    entrant: Entrant
    outcomes: tuple[Outcome, ...]
    numbers: dict[str, Spread]
    objective: str

    @property
    def name(self) -> str:
        """As it was asked for."""
        return self.entrant.name

    @property
    def failures(self) -> int:
        """Runs in which something went wrong, collapse included."""
        return sum(bool(outcome.failed) or _lost(outcome) for outcome in self.outcomes)

    @property
    def likelihood(self) -> str:
        """ "exact", "bound" or "none"."""
        return self.outcomes[0].likelihood

    @property
    def encodes(self) -> bool:
        """Whether rows have codes."""
        return bool(self.numbers) and "encode" not in self.outcomes[0].told


@dataclass(frozen=True)
class Line:
    """One line of the table: a criterion, and what each family is by it."""

    title: str
    note: str
    cells: list[str]


def standings(plan: Plan, outcomes: Sequence[Outcome]) -> list[Standing]:
    """Each family that has a run, in the order of the plan."""
    found = []
    for entrant in plan.entrants:
        own = tuple(outcome for outcome in outcomes if outcome.name == entrant.name)
        if own:
            found.append(Standing(entrant, own, _spreads(own), _objective(entrant)))
    return found


def table(found: Sequence[Standing]) -> list[Line]:
    """The table of a contest, a line for each criterion."""

    def line(title: str, note: str, cell: Callable[[Standing], str]) -> Line:
        return Line(title, note, [cell(standing) if standing.numbers else "failed" for standing in found])

    return [
        line("trained for", "the objective of the recipe", lambda one: one.objective),
        line("training", "steps; seconds by the clock and of the processor; parameters", _training),
        line("stability", "runs that failed or lost modes; KID of the best and the worst seed", _stability),
        line("KID", "kernel distance of samples from held-out rows, 0 is ideal; 95 % interval", _of("kernel_distance")),
        line(
            "two-sample test",
            "how often a classifier tells samples from rows, 50 % is ideal; 95 % interval; largest p of a seed",
            _told_apart,
        ),
        line("precision", "samples that are near some row", _of("precision", percent=True)),
        line("mode coverage", "rows that have a sample near; rows in places that samples leave out", _coverage),
        line("time per image", "of the processor, with 32 drawn at once", _time),
        line("likelihood", "of held-out rows, bits per dimension or nats; smaller is better", _likelihood),
        line("latent space", "what rows can be encoded to; what a linear probe reads of the label", _latents),
        line("diversity control", f"what a temperature of {COOL} makes of precision and of coverage", _control),
    ]


def advice(found: Sequence[Standing]) -> list[str]:
    """Sentences about when to choose which, that follow from the numbers and from nothing else."""
    good = [one for one in found if one.numbers]
    if len(good) < 2:
        return []
    told = [_on_samples(good), _on_modes(good), _on_time(good), _on_likelihood(good), _on_codes(good), _on_seeds(found)]
    return [*filter(None, told), *(_choose(one, good) for one in good)]


def best(found: Sequence[Standing], number: str, largest: bool = False) -> list[Standing]:
    """The family with the best mean of a number first, and those that cannot be told from it."""
    there = [one for one in found if number in one.numbers]
    if not there:
        return []
    order = sorted(there, key=lambda one: one.numbers[number].mean, reverse=largest)
    first = order[0].numbers[number]
    return [order[0], *(one for one in order[1:] if not one.numbers[number].differs(first))]


def _on_samples(found: Sequence[Standing]) -> str:
    leaders = best(found, "kernel_distance")
    first, *others = leaders
    rest = [one for one in found if one not in leaders]
    alike = f"; {_names(others)} cannot be told from it at 95 %" if others else ""
    others_told = ", ".join(f"{one.name} has {_number(one, 'kernel_distance')}" for one in rest)
    far = f"; {others_told}" if rest else ""
    passed = [one for one in found if one.numbers["two_sample_accuracy"].interval[0] <= 0.5]
    least = min(found, key=lambda one: one.numbers["two_sample_accuracy"].mean).name
    seen = f"a classifier tells the samples of each from rows, those of {least} least often"
    if passed:
        seen = f"a classifier cannot tell samples of {_names(passed)} from rows"
    return (
        f"Samples: {first.name} is nearest to the data (KID {_number(first, 'kernel_distance')}){alike}{far}; {seen}."
    )


def _on_modes(found: Sequence[Standing]) -> str:
    first, *others = best(found, "coverage", largest=True)
    also = f", as does {_names(others)} within the error" if others else ""
    lossy = [one for one in found if one.numbers["lost_share"].mean >= LOST]
    lost = [f"{one.name} leaves out places of {one.numbers['lost_share'].mean:.0%} of the rows" for one in lossy]
    told = "; ".join(lost or [f"none leaves out places of {LOST:.0%} of the rows or more"])
    most = f"{first.numbers['coverage'].mean:.0%} of the rows have a sample near"
    return f"Modes: {first.name} covers most ({most}){also}; {told}."


def _on_time(found: Sequence[Standing]) -> str:
    order = sorted(found, key=lambda one: one.numbers["sample_s"].mean)
    quick, slow = order[0], order[-1]
    ratio = slow.numbers["sample_s"].mean / quick.numbers["sample_s"].mean
    return f"Drawing: {quick.name} is fastest ({_time(quick)}), {slow.name} {ratio:,.0f} times slower ({_time(slow)})."


def _on_likelihood(found: Sequence[Standing]) -> str:
    by_kind = {kind: [one for one in found if one.likelihood == kind] for kind in ("exact", "bound", "none")}
    said = [f"{_names(those)} {_has(those)} {what}" for kind, what in KINDS.items() if (those := by_kind[kind])]
    same = [one for one in found if "bits_per_dim" in one.numbers and not _binary(one)]
    if len(same) > 1:
        first = best(same, "bits_per_dim")[0]
        said.append(
            f"of those that describe the same levels, {first.name} has the best ({_number(first, 'bits_per_dim')} bits)"
        )
    return f"Likelihood: {'; '.join(said)}."


KINDS = {"exact": "an exact one", "bound": "a bound", "none": "none"}


def _on_codes(found: Sequence[Standing]) -> str:
    able = [one for one in found if one.encodes]
    if not able:
        return "Codes: none of these encodes rows, so none can compare, edit or compress them."
    probed = best(able, "linear_probe_accuracy", largest=True)
    said = ""
    if probed:
        read = _number(probed[0], "linear_probe_accuracy", percent=True)
        said = f"; a linear probe reads {read} of the labels from those of {probed[0].name}"
    return f"Codes: only {_names(able)} {'encodes' if len(able) == 1 else 'encode'} rows{said}."


def _on_seeds(found: Sequence[Standing]) -> str:
    failed = [f"{one.name} {one.failures} of {len(one.outcomes)}" for one in found if one.failures]
    several = [one for one in found if one.numbers and len(one.outcomes) > 1]
    said = f"failed or lost modes: {', '.join(failed)}" if failed else "no run failed or lost modes"
    if not several:
        return f"Seeds: {said}."
    worst = max(several, key=lambda one: one.numbers["kernel_distance"].deviation)
    low, high = min(worst.numbers["kernel_distance"].values), max(worst.numbers["kernel_distance"].values)
    return f"Seeds: {said}; they matter most for {worst.name} (KID {low:.3g} to {high:.3g})."


def _choose(one: Standing, found: Sequence[Standing]) -> str:
    """What speaks for a family, and what against it."""
    quick = min(other.numbers["sample_s"].mean for other in found)
    same = [other for other in found if "bits_per_dim" in other.numbers and not _binary(other)]
    leads = {
        "samples must look like the data": one in best(found, "kernel_distance"),
        "every kind of row must appear": one in best(found, "coverage", largest=True),
        "rows are drawn by the million": one.numbers["sample_s"].mean < FAR * quick,
        "an exact likelihood is asked for": one.likelihood == "exact",
        "the likelihood should be best": len(same) > 1 and one in best(same, "bits_per_dim"),
        "rows must be encoded": one.encodes,
    }
    lacks = {
        "it leaves out modes": one.numbers["lost_share"].mean >= LOST,
        "a run of it failed": any(outcome.failed for outcome in one.outcomes),
        "it has no likelihood": one.likelihood == "none",
        "it is slow to draw from": one.numbers["sample_s"].mean >= FAR * quick,
        "it has no codes of rows": not one.encodes,
    }
    good, bad = ([reason for reason, true in each.items() if true] for each in (leads, lacks))
    if not good:
        return f"{one.name}: nothing speaks for it on these data in this time; another is better at each of these."
    return f"{one.name}: choose it where {_listed(good)}" + (f"; but {_listed(bad)}." if bad else ".")


def _training(one: Standing) -> str:
    found = {key: one.numbers[key].mean for key in ("steps", "train_s", "train_processor_s", "parameters")}
    return (
        f"{found['steps']:,.0f} steps, {found['train_s']:.0f} s ({found['train_processor_s']:.0f} s of processor), "
        f"{found['parameters']:,.0f} parameters"
    )


def _stability(one: Standing) -> str:
    values = one.numbers["kernel_distance"].values
    return f"{one.failures} of {len(one.outcomes)} failed; {min(values):.3g} to {max(values):.3g}"


def _told_apart(one: Standing) -> str:
    p = max(one.numbers["two_sample_p_value"].values)
    return f"{_number(one, 'two_sample_accuracy', percent=True)}; p {p:.2g}"


def _coverage(one: Standing) -> str:
    lost = f"{one.numbers['lost_share'].mean:.0%} left out"
    centres = one.numbers.get("centres_covered")
    known = f"; {centres.mean:.1f} centres" if centres else ""
    return f"{_number(one, 'coverage', percent=True)}; {lost}{known}"


def _time(one: Standing) -> str:
    seconds = one.numbers["sample_s"].mean
    return f"{1e6 * seconds:.3g} µs" if seconds < 1e-3 else f"{1e3 * seconds:.3g} ms"


def _likelihood(one: Standing) -> str:
    if one.likelihood == "none":
        return "none"
    unit = "bits_per_dim" if "bits_per_dim" in one.numbers else "nll_nats"
    word = "bits" if unit == "bits_per_dim" else "nats"
    return f"{one.likelihood}: {_number(one, unit)} {word} ({one.outcomes[0].told['likelihood']})"


def _latents(one: Standing) -> str:
    if not one.encodes:
        return "codes decode, rows have none" if one.numbers["units"].mean else "none"
    probe = one.numbers.get("linear_probe_accuracy")
    read = f"; a probe reads {probe.mean:.0%} of labels" if probe else ""
    return f"{one.numbers['units'].mean:.0f} numbers a row: encode, decode, interpolate{read}"


def _control(one: Standing) -> str:
    if "cool_precision" not in one.numbers:
        return "none: the temperature changes nothing"
    before, after = (
        tuple(one.numbers[f"{prefix}{key}"].mean for key in ("precision", "coverage")) for prefix in ("", "cool_")
    )
    return f"precision {before[0]:.0%} to {after[0]:.0%}, coverage {before[1]:.0%} to {after[1]:.0%}"


def _of(number: str, percent: bool = False) -> Callable[[Standing], str]:
    return lambda one: _number(one, number, percent)


def _number(one: Standing, number: str, percent: bool = False) -> str:
    """A mean with its interval of 95 %."""
    spread = one.numbers[number]
    low, high = spread.interval
    if percent:
        return f"{spread.mean:.0%} ({low:.0%} to {high:.0%})"
    return f"{spread.mean:.3g} ({low:.3g} to {high:.3g})"


def _spreads(outcomes: Sequence[Outcome]) -> dict[str, Spread]:
    names = {name for outcome in outcomes for name in outcome.numbers}
    return {name: _spread([o.numbers[name] for o in outcomes if name in o.numbers]) for name in sorted(names)}


def _spread(measures: Sequence[Measure]) -> Spread:
    values = tuple(measure.value for measure in measures)
    between = statistics.variance(values) / len(values) if len(values) > 1 else 0.0
    within = statistics.mean((measure.error or 0.0) ** 2 for measure in measures)
    return Spread(values, math.sqrt(between + within))


def _objective(entrant: Entrant) -> str:
    """The objective's kind with that of its game, and of a density what it is of."""
    recipe = read_recipe(entrant.recipe, entrant.overrides)
    game = recipe.objective.get("game")
    of = f" ({game['kind']})" if isinstance(game, dict) else ""
    density = recipe.model.get("density")
    made = f", density: {density['kind']}" if isinstance(density, dict) else ""
    return f"{recipe.objective['kind']}{of} of {recipe.model['kind']}{made}"


def _lost(outcome: Outcome) -> bool:
    return "lost_share" in outcome.numbers and outcome.numbers["lost_share"].value >= LOST


def _binary(one: Standing) -> bool:
    """Whether its likelihood is of binarised rows, which is another quantity than that of levels."""
    return one.outcomes[0].told.get("likelihood", "").startswith("binary")


def _names(found: Sequence[Standing]) -> str:
    return _listed([one.name for one in found])


def _has(found: Sequence[Standing]) -> str:
    return "has" if len(found) == 1 else "have"


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
