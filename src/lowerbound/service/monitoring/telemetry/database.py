"""The tables of the store, and how they are opened."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

from lowerbound.errors import DataError, NotSavedError, UsageError

PLACE = "LOWERBOUND_TELEMETRY"
FILE = "telemetry.db"
SCHEMA = 1
PATIENCE_S = 5.0  # to wait for another process that writes
LABELS = ("model", "version", "alias", "verb", "status", "reason", "gate")
NUMBERS = ("error", "rate", "norm", "p_value", "queue_s", "compute_s", "total_s")
VECTORS = ("code", "rates", "variances", "pixels")
ROLLED = ("error", "rate", "norm", "queue_s", "compute_s", "total_s")  # the numbers that have roll-ups
OTHER = "(other)"
MOST_SERIES = 4096  # a client chooses names of models that do not exist; they must not fill the disk

TABLES = f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE series (
    id INTEGER PRIMARY KEY, model TEXT NOT NULL, version TEXT NOT NULL, alias TEXT NOT NULL, verb TEXT NOT NULL,
    status INTEGER NOT NULL, reason TEXT NOT NULL, gate TEXT NOT NULL, UNIQUE ({", ".join(LABELS)})
) STRICT;
CREATE TABLE facts (
    id INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL, series INTEGER NOT NULL, request TEXT NOT NULL,
    row INTEGER NOT NULL, {", ".join(f"{name} REAL" for name in NUMBERS)}, digest BLOB,
    {", ".join(f"{name} BLOB" for name in VECTORS)}
) STRICT;
CREATE INDEX facts_time ON facts (time);
CREATE TABLE inputs (fact INTEGER PRIMARY KEY, content BLOB NOT NULL) STRICT;
CREATE TABLE minutes (
    minute INTEGER, series INTEGER, rows INTEGER NOT NULL, requests INTEGER NOT NULL, PRIMARY KEY (minute, series)
) STRICT, WITHOUT ROWID;
CREATE TABLE minute_numbers (
    minute INTEGER, series INTEGER, name INTEGER, n INTEGER NOT NULL, total REAL NOT NULL, log_total REAL NOT NULL,
    log_squares REAL NOT NULL, highest REAL NOT NULL, PRIMARY KEY (minute, series, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE totals (series INTEGER PRIMARY KEY, rows INTEGER NOT NULL, requests INTEGER NOT NULL) STRICT;
CREATE TABLE total_numbers (
    series INTEGER, name INTEGER, n INTEGER NOT NULL, total REAL NOT NULL, PRIMARY KEY (series, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE buckets (
    series INTEGER, name INTEGER, bucket INTEGER, n INTEGER NOT NULL, PRIMARY KEY (series, name, bucket)
) STRICT, WITHOUT ROWID;
CREATE TABLE losses (
    minute INTEGER, cause TEXT, rows INTEGER NOT NULL, PRIMARY KEY (minute, cause)
) STRICT, WITHOUT ROWID;
CREATE TABLE segments (
    file TEXT PRIMARY KEY, first INTEGER NOT NULL, last INTEGER NOT NULL, since REAL NOT NULL, until REAL NOT NULL,
    rows INTEGER NOT NULL, bytes INTEGER NOT NULL, sha256 TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE cursors (name TEXT PRIMARY KEY, last INTEGER NOT NULL) STRICT, WITHOUT ROWID;
"""


def place_of(folder: Path | str | None = None) -> Path:
    """The folder of the store: what is given, else $LOWERBOUND_TELEMETRY, else `telemetry` in the working folder."""
    return Path(folder or os.environ.get(PLACE) or "telemetry")


def connect(folder: Path) -> sqlite3.Connection:
    """A connection that may write; the tables are made where they are missing.

    A commit survives a kill -9 of every process (WAL, `synchronous=NORMAL`), the newest ones perhaps not a power cut.

    Raises:
        DataError: the file is no such store, or one of a later version.
        UsageError: nothing may be written there.
        NotSavedError: the disk is full or failed.
    """
    path = folder / FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=PATIENCE_S, isolation_level=None, check_same_thread=False)
        _make_patiently(connection)
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA journal_size_limit = 67108864")
        _check(connection, path)
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise UsageError(f"{path} cannot be written ({error.strerror}); choose a place that can be.") from None
    except sqlite3.DatabaseError as error:
        raise _explained(error, path) from None
    except OSError as error:
        raise NotSavedError(f"{path} could not be written ({error.strerror}); make room and try again.") from None
    return connection


def connect_to_read(folder: Path) -> sqlite3.Connection:
    """A connection that cannot write.

    Raises:
        DataError: there is no such store.
    """
    path = folder / FILE
    if not path.is_file():
        raise DataError(f"{folder} has no telemetry ({FILE} is missing); give the folder that a server writes to.")
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=PATIENCE_S, isolation_level=None
    )
    try:
        _check(connection, path)
    except sqlite3.DatabaseError as error:
        raise _explained(error, path) from None
    return connection


def _make_patiently(connection: sqlite3.Connection) -> None:
    """Make the tables while others try to: SQLite does not wait by itself when the kind of journal is changed."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return _make(connection)
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _make(connection: sqlite3.Connection) -> None:
    if connection.execute("PRAGMA user_version").fetchone()[0]:  # the usual case waits for no lock
        return
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # only before the first table
    connection.execute("PRAGMA journal_mode = WAL")  # a property of the file
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not connection.execute("PRAGMA user_version").fetchone()[0]:
            for statement in TABLES.split(";\n"):
                connection.execute(statement)
            connection.execute(
                "INSERT INTO meta VALUES ('salt', ?), ('hot', 0), ('made', ?)", (os.urandom(16), time.time())
            )
            connection.execute(f"PRAGMA user_version = {SCHEMA}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _check(connection: sqlite3.Connection, path: Path) -> None:
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    if found != SCHEMA:
        raise DataError(f"{path} has the schema {found} and this version of lowerbound reads {SCHEMA}; update it.")


def _explained(error: sqlite3.DatabaseError, path: Path) -> Exception:
    if isinstance(error, sqlite3.OperationalError):
        if "readonly" in str(error) or "unable to open" in str(error):
            return UsageError(f"{path} cannot be written ({error}); choose a place that can be.")
        return NotSavedError(
            f"{path} could not be written ({error}); make room, wait for its other users, and try again."
        )
    return DataError(f"{path} is no telemetry store ({error}); move it away or give another folder.")


class SeriesIndex:
    """Numbers for combinations of labels, so that a row need not repeat them.

    Args:
        connection: inside a transaction when asked.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._known: dict[tuple[object, ...], int] = {}

    def number(self, labels: tuple[str, str, str, str, int, str, str]) -> int:
        """The number of a combination; after 4,096 of them, new models, versions and reasons are "(other)"."""
        if labels not in self._known:
            self._known[labels] = self._find(labels) or self._add(labels)
        return self._known[labels]

    def forget(self) -> None:
        """Forget what a transaction that was rolled back may have added, and what fills the memory."""
        self._known.clear()

    def _find(self, labels: Sequence[object]) -> int | None:
        where = " AND ".join(f"{name} = ?" for name in LABELS)
        found = self._connection.execute(f"SELECT id FROM series WHERE {where}", labels).fetchone()
        return found[0] if found else None

    def _add(self, labels: tuple[str, str, str, str, int, str, str]) -> int:
        if self._connection.execute("SELECT count(*) FROM series").fetchone()[0] >= MOST_SERIES:
            status = labels[4] if labels[4] in range(100, 600) else 0
            labels = (OTHER, OTHER, OTHER, OTHER, status, OTHER, OTHER)
            known = self._find(labels)
            if known:
                return known
        added = self._connection.execute(
            f"INSERT INTO series ({', '.join(LABELS)}) VALUES ({', '.join('?' * len(LABELS))})", labels
        )
        assert added.lastrowid is not None
        return added.lastrowid
