"""Keys: who may do what, and how often.

A key is 32 random bytes, so a salted SHA-256 is as hard to turn around as the key is to guess; slow hashes such as
scrypt are for passwords that people choose. The file holds hashes only.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from lowerbound.errors import UsageError
from lowerbound.files import write_text
from lowerbound.service.serving.problems import RefusedError, busy

Role = Literal["use", "operate"]
PREFIX = "lb"


@dataclass(frozen=True)
class Key:
    """One line of a file of keys.

    Attributes:
        id: of the key, part of it and no secret.
        role: "use" for the verbs; "operate" for all, with metrics and incidents.
        per_second: requests on average; 0 for any number.
        salt, hash: of the secret, in hexadecimal.
    """

    id: str
    role: Role
    per_second: float
    salt: str
    hash: str


def make_key(path: Path, id: str, role: Role, per_second: float) -> str:
    """Add a key to a file; returns the key, which is shown only now.

    Raises:
        UsageError: the file has one of this name, or is none of keys.
    """
    known = read_keys(path) if path.exists() else {}
    if id in known or not id.isalnum():
        what = "is there already" if id in known else "is no name of letters and digits"
        raise UsageError(f"the key `{id}` {what}; choose another name.")
    secret, salt = secrets.token_urlsafe(32), secrets.token_hex(16)
    known[id] = Key(id, role, per_second, salt, _hash(salt, secret))
    write_text(path, "".join(json.dumps(asdict(key)) + "\n" for key in known.values()))
    path.chmod(0o600)
    return f"{PREFIX}_{id}_{secret}"


def read_keys(path: Path) -> dict[str, Key]:
    """The keys of a file, by id.

    Raises:
        UsageError: it is missing, or none of keys.
    """
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        found = TypeAdapter(list[Key]).validate_python(lines)
    except FileNotFoundError:
        raise UsageError(
            f"there is no file of keys {path}; make one with `lowerbound serve-key {path} NAME`."
        ) from None
    except (json.JSONDecodeError, ValidationError, UnicodeDecodeError, OSError):
        raise UsageError(f"{path} is no file of keys; make one with `lowerbound serve-key FILE NAME`.") from None
    return {key.id: key for key in found}


def _hash(salt: str, secret: str) -> str:
    return hashlib.sha256(bytes.fromhex(salt) + secret.encode()).hexdigest()


class Keys:
    """The keys of a server: a file that may change while it runs, and a bucket of requests for each key.

    Args:
        path: of the file; None lets everybody do everything.
        share: of each key's rate that this process hands out (one over the number of processes).
    """

    def __init__(self, path: Path | None, share: float = 1.0) -> None:
        self._path, self._share = path, share
        self._keys = {} if path is None else read_keys(path)
        self._changed = self._stamp()
        self._buckets: dict[str, tuple[float, float]] = {}

    @property
    def needed(self) -> bool:
        """Whether a key is needed."""
        return self._path is not None

    def refresh(self) -> None:
        """Read the file again where it has changed; a file that cannot be read changes nothing."""
        stamp = self._stamp()
        if self._path is None or stamp == self._changed:
            return
        self._changed = stamp
        self._keys = read_keys(self._path)

    def check(self, shown: str, role: Role = "use") -> Key | None:
        """The key that is shown, where one is needed.

        Raises:
            RefusedError: none that is known, or one that has not the role.
        """
        if self._path is None:
            return None
        _, _, rest = shown.partition("_")
        name, _, secret = rest.partition("_")
        key = self._keys.get(name)
        if key is None or not hmac.compare_digest(_hash(key.salt, secret), key.hash):
            raise RefusedError("no-key", "Show a key: `Authorization: Bearer KEY`.", {"www-authenticate": "Bearer"})
        if role == "operate" and key.role != "operate":
            raise RefusedError("wrong-role", f"The key {key.id} may {key.role}; this needs one that may operate.")
        return key

    def spend(self, key: Key) -> None:
        """Take one request out of a key's bucket, which holds those of one second, at least one.

        Raises:
            RefusedError: it is empty.
        """
        rate = key.per_second * self._share
        if not rate:
            return
        now = time.monotonic()
        size = max(1.0, rate)
        left, since = self._buckets.get(key.id, (size, now))
        left = min(size, left + (now - since) * rate)
        if left < 1:
            self._buckets[key.id] = (left, now)
            raise busy(
                "rate-limited", f"The key {key.id} may ask {key.per_second:g} times per second.", (1 - left) / rate
            )
        self._buckets[key.id] = (left - 1, now)

    def _stamp(self) -> int:
        try:
            return 0 if self._path is None else self._path.stat().st_mtime_ns
        except OSError:
            return 0
