"""Downloads of well-known data: only where they were asked for, checked, and whole or absent."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import os
import sys
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from lowerbound.errors import DataError
from lowerbound.files import replacing

PATIENCE_S = 30.0  # without a byte
PIECE_BYTES = 2**20


@dataclass(frozen=True)
class Remote:
    """A file on the network.

    Attributes:
        urls: where it is, the first one that answers is used.
        sha256: of its content, unzipped where it is gzipped: an archive may be packed anew, its content may not change.
            "": unknown, and then the reader checks what is in it.
        gzipped: whether to unzip it.
    """

    urls: tuple[str, ...]
    sha256: str
    gzipped: bool = False


def cache(name: str, data_dir: Path | None) -> Path:
    """Where downloaded data go: the data folder if one was named, else the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (data_dir or (Path(base) if base else Path.home() / ".cache") / "lowerbound") / name


def fetch(remote: Remote, path: Path, tell: Callable[[str], None] | None = None) -> Path:
    """Download a file to `path`, unless it is there already.

    Args:
        remote: what to fetch.
        path: what it is to be called here.
        tell: told how far it is; by default a line on the standard error stream.

    Returns:
        `path`.

    Raises:
        DataError: nobody answered, or what came is another file.
        UsageError, NotSavedError: it could not be written.
    """
    if path.exists():
        return path
    tell, reasons = tell or _line, []
    for url in remote.urls:
        try:
            with replacing(path) as draft:
                found = _copy(url, draft, remote.gzipped, tell)
                if remote.sha256 not in ("", found):
                    raise DataError(
                        f"{url} gave another file than {path.name} (sha256 {found}, expected {remote.sha256}); "
                        "it was not kept: get the file elsewhere, and say where it is with --data-dir."
                    )
        except _NotFetchedError as error:
            reasons.append(f"{url}: {error}")
        else:
            return path
    raise DataError(
        f"{path.name} could not be downloaded ({'; '.join(reasons)}); try again, or put it at {path} yourself."
    )


class _NotFetchedError(Exception):
    """The network's fault."""


def _copy(url: str, draft: Path, gzipped: bool, tell: Callable[[str], None]) -> str:
    """Write the content of `url` to `draft`; returns its hash."""
    digest = hashlib.sha256()
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer, draft.open("wb") as file:
            total = int(answer.headers.get("Content-Length") or 0)
            counted = _Counted(answer)
            stream = gzip.GzipFile(mode="rb", fileobj=counted) if gzipped else counted  # type: ignore[call-overload]
            for piece in _pieces(stream):
                file.write(piece)
                digest.update(piece)
                share = f" of {total / 1e6:.1f}" if total else ""
                tell(f"downloading {url}: {counted.count / 1e6:.1f}{share} MB")
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, EOFError) as error:
        raise _NotFetchedError(str(getattr(error, "reason", error)) or type(error).__name__) from None
    except (gzip.BadGzipFile, zlib.error):
        raise _NotFetchedError("what came is no gzipped file") from None
    if total and counted.count < total:
        raise _NotFetchedError(f"only {counted.count:,} of {total:,} bytes came")
    return digest.hexdigest()


class _Counted:
    """A stream that counts what was read from it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream, self.count = stream, 0

    def read(self, size: int = -1) -> bytes:
        piece = self.stream.read(size)
        self.count += len(piece)
        return piece


def _pieces(stream: gzip.GzipFile | _Counted) -> Iterator[bytes]:
    while piece := stream.read(PIECE_BYTES):
        yield piece


def _line(text: str) -> None:
    """A line that is written over on a terminal, and not written elsewhere."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{text}\033[K")
        sys.stderr.flush()
