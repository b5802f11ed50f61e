"""Families side by side on one kind of data: equal time to train in, several seeds, and every number measured.

Time is that of the processor where one computes on it (which is the clock's, if one thread has a core to itself), so
that a busy machine favours nobody; elsewhere it is the clock's.

A contest is a folder: `plan.json` says what is trained and for how many steps, each run is a folder in it with a
`measures.json`, and `contest.json` is what they come to. All of it may be stopped and gone on with.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from lowerbound.errors import DataError, NotSupportedError, UsageError
from lowerbound.files import read_json, write_json
from lowerbound.lab.data.load import load_data
from lowerbound.lab.data.rows import Dataset
from lowerbound.lab.device import find_device
from lowerbound.lab.evaluation.case import Case
from lowerbound.lab.evaluation.distances import kernel_distance
from lowerbound.lab.evaluation.features import RAW, make_extractor
from lowerbound.lab.evaluation.modes import NEAR, lost_rows
from lowerbound.lab.evaluation.quality import neighbourhoods, two_sample_test
from lowerbound.lab.experiment import make_loop
from lowerbound.lab.generation import use
from lowerbound.lab.recorder import Progress
from lowerbound.lab.run import Run
from lowerbound.lab.sweep import Trial, run_trial
from lowerbound.lab.training.journal import read_journal
from lowerbound.model.families.family import Family
from lowerbound.recipe import Recipe, read_recipe, shipped

Record = TypeVar("Record")

SCHEMA = 1
WORDS = ("vae", "gan", "diffusion", "autoregressive", "flow")
# The recipe of each family by the kind of data, with what is changed in it; other data take names or files of recipes.
RECIPES: dict[str, dict[str, tuple[str, ...]]] = {
    "digits": {
        "vae": ("digits",),
        "gan": ("digits-gan",),
        "diffusion": ("digits-diffusion",),
        "autoregressive": ("digits-pixelcnn",),
        "flow": ("digits-glow",),
    },
    "mnist": {
        "vae": ("mnist",),
        "gan": (
            "digits-gan",
            'data={kind="mnist"}',
            "model.latent=64",
            "model.network.widths=[512, 512]",
            "objective.critic.widths=[512, 512]",
        ),
        "diffusion": ("digits-diffusion", 'data={kind="mnist"}'),
        "autoregressive": ("digits-pixelcnn", 'data={kind="mnist"}'),
        "flow": ("digits-glow", 'data={kind="mnist"}'),
    },
}
BUDGETS = {"digits": 20.0, "mnist": 150.0}  # seconds to train each run in, by the kind of data
ROWS = 1000  # held-out rows that samples are compared with, at most
DRAWS = 64  # of a bound on the likelihood, at most
TRIED, SPELLS, SPELL_S = 3, 4, 0.5  # steps before a clock runs, and how often and how long it runs
TIMED, TIMES = 32, 3  # images drawn at once, and how often, to time one
COOL = 0.7  # the temperature at which the control of diversity is tried


@dataclass(frozen=True)
class Entrant:
    """One family of a contest.

    Attributes:
        name: the word or recipe that it was asked for by.
        recipe: that it is trained by, steps and all.
        overrides: what was changed in it.
        steps: that fit into the budget.
        step_s: seconds that one took when that was planned.
    """

    name: str
    recipe: str
    overrides: tuple[str, ...]
    steps: int
    step_s: float


@dataclass(frozen=True)
class Plan:
    """What a contest trains.

    Attributes:
        data: kind of the rows.
        budget_s: to train each run in.
        seeds: of each family.
        entrants: one for each family.
    """

    data: str
    budget_s: float
    seeds: int
    entrants: tuple[Entrant, ...]


@dataclass(frozen=True)
class Measure:
    """A number of a run; `error` is its standard error, None where it has none."""

    value: float
    error: float | None = None


@dataclass(frozen=True)
class Outcome:
    """What one run of a contest was found to be worth.

    Attributes:
        name: of the entrant.
        seed: of the run.
        run: its folder.
        numbers: by name, with the unit in it.
        likelihood: what `bits_per_dim` or `nll_nats` is: "exact", "bound", or "none".
        told: "likelihood": of what it is one, or why there is none; "encode": why it cannot.
        failed: what went wrong; empty if nothing did.
    """

    name: str
    seed: int
    run: str
    numbers: dict[str, Measure]
    likelihood: str = "none"
    told: dict[str, str] = field(default_factory=dict)
    failed: str = ""


def plan_contest(
    data: str,
    families: Sequence[str],
    out: Path,
    *,
    budget_s: float | None = None,
    seeds: int = 3,
    data_dir: Path | None = None,
    device: str = "cpu",
) -> Plan:
    """The plan of a contest: that in the folder, or a new one, whose steps are timed now.

    Args:
        data: kind of the rows.
        families: words of `WORDS`, or names or files of recipes on these data.
        out: the folder.
        budget_s: to train each run in; by default that of the data.
        seeds: of each family.
        data_dir: where data lie.
        device: a torch device.

    Raises:
        UsageError: a family without a recipe for the data, a recipe on other data, one given twice, or another plan in
            the folder.
    """
    folders = [_folder(name) for name in families]
    if twice := [folder for folder in folders if folders.count(folder) > 1]:
        raise UsageError(f"--families has {twice[0]} twice; give each once, and files of different names.")
    budget_s = BUDGETS.get(data, 60.0) if budget_s is None else budget_s
    asked = {name: _recipe_of(data, name) for name in families}
    path = out / "plan.json"
    if path.exists():
        return _same_plan(_read_plan(path), path, data, budget_s, seeds, asked)
    entrants = []
    for name, (recipe, *overrides) in asked.items():
        step_s = seconds_per_step(read_recipe(recipe, overrides), data_dir, device)
        entrants.append(Entrant(name, recipe, tuple(overrides), max(1, int(budget_s / step_s)), step_s))
    plan = Plan(data, budget_s, seeds, tuple(entrants))
    write_json(path, {"schema": SCHEMA, **asdict(plan)})
    return plan


def trials_of(plan: Plan, out: Path) -> list[Trial]:
    """The runs of a plan, all families' first seeds first: who stops early has seen each family."""
    return [
        Trial(entrant.name, _within(entrant, seed), out / f"{_folder(entrant.name)}-{seed}")
        for seed in range(plan.seeds)
        for entrant in plan.entrants
    ]


def run_contestant(
    trial: Trial,
    data_dir: Path | None = None,
    device: str = "cpu",
    watch: Callable[[Progress], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> Outcome | None:
    """Train, judge and measure one run, or take what is there; None where it was stopped."""
    path = trial.path / "measures.json"
    if path.exists():
        return _read_outcome(path)
    found = run_trial(trial, data_dir, device, watch, stop)
    if found is None:
        return None
    if not Run(trial.path).finished:
        return Outcome(trial.value, trial.recipe.seed, trial.path.name, {}, failed=found.failed)
    outcome = measure(Run(trial.path), trial.value, found.failed, data_dir, device)
    write_json(path, asdict(outcome))
    return outcome


def measure(run: Run, name: str, failed: str = "", data_dir: Path | None = None, device: str = "cpu") -> Outcome:
    """What a finished and judged run can do, in numbers.

    Args:
        run: with its `evaluation.json`.
        name: of the entrant.
        failed: what went wrong in it.
        data_dir: where data lie.
        device: a torch device.
    """
    recipe, judged = run.recipe(), read_json(run.evaluation_path)
    data = load_data(recipe.data, data_dir, run.quarantine_path)
    model = run.model().to(find_device(device))
    case = Case(model, data, recipe.evaluation)
    results = judged["results"]
    last = read_journal(run.journal_path)[-1]
    numbers = {
        "steps": Measure(float(last["step"])),
        "train_s": Measure(float(last["seconds"])),
        "train_processor_s": Measure(float(last["processor_seconds"])),
        "parameters": Measure(float(sum(p.numel() for p in model.parameters()))),
    }
    numbers |= _drawn(case, data)
    numbers["sample_s"] = Measure(seconds_per_sample(case))
    numbers |= {key: _of(results[key]) for key in ("bits_per_dim", "nll_nats") if key in results}
    likelihood, of = _likelihood(model, judged)
    codes, told = _codes(case, results)
    return Outcome(name, recipe.seed, run.path.name, numbers | codes, likelihood, {"likelihood": of, **told}, failed)


def seconds_per_step(recipe: Recipe, data_dir: Path | None = None, device: str = "cpu") -> float:
    """Time of a step of training: the fastest of some short spells, so that other work counts least."""
    place = find_device(device)
    loop, clock = make_loop(recipe, load_data(recipe.data, data_dir), device=place), _clock(place)
    found = []
    for spell in range(SPELLS + 1):
        taken, start = 0, clock()
        while taken < TRIED or (spell and clock() - start < SPELL_S):
            for number, player in loop.schedule(loop.step):
                loop.turn(number, player)
            loop.average.follow(loop.model, loop.step)
            loop.step += 1
            taken += 1
        found.append((clock() - start) / taken)
    return min(found[1:])


def seconds_per_sample(case: Case) -> float:
    """Time of one made row among 32 at once: the fastest of three times."""
    rows, clock = case.first(TIMED), _clock(use.device_of(case.model))
    found = []
    for _ in range(TIMES):
        start = clock()
        use.sample(case.model, len(rows.raw), context=rows.context)
        found.append((clock() - start) / len(rows.raw))
    return min(found)


def _clock(device: torch.device) -> Callable[[], float]:
    """Seconds: of this process on a processor, so that what else runs there does not count; else of the wall."""
    return time.process_time if device.type == "cpu" else time.perf_counter


def write_contest(path: Path, plan: Plan, outcomes: Sequence[Outcome]) -> None:
    """Write `contest.json`: the plan and a record per run."""
    write_json(path, {"schema": SCHEMA, "plan": asdict(plan), "runs": [asdict(outcome) for outcome in outcomes]})


def _folder(name: str) -> str:
    """Of the runs of a family, less the number of the seed."""
    return Path(name).stem


def _recipe_of(data: str, name: str) -> tuple[str, ...]:
    """The recipe of a family, with what is changed in it; checked to be one on these data."""
    known = RECIPES.get(data, {})
    found = known.get(name, (name,))
    if name not in known and name in WORDS:
        raise UsageError(
            f"there is no recipe of the family {name} on {data} here (on {' and '.join(RECIPES)} there is); give the "
            "name or the file of a recipe instead of the word."
        )
    if found[0] not in shipped() and not Path(found[0]).is_file():
        raise UsageError(f"the family {name} was asked for; give {', '.join(WORDS)}, or the name or file of a recipe.")
    kind = read_recipe(found[0], found[1:]).data["kind"]
    if kind != data:
        raise UsageError(
            f"the recipe {name} is on {kind}, and this contest on {data}; give recipes on one kind of data."
        )
    return found


def _within(entrant: Entrant, seed: int) -> Recipe:
    """The recipe of one run: as long as the budget, judged as all others, and with nothing beside training."""
    given = read_recipe(entrant.recipe, [*entrant.overrides, f"seed={seed}"])
    length = {"steps": entrant.steps, "epochs": None, "validate_every": None, "keep": "last", "patience": None}
    beside = {
        "film": 0,
        "checkpoint_every": max(500, entrant.steps // 4),
        "journal_every": max(1, entrant.steps // 200),
    }
    draws = min(DRAWS, given.evaluation.samples)  # one where the likelihood is exact
    judged = {"samples": draws, "generated": ROWS, "examples": ROWS, "features": [], "annealing": None}
    return given.model_copy(
        update={
            "training": given.training.model_copy(update=length | beside),
            "evaluation": given.evaluation.model_copy(update=judged),
        }
    )


def _same_plan(
    plan: Plan, path: Path, data: str, budget_s: float, seeds: int, asked: dict[str, tuple[str, ...]]
) -> Plan:
    """The plan that is there, if it is the one that is asked for."""
    there = {entrant.name: (entrant.recipe, *entrant.overrides) for entrant in plan.entrants}
    if (plan.data, plan.budget_s, plan.seeds, there) != (data, budget_s, seeds, asked):
        raise UsageError(f"{path} plans another contest; go on with that one, or give another folder as --out.")
    return plan


def _read_plan(path: Path) -> Plan:
    return _read(Plan, path)


def _read_outcome(path: Path) -> Outcome:
    return _read(Outcome, path)


def _read(kind: type[Record], path: Path) -> Record:
    table = read_json(path)
    if isinstance(table, dict):
        table.pop("schema", None)
    try:
        return TypeAdapter(kind).validate_python(table)
    except ValidationError:
        raise DataError(f"{path} is not what a contest wrote; remove it, and that part is done again.") from None


def _of(result: dict[str, Any]) -> Measure:
    return Measure(result["value"], result["stderr"])


def _drawn(case: Case, data: Dataset) -> dict[str, Measure]:
    """How samples compare with rows, what they leave out, and what a lower temperature makes of it."""
    rows, known = case.first(ROWS), case.first(ROWS, "train").raw
    extractor = make_extractor(RAW, case.model.data)
    real = extractor(rows.raw)

    def draw(temperature: float) -> Tensor:
        made = use.sample(case.model, len(rows.raw), context=rows.context, temperature=temperature)
        return made if case.model.data.levels is None else made.round()

    made, cool = draw(1.0), draw(COOL)
    features = extractor(made)
    found = {"kernel_distance": kernel_distance(real, features), **neighbourhoods(real, features)}
    found |= two_sample_test(real, features)
    numbers = {name: Measure(float(each.value), each.stderr) for name, each in found.items()}  # type: ignore[arg-type]
    numbers["lost_share"] = Measure(float(lost_rows(known, rows.raw, made).double().mean()))
    if data.truth is not None:
        near = torch.cdist(made.double(), data.truth.centres.double()).min(dim=1)
        covered = near.indices[near.values < NEAR * data.truth.sigma].unique()
        numbers["centres_covered"] = Measure(float(len(covered)))
    if not torch.equal(made, cool):
        cooled = neighbourhoods(real, extractor(cool))
        numbers |= {f"cool_{name}": Measure(float(cooled[name].value)) for name in ("precision", "coverage")}  # type: ignore[arg-type]
    return numbers


def _likelihood(model: Family, judged: dict[str, Any]) -> tuple[str, str]:
    """What is known of log p(x), "exact", "bound" or "none", and of what, or why not."""
    refused = judged["refused"]
    if "elbo_nats" in refused:
        return "none", refused["elbo_nats"]
    return "bound" if model.latents or "nll_nats" in refused else "exact", judged["protocol"]["preparation"]


def _codes(case: Case, results: dict[str, Any]) -> tuple[dict[str, Measure], dict[str, str]]:
    """What codes are good for: how many numbers there are, what a linear probe reads from them, and what is refused."""
    model, rows = case.model, case.first(TIMED)
    numbers = {"units": Measure(float(sum(math.prod(shape) for shape in model.latents.values())))}
    told = {}
    try:
        use.encode(model, rows.raw, rows.context)
    except NotSupportedError as error:
        told["encode"] = str(error)
    for key in ("linear_probe_accuracy", "linear_probe_raw_accuracy", "psnr_db"):
        if key in results:
            numbers[key] = _of(results[key])
    return numbers, told
