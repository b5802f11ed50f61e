"""What the tests of the command line share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

SMALL = (
    *("--set", "training.steps=20", "--set", "training.checkpoint_every=10", "--set", "training.batch_size=32"),
    *("--set", "model.encoder.widths=[16]", "--set", "model.decoder.widths=[16]"),
)


@dataclass(frozen=True)
class Result:
    """What a command did."""

    code: int
    out: str
    err: str

    def refused(self, code: int, *words: str) -> None:
        """Check that it failed with one clear sentence, with these words in it."""
        assert self.code == code, self
        lines = self.err.strip().splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("error: "), self.err
        assert lines[0][-1] in ".?", self.err
        assert "Traceback" not in self.err
        for word in words:
            assert word in lines[0], f"{word!r} is not in {lines[0]!r}"


Cli = Callable[..., Result]
