"""Files of versions: one folder each, named by the hash of its manifest, never written to again."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lowerbound.files import flush_folder, flush_tree, named

DRAFT, LOCK = ".draft-", ".lock"


class Objects:
    """A folder of content-addressed folders.

    Args:
        folder: where they are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, hash: str) -> Path:
        """Where the object of a hash is."""
        return self.folder / hash

    @contextmanager
    def draft(self) -> Iterator[Path]:
        """A folder to fill; it goes away on leaving, unless it was kept. What dead writers left goes away too."""
        lock = self.folder / f"{DRAFT}{os.getpid()}-{os.urandom(4).hex()}{LOCK}"
        draft = lock.with_suffix("")
        with named(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._clear()
            held = lock.open("w")
        with held:
            try:
                with named(self.folder):
                    fcntl.flock(held, fcntl.LOCK_EX)
                    draft.mkdir()
                yield draft
            finally:
                shutil.rmtree(draft, ignore_errors=True)
                lock.unlink(missing_ok=True)

    def keep(self, draft: Path, hash: str) -> Path:
        """Give a draft its name, in one step; where there is one of that hash already, that one stays."""
        final = self.path(hash)
        with named(final):
            for path in draft.rglob("*"):
                path.chmod(0o755 if path.is_dir() else 0o444)
            flush_tree(draft)
            try:
                draft.rename(final)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            flush_folder(self.folder)
        return final

    def hashes(self) -> set[str]:
        """Those that are there."""
        if not self.folder.is_dir():
            return set()
        return {path.name for path in self.folder.iterdir() if path.is_dir() and not path.name.startswith(".")}

    def _clear(self) -> None:
        """Remove drafts whose writers are dead: a lock is gone with its process."""
        for lock in self.folder.glob(f"{DRAFT}*{LOCK}"):
            try:
                with lock.open("r+") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
                    lock.unlink(missing_ok=True)
            except (BlockingIOError, FileNotFoundError):
                continue


def copy(source: Path, target: Path) -> None:
    """Copy a file's content."""
    with named(target):
        shutil.copyfile(source, target)
