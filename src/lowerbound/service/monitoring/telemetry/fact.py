"""What is known of one row of one request."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from lowerbound.errors import UsageError

Array = NDArray[Any]
Mode = Literal["none", "hash", "code", "sample"]
IDLE = "idle"  # the verb of a row that a version scored in an idle moment, where nobody was answered


class Fact(NamedTuple):
    """What is known of one row of one request; what its verb did not compute is None.

    A request of several rows has a fact for each, with one request id. Arrays are read later by another thread, so
    whoever hands them over must not change them. It is a tuple, because one is made for each request on its time, and a
    frozen dataclass takes six times as long.

    Attributes:
        time: seconds since 1970, by the wall clock.
        request: id of the request, known to the client.
        model, version, alias, verb: the name, the version's hash, the alias that it was reached by, the verb
            (or "idle", where a version scored the row for comparison only).
        status: of the answer, as in HTTP.
        reason: stable code of what was wrong; empty if nothing was.
        gate: what the gate said: empty if it was not asked, "passed", or its reason code.
        row: number of the row within its request.
        error: mean squared error of the reconstruction on the raw scale.
        rate: total rate, nats.
        rates: rate of each latent unit, nats, (D,).
        code: point of q, or indices into a codebook, flattened, (D,).
        variances: of q at each unit, (D,).
        pixels: statistics of the input, in an order that the model's version fixes, (C,).
        norm: of the code, in the reference's own covariance.
        p_value: conformal, of the row's score.
        input: the raw row; kept only where the privacy mode says so.
        queue_s, compute_s, total_s: time in the queue, in the engine, and from the request's head to its answer.
    """

    time: float
    request: str
    model: str
    version: str = ""
    alias: str = ""
    verb: str = ""
    status: int = 200
    reason: str = ""
    gate: str = ""
    row: int = 0
    error: float | None = None
    rate: float | None = None
    rates: Array | None = None
    code: Array | None = None
    variances: Array | None = None
    pixels: Array | None = None
    norm: float | None = None
    p_value: float | None = None
    input: Array | None = None
    queue_s: float | None = None
    compute_s: float | None = None
    total_s: float | None = None


@dataclass(frozen=True)
class Privacy:
    """What is kept of an input; each mode keeps what the one before it keeps.

    `none`: numbers of the row only. `hash`: a keyed digest of the input, which finds repetitions within one store.
    `code`: code, rates and variances per unit, statistics of the input. `sample`: the input itself of a share of the
    requests, chosen by their id.

    Attributes:
        mode: one of the four.
        share: of requests whose inputs are kept in the mode `sample`, in [0, 1].
    """

    mode: Mode = "code"
    share: float = 0.01

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise UsageError(f"the privacy mode {self.mode} was given; choose one of {', '.join(get_args(Mode))}.")
        if not 0 <= self.share <= 1:
            raise UsageError(f"a share of {self.share} of the inputs was given; it must be between 0 and 1.")

    @property
    def vectors(self) -> bool:
        """Whether codes and other numbers per unit are kept."""
        return self.mode in ("code", "sample")

    @property
    def digests(self) -> bool:
        """Whether a digest of the input is kept."""
        return self.mode != "none"

    def samples(self, request: str) -> bool:
        """Whether the inputs of this request are kept."""
        return self.mode == "sample" and zlib.crc32(request.encode(errors="replace")) < self.share * 2**32


def digest(row: Array, salt: bytes) -> bytes:
    """A keyed digest of an input's type, shape and values, 16 bytes."""
    made = hashlib.blake2b(f"{row.dtype.str}{row.shape}".encode(), key=salt, digest_size=16)
    made.update(np.ascontiguousarray(row).data)
    return made.digest()
