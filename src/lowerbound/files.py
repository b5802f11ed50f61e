"""Files that are either whole or absent.

A write goes to a temporary name in the same folder, is flushed to the disk, and takes its final name in one
rename. A reader, and a program that starts after a kill -9 or a full disk, therefore sees the old content or the new.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lowerbound.errors import DataError, NotSavedError, RunError, UsageError


def flush_folder(folder: Path) -> None:
    """Make renames inside `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def flush_tree(folder: Path) -> None:
    """Make all that is in `folder` survive a power cut."""
    for path in folder.iterdir():
        if path.is_dir():
            flush_tree(path)
            continue
        with path.open("rb") as handle:
            os.fsync(handle.fileno())
    flush_folder(folder)


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """Say of which file it was that the system refused to write it."""
    try:
        yield
    except (PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError, FileNotFoundError) as error:
        raise UsageError(f"{path} cannot be written ({error.strerror}); choose a place that can be.") from error
    except OSError as error:
        raise NotSavedError(
            f"{path} could not be written ({error.strerror or error}); what was saved before is unharmed, "
            "make room and try again."
        ) from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; on leaving without an error it becomes `path`, on an error it goes away.

    Raises:
        UsageError: nothing may be written there.
        NotSavedError: the disk is full or failed.
    """
    with named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
        os.close(handle)
        draft = Path(name)
        try:
            yield draft
            with draft.open("rb") as file:
                os.fsync(file.fileno())
            draft.chmod(0o644)
            draft.replace(path)
            flush_folder(path.parent)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise


def clear_drafts(path: Path) -> None:
    """Remove what a kill -9 left of writing `path`; only its one writer may call this."""
    for draft in path.parent.glob(f".{path.name}.*"):
        shutil.rmtree(draft) if draft.is_dir() else draft.unlink()


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all."""
    with replacing(path) as draft:
        draft.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON to `path`, whole or not at all; NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file; a missing or torn one is a `DataError` that names it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} is not valid JSON ({error}); it was not written by lowerbound or is damaged."
        ) from None


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder to fill; on leaving without an error it becomes `path`, on an error it goes away.

    Raises:
        UsageError: nothing may be written there.
        NotSavedError: the disk is full or failed.
    """
    with named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        try:
            yield draft
            flush_tree(draft)
            draft.chmod(0o755)
            draft.rename(path)
            flush_folder(path.parent)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def exclusive(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file `path` while inside; a second holder is refused with a `RunError` naming `what`.

    The lock belongs to the process and is gone with it, however it ends, so a stale file blocks nobody.
    """
    with named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"{what} is in use by another process; wait for it or choose another folder.") from None
        yield
