"""Starts workers, notices when one dies or falls silent, and replaces it. It imports nothing heavy."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from lowerbound.errors import UsageError
from lowerbound.service.serving.keys import read_keys
from lowerbound.service.serving.options import Options, Order, Place, is_loopback

WRONG_USE = 2  # exit code of a worker that would fail again
SILENT_S, LOADING_S = 15.0, 120.0  # without a sign of life: of one that serves, of one that loads
FAST_DEATH_S, LONGEST_WAIT_S = 5.0, 30.0
SO_ATTACH_FILTER = 26  # of Linux; the socket module does not name it
logger = logging.getLogger("lowerbound.serving")


@dataclass
class _Child:
    """A worker."""

    slot: int
    process: subprocess.Popen[bytes]
    pulse: int
    born: float
    heard: float
    ready: bool = False


class Supervisor:
    """Keeps a number of workers alive on one listening socket.

    The socket belongs to all of them, so a connection that nobody took yet outlives the worker that dies.

    Args:
        options: of the server.
        say: is told where the server is, when it is ready.

    Raises:
        UsageError: the address cannot be used, or could be reached by others without keys; or the keys are none.
    """

    def __init__(self, options: Options, say: Callable[[str], None]) -> None:
        if not options.keys and not is_loopback(options.host):
            raise UsageError(
                f"--host {options.host} can be reached by others, and no keys are given: give --keys FILE "
                "(`lowerbound serve-key` makes one), or listen on 127.0.0.1."
            )
        if options.keys:
            read_keys(Path(options.keys))  # to say at once what is wrong with them
        self._options, self._say = options, say
        self._listener = listen(options.host, options.port)
        self._children: dict[int, _Child] = {}
        self._waits: dict[int, tuple[float, float]] = {}
        self._selector = selectors.DefaultSelector()
        self._ending = False
        self._told = False

    @property
    def address(self) -> str:
        """Where the server is."""
        host, port = self._listener.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    def run(self) -> int:
        """Serve until told to end; returns the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        with tempfile.TemporaryDirectory(prefix="lowerbound-serve-") as folder:
            for slot in range(self._options.workers):
                self._start(slot, folder)
            while not self._ending:
                self._listen_to_children()
                code = self._look(folder)
                if code is not None:
                    self._ending = True
                    self._finish()
                    return code
            self._finish()
        return 0

    def _end(self, number: int, frame: object) -> None:
        self._ending = True

    def _start(self, slot: int, folder: str) -> None:
        hears, beats = os.pipe()
        os.set_blocking(hears, False)
        order = Order(self._options, Place(slot, self._listener.fileno(), beats, folder))
        process = subprocess.Popen(
            [sys.executable, "-m", "lowerbound.service.serving.worker", json.dumps(asdict(order))],
            pass_fds=(self._listener.fileno(), beats),
            start_new_session=True,  # a Ctrl+C is for the supervisor, who ends workers in order
        )
        os.close(beats)
        now = time.monotonic()
        self._children[slot] = _Child(slot, process, hears, now, now)
        self._selector.register(hears, selectors.EVENT_READ, slot)

    def _listen_to_children(self) -> None:
        for key, _ in self._selector.select(timeout=0.2):
            child = self._children.get(key.data)
            words = os.read(key.fd, 65536) if child is not None else b""
            if child is None or not words:
                self._selector.unregister(key.fd)
                continue
            child.heard = time.monotonic()
            if b"ready" in words:
                child.ready = True
                if not self._told and all(other.ready for other in self._children.values()):
                    self._told = True
                    self._say(self.address)

    def _look(self, folder: str) -> int | None:
        """Replace what is dead or silent; an exit code where going on makes no sense."""
        now = time.monotonic()
        for slot, child in list(self._children.items()):
            code = child.process.poll()
            silent = now - child.heard
            if code is None and silent > (SILENT_S if child.ready else LOADING_S):
                logger.error("worker %d is silent for %.0f s and is killed", slot, silent)
                child.process.kill()
                child.process.wait()
                code = -signal.SIGKILL
            if code is None:
                continue
            self._forget(child)
            if code == WRONG_USE and not child.ready:
                return WRONG_USE
            self._plan(slot, code, now - child.born)
        for slot, (_, due) in list(self._waits.items()):
            if slot not in self._children and now >= due:
                self._start(slot, folder)
        return None

    def _plan(self, slot: int, code: int, age: float) -> None:
        """When to start a successor: at once, or later and later where they die young."""
        wait = min(LONGEST_WAIT_S, 2 * self._waits.get(slot, (0.25, 0.0))[0]) if age < FAST_DEATH_S else 0.0
        self._waits[slot] = (max(wait, 0.25), time.monotonic() + wait)
        logger.error("worker %d ended with code %d; another one starts in %.1f s", slot, code, wait)

    def _forget(self, child: _Child) -> None:
        del self._children[child.slot]
        if child.pulse in self._selector.get_map():
            self._selector.unregister(child.pulse)
        os.close(child.pulse)

    def _finish(self) -> None:
        """Let all workers finish what they have begun."""
        take_no_more(self._listener)
        self._listener.close()
        for child in self._children.values():
            child.process.terminate()
        end = time.monotonic() + self._options.drain_s + 5
        for child in self._children.values():
            try:
                child.process.wait(timeout=max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                logger.error("worker %d does not end and is killed", child.slot)
                child.process.kill()
                child.process.wait()
            os.close(child.pulse)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        UsageError: the address cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise UsageError(f"{host}:{port} cannot be listened on ({error.strerror}); choose another --port.") from None
    listener.setblocking(False)
    return listener


def take_no_more(listener: socket.socket) -> None:
    """Drop the first packet of every new connection, and no other, from now on.

    A listening socket that is closed resets the connections that wait in its queue, though their clients were told
    that they are connected. So the queue must be empty, and nothing may come into it, before the last process closes
    it. A client that comes now tries again after a second, by itself, and then is refused or served by a successor.
    Only Linux has such a filter; elsewhere the last instant before the end stays a race.
    """
    if sys.platform != "linux":
        return
    load_flags, one_further_if_syn = (0x30, 0, 0, 13), (0x45, 1, 0, 0x02)
    keep, drop = (0x06, 0, 0, 0xFFFFFFFF), (0x06, 0, 0, 0)
    lines = b"".join(struct.pack("HBBI", *line) for line in (load_flags, one_further_if_syn, keep, drop))
    held = ctypes.create_string_buffer(lines, len(lines))
    program = struct.pack("HP", len(lines) // 8, ctypes.addressof(held))
    try:
        listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
    except OSError as error:
        logger.warning("connections that come during the end may be reset (%s)", error.strerror)
