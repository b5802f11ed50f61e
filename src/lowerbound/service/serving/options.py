"""How a server is to run, as data: it travels from the supervisor to its workers."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import Literal

from lowerbound.service.monitoring.verdicts.rules import Rules


@dataclass(frozen=True)
class Options:
    """Settings of `lowerbound serve`.

    Attributes:
        names: references that are served: NAME, NAME:3 or NAME@alias.
        registry: folder or address of the registry; "" for the usual one.
        host, port: to listen on; port 0 takes a free one.
        workers: processes.
        engine: "auto" takes onnxruntime where a version has proven files.
        threads: of one computation; 0 shares the cores among the workers.
        keys: file of keys; "" for none.
        telemetry: folder for facts; "" for none.
        otlp: address of a collector of OpenTelemetry; "" for none.
        privacy, sample_share: what is kept of inputs, and of how many, as in `Privacy`.
        rules: by which candidates are judged; its share is that of a canary's clients.
        shadow_share, encode_share: of requests that are scored in idle moments, as in `Shares`.
        gate_level: share of ordinary rows that each check of the gate may refuse.
        batch_rows, waiting_rows: of one batch; that may wait.
        deadline_s, body_s: for an answer, for a body.
        body_bytes: of one body.
        p99_s: limit of the 99th percentile, over which there is an alert.
        drain_s: that a worker gets to finish what it has begun.
        pages: "module:function" that makes the pages for people; "" for none.
    """

    names: tuple[str, ...]
    registry: str
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    engine: Literal["auto", "onnx", "torch"] = "auto"
    threads: int = 0
    keys: str = ""
    telemetry: str = ""
    otlp: str = ""
    privacy: Literal["none", "hash", "code", "sample"] = "code"
    sample_share: float = 0.01
    rules: Rules = field(default_factory=Rules)
    shadow_share: float = 1.0
    encode_share: float = 0.0
    gate_level: float = 0.001
    batch_rows: int = 64
    waiting_rows: int = 2048
    deadline_s: float = 10.0
    body_s: float = 10.0
    body_bytes: int = 10 * 2**20
    p99_s: float = 0.05
    drain_s: float = 30.0
    pages: str = ""


@dataclass(frozen=True)
class Place:
    """Where a worker stands among the others.

    Attributes:
        slot: its number.
        listener: the file descriptor of the listening socket.
        pulse: the file descriptor of the pipe to the supervisor.
        folder: where processes leave their metrics for one another.
    """

    slot: int
    listener: int
    pulse: int
    folder: str


@dataclass(frozen=True)
class Order:
    """What a worker is started with."""

    options: Options
    place: Place = field(default_factory=lambda: Place(0, -1, -1, ""))


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host's address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
