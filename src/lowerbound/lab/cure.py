"""The cure of a posterior collapse: back to before its onset, and on with a relieved rate, with nobody there."""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict
from typing import Any

from lowerbound.files import write_json, write_text
from lowerbound.lab import checkpoint
from lowerbound.lab.guard import Alarm, CollapseGuard, Stage
from lowerbound.lab.recorder import BEST
from lowerbound.lab.run import Run
from lowerbound.lab.training.journal import read_journal
from lowerbound.lab.training.loop import Loop, Standing
from lowerbound.model.objectives.objective import Objective
from lowerbound.model.objectives.relief import Relief
from lowerbound.recipe import Guard

COLLAPSE = "collapse"
STAYS = 0.5  # of the floor, after the last cure


def relievable(objective: Objective, units: int, guard: Guard) -> Objective:
    """The objective of a run: one that a cure can relieve where the recipe asks for cures."""
    if guard.policy != "cure" or units == 0:
        return objective
    return Relief(objective, units, floor=guard.floor, steps=guard.relief_steps)


def cure(run: Run, loop: Loop, guard: CollapseGuard, alarm: Alarm) -> None:
    """Go back to a stage before the onset and relieve the rate from there on.

    Nothing of this needs to be saved for itself: a run that is killed meanwhile comes to the same alarm again from
    its newest checkpoint, and does the same.
    """
    number = guard.cures + 1
    stage = guard.way_back(alarm, lambda stage: checkpoint.is_whole(checkpoint.of_step(run.checkpoints, stage.step)))
    loop.processes.barrier()
    loop.load(*checkpoint.load(checkpoint.of_step(run.checkpoints, stage.step)))
    assert isinstance(loop.objective, Relief)
    lasting = number >= guard.guard.cures
    loop.objective.begin(stage.step, STAYS * guard.guard.floor if lasting else 0.0)
    loop.standing = Standing()
    guard.restart(stage, number)
    loop.processes.barrier()  # all have read
    if loop.processes.leads:
        _write(run, alarm, stage, number)
        (run.checkpoints / BEST).unlink(missing_ok=True)
        checkpoint.drop_from(run.checkpoints, stage.step)
        warnings.warn(
            f"{alarm}; went back to step {stage.step}, and go on with a relieved rate (cure {number} of "
            f"{guard.guard.cures}).",
            stacklevel=3,
        )
    loop.processes.barrier()


def _write(run: Run, alarm: Alarm, stage: Stage, number: int) -> None:
    """Put what was left behind beside the run, and the cure into its journal, in place of any row that it undoes."""
    rows = read_journal(run.journal_path)
    left = [row for row in rows if row["step"] > stage.step]
    place = run.path / COLLAPSE / f"cure-{number}.json"
    place.parent.mkdir(exist_ok=True)
    write_json(place, {"alarm": _plain(alarm), "went_back_to": asdict(stage), "journal": left})
    kept = [row for row in rows if row["step"] <= stage.step and row.get("cure", 0) < number]
    row = {"step": stage.step, "cure": number, "collapse_seen_step": alarm.step, **alarm.numbers()}
    write_text(run.journal_path, "".join(json.dumps(row) + "\n" for row in [*kept, row]))


def _plain(alarm: Alarm) -> dict[str, Any]:
    """JSON has no NaN."""
    seen = {name: value if value == value else None for name, value in asdict(alarm.seen).items()}
    return {"step": alarm.step, "onset": alarm.onset, "signs": list(alarm.signs), "seen": seen}
