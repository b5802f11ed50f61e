"""Processes that write telemetry and are killed at random moments: what they acknowledged is there."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from made_facts import NOW

from lowerbound.service.monitoring.telemetry.history import History
from lowerbound.service.monitoring.telemetry.housekeeping import Retention, tidy
from lowerbound.service.monitoring.telemetry.store import FLUSH_S

pytestmark = pytest.mark.slow

WRITER = Path(__file__).with_name("telemetry_writer.py")
WRITERS, ROUNDS = 2, 5
SLACK_S = 2.0  # beyond the window, for a machine that is busy with other things


def start(folder: Path, name: str) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(WRITER), str(folder), name]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def test_kill_9_loses_nothing_that_was_acknowledged_or_older_than_the_window(tmp_path: Path) -> None:
    chance = random.Random(0)
    committed: dict[str, int] = {}
    for turn in range(ROUNDS):
        names = [f"writer{turn}{letter}" for letter in "ab"[:WRITERS]]
        writers = [start(tmp_path, name) for name in names]
        said = []
        for writer in writers:
            assert writer.stdout is not None
            said.append(writer.stdout.readline())  # it writes
        if turn == 2:  # with housekeeping under way
            tidy(tmp_path, Retention(hot_hours=0.01, segment_rows=1000), now=NOW + 1000)
        time.sleep(chance.uniform(0.05, 1.0))
        for writer in writers:
            writer.kill()
        for name, writer, first in zip(names, writers, said, strict=True):
            assert writer.stdout is not None
            lines = [tuple(map(float, line.split())) for line in [first, *writer.stdout] if line.endswith("\n")]
            writer.wait(60)
            writer.stdout.close()
            last, _, acknowledged, refused = lines[-1]
            assert refused == 0
            committed[name] = int(acknowledged)
            older = [recorded for when, recorded, _, _ in lines if when < last - FLUSH_S - SLACK_S]
            committed[name] = max(committed[name], int(max(older, default=0)))
    window = History(tmp_path).window()
    rows: dict[str, list[int]] = {name: [] for name in committed}
    for request in window.request:
        name, index = request.split("-")
        rows[name].append(int(index))
    for name, least in committed.items():
        assert sorted(rows[name]) == list(range(len(rows[name]))), name  # no hole, nothing twice
        assert len(rows[name]) >= least, name
    assert sum(committed.values()) > 100
    history = History(tmp_path)
    assert sum(total.rows for total in history.totals()) == len(window) == history.minutes().rows.sum()
    with sqlite3.connect(tmp_path / "telemetry.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"


def test_rows_reach_the_disk_within_the_window_and_not_only_at_the_end(tmp_path: Path) -> None:
    """A writer that is left alone for a while and then killed has lost only its last moments."""
    writer = start(tmp_path, "alone")
    assert writer.stdout is not None
    lines = [writer.stdout.readline()]
    began = float(lines[0].split()[0])
    while float(lines[-1].split()[0]) < began + FLUSH_S + SLACK_S + 0.5:
        lines.append(writer.stdout.readline())
    writer.kill()
    lines += [line for line in writer.stdout if line.endswith("\n")]
    writer.wait(60)
    writer.stdout.close()
    rows = [tuple(map(float, line.split())) for line in lines]
    older = max(recorded for when, recorded, _, _ in rows if when < rows[-1][0] - FLUSH_S - SLACK_S)
    assert older > 0
    assert len(History(tmp_path).window()) >= older


def test_several_processes_may_make_one_store_at_once(tmp_path: Path) -> None:
    command = [sys.executable, str(WRITER.with_name("telemetry_openers.py")), str(tmp_path), "10"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
