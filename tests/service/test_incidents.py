"""Incidents: one for each trouble until it is closed, whoever writes them, with a timeline."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest

from lowerbound.errors import DataError, UsageError
from lowerbound.service.monitoring.alerts import ALERTS, OF_DETECTOR, OF_SIGN
from lowerbound.service.monitoring.incidents import Cause, Incidents

NOW = 1_800_000_000.0


def test_alerts_of_one_trouble_share_an_incident_until_it_is_closed(tmp_path: Path) -> None:
    incidents = Incidents(tmp_path)
    first, new = incidents.raise_alerts("digits", "abc", ("flat-inputs", "gate-rejects"), NOW, "3 % are black.")
    assert new
    assert (first.kind, first.open, first.closed) == ("flat-inputs", True, None)
    again, new = incidents.raise_alerts("digits", "abc", ("flat-inputs",), NOW + 60, "Still.")
    assert (again.id, new, again.seen, len(again.timeline)) == (first.id, False, NOW + 60, 1)
    more, new = incidents.raise_alerts("digits", "abc", ("flat-inputs", "drift-latent"), NOW + 120, "Codes move.")
    assert (more.id, new, more.alerts) == (first.id, False, ("flat-inputs", "gate-rejects", "drift-latent"))
    other, new = incidents.raise_alerts("digits", "abc", ("serving-fault",), NOW + 130, "Other answers.")
    assert new
    assert other.id != first.id
    elsewhere, new = incidents.raise_alerts("faces", "abc", ("flat-inputs",), NOW + 140, "Black.")
    assert new
    incidents.close(first.id, "the lens was clean again", NOW + 200)
    after, new = incidents.raise_alerts("digits", "abc", ("flat-inputs",), NOW + 300, "Black again.")
    assert new
    assert [one.id for one in incidents.all("digits")] == [first.id, other.id, after.id]
    assert [one.id for one in incidents.all() if one.open] == [other.id, elsewhere.id, after.id]


def test_a_timeline_has_every_step(tmp_path: Path) -> None:
    incidents = Incidents(tmp_path)
    made, _ = incidents.raise_alerts("digits", "abc", ("unknown-kind",), NOW, "New codes.")
    incidents.note(made.id, "mitigate", "The camera was unplugged.", NOW + 1)
    causes = [Cause("a kind that the reference lacks", 0.15, 0.01, tuple(map(str, range(50))))]
    incidents.explain(made.id, causes, ["drift/digits/1.html"], "Of 400 requests.", NOW + 2)
    incidents.note(made.id, "fix", "Version 2 was trained.", NOW + 3)
    incidents.note(made.id, "validate", "It mends it.", NOW + 4)
    incidents.note(made.id, "monitoring", "A new baseline.", NOW + 5)
    done = incidents.close(made.id, "mended", NOW + 6)
    assert [event.step for event in done.timeline] == [
        *("opened", "mitigate", "investigate", "fix", "validate", "monitoring", "closed")
    ]
    assert incidents.get(made.id) == done
    assert len(done.causes[0].requests) == 20
    assert done.reports == ("drift/digits/1.html",)


def test_what_cannot_be_done_is_refused(tmp_path: Path) -> None:
    incidents = Incidents(tmp_path)
    with pytest.raises(UsageError, match="no incident x"):
        incidents.get("x")
    with pytest.raises(UsageError, match="nonsense"):
        incidents.raise_alerts("digits", "abc", ("nonsense",), NOW, "")
    made, _ = incidents.raise_alerts("digits", "abc", ("drift-rate",), NOW, "The rate moved.")
    with pytest.raises(UsageError, match="with a reason"):
        incidents.close(made.id, "", NOW)
    with pytest.raises(UsageError, match="needs words"):
        incidents.note(made.id, "fix", "", NOW)
    incidents.close(made.id, "done", NOW)
    with pytest.raises(UsageError, match="closed already"):
        incidents.close(made.id, "done", NOW)
    (tmp_path / "incidents" / "odd.json").write_text('{"id": "odd"}')
    with pytest.raises(DataError, match="not an incident"):
        incidents.all()


def test_many_writers_open_one(tmp_path: Path) -> None:
    """Ten threads with a store each raise the same alert, and add a line each."""

    def write(number: int) -> None:
        incidents = Incidents(tmp_path)
        made, _ = incidents.raise_alerts("digits", "abc", ("drift-error",), NOW, "Errors grew.")
        incidents.note(made.id, "investigate", f"line {number}", NOW + number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (found,) = Incidents(tmp_path).all()
    lines = {event.text for event in found.timeline if event.step == "investigate"}
    assert lines == {f"line {number}" for number in range(10)}


def test_every_alert_has_a_section_of_the_runbook() -> None:
    page = (Path(__file__).parents[2] / "docs" / "runbook.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## (.+)$", page, re.MULTILINE)
    assert [name for name in ALERTS if name not in sections] == []
    assert {*OF_DETECTOR.values(), *OF_SIGN.values()} <= ALERTS.keys()
