"""The registry's tables: SQLite in a file or PostgreSQL, every change in one transaction, one writer at a time."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Double,
    Engine,
    ForeignKeyConstraint,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
    insert,
    select,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from lowerbound.errors import NotSavedError, RegistryError, TamperedError
from lowerbound.extras import need
from lowerbound.files import named

SCHEMA = 1
LOCK = 0x6C6F776572  # of PostgreSQL's advisory locks, for writers of a registry
WAIT_MS = 30_000  # for another writer

metadata = MetaData()
about = Table("registry_about", metadata, Column("schema", Integer, nullable=False))
names = Table(
    "registry_names",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("stores_latents", Boolean, nullable=False),
)
versions = Table(
    "registry_versions",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("hash", String(64), nullable=False),
    Column("source", String(64), nullable=False),
    Column("parent", Integer),
    Column("created", String(32), nullable=False),
    UniqueConstraint("name", "source"),
    ForeignKeyConstraint(["name"], ["registry_names.name"]),
)
aliases = Table(
    "registry_aliases",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("alias", String(16), primary_key=True),
    Column("number", Integer, nullable=False),
    Column("since", Integer, nullable=False),
    ForeignKeyConstraint(["name", "number"], ["registry_versions.name", "registry_versions.number"]),
)
history = Table(
    "registry_history",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("time", String(32), nullable=False),
    Column("action", String(16), nullable=False),
    Column("name", String(64), nullable=False),
    Column("alias", String(16)),
    Column("number", Integer),
    Column("before", Integer),
    Column("version", String(64)),
    Column("why", Text, nullable=False),
    Column("who", Text, nullable=False),
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
)
tasks = Table(
    "registry_tasks",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("task", String(32), primary_key=True),
    Column("due", Double, nullable=False),
    Column("holder", Text),
    Column("until", Double),
    Column("last", Double),
)


class Database:
    """The tables of one registry.

    Args:
        url: of SQLAlchemy.

    Raises:
        RegistryError: it is no address of a database that is known.
        UsageError: the extra "postgres" is not installed.
    """

    def __init__(self, url: str) -> None:
        try:
            address = make_url(url)
        except ArgumentError:
            raise RegistryError(
                f"{url} is no address of a registry; give a folder, sqlite:///FILE or postgresql://USER@HOST/DATABASE."
            ) from None
        backend = address.get_backend_name()
        if backend not in ("sqlite", "postgresql"):
            raise RegistryError(f"a registry in {backend} was asked for; use a folder, sqlite or postgresql.")
        self.shown = address.render_as_string(hide_password=True)
        self.file = Path(address.database or "") if backend == "sqlite" else None
        if backend == "postgresql":
            need("pg8000", "postgres", f"the registry {self.shown}")
            self._engine = create_engine(address.set(drivername="postgresql+pg8000"), poolclass=NullPool)
        else:
            self._engine = create_engine(address, poolclass=NullPool)
            _take_transactions_over(self._engine)
        self._known = self._made = False

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One consistent look.

        Raises:
            RegistryError: there is no registry there, or it cannot be reached.
        """
        with self._saying():
            if not self._exists():
                raise RegistryError(
                    f"there is no registry at {self.shown}; make one with `lowerbound registry add RUN --name NAME`, "
                    "or give its place with --registry."
                )
            with self._engine.connect() as connection, connection.begin():
                yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One change, whole or not at all; other writers wait until it is done. Makes the tables where there are none.

        Raises:
            RegistryError: the registry cannot be reached or is busy.
            NotSavedError: the disk is full or failed.
        """
        with self._saying():
            if self.file is not None:
                with named(self.file):
                    self.file.parent.mkdir(parents=True, exist_ok=True)
            with self._engine.connect().execution_options(lowerbound_writes=True) as connection, connection.begin():
                if self.file is None:
                    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")
                if not self._made:  # also in a registry that was made before there was one of the tables
                    metadata.create_all(connection)
                    if connection.execute(select(about)).first() is None:
                        connection.execute(insert(about).values(schema=SCHEMA))
                yield connection
            self._known = self._made = True

    def _exists(self) -> bool:
        """Whether the tables are there, and are of a kind that is known."""
        if self._known:
            return True
        if self.file is not None and not self.file.is_file():
            return False
        with self._engine.connect() as connection:
            if not self._engine.dialect.has_table(connection, about.name):
                return False
            found = connection.execute(select(about.c.schema)).scalar()
        if found != SCHEMA:
            raise RegistryError(
                f"the registry {self.shown} is of form {found}, and this lowerbound knows form {SCHEMA}; use the "
                "lowerbound that wrote it."
            )
        self._known = True
        return True

    @contextmanager
    def _saying(self) -> Iterator[None]:
        """Say in one sentence what the database refused."""
        try:
            yield
        except DBAPIError as error:
            raise self._refusal(error) from error
        except SQLAlchemyError as error:
            raise RegistryError(f"the registry {self.shown} refused: {_first(error)}; see its logs.") from error

    def _refusal(self, error: DBAPIError) -> Exception:
        reason, code = _first(error.orig or error), getattr(error.orig, "sqlite_errorcode", None)
        kind = None if code is None else code & 0xFF
        if kind in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return TamperedError(f"{self.file} is damaged or no registry ({reason}); restore it from a copy.")
        if kind in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            return NotSavedError(
                f"the registry {self.file} could not be written ({reason}); what was saved before is unharmed, make "
                "room and try again."
            )
        if kind in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return RegistryError(f"the registry {self.file} is in use by another process; try again.")
        return RegistryError(
            f"the registry {self.shown} cannot be used ({reason}); see that it is there and open to you."
        )


def _take_transactions_over(engine: Engine) -> None:
    """SQLite's driver begins transactions late; here they begin when they are said to, writers with the lock."""

    @event.listens_for(engine, "connect")
    def connect(connection: Any, record: Any) -> None:
        connection.isolation_level = None
        for pragma in (f"busy_timeout = {WAIT_MS}", "foreign_keys = ON", "synchronous = FULL"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("lowerbound_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _first(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]
