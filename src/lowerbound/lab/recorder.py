"""What is written while a run trains: journal, checkpoints, the best weights."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lowerbound.lab import checkpoint
from lowerbound.lab.data.rows import Rows
from lowerbound.lab.film import film_steps, has_picture, take_frame, write_frame
from lowerbound.lab.guard import CollapseGuard
from lowerbound.lab.run import Run, environment
from lowerbound.lab.training.alarms import alarms
from lowerbound.lab.training.journal import Journal, read_journal
from lowerbound.lab.training.loop import Loop, Parts
from lowerbound.noise import BatchNoise

BEST = "best.safetensors"
VALIDATION_ROWS = 2000  # at most so many, from the first on
VALIDATION_BATCH = 250


@dataclass(frozen=True)
class Progress:
    """How far training is.

    Attributes:
        step, steps: taken, and in all.
        rows_per_second: since the last report.
        parts: numbers of the last step.
    """

    step: int
    steps: int
    rows_per_second: float
    parts: dict[str, float]


class Recorder:
    """Writes the journal and the checkpoints of a run, judges on the validation rows, and says when to stop.

    Only the leading process writes; all of them judge, so that all stop at the same step.

    Args:
        run: where to write.
        loop: what is trained.
        validation: rows to judge on.
        guard: against posterior collapse.
        watch: told about progress whenever the journal gets a row.
        stop: asked after each step.
    """

    def __init__(
        self,
        run: Run,
        loop: Loop,
        validation: Rows,
        guard: CollapseGuard,
        watch: Callable[[Progress], None] | None,
        stop: Callable[[], bool] | None,
    ) -> None:
        self.run, self.loop, self.validation, self.watch, self.stop = run, loop, validation, watch, stop
        self.guard = guard
        self.training, self.leads = loop.training, loop.processes.leads
        self.ended_early = self._impatient()
        if self.leads:
            checkpoint.clear(run.checkpoints)
        self.film = film_steps(self.training.film, loop.steps) if has_picture(loop.model.data) else set()
        self.journal = Journal(run.journal_path, loop.step) if self.leads else None
        before = last_times(run.journal_path) if self.leads else {}
        self._last_time = time.perf_counter()
        self._started = self._last_time - before.get("seconds", 0.0)
        self._worked = time.process_time() - before.get("processor_seconds", 0.0)
        self._last_step = loop.step
        self._told: set[str] = set()

    def after_step(self, step: int, parts: Parts) -> bool:
        """Record a step; whether to stop here."""
        if step in self.film:
            self._film()
        if self._every(self.training.validate_every, step):
            parts = {**parts, "validation_elbo_nats": self._validate()}
        seen = self.guard.after_step(step, parts)
        stopping = (self.stop is not None and self.stop()) or self.ended_early
        if self._every(self.training.journal_every, step) or step == 1 or "validation_elbo_nats" in parts or seen:
            self._write_row(step, parts, seen)
        self.guard.act()
        if self._every(self.training.checkpoint_every, step) or stopping or self.guard.failed:
            self.checkpoint(step)
        self.guard.check()
        return stopping

    def checkpoint(self, step: int) -> None:
        """Write a checkpoint, if this process does."""
        self.guard.note_stage(step)
        tensors, numbers = self.loop.state()
        if self.leads:
            numbers["environment"] = environment()
            stages = [stage.step for stage in self.guard.stages]
            checkpoint.save(self.run.checkpoints, step, tensors, numbers, self.training.checkpoints, stages)

    def close(self) -> None:
        """Nothing more to write."""
        if self.journal is not None:
            self.journal.close()

    def _every(self, interval: int | None, step: int) -> bool:
        return interval is not None and (step % interval == 0 or step == self.loop.steps)

    def _write_row(self, step: int, parts: Parts, seen: dict[str, float]) -> None:
        if self.journal is None:
            return
        now = time.perf_counter()
        rows = (step - self._last_step) * self.loop.turns * self.loop.batch_size
        speed = rows / max(now - self._last_time, 1e-9)
        self._last_time, self._last_step = now, step
        numbers = {name: float(value) for name, value in {**parts, **self.loop.model.vitals()}.items()} | seen
        numbers |= self._alarm(step, numbers)
        times = {"rows_per_second": round(speed), "seconds": round(now - self._started, 3)}
        times["processor_seconds"] = round(time.process_time() - self._worked, 3)
        self.journal.write({"step": step, **numbers, **times})
        if self.watch is not None:
            self.watch(Progress(step, self.loop.steps, speed, numbers))

    def _alarm(self, step: int, numbers: dict[str, float]) -> dict[str, float]:
        """A mark for the journal for each alarm; the first of each kind is a warning too."""
        found = alarms(step, numbers)
        for name in found.keys() - self._told:
            warnings.warn(f"step {step}: {found[name]}", stacklevel=4)
        self._told |= found.keys()
        return {f"alarm_{name}": 1.0 for name in found}

    def _film(self) -> None:
        """Take a frame of the film of training; all processes do, as weights may be shared out."""
        frame = take_frame(self.loop, self.validation)
        if self.leads:
            write_frame(self.run.film, frame, self.loop.model.data.levels)

    def _validate(self) -> Tensor:
        """The ELBO of the validation rows with the weights that would be kept; takes note if it is the best yet."""
        standing = self.loop.standing
        value = validation_elbo(self.loop, self.validation)
        if float(value) > standing.best:
            self.loop.standing = type(standing)(float(value), 0)
            weights = self.loop.final_weights()
            if self.leads and self.training.keep == "best":
                checkpoint.write_tensors(self.run.checkpoints / BEST, weights)
        else:
            self.loop.standing = type(standing)(standing.best, standing.since + 1)
        self.ended_early = self._impatient()
        return value

    def _impatient(self) -> bool:
        patience = self.training.patience
        return patience is not None and self.loop.standing.since >= patience


def last_times(journal: Path) -> dict[str, float]:
    """What training took up to the last row of a journal, seconds: of the clock, and of processors; empty without."""
    rows = read_journal(journal)
    return {name: rows[-1][name] for name in ("seconds", "processor_seconds") if name in rows[-1]} if rows else {}


def best_weights(run: Run) -> dict[str, Tensor] | None:
    """The weights of the best judgement, if the recipe keeps them."""
    path = run.checkpoints / BEST
    return checkpoint.read_tensors(path) if run.recipe().training.keep == "best" and path.exists() else None


@torch.no_grad()
def validation_elbo(loop: Loop, rows: Rows) -> Tensor:
    """The ELBO of the first validation rows, nats, from one draw with noise that is the same every time."""
    model, kept = loop.model, {name: value.clone() for name, value in loop.model.state_dict().items()}
    model.load_state_dict(loop.average.final(model))
    model.eval()
    count = min(len(rows), VALIDATION_ROWS)
    total = torch.zeros((), dtype=torch.float64)
    for number, start in enumerate(range(0, count, VALIDATION_BATCH)):
        batch = rows.take(torch.arange(start, min(start + VALIDATION_BATCH, count))).to(loop.device)
        noise = BatchNoise(loop.seed, number, len(batch.raw), device=loop.device).child("validation")
        x = model.preparation.prepare(batch.raw, noise.child("prepare"))
        total += model.evidence(x, batch.context, noise).elbo().sum().double().cpu()
    model.load_state_dict(kept)
    model.train()
    return total / count
