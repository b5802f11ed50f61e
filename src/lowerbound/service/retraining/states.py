"""The states of a retraining: each a function of what was found before, which may be done twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from lowerbound.errors import ConflictError, DataError, NotSupportedError
from lowerbound.files import write_json
from lowerbound.lab.checkpoint import read_tensors, write_tensors
from lowerbound.lab.compatibility import codes_hash
from lowerbound.lab.data.collected import Collected
from lowerbound.lab.data.validate import enforce, likelihood_of, validate
from lowerbound.lab.experiment import train as train_run
from lowerbound.lab.facts import Facts, facts_of
from lowerbound.lab.judge import evaluate as judge_run
from lowerbound.lab.run import Run
from lowerbound.model.families.family import Family
from lowerbound.service.registry.pack import LINEAGE
from lowerbound.service.registry.version import CARD
from lowerbound.service.retraining.collect import collect as collect_rows
from lowerbound.service.retraining.guard import Scores, judge
from lowerbound.service.retraining.job import Job, Outcome, RefusedError, State, StoppedError, Work
from lowerbound.service.retraining.plan import candidate_recipe
from lowerbound.service.retraining.suite import Slice, scores_of, slices_of

PROBES = 500  # rows whose codes must be what they were
STABLE = "the stable version"
UNWRITTEN = "Not written"  # what a card says where nobody said what a model is for


def collect(work: Work) -> dict[str, Any]:
    """Rows of requests and of the data before, in a folder, with a hash."""
    if work.plan.role is None and work.registry.stores_latents(work.name):
        raise RefusedError(
            f"deployments of {work.name} store codes, and the tier {work.plan.tier} trains an encoder, whose codes "
            "would mean something else; use the tier incremental, or promote a version by hand with --breaking."
        )
    _check_role(work)
    found = collect_rows(
        work.parent, work.history, work.plan, work.order["since"], work.order["until"], work.suite.digests()
    )
    digest = found.save(work.data_folder)
    return {"data": {"sha256": digest, "counts": found.counts(), **found.about}}


def validate_rows(work: Work) -> dict[str, Any]:
    """Look at every row; too many requests with something wrong end the retraining."""
    rows, known = _rows(work), work.found("collect")["data"]
    data = rows.dataset()
    report = validate(data, likelihood_of(work.parent.run.recipe().model))
    left_out = report.left_out()
    of_requests = sum(
        data.split(part).name(row).startswith(known["requests"]) for part, places in left_out.items() for row in places
    )
    strange = known["left_out"]["no rows of this model"]
    bad, seen = of_requests + strange, known["seen"]
    found = {
        "findings": [finding.sentence() for finding in report.findings],
        "left_out": {part: len(places) for part, places in left_out.items()},
        "requests": {"seen": seen, "wrong": bad},
    }
    if bad > work.plan.wrong * seen:
        said = next((finding.sentence() for finding in report.errors), f"{strange:,} are no rows of this model")
        raise RefusedError(
            f"{bad:,} of {seen:,} requests have something wrong with them ({said}), more than {work.plan.wrong:.1%}; "
            "look at where they come from before anything learns from them.",
            found,
        )
    try:
        enforce(data, report, "permissive")
    except DataError as error:
        raise RefusedError(str(error), found) from None
    return found


def train(work: Work) -> dict[str, Any]:
    """Train a candidate; where one role is trained alone, prove that codes are what they were."""
    data = work.found("collect")["data"]
    table = {"kind": "collected", "path": str(work.data_folder), "sha256": data["sha256"]}
    recipe = candidate_recipe(work.parent.origin(), work.plan, table, work.parent.version.path)
    run = train_run(recipe, work.run_folder, resume=True, check="permissive", stop=work.stop)
    if not run.finished:
        raise StoppedError
    before, after = work.parent.model, run.model()
    hashes = [codes_hash(model, recipe.model) for model in (before, after)]
    proof = {"parts_equal": hashes[0] == hashes[1], "parts": hashes[1], **_probe(work, before, after)}
    if work.plan.role is not None and not (proof["parts_equal"] and proof["rows_equal"] == proof["rows"]):
        raise RefusedError(
            f"only the {work.plan.role} was to be trained, and codes are not what they were "
            f"({proof['rows_equal']:,} of {proof['rows']:,} rows are equal)",
            {"codes": proof},
        )
    return {"run": str(run.path), "codes": proof}


def evaluate(work: Work) -> dict[str, Any]:
    """Judge the candidate on its own test rows, and beside the stable version on every slice of the suite."""
    run = Run(work.run_folder)
    if not run.evaluation_path.exists():
        judge_run(run, data_dir=work.data_dir)
    judged = _judged(work)
    kept = _scores(work, judged, run.model())
    write_tensors(work.folder / "scores.safetensors", kept)
    slices = [{"name": part.name, "rows": len(part.raw), "frozen_with": part.version} for part in judged]
    means = {name: float(values.mean()) for name, values in kept.items()}
    return {"suite": work.suite.hash, "slices": slices, "means": means}


def guard(work: Work) -> dict[str, Any]:
    """Refuse a candidate that forgot a slice, or of which it cannot be told."""
    slices, values = work.found("evaluate")["slices"], read_tensors(work.folder / "scores.safetensors")
    scores = []
    for name, candidate in values.items():
        place, metric, who = name.split("/")
        if who != "candidate":
            continue
        part = slices[int(place)]
        for other, words in (("baseline", STABLE), ("frozen", f"version {part['frozen_with']}")):
            baseline = values.get(f"{place}/{metric}/{other}")
            if baseline is not None:
                scores.append(Scores(part["name"], metric, words, baseline.numpy(), candidate.numpy()))
    found = judge(sorted(scores, key=lambda each: (each.slice, each.metric)), work.plan.margin, work.plan.level)
    if not found.passed:
        raise RefusedError(found.sentence(), found.json())
    return found.json()


def register(work: Work) -> dict[str, Any]:
    """Make the candidate a version, with all that it comes from; the same candidate is the same version."""
    data, judged = work.found("collect")["data"], work.found("guard")
    lineage = {
        "tier": work.plan.tier,
        "plan": work.order["plan"],
        "parent": work.order["parent"],
        "data": data,
        "suite": work.found("evaluate")["suite"],
        "guard": judged,
        "codes": work.found("train")["codes"],
        "origin": work.parent.origin().dump(),
    }
    write_json(work.run_folder / LINEAGE, lineage)
    version = work.registry.add(
        work.run_folder,
        work.name,
        why=f"retrained from {work.parent.version.reference}, tier {work.plan.tier}: {judged['sentence']}",
        card=_use(work),
        against=work.parent.version.number,
        data_dir=work.data_dir,
    )
    if work.plan.freeze:
        for part in _held_out(work):
            if part.name == data["requests"]:
                frozen = replace(part, scores=scores_of(Run(work.run_folder).model(), part))
                work.suite.freeze(frozen, version.number, data["sha256"])
    return {"number": version.number, "hash": version.hash, "suite": work.suite.hash}


def canary(work: Work) -> dict[str, Any]:
    """Let the server try the candidate, if nothing else changed meanwhile; once, whatever became of it since."""
    number = work.found("register")["number"]
    rows = work.registry.history(work.name)
    before = next((row for row in rows if row.action == "promote" and row.number == number), None)
    if before is not None:
        return {"promoted": before.json()}
    aliases = work.registry.aliases(work.name)
    stable, tried = aliases.get("stable"), aliases.get("canary")
    if stable is None or stable.hash != work.order["parent"]["hash"]:
        now = "there is none" if stable is None else f"it is {stable.reference}"
        raise RefusedError(
            f"{work.parent.version.reference} is no longer the stable version ({now}), and the candidate "
            f"{work.name}:{number} was judged beside it; retrain from the new one, or promote it by hand."
        )
    if tried is not None:
        raise ConflictError(
            f"{tried.reference} is judged as canary, so {work.name}:{number} must wait; do the same again when that is "
            "decided."
        )
    entry = work.registry.promote(
        work.name, number, "canary", why=f"retrained, tier {work.plan.tier}: {work.folder.name}", expected=0
    )
    return {"promoted": entry.json()}


STATES: dict[str, State] = {
    "collect": collect,
    "validate": validate_rows,
    "train": train,
    "evaluate": evaluate,
    "guard": guard,
    "register": register,
    "canary": canary,
}


def retrain(job: Job, stop: Callable[[], bool] = lambda: False) -> Outcome:
    """Retrain a model: from its requests to a canary that forgot nothing.

    Args:
        job: what, how and where.
        stop: asked now and then; True leaves everything so that the same call goes on.

    Raises:
        RunError, RegistryError, NotSavedError: it cannot begin or go on now; what was done stays.
    """
    return job.run(STATES, stop)


def _check_role(work: Work) -> None:
    """Refuse, before anything is trained, to train a role alone that codes depend on."""
    role, model = work.plan.role, work.parent.model
    if role is None:
        return
    parts = set(model.roles.get(role, ()))
    if not parts or not parts <= set(model.beyond_codes):
        touched = ", ".join(sorted(parts - set(model.beyond_codes))) or f"it has no {role}"
        raise NotSupportedError(
            f"the codes of this model are not independent of its {role} ({touched}), so it cannot be trained alone; "
            "use the tier full."
        )


def _judged(work: Work) -> list[Slice]:
    """The slices of the suite, to which those that are new are added, and the held-out requests."""
    current, known = work.found("collect")["data"], work.suite.entries()
    new = [part for part in _held_out(work) if part.name not in known]
    for part in new:
        if part.name != current["requests"]:
            frozen = replace(part, scores=scores_of(work.parent.model, part))
            work.suite.freeze(frozen, work.parent.version.number, current["sha256"])
    return [*work.suite.slices(), *(part for part in new if part.name == current["requests"])]


def _scores(work: Work, judged: list[Slice], candidate: Family) -> dict[str, torch.Tensor]:
    """Of every row, by PLACE/METRIC/WHO: the candidate, the stable version, and what was frozen with another one."""
    kept: dict[str, torch.Tensor] = {}
    for place, part in enumerate(judged):
        frozen = part.scores if part.version != work.parent.version.number else {}
        for who, found in (
            ("baseline", scores_of(work.parent.model, part)),
            ("candidate", scores_of(candidate, part)),
            ("frozen", frozen),
        ):
            kept |= {f"{place}/{metric}/{who}": values for metric, values in found.items()}
    return kept


def _held_out(work: Work) -> list[Slice]:
    """The test rows of each slice that was collected."""
    return slices_of(_rows(work), work.plan.suite_rows, work.plan.smallest)


def _rows(work: Work) -> Collected:
    """The collected rows, if they are what was collected."""
    return Collected.load(work.data_folder, work.found("collect")["data"]["sha256"])


def _probe(work: Work, before: Family, after: Family) -> dict[str, int]:
    """Of how many held-out rows the codes of two models are equal to the bit."""
    test = _rows(work)
    test = test.select((test.part != 0).nonzero()[:PROBES, 0])
    old, new = (facts_of(Facts(model), test.raw, test.context) for model in (before, after))
    equal = torch.ones(len(test.raw), dtype=torch.bool)
    for name in Facts(before).groups:
        same = name in new and old[name].shape == new[name].shape
        equal &= (old[name] == new[name]).flatten(1).all(dim=1) if same else torch.zeros_like(equal)
    return {"rows": len(equal), "rows_equal": int(equal.sum())}


def _use(work: Work) -> str | None:
    """What the parent's card says that the model is meant for."""
    text = (work.parent.version.path / CARD).read_text(encoding="utf-8")
    use = text.partition("## Intended use")[2].partition("\n## ")[0].strip()
    return None if not use or use.startswith(UNWRITTEN) else use
