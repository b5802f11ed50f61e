"""What the README promises and no other test holds: nothing is sent, and nothing that is loaded is executed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Python tells a hook of every connection and look-up, and of every class that a pickle asks for. The hook cannot be
# taken away again, so this is a program of its own.
PROGRAM = """
import sys

NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.sendto")
FORBIDDEN = (*NETWORK, "pickle.find_class", "os.system", "subprocess.Popen")
seen = []

import platform, torch, sklearn.datasets, scipy.stats, matplotlib.figure, matplotlib.font_manager
platform.uname()
sys.addaudithook(lambda event, arguments: seen.append((event, arguments)) if event in FORBIDDEN else None)

import lowerbound

recipe = lowerbound.read_recipe("digits", ["training.epochs=2", "training.checkpoint_every=5", "evaluation.samples=3"])
out = sys.argv[1]
stops = iter([False] * 7 + [True] * 99)
lowerbound.train(recipe, out, stop=lambda: next(stops))
lowerbound.train(recipe, out, resume=True)
lowerbound.evaluate(out)
lowerbound.write_report(out)
lowerbound.sample(lowerbound.load(out), 4)
print(seen)
"""


@pytest.mark.slow
def test_nothing_is_sent_and_nothing_loaded_is_executed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "run")],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_the_hook_sees_what_it_looks_for() -> None:
    """The test above can fail: a pickle and a look-up are seen."""
    program = PROGRAM.split("import lowerbound")[0] + (
        "import pickle, socket, collections\n"
        "pickle.loads(pickle.dumps(collections.OrderedDict()))\n"
        "socket.getaddrinfo('127.0.0.1', 80)\n"
        "print(sorted({event for event, _ in seen}))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=True)
    assert done.stdout.strip() == "['pickle.find_class', 'socket.getaddrinfo']"
