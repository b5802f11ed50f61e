"""Aliases move by compare-and-swap, and every move stands in the history."""

from __future__ import annotations

import multiprocessing
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from multiprocessing.synchronize import Barrier
from pathlib import Path

import fresh
import pytest

from lowerbound.errors import ConflictError, IncompatibleError, LowerboundError, RegistryError, TamperedError
from lowerbound.service.registry.registry import Registry

Opened = Callable[[], Registry]
PLACES = ["sqlite", "postgresql"]


@pytest.fixture(params=PLACES)
def opened(request: pytest.FixtureRequest, runs: list[Path], tmp_path: Path) -> Opened:
    """Opens a registry with versions 1, 2 and 3 of `digits`, in a file or on a server."""
    if request.param == "sqlite":
        place: Path = request.getfixturevalue("place")
        return lambda: Registry(place)
    address = request.getfixturevalue("database")
    fresh.filled(address, runs, tmp_path / "objects")
    return lambda: Registry(address, tmp_path / "objects")


def test_promotions_and_rollbacks_undo_each_other(opened: Opened) -> None:
    registry = opened()
    for number in (1, 2, 3):
        registry.promote("digits", number, why=f"try {number}")
    assert registry.resolve("digits").number == 3
    assert registry.rollback("digits", why="worse").number == 2
    assert registry.rollback("digits").number == 1
    with pytest.raises(RegistryError, match="first stable version"):
        registry.rollback("digits")
    registry.promote("digits", 3)
    assert registry.rollback("digits").number == 1
    assert registry.verify().entries == 3 + 3 + 2 + 2


def test_a_canary_that_becomes_stable_is_canary_no_more(opened: Opened) -> None:
    registry = opened()
    registry.promote("digits", 1)
    registry.promote("digits", 2, "canary")
    registry.promote("digits", 3, "shadow")
    before = registry.position()
    registry.promote("digits", 2)
    assert {alias: version.number for alias, version in registry.aliases("digits").items()} == {
        "shadow": 3,
        "stable": 2,
    }
    assert registry.position() == before + 2
    assert registry.rollback("digits", "shadow").number is None
    assert list(registry.aliases("digits")) == ["stable"]
    with pytest.raises(RegistryError, match="no canary version"):
        registry.rollback("digits", "canary")
    assert registry.rollback("digits").number == 1
    registry.verify()


def test_what_served_when_and_why(opened: Opened) -> None:
    registry = opened()
    times = [datetime.now(UTC).isoformat()]
    for number, why in ((1, "the first"), (2, "better")):
        registry.promote("digits", number, why=why)
        times.append(datetime.now(UTC).isoformat())
    registry.rollback("digits", why="worse after all")
    times.append(datetime.now(UTC).isoformat())
    served = [registry.served("digits", time) for time in times]
    assert served[0] == {}
    assert [(found["stable"].number, found["stable"].why) for found in served[1:]] == [
        (1, "the first"),
        (2, "better"),
        (1, "worse after all"),
    ]
    assert served[2]["stable"].version == registry.resolve("digits:2").hash
    today = datetime.now().date().isoformat()
    assert registry.served("digits", today)["stable"].number == 1
    with pytest.raises(RegistryError, match="is no time"):
        registry.served("digits", "yesterday")


def test_an_alias_that_is_not_as_expected_does_not_move(opened: Opened) -> None:
    registry = opened()
    registry.promote("digits", 1, expected=0)
    with pytest.raises(ConflictError, match="is version 1 and not none"):
        registry.promote("digits", 2, expected=0)
    with pytest.raises(ConflictError, match="is version 1 and not version 3"):
        registry.promote("digits", 2, expected=3)
    assert registry.promote("digits", 2, expected=1).before == 1
    with pytest.raises(RegistryError, match="is stable already"):
        registry.promote("digits", 2)
    with pytest.raises(RegistryError, match="versions 1 to 3"):
        registry.promote("digits", 9)


def _promote(opened: Opened, number: int, barrier: Barrier, said: multiprocessing.Queue[str]) -> None:
    registry = opened()
    barrier.wait()
    try:
        registry.promote("digits", number, expected=1)
        said.put("won")
    except ConflictError:
        said.put("told")
    except LowerboundError as error:
        said.put(f"failed: {error}")


def together(work: Callable[..., None], arguments: list[tuple[object, ...]]) -> list[str]:
    """What processes said that worked at the same time, sorted."""
    context = multiprocessing.get_context("fork")
    barrier, said = context.Barrier(len(arguments)), context.Queue()
    processes = [context.Process(target=work, args=(*each, barrier, said)) for each in arguments]
    for process in processes:
        process.start()
    found = sorted(said.get(timeout=120) for _ in processes)
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    return found


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of forking with threads: torch's sleep
def test_of_two_who_promote_at_once_one_wins_and_one_is_told(opened: Opened) -> None:
    opened().promote("digits", 1)
    for _ in range(5):
        assert together(_promote, [(opened, 2), (opened, 3)]) == ["told", "won"]
        registry = opened()
        assert registry.resolve("digits").number in (2, 3)
        registry.promote("digits", 1)
    opened().verify()


def _add(opened: Opened, run: Path, name: str, barrier: Barrier, said: multiprocessing.Queue[str]) -> None:
    registry = opened()
    barrier.wait()
    try:
        version = registry.add(run, name)
        said.put(f"{version.number} {'new' if version.new else 'known'}")
    except LowerboundError as error:
        said.put(f"failed: {error}")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_adds_at_once_are_all_there_once(opened: Opened, runs: list[Path]) -> None:
    same = [(opened, runs[0], "again")] * 3
    assert together(_add, same) == ["1 known", "1 known", "1 new"]
    others = [(opened, run, "others") for run in runs]
    assert together(_add, others) == ["1 new", "2 new", "3 new"]
    registry = opened()
    assert len(registry.versions("again")) == 1
    assert len(registry.versions("others")) == 3
    assert registry.verify().versions == 7


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_registries_that_are_made_at_once_are_one(runs: list[Path], tmp_path: Path) -> None:
    assert together(_add, [(lambda: Registry(tmp_path / "new"), run, "digits") for run in runs]) == [
        "1 new",
        "2 new",
        "3 new",
    ]
    assert Registry(tmp_path / "new").verify().entries == 3


CHANGES = {
    "a row is changed": "UPDATE registry_history SET why = 'no reason' WHERE id = 2",
    "a time is changed": "UPDATE registry_history SET time = '2020' || substr(time, 5) WHERE id = 5",
    "a row is taken out": "DELETE FROM registry_history WHERE id = 2",
    "the last row is taken off": "DELETE FROM registry_history WHERE id = 5",
    "rows change places": "UPDATE registry_history SET id = CASE id WHEN 4 THEN 50 ELSE id END",
    "an alias is moved": "UPDATE registry_aliases SET number = 1",
    "an alias is taken off": "DELETE FROM registry_aliases",
    "a version is another": "UPDATE registry_versions SET hash = (SELECT hash FROM registry_versions WHERE number = 2)",
}


@pytest.mark.parametrize("change", CHANGES)
def test_changes_behind_the_registrys_back_are_found(place: Path, change: str) -> None:
    registry = Registry(place)
    registry.promote("digits", 1)
    registry.promote("digits", 2)
    head = registry.verify().head
    assert head == registry.history()[-1].hash
    with sqlite3.connect(place / "registry.db") as connection:
        connection.execute(CHANGES[change])
    connection.close()
    with pytest.raises(TamperedError, match=r"history|aliases|versions"):
        registry.verify()


def test_codes_that_are_stored_are_not_broken(place: Path, runs: list[Path]) -> None:
    registry = Registry(place)
    assert not registry.stores_latents("digits")
    registry.promote("digits", 1)
    registry.promote("digits", 2)  # nobody stores codes
    registry.add(runs[0], "digits", stores_latents=True)
    assert registry.stores_latents("digits")
    for alias in ("stable", "canary"):
        with pytest.raises(IncompatibleError, match="gives other codes than digits:2") as refused:
            registry.promote("digits", 3, alias)
        assert refused.value.exit_code == 1
    registry.promote("digits", 3, "shadow")  # shadows store nothing
    registry.promote("digits", 3, breaking=True, why="all codes are made anew")
    assert registry.resolve("digits").number == 3
    registry.verify()


def test_a_database_on_a_server_is_named_where_it_is_away(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="cannot be used") as refused:
        Registry("postgresql://nobody:secret@127.0.0.1:9/none", tmp_path).names()
    assert "127.0.0.1:9" in str(refused.value)
    assert "secret" not in str(refused.value)
