"""One candidate on trial: what facts said of it so far, in a file that a kill -9 leaves whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lowerbound.errors import DataError
from lowerbound.files import read_json, write_json
from lowerbound.service.candidate import Candidate
from lowerbound.service.monitoring.verdicts.halves import Halves, Side
from lowerbound.service.monitoring.verdicts.judge import Judge
from lowerbound.service.monitoring.verdicts.rules import Rules
from lowerbound.service.monitoring.verdicts.verdict import Action, Verdict

FOLDER = "verdicts"
MOST_EARLIER = 20  # trials of the same version that a file remembers


class Trial:
    """A judge, how far it has read, and the file of both.

    The file has the judge's state, the last verdict, and the id of the last fact that is in it, in one write: whoever
    goes on from it counts no fact twice and leaves none out.

    Args:
        path: of the file.
        candidate: on trial.
        judge: of it.
        cursor: id of the last fact that was taken.
        earlier: what became of trials of this version before, oldest first.

    Attributes:
        ended: what was done, and when; None as long as it goes on.
        trouble: why what the verdict asks for could not be done; empty if nothing stood in the way.
    """

    def __init__(
        self, path: Path, candidate: Candidate, judge: Judge, cursor: int, earlier: list[dict[str, Any]]
    ) -> None:
        self.path, self.candidate, self.judge, self.cursor = path, candidate, judge, cursor
        self._earlier = earlier
        self._halves = Halves(Side(candidate.place, candidate.hash), Side("stable", candidate.stable_hash))
        self.ended: dict[str, Any] | None = None
        self.trouble = ""

    @staticmethod
    def open(folder: Path, candidate: Candidate, rules: Rules, newest: int, at: float) -> Trial:
        """Go on with a trial, by the rules that it began with, or begin one.

        A trial is of one candidate since it became one, beside one stable version; when either changes, it begins anew.

        Args:
            folder: of the telemetry.
            candidate: on trial.
            rules: of a new one.
            newest: id of the newest fact, where a new one begins.
            at: seconds since 1970.

        Raises:
            DataError: the file is damaged.
        """
        path = path_of(folder, candidate.name, candidate.number)
        found = read_json(path) if path.is_file() else None
        try:
            if found is None or _of(found) != (candidate.place, candidate.since, candidate.stable_hash):
                earlier = [] if found is None else [*found["earlier"], _summary(found)][-MOST_EARLIER:]
                return Trial(path, candidate, Judge(rules, at), newest, earlier)
            trial = Trial(path, candidate, Judge.from_json(found), found["cursor"], found["earlier"])
            trial._halves.restore(found["waiting"])
            trial.ended, trial.trouble = found["ended"], found["trouble"]
        except (KeyError, TypeError, ValueError):
            raise DataError(f"{path} is no trial of a candidate; delete it, and the trial begins anew.") from None
        return trial

    def take(self, facts: Sequence[Mapping[str, Any]], at: float) -> int:
        """Take the facts after the last one; how many pairs they made."""
        if not facts:
            return 0
        candidate, stable = self._halves.add(fact for fact in facts if fact["model"] == self.candidate.name)
        if len(candidate):
            self.judge.score(candidate, stable, at)
        self.cursor = facts[-1]["id"]
        return len(candidate)

    def end(self, action: Action, at: float, entry: int) -> None:
        """Say what was done, by which row of the registry's history."""
        self.ended = {"action": action, "at": at, "history": entry}

    def save(self, at: float) -> Verdict:
        """Write the file; the verdict that is in it."""
        verdict = self.judge.verdict(at)
        mine = self.candidate
        write_json(
            self.path,
            {
                **{"name": mine.name, "alias": mine.place, "number": mine.number, "version": mine.hash},
                **{"since": mine.since, "stable": {"number": mine.stable, "version": mine.stable_hash}},
                **{"verdict": verdict.to_json(), "ended": self.ended, "trouble": self.trouble, "saved": at},
                **self.judge.to_json(),
                **{"cursor": self.cursor, "waiting": self._halves.state(), "earlier": self._earlier},
            },
        )
        return verdict


def path_of(folder: Path, name: str, number: int) -> Path:
    """The file of a version's trial."""
    return folder / FOLDER / name / f"{number}.json"


def trials_of(folder: Path, name: str) -> list[dict[str, Any]]:
    """What the files of a model's candidates say, the one that was written last at the end.

    Raises:
        DataError: one is damaged.
    """
    paths = (folder / FOLDER / name).glob("*.json")
    found: list[dict[str, Any]] = [read_json(path) for path in paths if path.stem.isdigit()]
    return sorted(found, key=lambda each: each["saved"])


def _of(found: Mapping[str, Any]) -> tuple[str, int, str]:
    return found["alias"], found["since"], found["stable"]["version"]


def _summary(found: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a trial when another one of the same version begins."""
    verdict = found["verdict"]
    return {
        **{name: found[name] for name in ("alias", "since", "stable", "started", "saved", "ended")},
        **{name: verdict[name] for name in ("action", "reason", "requests")},
    }
