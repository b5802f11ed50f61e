"""The telemetry store: rows a second, bytes a row, what a row costs its request, and how fast windows are read.

    python benchmarks/telemetry.py [--rows 200000] [--units 64] [--write]

Prints a table; --write puts it into docs/telemetry.md. Times of the processor are printed beside those of the clock,
because they say what the work takes on a machine that does other things too.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lowerbound.service.monitoring.telemetry.fact import Fact
from lowerbound.service.monitoring.telemetry.history import Choice, History
from lowerbound.service.monitoring.telemetry.housekeeping import Retention, tidy
from lowerbound.service.monitoring.telemetry.store import Telemetry

DOCS = Path(__file__).parents[1] / "docs" / "telemetry.md"
REQUEST_S = 0.0002  # a fast request, of which a row may cost 5 %
BURST, ROUNDS = 4000, 12


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """What it returns, and its seconds by the clock and of the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    made = work()
    return made, time.perf_counter() - clock, time.process_time() - processor


def facts_of(rows: int, units: int, with_rates: bool) -> list[Fact]:
    chance = np.random.default_rng(0)
    codes = chance.normal(size=(rows, units)).astype(np.float32)
    now = time.time()
    return [
        Fact(
            time=now - 1800 + 1800 * index / rows,
            request=os.urandom(16).hex(),
            model="digits",
            version="1f0c9d",
            alias="stable" if index % 20 else "canary",
            verb="score",
            gate="passed",
            error=0.01 + 0.001 * (index % 7),
            rate=20.0,
            rates=codes[index] ** 2 if with_rates else None,
            code=codes[index],
            norm=8.0,
            p_value=0.5,
            queue_s=0.0001,
            compute_s=0.0002,
            total_s=0.0005,
        )
        for index in range(rows)
    ]


def written(folder: Path, facts: list[Fact]) -> list[list[str]]:
    """Rows a second from the first call until the last row is committed, and the bytes they take."""
    with Telemetry(folder, most_rows=len(facts)) as telemetry:

        def work() -> None:
            for fact in facts:
                telemetry(fact)
            assert telemetry.flush(300)

        _, clock, processor = timed(work)
    size = sum(path.stat().st_size for path in folder.glob("telemetry.db*"))
    return [
        ["rows a second, clock", f"{len(facts) / clock:,.0f}"],
        ["rows a second, one whole core", f"{len(facts) / processor:,.0f}"],
        ["bytes a row in SQLite, roll-ups and index included", f"{size / len(facts):.0f}"],
    ]


def caller_cost(facts: list[Fact]) -> list[list[str]]:
    """What a request pays on its own thread: making the record and handing it over, while the writer works."""
    costs = []
    with tempfile.TemporaryDirectory() as name, Telemetry(name) as telemetry:
        known = [{field: getattr(fact, field) for field in Fact.__slots__} for fact in facts[:BURST]]
        for _ in range(ROUNDS):

            def burst() -> None:
                for values in known:
                    telemetry(Fact(**values))

            started = time.thread_time()
            burst()
            costs.append((time.thread_time() - started) / BURST)
            telemetry.flush(60)
    cost = statistics.median(costs)
    return [
        ["a row's cost to its request, microseconds", f"{cost * 1e6:.1f}"],
        ["of a request of 0.2 ms", f"{100 * cost / REQUEST_S:.1f} %"],
    ]


def shared_cost(facts: list[Fact], rate: int = 2000, seconds: float = 5.0) -> list[list[str]]:
    """The processor time of everything, the writing thread included, at a steady rate."""
    with tempfile.TemporaryDirectory() as name, Telemetry(name) as telemetry:
        telemetry.flush()
        count, began = 0, time.perf_counter()
        used = time.process_time()
        while (passed := time.perf_counter() - began) < seconds:
            while count < min(rate * passed, len(facts) - 1):
                telemetry(facts[count])
                count += 1
            time.sleep(0.005)
        telemetry.flush(60)
        used = time.process_time() - used
    return [
        [
            f"processor time a row with its share of the writing thread, {rate:,} rows a second, microseconds",
            f"{used / count * 1e6:.0f}",
        ]
    ]


def read(folder: Path, rows: int) -> list[list[str]]:
    history = History(folder)
    out = []
    choice = Choice(model="digits", newest=min(rows, 100_000))
    window, clock, processor = timed(lambda: history.window(choice))
    out.append(
        [
            f"a window of {len(window):,} rows with codes from SQLite, seconds (of the processor)",
            f"{clock:.2f} ({processor:.2f})",
        ]
    )
    _, clock, processor = timed(history.minutes)
    out.append(["roll-ups of half an hour, seconds", f"{clock:.3f} ({processor:.3f})"])
    done, clock, processor = timed(lambda: tidy(folder, Retention(hot_hours=0.0001)))
    out.append(
        [
            "moving a row to Parquet, microseconds",
            f"{1e6 * clock / done.moved:.0f} ({1e6 * processor / done.moved:.0f})",
        ]
    )
    size = sum(path.stat().st_size for path in (folder / "segments").glob("*.parquet"))
    out.append(["bytes a row in Parquet", f"{size / done.moved:.0f}"])
    again, clock, processor = timed(lambda: history.window(choice))
    assert np.array_equal(again.code, window.code)
    out.append(["the same window from Parquet, seconds", f"{clock:.2f} ({processor:.2f})"])
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--units", type=int, default=64)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    facts = facts_of(arguments.rows, arguments.units, with_rates=False)
    rows = caller_cost(facts) + shared_cost(facts)
    with tempfile.TemporaryDirectory() as name:
        rows = written(Path(name), facts) + rows
        rows += read(Path(name), arguments.rows)
    with tempfile.TemporaryDirectory() as name:
        found = written(Path(name), facts_of(arguments.rows, arguments.units, with_rates=True))
        rows += [[f"{what}, with the rate of each unit too", value] for what, value in found]
    table = "\n".join(f"| {what} | {value} |" for what, value in [["what", "measured"], ["---", "---"], *rows])
    print(f"{arguments.units} units, {arguments.rows:,} rows\n\n{table}")
    if arguments.write:
        text = re.sub(
            r"(<!-- measured -->\n).*?(<!-- end -->)",
            lambda m: f"{m[1]}{table}\n{m[2]}",
            DOCS.read_text(),
            flags=re.DOTALL,
        )
        DOCS.write_text(text)


if __name__ == "__main__":
    main()
