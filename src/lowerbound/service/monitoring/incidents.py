"""Incidents: what went wrong, what was done about it, and when; one JSON file each, in TELEMETRY/incidents."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from lowerbound.errors import DataError, RunError, UsageError
from lowerbound.files import exclusive, read_json, write_json
from lowerbound.service.monitoring.alerts import ALERTS

Step = Literal["opened", "mitigate", "investigate", "fix", "validate", "monitoring", "closed"]
FOLDER = "incidents"
PATIENCE_S = 10.0  # to wait for another process that writes
SHOWN = 20  # requests that are named for a cause


@dataclass(frozen=True)
class Event:
    """One line of a timeline.

    Attributes:
        time: seconds since 1970.
        step: what kind of step it was.
        text: what happened, in sentences.
    """

    time: float
    step: Step
    text: str


@dataclass(frozen=True)
class Cause:
    """A group of requests that an incident is made of.

    Attributes:
        name: what they are.
        share: of all requests that were looked at.
        stderr: of the share.
        requests: ids of some that show it, the clearest first.
    """

    name: str
    share: float
    stderr: float
    requests: tuple[str, ...] = ()


@dataclass(frozen=True)
class Incident:
    """What went wrong with a model, from its opening until a person closes it.

    Attributes:
        id: the name of its file.
        model: whose requests or answers.
        version: hash of the version that answered when it was opened.
        kind: the alert that opened it.
        alerts: all that belong to it, in the order in which they came.
        opened, closed: seconds since 1970; open until `closed`.
        seen: when an alert of it was last raised.
        timeline: what happened, in order.
        causes: the largest first.
        reports: files that show more, within the telemetry's folder.
    """

    id: str
    model: str
    version: str
    kind: str
    alerts: tuple[str, ...]
    opened: float
    closed: float | None
    seen: float
    timeline: tuple[Event, ...]
    causes: tuple[Cause, ...] = ()
    reports: tuple[str, ...] = ()

    @property
    def open(self) -> bool:
        """Whether nobody closed it."""
        return self.closed is None

    def json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


class Incidents:
    """All incidents of a store of telemetry; several processes may write to it.

    Args:
        telemetry: folder of the store.
    """

    def __init__(self, telemetry: Path | str) -> None:
        self._folder = Path(telemetry) / FOLDER

    def all(self, model: str | None = None) -> list[Incident]:
        """Of one model or of all, oldest first.

        Raises:
            DataError: a file is not an incident.
        """
        found = [_read(path) for path in sorted(self._folder.glob("*.json"))]
        return sorted((one for one in found if model in (None, one.model)), key=lambda one: (one.opened, one.id))

    def get(self, id: str) -> Incident:
        """One of them.

        Raises:
            UsageError: there is none of this id.
        """
        path = self._folder / f"{id}.json"
        if "/" in id or not path.is_file():
            known = ", ".join(one.id for one in self.all()) or "none"
            raise UsageError(f"there is no incident {id}; there are: {known}.")
        return _read(path)

    def raise_alerts(
        self, model: str, version: str, alerts: Sequence[str], at: float, text: str
    ) -> tuple[Incident, bool]:
        """Put alerts of one look into the open incident of their trouble, or open one; and whether it is new.

        An alert that is part of it already changes only when it was last seen: a trouble has one open incident.

        Args:
            model, version: whose requests, and the hash of what answered them.
            alerts: names, the one that says most first, all of one trouble.
            at: seconds since 1970.
            text: what was seen, in sentences.

        Raises:
            UsageError: an alert that does not exist.
        """
        unknown = [name for name in alerts if name not in ALERTS]
        if unknown or not alerts:
            raise UsageError(f"the alerts {', '.join(unknown) or 'none'} were raised; there are {', '.join(ALERTS)}.")
        trouble = ALERTS[alerts[0]].trouble
        with self._alone():
            for one in self.all(model):
                if one.open and ALERTS[one.kind].trouble == trouble:
                    added = tuple(name for name in alerts if name not in one.alerts)
                    events = (Event(at, "investigate", f"More alerts: {', '.join(added)}. {text}"),) if added else ()
                    return self._keep(
                        replace(one, seen=at, alerts=one.alerts + added, timeline=one.timeline + events)
                    ), False
            opened = Event(at, "opened", f"{', '.join(alerts)}: {text}")
            made = Incident(
                id=self._free(model, alerts[0], at),
                model=model,
                version=version,
                kind=alerts[0],
                alerts=tuple(alerts),
                opened=at,
                closed=None,
                seen=at,
                timeline=(opened,),
            )
            return self._keep(made), True

    def note(self, id: str, step: Step, text: str, at: float) -> Incident:
        """Add a line to a timeline.

        Raises:
            UsageError: no such step or incident, or nothing to say.
        """
        if step not in get_args(Step):
            raise UsageError(f"the step {step} was given; the steps are {', '.join(get_args(Step))}.")
        if not text:
            raise UsageError("a line of a timeline needs words; say what was done with --why.")
        with self._alone():
            found = self.get(id)
            return self._keep(replace(found, timeline=(*found.timeline, Event(at, step, text))))

    def explain(self, id: str, causes: Sequence[Cause], reports: Sequence[str], text: str, at: float) -> Incident:
        """Say what it is made of, in place of what was said before, and where more is shown."""
        with self._alone():
            found = self.get(id)
            shown = tuple(replace(cause, requests=cause.requests[:SHOWN]) for cause in causes)
            every = (*found.reports, *(name for name in reports if name not in found.reports))
            timeline = (*found.timeline, Event(at, "investigate", text))
            return self._keep(replace(found, causes=shown, reports=every, timeline=timeline))

    def close(self, id: str, why: str, at: float) -> Incident:
        """End it; the next alert of its trouble opens another.

        Raises:
            UsageError: it is closed, or nobody said why.
        """
        if not why:
            raise UsageError("an incident is closed with a reason; say it with --why.")
        with self._alone():
            found = self.get(id)
            if not found.open:
                raise UsageError(f"the incident {id} is closed already.")
            return self._keep(replace(found, closed=at, timeline=(*found.timeline, Event(at, "closed", why))))

    def _keep(self, incident: Incident) -> Incident:
        write_json(self._folder / f"{incident.id}.json", incident.json())
        return incident

    def _free(self, model: str, kind: str, at: float) -> str:
        """An id that says when, of what, and why."""
        named = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(at))}-{model.replace('/', '_').replace(':', '-')}-{kind}"
        number = 1
        while (self._folder / f"{named}{f'-{number}' if number > 1 else ''}.json").exists():
            number += 1
        return f"{named}-{number}" if number > 1 else named

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Be the only one who changes incidents."""
        until = time.monotonic() + PATIENCE_S
        with contextlib.ExitStack() as held:
            while True:
                try:
                    held.enter_context(exclusive(self._folder / ".lock", f"the folder {self._folder}"))
                    break
                except RunError:
                    if time.monotonic() > until:
                        raise
                    time.sleep(0.01)
            yield


def _read(path: Path) -> Incident:
    table = read_json(path)
    try:
        events = tuple(Event(**event) for event in table.pop("timeline"))
        causes = tuple(Cause(**{**cause, "requests": tuple(cause["requests"])}) for cause in table.pop("causes"))
        alerts, reports = tuple(table.pop("alerts")), tuple(table.pop("reports"))
        return Incident(**table, alerts=alerts, reports=reports, timeline=events, causes=causes)
    except (TypeError, KeyError, AttributeError):
        raise DataError(f"{path} is not an incident; it was not written by lowerbound or is damaged.") from None
