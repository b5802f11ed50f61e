"""The registry of models."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from lowerbound.errors import ConflictError, IncompatibleError, RegistryError, TamperedError
from lowerbound.lab.run import Run
from lowerbound.service.registry import database, ledger
from lowerbound.service.registry.database import Database
from lowerbound.service.registry.leases import Leases
from lowerbound.service.registry.ledger import Entry
from lowerbound.service.registry.objects import Objects, copy
from lowerbound.service.registry.pack import KEPT, pack
from lowerbound.service.registry.version import MANIFEST, Version

PLACE, FILES = "LOWERBOUND_REGISTRY", "LOWERBOUND_REGISTRY_FILES"
ALIASES = ("stable", "canary", "shadow")
NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?")
REFERENCE = re.compile(r"(?P<name>[^:@]+)(:(?P<number>[0-9]+)|@(?P<alias>[^:@]+))?")


@dataclass(frozen=True)
class Findings:
    """What `Registry.verify` looked at: all of it is as it was written.

    Attributes:
        versions: how many; each file of each has its hash.
        entries: of the history, each with the hash of the one before.
        head: hash of the last. Kept elsewhere, it shows later that no row was taken off the end.
        unused: folders of files that belong to no version, left by a crash; they may be deleted.
    """

    versions: int
    entries: int
    head: str
    unused: tuple[str, ...]


class Registry:
    """Versions of models, aliases that point to them, and the history of both.

    Args:
        where: a folder, which then holds `registry.db` and `objects/`, or the address of a database: sqlite:///FILE or
            postgresql://USER@HOST/DATABASE. By default $LOWERBOUND_REGISTRY, else `registry` in the working folder.
        files: folder of the versions' files; for a database on a server it has no default but
            $LOWERBOUND_REGISTRY_FILES, and all who use the registry must see it there.

    Raises:
        RegistryError: an address that is none, or no folder for the files.
    """

    def __init__(self, where: str | Path | None = None, files: Path | str | None = None) -> None:
        place = str(where or os.environ.get(PLACE) or "registry")
        folder = files or os.environ.get(FILES)
        url = place if "://" in place else f"sqlite:///{Path(place).absolute() / 'registry.db'}"
        self._database = Database(url)
        if folder is None and self._database.file is None:
            raise RegistryError(
                f"the registry {self._database.shown} keeps its files in a folder of their own; give it with --files "
                f"or ${FILES}."
            )
        beside = self._database.file.absolute().parent / "objects" if self._database.file else Path()
        self._objects = Objects(Path(folder).absolute() if folder else beside)

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return str(self._database.file.parent) if self._database.file else self._database.shown

    def leases(self) -> Leases:
        """The tasks that are due in it, and who has them in hand."""
        return Leases(self._database)

    def add(
        self,
        run_path: Path | str,
        name: str,
        *,
        why: str = "",
        card: str | None = None,
        against: int | None = None,
        stores_latents: bool | None = None,
        data_dir: Path | None = None,
    ) -> Version:
        """Register a finished run as the next version of a name.

        The same run, with the same evaluation and card, is registered once: a second time gives the same version, and
        only one that was made by this call is `new`.

        Args:
            run_path: of the run.
            name: lower-case letters, digits, ".", "_" and "-".
            why: for the history.
            card: what the model is meant for, in Markdown, for its model card.
            against: number of the parent, with whose codes the new ones are compared; by default the stable version,
                or the newest where there is none.
            stores_latents: whether deployments of this name store codes, so that no version with other codes may be
                promoted; it is kept until it is given again. By default as it was, at first not.
            data_dir: where the run's data lie.

        Raises:
            RunError, TamperedError: there is no finished run there, or it is not what training wrote.
            RegistryError: the name is none, or there is no version `against`.
            NotSavedError: the disk is full; the registry is as it was.
        """
        _check_name(name)
        run = Run(run_path)
        run.model()
        source = _source(run, card)
        known, parent = self._before_adding(name, source, against)
        if known is not None and (stores_latents is None or stores_latents == self.stores_latents(name)):
            return known
        if known is not None:
            return self._enter(name, known.hash, source, known.parent, stores_latents, why)
        with self._objects.draft() as draft:
            hash = pack(run, draft, name=name, card=card, parent=parent, source=source, data_dir=data_dir)
            self._objects.keep(draft, hash)
        return self._enter(name, hash, source, None if parent is None else parent.number, stores_latents, why)

    def adopt(self, folder: Path, name: str, *, expected: str, why: str = "") -> Version:
        """Register a version that another registry made: the same files, so the same hash.

        Its parent is the version of this name that has the parent's hash, where there is one. Adopting it again gives
        the same version.

        Args:
            folder: of the version's files; they are copied.
            name: in this registry.
            expected: hash of the version.
            why: for the history.

        Raises:
            TamperedError: a file is not what was registered.
            RunError: it holds no model that can be loaded.
            RegistryError: the name is none, or has another version that was made of the same run.
        """
        _check_name(name)
        manifest = Version(name, 0, expected, folder, None, "").verify().manifest()
        with self._database.writing() as connection:  # which makes the tables
            table = database.versions
            there = connection.execute(select(table).where(table.c.name == name)).all()
        for row in there:
            if row.source == manifest["source"] and row.hash != expected:
                raise _other_files(row.number, name)
        with self._objects.draft() as draft:
            for file in (*manifest["files"], MANIFEST):
                (draft / file).parent.mkdir(parents=True, exist_ok=True)
                copy(folder / file, draft / file)
            Version(name, 0, expected, draft, None, "").verify()
            Run(draft).model()
            self._objects.keep(draft, expected)
        told = manifest["parent"]
        parent = next((row.number for row in there if told is not None and row.hash == told["hash"]), None)
        found = self._enter(name, expected, manifest["source"], parent, None, why)
        if found.hash != expected:  # somebody else entered it meanwhile
            raise _other_files(found.number, name)
        return found

    def resolve(self, reference: str) -> Version:
        """The version of `NAME` (its stable one), `NAME:3` or `NAME@canary`.

        Raises:
            RegistryError: there is none; the sentence says what there is.
        """
        parts = REFERENCE.fullmatch(reference)
        if parts is None:
            raise RegistryError(f"{reference!r} is no version; give NAME, NAME:3 or NAME@canary.")
        name = parts["name"]
        with self._database.reading() as connection:
            if parts["number"]:
                return self._version(connection, name, int(parts["number"]))
            alias = _alias(parts["alias"] or "stable")
            found = self._pointer(connection, name, alias)
            if found is None:
                newest = self._numbers(connection, name)[-1]
                raise RegistryError(
                    f"{name} has no {alias} version; give one of its versions 1 to {newest} as {name}:{newest}, or "
                    f"`lowerbound registry promote {name} {newest} --as {alias}` first."
                )
            return self._version(connection, name, found.number)

    def names(self) -> list[str]:
        """Of all models, sorted."""
        with self._database.reading() as connection:
            return [row.name for row in connection.execute(select(database.names).order_by(database.names.c.name))]

    def versions(self, name: str) -> list[Version]:
        """Of a name, in order."""
        with self._database.reading() as connection:
            return [self._version(connection, name, number) for number in self._numbers(connection, name)]

    def aliases(self, name: str) -> dict[str, Version]:
        """The version of each alias that a name has."""
        with self._database.reading() as connection:
            self._numbers(connection, name)
            table = database.aliases
            rows = connection.execute(select(table).where(table.c.name == name).order_by(table.c.alias)).all()
            return {row.alias: self._version(connection, name, row.number) for row in rows}

    def stores_latents(self, name: str) -> bool:
        """Whether deployments of a name store codes."""
        with self._database.reading() as connection:
            return self._stores(connection, name)

    def position(self) -> int:
        """How many rows the history has: who saw this number before knows that nothing has changed since."""
        with self._database.reading() as connection:
            return int(connection.execute(select(func.max(database.history.c.id))).scalar() or 0)

    def promote(
        self,
        name: str,
        number: int,
        alias: str = "stable",
        *,
        why: str = "",
        breaking: bool = False,
        expected: int | None = None,
    ) -> Entry:
        """Let an alias point to a version, if nobody else moves it meanwhile. Its files are verified first.

        A canary or shadow that becomes stable is taken off its old alias in the same transaction.

        Args:
            name, number: of the version.
            alias: "stable", "canary" or "shadow".
            why: for the history.
            breaking: whether a version with other codes is wanted though codes are stored.
            expected: number that the alias is believed to point to, 0 for none; by default what it is now.

        Raises:
            RegistryError: there is no such version, or the alias points to it already.
            ConflictError: the alias is not what was expected, or moved meanwhile.
            IncompatibleError: the codes are others than those of the version to replace, and codes are stored.
            TamperedError: a file of the version is not what was registered.
        """
        _alias(alias)
        with self._database.reading() as connection:
            version, seen = self._version(connection, name, number), self._pointer(connection, name, alias)
            stable, stores = self._pointer(connection, name, "stable"), self._stores(connection, name)
            now = None if stable is None else self._version(connection, name, stable.number)
        if expected is not None and expected != (seen.number if seen else 0):
            raise ConflictError(_moved(name, alias, expected, seen))
        if seen is not None and seen.number == number:
            raise RegistryError(f"{name}:{number} is {alias} already.")
        version.verify()
        if stores and not breaking and now is not None and alias != "shadow":
            _check_codes(now, version)
        with self._database.writing() as connection:
            found = self._pointer(connection, name, alias)
            if (found and found.since) != (seen and seen.since):
                raise ConflictError(_moved(name, alias, seen.number if seen else 0, found))
            entry = self._point(connection, "promote", name, alias, version, found, why)
            for other in ALIASES[1:]:
                left = self._pointer(connection, name, other)
                if alias == "stable" and left is not None and left.number == number:
                    self._point(connection, "withdraw", name, other, None, left, why or "it is stable now")
        return entry

    def rollback(self, name: str, alias: str = "stable", *, why: str = "", expected: int | None = None) -> Entry:
        """Undo the last promotion: the stable version is the one before it again; a canary or shadow is taken off.

        Args:
            name: of the model.
            alias: "stable", "canary" or "shadow".
            why: for the history.
            expected: number that the alias is believed to point to; by default what it is now.

        Raises:
            RegistryError: the alias points nowhere, or nothing was stable before.
            ConflictError: the alias is not what was expected, or moved meanwhile.
            TamperedError: a file of the version to go back to is not what was registered.
        """
        _alias(alias)
        with self._database.reading() as connection:
            seen = self._pointer(connection, name, alias)
            if seen is None:
                raise RegistryError(f"{name} has no {alias} version, so there is nothing to roll back.")
            if expected is not None and expected != seen.number:
                raise ConflictError(_moved(name, alias, expected, seen))
            way = ledger.way_back(ledger.entries(connection, name), alias)
            if alias == "stable" and len(way) < 2:
                raise RegistryError(
                    f"{name}:{seen.number} is the first stable version, so there is none to roll back to; promote "
                    "another."
                )
            version = self._version(connection, name, way[-2]) if alias == "stable" else None
        if version is not None:
            version.verify()
        with self._database.writing() as connection:
            found = self._pointer(connection, name, alias)
            if found is None or found.since != seen.since:
                raise ConflictError(_moved(name, alias, seen.number, found))
            action = "withdraw" if version is None else "rollback"
            return self._point(connection, action, name, alias, version, found, why)

    def history(self, name: str | None = None) -> list[Entry]:
        """What happened to a name, or to all, in order."""
        with self._database.reading() as connection:
            if name is not None:
                self._numbers(connection, name)
            return ledger.entries(connection, name)

    def served(self, name: str, time: str) -> dict[str, Entry]:
        """For each alias, the row that says what it pointed to at a time, and why.

        Args:
            name: of the model.
            time: ISO 8601; local without a zone, and the end of a day where there is no hour.

        Raises:
            RegistryError: it is no time, or there is no such name.
        """
        until = ledger.moment(time)
        rows = [row for row in self.history(name) if row.time <= until]
        return {alias: row for (_, alias), row in sorted(ledger.standing(rows).items())}

    def verify(self) -> Findings:
        """Check every file of every version, the chain of the history, and that both tell the same story.

        Raises:
            TamperedError: something is not as it was written; the first is named.
        """
        with self._database.reading() as connection:
            rows = ledger.entries(connection)
            table = database.versions
            found = connection.execute(select(table).order_by(table.c.name, table.c.number)).all()
            pointers = connection.execute(select(database.aliases)).all()
        ledger.check_chain(rows)
        told = {(row.name, row.number): row.version for row in rows if row.action == "add"}
        if told != {(row.name, row.number): row.hash for row in found}:
            raise TamperedError("the registry's versions are not those of its history; restore it from a copy.")
        moved = {key: (row.number, row.id) for key, row in ledger.standing(rows).items()}
        if moved != {(row.name, row.alias): (row.number, row.since) for row in pointers}:
            raise TamperedError("the registry's aliases are not those of its history; restore it from a copy.")
        versions = [self._made(row) for row in found]
        for version in versions:
            version.verify()
        unused = self._objects.hashes() - {version.hash for version in versions}
        head = rows[-1].hash if rows else ledger.START
        return Findings(len(versions), len(rows), head, tuple(sorted(unused)))

    def _before_adding(self, name: str, source: str, against: int | None) -> tuple[Version | None, Version | None]:
        """The version of the same source, if there is one, and the parent."""
        with self._database.writing() as connection:  # which makes the tables
            table = database.versions
            same = connection.execute(select(table).where(table.c.name == name, table.c.source == source)).first()
            if against is not None:
                parent: Version | None = self._version(connection, name, against)
            else:
                stable = self._pointer(connection, name, "stable")
                last = connection.execute(select(func.max(table.c.number)).where(table.c.name == name)).scalar()
                number = stable.number if stable else last
                parent = None if number is None else self._version(connection, name, number)
        return None if same is None else self._made(same), parent

    def _enter(
        self, name: str, hash: str, source: str, parent: int | None, stores_latents: bool | None, why: str
    ) -> Version:
        """Write a version into the tables, unless somebody else did so meanwhile, and the name's settings."""
        with self._database.writing() as connection:
            table, settings = database.versions, database.names
            there = connection.execute(select(settings).where(settings.c.name == name)).first()
            if there is None:
                connection.execute(insert(settings).values(name=name, stores_latents=bool(stores_latents)))
            same = connection.execute(select(table).where(table.c.name == name, table.c.source == source)).first()
            if same is None:
                last = connection.execute(select(func.max(table.c.number)).where(table.c.name == name)).scalar() or 0
                entry = ledger.append(connection, "add", name, why, number=last + 1, version=hash)
                row = {"name": name, "number": last + 1, "hash": hash, "source": source, "parent": parent}
                connection.execute(insert(table).values({**row, "created": entry.time}))
            if stores_latents is not None and stores_latents != (there.stores_latents if there else False):
                connection.execute(
                    update(settings).where(settings.c.name == name).values(stores_latents=stores_latents)
                )
                ledger.append(connection, "settings", name, why or f"stores latents: {stores_latents}")
            query = select(table).where(table.c.name == name, table.c.source == source)
            return replace(self._made(connection.execute(query).one()), new=same is None)

    def _point(
        self,
        connection: Connection,
        action: str,
        name: str,
        alias: str,
        version: Version | None,
        found: Row[Any] | None,
        why: str,
    ) -> Entry:
        """Move an alias, or take it off, and say so in the history."""
        table = database.aliases
        number, hash = (None, None) if version is None else (version.number, version.hash)
        before = None if found is None else found.number
        entry = ledger.append(connection, action, name, why, alias=alias, number=number, before=before, version=hash)
        connection.execute(delete(table).where(table.c.name == name, table.c.alias == alias))
        if number is not None:
            connection.execute(insert(table).values(name=name, alias=alias, number=number, since=entry.id))
        return entry

    def _version(self, connection: Connection, name: str, number: int) -> Version:
        table = database.versions
        row = connection.execute(select(table).where(table.c.name == name, table.c.number == number)).first()
        if row is None:
            newest = self._numbers(connection, name)[-1]
            raise RegistryError(f"there is no version {number} of {name}; it has versions 1 to {newest}.")
        return self._made(row)

    def _numbers(self, connection: Connection, name: str) -> list[int]:
        """Of a name's versions.

        Raises:
            RegistryError: there is no such name.
        """
        table = database.versions
        rows = connection.execute(select(table.c.number).where(table.c.name == name).order_by(table.c.number)).all()
        if not rows:
            known = [row.name for row in connection.execute(select(database.names).order_by(database.names.c.name))]
            there = f"it has {', '.join(known[:10])}" if known else "it is empty"
            raise RegistryError(f"there is no model {name!r} in the registry {self.place}; {there}.")
        return [row.number for row in rows]

    def _pointer(self, connection: Connection, name: str, alias: str) -> Row[Any] | None:
        table = database.aliases
        return connection.execute(select(table).where(table.c.name == name, table.c.alias == alias)).first()

    def _stores(self, connection: Connection, name: str) -> bool:
        self._numbers(connection, name)
        table = database.names
        return bool(connection.execute(select(table.c.stores_latents).where(table.c.name == name)).scalar())

    def _made(self, row: Row[Any]) -> Version:
        return Version(row.name, row.number, row.hash, self._objects.path(row.hash), row.parent, row.created)


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise RegistryError(
            f"{name!r} is no name for a model; use up to 64 lower-case letters, digits, '.', '_' and '-'."
        )


def _other_files(number: int, name: str) -> RegistryError:
    return RegistryError(
        f"{name}:{number} was made of the same run and has other files; take this version in under another name."
    )


def _alias(alias: str) -> str:
    if alias not in ALIASES:
        raise RegistryError(f"{alias!r} is no alias; use {', '.join(ALIASES)}.")
    return alias


def _moved(name: str, alias: str, expected: int, found: Row[Any] | None) -> str:
    now = f"version {found.number}" if found is not None else "none"
    return (
        f"somebody else was first: the {alias} version of {name} is {now} and not "
        f"{f'version {expected}' if expected else 'none'}; look at "
        f"`lowerbound registry history {name}`, then decide again."
    )


def _check_codes(now: Version, version: Version) -> None:
    """Refuse codes that are not those of the stable version."""
    if now.manifest()["codes"] != version.manifest()["codes"]:
        raise IncompatibleError(
            f"{version.reference} gives other codes than {now.reference}, and deployments of {now.name} store codes, "
            "which would mean something else; update only the decoder, or promote with --breaking and encode all anew."
        )


def _source(run: Run, card: str | None) -> str:
    """What makes a version the same: the files of the run that are kept, and the card."""
    hashes: Mapping[str, str] = {name: _hash(run.path / name) for name in KEPT if (run.path / name).exists()}
    return hashlib.sha256(json.dumps([hashes, card], sort_keys=True).encode()).hexdigest()


def _hash(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        raise TamperedError(f"{path} cannot be read.") from None
