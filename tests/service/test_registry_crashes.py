"""Kill -9 at every write, full disks and files that may not grow: the registry is whole after each."""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fresh
import pytest
from sqlalchemy.engine.default import DefaultDialect

from lowerbound.errors import NotSavedError
from lowerbound.service.registry.registry import Registry

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of forking with threads: torch's sleep
]
WRITES = ("rename", "replace", "fsync", "mkdir", "unlink", "chmod")


def die_at(number: int) -> None:
    """From now on, count what changes the disk, before and after each call, and die without a word at a number."""
    count = 0

    def point() -> None:
        nonlocal count
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **named: Any) -> Any:
            point()
            done = call(*arguments, **named)
            point()
            return done

        return run

    for name in WRITES:
        setattr(os, name, counted(getattr(os, name)))
    DefaultDialect.do_commit = counted(DefaultDialect.do_commit)  # type: ignore[method-assign]


def killed_at_each_point(work: Callable[[], object], after: Callable[[], None], most: int = 1000) -> int:
    """Do work in a process that is killed at its first, second, ... write, and look each time; how many there were."""
    context = multiprocessing.get_context("fork")
    for number in range(1, most + 1):

        def child(here: int = number) -> None:
            die_at(here)
            work()

        process = context.Process(target=child)
        process.start()
        process.join(120)
        if process.exitcode == 0:
            return number - 1
        assert process.exitcode == -signal.SIGKILL, process.exitcode
        after()
    return most


@pytest.fixture
def two(runs: list[Path], tmp_path: Path) -> Path:
    """A registry with versions 1 and 2, of which 1 is stable."""
    fresh.filled(tmp_path / "two", runs[:2]).promote(fresh.NAME, 1)
    return tmp_path / "two"


def test_killed_at_every_write_of_add(two: Path, runs: list[Path], tmp_path: Path) -> None:
    place, seen = tmp_path / "place", set()

    def restart() -> None:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(two, place)

    def look() -> None:
        registry = Registry(place)
        registry.verify()
        there = len(registry.versions(fresh.NAME))
        seen.add(there)
        again = registry.add(runs[2], fresh.NAME)
        assert again.number == 3
        assert again.new == (there == 2)
        assert again.verify()
        assert registry.verify().unused == (), "what was cut off is taken up again"
        if again.new:
            assert not list((place / "objects").glob(".draft-*")), "and what was half written is gone"
        restart()

    restart()
    points = killed_at_each_point(lambda: Registry(place).add(runs[2], fresh.NAME), look)
    assert points > 40
    assert seen == {2, 3}, "some died before it was there, some after"


def test_killed_while_the_registry_is_made(runs: list[Path], tmp_path: Path) -> None:
    place = tmp_path / "place"

    def look() -> None:
        assert Registry(place).add(runs[0], fresh.NAME).number == 1
        assert Registry(place).verify().versions == 1
        shutil.rmtree(place)

    killed_at_each_point(lambda: Registry(place).add(runs[0], fresh.NAME), look, most=12)


def test_killed_at_every_write_of_promote_and_rollback(two: Path) -> None:
    registry, seen = Registry(two), set()

    def look() -> None:
        registry.verify()
        seen.add(registry.resolve(fresh.NAME).number)
        if registry.resolve(fresh.NAME).number == 2:
            registry.rollback(fresh.NAME)

    assert killed_at_each_point(lambda: Registry(two).promote(fresh.NAME, 2), look) >= 2
    assert seen == {1, 2}
    look()
    registry.promote(fresh.NAME, 2)

    def back() -> None:
        registry.verify()
        if registry.resolve(fresh.NAME).number == 1:
            registry.promote(fresh.NAME, 2)

    assert killed_at_each_point(lambda: Registry(two).rollback(fresh.NAME), back) >= 2


def test_killed_at_any_moment_of_many_promotions(two: Path) -> None:
    """Also within the database's own writes, at moments that nobody chose."""
    chance, context = random.Random(0), multiprocessing.get_context("fork")

    def work() -> None:
        registry = Registry(two)
        while True:
            registry.promote(fresh.NAME, 3 - registry.resolve(fresh.NAME).number)

    rows = Registry(two).position()
    for _ in range(20):
        process = context.Process(target=work)
        process.start()
        while Registry(two).position() == rows:
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.1))
        process.kill()
        process.join(60)
        assert Registry(two).verify().entries > rows
        rows = Registry(two).position()


@pytest.fixture
def disk(two: Path, disk_of: Callable[[str], Path]) -> Path:
    """A disk of 1 MB with a registry on it."""
    place = disk_of("1m")
    shutil.copytree(two, place / "registry")
    return place


def test_a_full_disk_harms_nothing(disk: Path, runs: list[Path]) -> None:
    registry, filler = Registry(disk / "registry"), disk / "filler"
    before = registry.verify()
    for room in (0, 4096, 32768, 65536):
        filler.write_bytes(bytes(max(0, shutil.disk_usage(disk).free - room)))
        with pytest.raises(NotSavedError, match="could not be written"):
            registry.add(runs[2], fresh.NAME)
        if not room:
            with pytest.raises(NotSavedError, match="could not be written"):
                registry.promote(fresh.NAME, 2)
        assert registry.verify() == before
        filler.unlink()
    assert registry.add(runs[2], fresh.NAME).number == 3
    assert registry.promote(fresh.NAME, 3).before == 1
    registry.verify()


def test_files_that_may_not_grow_harm_nothing(two: Path, runs: list[Path]) -> None:
    registry = Registry(two)
    before, context = registry.verify(), multiprocessing.get_context("fork")

    def work(limit: int, said: Any) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        for step in (lambda: Registry(two).add(runs[2], fresh.NAME), lambda: Registry(two).promote(fresh.NAME, 2)):
            try:
                step()
                said.put("done")
            except NotSavedError as error:
                said.put(str(error))

    for limit in (0, 1000):
        said = context.Queue()
        process = context.Process(target=work, args=(limit, said))
        process.start()
        answers = [said.get(timeout=60), said.get(timeout=60)]
        process.join(60)
        assert all("could not be written" in answer for answer in answers), answers
        assert registry.verify() == before
    assert registry.add(runs[2], fresh.NAME).number == 3
