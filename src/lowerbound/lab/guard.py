"""The guard against posterior collapse: it sees it, says since when, and does what the recipe asks for."""

from __future__ import annotations

import math
import warnings
import weakref
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from lowerbound.errors import TrainingFailedError
from lowerbound.lab.data.rows import Rows
from lowerbound.lab.evaluation.latents import WEAK
from lowerbound.lab.evaluation.usage import Usage, usage
from lowerbound.lab.training.loop import Loop, Parts
from lowerbound.noise import BatchNoise
from lowerbound.recipe import Guard

BATCH = 64  # held-out rows at a time
# Numbers of an objective that rise while it warms up: signs from such steps do not count.
RISING = ("beta", "capacity_nats", "target_nats")
RELIEF = "relief_floor_nats"  # and one that falls until a cure is over


@dataclass(frozen=True)
class Alarm:
    """A posterior collapse, as it was seen.

    Attributes:
        step: at which it was certain.
        onset: the first step of the longest sign.
        signs: those that were there: "rate", "information", "change".
        seen: the use of the latents.
    """

    step: int
    onset: int
    signs: tuple[str, ...]
    seen: Usage

    def numbers(self) -> dict[str, float]:
        """For the journal."""
        return {"collapse_onset_step": self.onset, "collapse_signs": len(self.signs), **_heldout(self.seen)}

    def __str__(self) -> str:
        said = {
            "rate": f"no unit carries information (the largest rate is {self.seen.largest_rate:.4f} nats)",
            "information": f"codes say nothing of rows ({self.seen.information:.4f} nats)",
            "change": f"the decoder ignores them (decoded values change by {self.seen.change:.2%})",
        }
        reasons = "; ".join(said[sign] for sign in self.signs)
        return f"the posterior collapsed from step {self.onset} on, seen at step {self.step}: {reasons}"


class CollapseError(Exception):
    """A collapse that is to be cured; carried from the guard to whoever goes back.

    Attributes:
        alarm: what was seen.
    """

    def __init__(self, alarm: Alarm) -> None:
        super().__init__(str(alarm))
        self.alarm = alarm


@dataclass(frozen=True)
class Stage:
    """A checkpoint to go back to, with what it was worth on held-out rows, in nats; None where there is no number."""

    step: int
    rate: float | None
    bound: float | None


class CollapseGuard:
    """Watches what the loop reports at each step, and looks at held-out rows at intervals.

    There are three signs: the mean rate per unit is dead for a window of steps, while no unit of the held-out rows
    carries information; codes say nothing of held-out rows; decoded values do not change along any unit. Each is
    enough for an alarm if it lasts for a window. Spare units are none: it takes all units. Steps of a warm-up do not
    count. All processes see the same numbers, and so decide the same.

    Args:
        guard: the recipe's settings.
        loop: what is trained.
        rows: held out.
    """

    def __init__(self, guard: Guard, loop: Loop, rows: Rows) -> None:
        # The loop holds its guard: without a weak reference both would outlive the run, with all its tensors and files.
        self.guard, self.rows = guard, rows
        self.loop: Loop = weakref.proxy(loop)
        self.units = sum(math.prod(shape) for shape in loop.model.latents.values())
        self.watches = guard.policy != "off" and self.units > 0 and len(rows) > 1
        self.low = 0  # steps in a row with a dead rate
        self.since: dict[str, int] = {}  # the first look at which the other signs were there
        self.before: dict[str, float] = {}  # scheduled numbers at the step before
        self.alarmed = False
        self.failed = ""
        self.cures = 0
        self.stages: list[Stage] = []
        self.alarm: Alarm | None = None

    def after_step(self, step: int, parts: Parts) -> dict[str, float]:
        """Take note of a step; numbers for the journal, where there was a look."""
        self.alarm = None
        if not self.watches:
            return {}
        settled = self._settled(parts)
        rate = parts.get("rate_nats", parts.get("sampled_rate_nats"))
        self.low = self.low + 1 if settled and rate is not None and float(rate) < self.guard.dead * self.units else 0
        certain = self.low >= self.guard.window and (self.low - self.guard.window) % self.guard.window == 0
        if not settled:
            self.since = {}
        if not certain and step % self.guard.window:
            return {}
        return self._judge(step, settled, self.look())

    def act(self) -> None:
        """Do what the policy says about the alarm of the last step, if there was one.

        Raises:
            CollapseError: it is to be cured; no checkpoint may be written before that.
        """
        if self.alarm is None or self.failed:
            return
        if self.guard.policy == "cure":
            raise CollapseError(self.alarm)
        if self.loop.processes.leads:
            warnings.warn(f"{self.alarm}; see the page on training, or set training.guard.policy.", stacklevel=2)

    def check(self) -> None:
        """Refuse to go on after an alarm that was to stop training.

        Raises:
            TrainingFailedError: there was one.
        """
        if self.failed:
            raise TrainingFailedError(self.failed)

    def look(self) -> Usage:
        """The use of the latents on held-out rows with the weights of now; asked of all processes at once."""
        loop, count = self.loop, min(len(self.rows), self.guard.rows)
        batches = []
        for number, start in enumerate(range(0, count, BATCH)):
            batch = self.rows.take(torch.arange(start, min(start + BATCH, count))).to(loop.device)
            noise = BatchNoise(loop.seed, number, len(batch.raw), device=loop.device).child("guard")
            batches.append((loop.model.preparation.prepare(batch.raw, noise.child("prepare")), batch.context, noise))
        loop.model.eval()
        found = usage(loop.model, batches)
        loop.model.train()
        agreed = torch.tensor(list(asdict(found).values()), dtype=torch.float64, device=loop.device)
        loop.processes.add([agreed])
        return Usage(*(agreed / loop.processes.world).tolist())

    def note_stage(self, step: int) -> None:
        """Take note of a checkpoint that can be gone back to: one without any sign, of those that every run writes."""
        if not self.watches or self.guard.policy != "cure" or step % self.loop.training.checkpoint_every:
            return
        if any(stage.step >= step for stage in self.stages):
            return
        if step and (self.low or self.since or self.alarmed):
            return
        found = self.look()
        first, rest = self.stages[:1], self.stages[1:]
        stage = Stage(step, _known(found.rate), _known(found.bound))
        self.stages = [*first, *[*rest, stage][-self.guard.stages :]]

    def way_back(self, alarm: Alarm, there: Callable[[Stage], bool]) -> Stage:
        """The stage before the onset that carries most, of those whose bound is no worse than that of the collapse.

        The latest one where none is.

        Args:
            alarm: of the collapse.
            there: whether a stage's checkpoint can be read.

        Raises:
            TrainingFailedError: no stage can be gone back to.
        """
        before = [stage for stage in self.stages if stage.step < alarm.onset and there(stage)]
        if not before:
            raise TrainingFailedError(f"{alarm}; no checkpoint from before it is whole, so train again from the start.")
        sound = [s for s in before if s.bound is not None and s.rate is not None and s.bound >= alarm.seen.bound]
        return max(sound, key=lambda stage: stage.rate or 0.0) if sound else before[-1]

    def restart(self, stage: Stage, cures: int) -> None:
        """Begin anew at a stage."""
        self.low, self.since, self.before, self.alarmed, self.alarm, self.cures = 0, {}, {}, False, None, cures
        self.stages = [known for known in self.stages if known.step <= stage.step]

    def state(self) -> dict[str, Any]:
        """What to save."""
        return {
            "low": self.low,
            "since": self.since,
            "before": self.before,
            "alarmed": self.alarmed,
            "failed": self.failed,
            "cures": self.cures,
            "stages": [asdict(stage) for stage in self.stages],
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what was saved."""
        self.low, self.since, self.before = int(state["low"]), dict(state["since"]), dict(state["before"])
        self.alarmed, self.failed, self.cures = bool(state["alarmed"]), str(state["failed"]), int(state["cures"])
        self.stages = [Stage(**stage) for stage in state["stages"]]
        self.alarm = None

    def _settled(self, parts: Parts) -> bool:
        """Whether nothing that a schedule warms up rose since the step before, and no cure is going on."""
        now = {name: float(parts[name]) for name in (*RISING, RELIEF) if name in parts}
        before, self.before = self.before, now
        rises = any(now[name] > before.get(name, now[name]) for name in RISING if name in now)
        return not rises and now.get(RELIEF) == before.get(RELIEF)

    def _judge(self, step: int, settled: bool, seen: Usage) -> dict[str, float]:
        signs = {
            "rate": self.low >= self.guard.window and not (seen.largest_rate >= WEAK or seen.active > 0),
            "information": settled and seen.information < self.guard.information,
            "change": settled and seen.change < self.guard.change,
        }
        for sign in ("information", "change"):
            if not signs[sign]:
                self.since.pop(sign, None)
            else:
                self.since.setdefault(sign, step)
        onsets = [first for first in self.since.values() if step - first >= self.guard.window]
        if signs["rate"]:
            onsets.append(step - self.low + 1)
        if not onsets:
            over = self.alarmed and not any(signs.values())
            self.alarmed = self.alarmed and not over
            return {**_heldout(seen), **({"collapse_over": 1.0} if over else {})}
        if self.alarmed:
            return _heldout(seen)
        self.alarmed = True
        self.alarm = Alarm(step, min(onsets), tuple(sign for sign, there in signs.items() if there), seen)
        self._give_up(self.alarm)
        return self.alarm.numbers()

    def _give_up(self, alarm: Alarm) -> None:
        """Say why training stops, where it does."""
        if self.guard.policy == "stop":
            self.failed = (
                f"{alarm}; training stopped, and all that was saved is unharmed: train again with a warm-up of the "
                'rate, or with training.guard.policy = "cure".'
            )
        elif self.guard.policy == "cure" and math.isnan(alarm.seen.rate):
            self.failed = f"{alarm}; this model has no rate that could be relieved: change its parts."
        elif self.guard.policy == "cure" and self.cures >= self.guard.cures:
            self.failed = (
                f"{alarm}; {self.cures} cures did not last: the likelihood may explain the data without a code, so "
                "give it less to see (word dropout, masking), or hold the rate (`free-bits`, `target-rate`)."
            )


def guarded(guard: Guard, loop: Loop, rows: Rows) -> CollapseGuard:
    """A guard whose state is saved with the loop's."""
    made = CollapseGuard(guard, loop, rows)
    loop.beside["guard"] = made
    return made


def _heldout(seen: Usage) -> dict[str, float]:
    numbers = {
        "heldout_largest_rate_nats": seen.largest_rate,
        "heldout_active_units": seen.active,
        "heldout_information_nats": seen.information,
        "heldout_change": seen.change,
    }
    return {name: value for name, value in numbers.items() if _known(value) is not None}


def _known(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None
