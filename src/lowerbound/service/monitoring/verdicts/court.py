"""The court: reads facts, lets judges look at them, and does what they say. One process of all sits."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from lowerbound.errors import ConflictError, LowerboundError, RunError, UsageError
from lowerbound.files import exclusive, read_json, write_json
from lowerbound.service.candidate import Candidate
from lowerbound.service.monitoring.telemetry.history import History
from lowerbound.service.monitoring.verdicts.frechet import Look
from lowerbound.service.monitoring.verdicts.rules import Rules
from lowerbound.service.monitoring.verdicts.trial import FOLDER, Trial, path_of
from lowerbound.service.monitoring.verdicts.verdict import Action, Verdict

LOCK = "court.lock"
OVERRIDE, LOOK = ".override.json", ".look.json"  # where word for the court waits, beside a trial's file
AT_ONCE = 5000  # facts that are read in one go
PATIENCE_S = 10.0  # of an operator's decision
SAVE_S = 1.0  # between two writes of a file; what a kill -9 takes is read again
logger = logging.getLogger(__name__)


class Entry(Protocol):
    """A row of the registry's history."""

    @property
    def id(self) -> int:
        """Its number."""


class Numbered(Protocol):
    """A version."""

    @property
    def number(self) -> int:
        """Its number."""


class Registry(Protocol):
    """What moves versions; both verbs refuse when something is not what was expected."""

    def aliases(self, name: str) -> Mapping[str, Numbered]:
        """The version of each alias."""

    def promote(self, name: str, number: int, alias: str = ..., *, why: str = ..., expected: int | None = ...) -> Entry:
        """Let an alias point to a version."""

    def rollback(self, name: str, alias: str = ..., *, why: str = ..., expected: int | None = ...) -> Entry:
        """Take a candidate off."""


class Court:
    """Holds the trials of all candidates. A canary is promoted or rolled back; of a shadow, the verdict is only said.

    Args:
        folder: of the telemetry.
        registry: that the verdicts move.
        candidates: that are served now.
        rules: of new trials.
        moved: is called when the registry was moved.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        folder: Path,
        registry: Registry,
        candidates: Callable[[], list[Candidate]],
        rules: Rules,
        moved: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder, self._registry, self._candidates, self._rules = folder, registry, candidates, rules
        self._moved, self._clock = moved, clock
        self._history = History(folder)
        self._held = contextlib.ExitStack()
        self._sits = False
        self._trials: dict[Candidate, Trial] = {}
        self._saved: dict[Candidate, float] = {}
        self._said: dict[Candidate, Action] = {}

    def sit(self) -> None:
        """Look at what is new, and do what follows from it; nothing where another process does.

        Raises:
            DataError: a file, or the store, is damaged.
            NotSavedError: the disk is full.
        """
        candidates = _apart(self._candidates())
        if not candidates or not self._seated():
            self.rise()
            return
        for gone in self._trials.keys() - set(candidates):
            self._forget(gone)
        for candidate in candidates:
            self._hear(candidate)

    def rise(self) -> None:
        """Write down what is known, and let others sit."""
        for candidate in list(self._trials):
            self._forget(candidate)
        self._held.close()
        self._sits = False

    def _seated(self) -> bool:
        if not self._sits:
            try:
                self._held.enter_context(exclusive(self._folder / FOLDER / LOCK, "the court of candidates"))
            except RunError:
                return False
            self._sits = True
        return True

    def _hear(self, candidate: Candidate) -> None:
        now = self._clock()
        trial = self._trials.get(candidate)
        if trial is None:
            trial = Trial.open(self._folder, candidate, self._rules, self._history.newest(), now)
            self._trials[candidate] = trial
            self._saved[candidate] = 0.0
        if trial.ended is not None:
            return
        facts = self._history.after(trial.cursor, AT_ONCE)
        trial.take(facts, now)
        overridden, looked = self._override(trial, now), self._look(trial, now)
        verdict = trial.judge.verdict(now)
        changed = overridden or looked or self._said.get(candidate) != verdict.action
        if changed or now - self._saved[candidate] >= SAVE_S:
            trial.save(now)
            self._saved[candidate] = now
        if changed:
            self._said[candidate] = verdict.action
            logger.info("%s:%d (%s): %s. %s", *_named(candidate), verdict.action.replace("_", " "), verdict.reason)
        if candidate.place == "canary" and verdict.action != "hold" and not (trial.trouble and not overridden):
            self._act(trial, verdict, now)
        for taken, suffix in ((overridden, OVERRIDE), (looked, LOOK)):  # only now: what was not saved is taken again
            if taken:
                trial.path.with_suffix(suffix).unlink()

    def _override(self, trial: Trial, now: float) -> bool:
        """Take in what an operator decided, if there is something."""
        path = trial.path.with_suffix(OVERRIDE)
        if not path.is_file():
            return False
        given: dict[str, Any] = read_json(path)
        trial.judge.override(given["action"], given["who"], given["why"], given["at"])
        trial.trouble = ""
        trial.save(now)
        return True

    def _look(self, trial: Trial, now: float) -> bool:
        """Take in a comparison of Fréchet distances, if there is one and it is judged."""
        path = trial.path.with_suffix(LOOK)
        if not path.is_file():
            return False
        if "frechet" in trial.judge.rules.metrics:
            trial.judge.look(Look(**read_json(path)), now)
            trial.save(now)
        return True

    def _act(self, trial: Trial, verdict: Verdict, now: float) -> None:
        mine = trial.candidate
        try:
            now_there = self._registry.aliases(mine.name).get(mine.place)
            if now_there is None or now_there.number != mine.number:
                raise ConflictError("it is no candidate any more.")
            if verdict.action == "promote":
                entry = self._registry.promote(mine.name, mine.number, why=verdict.reason, expected=mine.stable)
            else:
                entry = self._registry.rollback(mine.name, mine.place, why=verdict.reason, expected=mine.number)
        except ConflictError as error:  # somebody moved something: what is true now is seen at the next look
            logger.warning("%s:%d (%s): %s", *_named(mine), error)
        except LowerboundError as error:
            trial.trouble = str(error)
            trial.save(now)
            logger.error("%s:%d (%s) stays a candidate: %s", *_named(mine), error)
        else:
            trial.end(verdict.action, now, entry.id)
            trial.save(now)
        self._moved()

    def _forget(self, candidate: Candidate) -> None:
        trial = self._trials.pop(candidate)
        if trial.ended is None:
            trial.save(self._clock())
        self._said.pop(candidate, None)
        for suffix in (OVERRIDE, LOOK):
            trial.path.with_suffix(suffix).unlink(missing_ok=True)


def decide(folder: Path, name: str, number: int, action: Action, who: str, why: str) -> dict[str, Any]:
    """Let an operator decide about a candidate, and wait until the court knows; what its file says then.

    Raises:
        UsageError: nobody, or no reason, is named; or no server judges this candidate.
        NotSavedError: the disk is full.
    """
    if not who or not why:
        raise UsageError("a decision was given without who made it and why; name both with --who and --why.")
    given = {"action": action, "who": who, "why": why, "at": time.time()}
    return _deliver(folder, name, number, OVERRIDE, given)


def deliver(folder: Path, name: str, number: int, look: Look) -> dict[str, Any]:
    """Let the court know a comparison of Fréchet distances; what the candidate's file says then.

    Raises:
        UsageError: no server judges this candidate, or not by Fréchet distances.
        NotSavedError: the disk is full.
    """
    trial = path_of(folder, name, number)
    if trial.is_file() and "frechet" not in read_json(trial)["rules"]["metrics"]:
        raise UsageError(f"{name}:{number} is not judged by Fréchet distances; serve it with --canary-frechet.")
    return _deliver(folder, name, number, LOOK, asdict(look))


def _deliver(folder: Path, name: str, number: int, suffix: str, given: dict[str, Any]) -> dict[str, Any]:
    trial = path_of(folder, name, number)
    path = trial.with_suffix(suffix)
    if not trial.is_file():
        raise UsageError(
            f"no server judges {name}:{number} with telemetry in {folder}; start one, or use the registry."
        )
    write_json(path, given)
    end = time.monotonic() + PATIENCE_S
    while path.is_file() and time.monotonic() < end:
        time.sleep(0.05)
    if path.is_file():
        path.unlink(missing_ok=True)
        raise UsageError(
            f"no server took what was said of {name}:{number} within {PATIENCE_S:g} s; start one with --telemetry "
            f"{folder}, or use `lowerbound registry`."
        )
    found: dict[str, Any] = read_json(trial)
    return found


def _apart(candidates: list[Candidate]) -> list[Candidate]:
    """One candidate of each version: where a version is both, as a canary."""
    found: dict[tuple[str, int], Candidate] = {}
    for candidate in sorted(candidates, key=lambda each: each.place):
        found.setdefault((candidate.name, candidate.number), candidate)
    return list(found.values())


def _named(candidate: Candidate) -> tuple[str, int, str]:
    return candidate.name, candidate.number, candidate.place
