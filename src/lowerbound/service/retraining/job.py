"""A retraining: a folder with one file for each state that was passed, which any process may go on with.

job.json        what was asked for, how far it is, and why it ended
collect.json    which rows, and how they are weighed          data/    the rows
validate.json   what is wrong with them
train.json      whether codes are what they were              run/     the run
evaluate.json   the candidate on the fixed suite              scores.safetensors  of every row
guard.json      slice by slice, whether it forgot
register.json   its number in the registry
canary.json     that it became the canary
refused.json    what was found where it was refused
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from lowerbound.errors import (
    DataError,
    IncompatibleError,
    NotSupportedError,
    RecipeError,
    RunError,
    ShapeError,
    TrainingFailedError,
)
from lowerbound.files import clear_drafts, exclusive, read_json, write_json
from lowerbound.service.monitoring.telemetry.history import History
from lowerbound.service.registry.registry import Registry
from lowerbound.service.retraining.parent import Parent
from lowerbound.service.retraining.plan import Plan
from lowerbound.service.retraining.suite import Suite

JOB, LOCK = "job.json", ".lock"
SCHEMA = 1
DAY_S = 86400.0

# What cannot become better by trying again.
REFUSALS = (DataError, IncompatibleError, NotSupportedError, RecipeError, ShapeError, TrainingFailedError)

Clock = Callable[[], float]


class RefusedError(Exception):
    """A candidate, or its data, that shall go no further; with what was found, for the state's file."""

    def __init__(self, why: str, found: dict[str, Any] | None = None) -> None:
        super().__init__(why)
        self.found = found or {}


class StoppedError(Exception):
    """Somebody asked to stop; the same command goes on."""


@dataclass(frozen=True)
class Work:
    """What the states of a retraining share.

    Attributes:
        folder: of it.
        order: the content of job.json that does not change.
        registry, history: where versions and requests are.
        data_dir: where the data of recipes lie.
        suite: the fixed suite.
        stop: asked while it trains, and between states.
        clock: seconds since 1970.
    """

    folder: Path
    order: dict[str, Any]
    registry: Registry
    history: History
    data_dir: Path | None
    suite: Suite
    stop: Callable[[], bool]
    clock: Clock = time.time

    @property
    def name(self) -> str:
        """Of the model."""
        return str(self.order["name"])

    @cached_property
    def plan(self) -> Plan:
        """How it is retrained."""
        return Plan.model_validate(self.order["plan"])

    @cached_property
    def parent(self) -> Parent:
        """The version that was stable when it began."""
        found = self.registry.resolve(f"{self.name}:{self.order['parent']['number']}")
        return Parent(found.verify(), self.data_dir)

    @property
    def data_folder(self) -> Path:
        return self.folder / "data"

    @property
    def run_folder(self) -> Path:
        return self.folder / "run"

    def path(self, state: str) -> Path:
        """The file of a state."""
        return self.folder / f"{state}.json"

    def found(self, state: str) -> dict[str, Any]:
        """What a state that was passed has found."""
        result: dict[str, Any] = read_json(self.path(state))
        return result


State = Callable[[Work], dict[str, Any]]


@dataclass(frozen=True)
class Outcome:
    """How far a retraining is.

    Attributes:
        folder: of it.
        outcome: "done", "refused", or "open" if it was stopped.
        why: a sentence.
        number: of the candidate in the registry, where there is one.
        states: those that were passed.
    """

    folder: Path
    outcome: Literal["done", "refused", "open"]
    why: str
    number: int | None = None
    states: tuple[str, ...] = field(default=())

    def json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            **{"folder": str(self.folder), "outcome": self.outcome, "why": self.why},
            **{"number": self.number, "states": list(self.states)},
        }


@dataclass(frozen=True)
class Job:
    """A retraining and where everything is that it needs.

    Attributes:
        name: of the model.
        plan: how.
        folder: of the retraining; made, or gone on with.
        registry: where its versions are.
        telemetry: folder of the store of its requests.
        data_dir: where the data of its recipe lie.
        suite: folder of the fixed suite; by default `suite` beside the retraining's folder.
        clock: seconds since 1970.
    """

    name: str
    plan: Plan
    folder: Path
    registry: Registry
    telemetry: Path
    data_dir: Path | None = None
    suite: Path | None = None
    clock: Clock = time.time

    def run(self, states: dict[str, State], stop: Callable[[], bool] = lambda: False) -> Outcome:
        """Begin, or go on with what was begun in the folder, until it ends.

        Args:
            states: what is done, in order.
            stop: asked now and then; True leaves everything so that the same call goes on.

        Raises:
            RunError: the folder is in use, or holds another retraining.
            RegistryError: the model has no stable version; or another version is judged as canary, so that one must
                wait: the same call goes on.
        """
        history = History(self.telemetry)
        self.registry.resolve(self.name)
        self._check_folder()
        with exclusive(self.folder / LOCK, f"the retraining {self.folder}"):
            order = self._begun()
            beside = self.suite or self.folder.absolute().parent / "suite"
            work = Work(
                self.folder.absolute(), order, self.registry, history, self.data_dir, Suite(beside), stop, self.clock
            )
            if order["outcome"] is None:
                order = self._go_on(work, states)
        passed = tuple(name for name in states if (self.folder / f"{name}.json").exists())
        number = read_json(self.folder / "register.json")["number"] if "register" in passed else None
        return Outcome(self.folder, order["outcome"] or "open", order["why"], number, passed)

    def _go_on(self, work: Work, states: dict[str, State]) -> dict[str, Any]:
        """Pass the states that are left; returns the content of job.json."""
        try:
            for name, state in states.items():
                if work.path(name).exists():
                    continue
                if work.stop():
                    raise StoppedError
                clear_drafts(work.path(name))
                began = self._note(name)
                found = state(work)
                write_json(work.path(name), {"began": began, "ended": iso(self.clock()), **found})
        except StoppedError:
            return self._write(None, "it was stopped; the same command goes on")
        except RefusedError as refusal:
            write_json(work.folder / "refused.json", {"why": str(refusal), **refusal.found})
            return self._write("refused", str(refusal))
        except REFUSALS as error:
            return self._write("refused", str(error))
        found = work.found("register")
        return self._write("done", f"{self.name}:{found['number']} is a candidate")

    def _begun(self) -> dict[str, Any]:
        """The content of job.json, which is written now if there is none."""
        path = self.folder / JOB
        if path.exists():
            order: dict[str, Any] = read_json(path)
            asked = {"name": self.name, "plan": self.plan.model_dump()}
            different = [key for key, value in asked.items() if order.get(key) != value]
            if different:
                raise RunError(
                    f"{self.folder} holds a retraining with another {different[0]}; go on with the same command, or "
                    "choose another folder."
                )
            return order
        clear_drafts(path)
        stable, now = self.registry.resolve(self.name), self.clock()
        order = {
            "schema": SCHEMA,
            "name": self.name,
            "plan": self.plan.model_dump(),
            "parent": {"number": stable.number, "hash": stable.hash},
            "since": now - self.plan.days * DAY_S,
            "until": now,
            "started": iso(now),
            "states": {},
            "outcome": None,
            "why": "",
            "ended": None,
        }
        write_json(path, order)
        return order

    def _check_folder(self) -> None:
        if self.folder.exists() and not self.folder.is_dir():
            raise RunError(f"{self.folder} is a file; --out must name a folder for the retraining.")
        there = (
            [path for path in self.folder.iterdir() if not path.name.startswith(".")] if self.folder.exists() else []
        )
        if there and not (self.folder / JOB).exists():
            raise RunError(f"{self.folder} is not empty and holds no retraining; choose another folder.")

    def _note(self, name: str) -> str:
        """Write into job.json that a state begins; returns when."""
        order = self._written()
        attempts = order["states"].get(name, {"attempts": 0})["attempts"] + 1
        began = iso(self.clock())
        order["states"][name] = {"began": began, "ended": None, "attempts": attempts}
        write_json(self.folder / JOB, order)
        return began

    def _write(self, outcome: str | None, why: str) -> dict[str, Any]:
        """Write into job.json how it ended; returns its content."""
        order = self._written() | {"outcome": outcome, "why": why, "ended": iso(self.clock()) if outcome else None}
        write_json(self.folder / JOB, order)
        return order

    def _written(self) -> dict[str, Any]:
        """The content of job.json, with the times at which states ended."""
        order: dict[str, Any] = read_json(self.folder / JOB)
        for name, state in order["states"].items():
            path = self.folder / f"{name}.json"
            state["ended"] = read_json(path)["ended"] if path.exists() else None
        return order


def iso(seconds: float) -> str:
    """A time as UTC, ISO 8601."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
