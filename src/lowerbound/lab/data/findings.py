"""What was found wrong with data: records that name the rows or the files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

SHOWN = 5  # names in a sentence; all of them are in the record


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with data.

    Attributes:
        check: what was looked for: unreadable, truncated, size, channels, constant, not-finite, duplicate, leak,
            label, value, scale.
        what: the finding in words, without the names.
        names: of the files or rows that it concerns; empty if it concerns the data as a whole.
        rows: their places in `split`; empty for files that gave no rows.
        split: "train", "validation" or "test"; "" before the data were divided, and for files.
        severity: a "note" is said, and neither refused nor left out.
    """

    check: str
    what: str
    names: tuple[str, ...] = ()
    rows: tuple[int, ...] = ()
    split: str = ""
    severity: Literal["error", "note"] = "error"

    def sentence(self) -> str:
        """The finding with the names of what it concerns, the first few of them."""
        if not self.names:
            return self.what
        more = f" and {len(self.names) - SHOWN:,} more" if len(self.names) > SHOWN else ""
        return f"{self.what}: {', '.join(self.names[:SHOWN])}{more}"


def divided(findings: Sequence[Finding], places: dict[str, dict[int, int]]) -> tuple[Finding, ...]:
    """Findings about rows of a source as findings about the rows of each split.

    Args:
        findings: about source rows (`split` is "").
        places: for each split, from the row's number in the source to its place in the split.
    """
    result: list[Finding] = []
    for finding in findings:
        if not finding.rows:
            result.append(finding)
            continue
        for split, place in places.items():
            here = [(place[row], name) for row, name in zip(finding.rows, finding.names, strict=True) if row in place]
            if here:
                rows, names = zip(*here, strict=True)
                result.append(replace(finding, rows=rows, names=names, split=split))
    return tuple(result)
