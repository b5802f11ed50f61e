"""Lines of text as tokens: characters or words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from lowerbound.errors import DataError
from lowerbound.kinds import Part
from lowerbound.lab.data import splits
from lowerbound.lab.data.assemble import assemble, by_name, located
from lowerbound.lab.data.findings import Finding
from lowerbound.lab.data.rows import Dataset
from lowerbound.model.spec import Count

PADDING, UNKNOWN = 0, 1  # tokens
UNKNOWN_MARK = "�"


def text(
    data_dir: Path | None,
    *,
    path: str,
    tokens: Literal["characters", "words"] = "characters",
    length: Count = 64,
    vocabulary: Count = 5000,
    split: Part[splits.Split] = Part(splits.at_random),
) -> Dataset:
    """Lines of a UTF-8 file, or of the .txt files of a folder, as (length,) tokens; empty lines are left out.

    Token 0 is padding and token 1 stands for what is not in the vocabulary, which is made from the training lines: the
    most frequent characters or words. What is beyond `length` is cut off.

    Args:
        data_dir: where a relative path starts.
        path: the file or folder.
        tokens: characters, or what stands between white space.
        length: tokens in a row.
        vocabulary: at most so many different tokens.
        split: how lines are divided; by "file", too.
    """
    place = located(path, data_dir)
    lines, names, files, findings = _lines(place)
    if not lines:
        raise DataError(f"{place} holds no lines of text; give a UTF-8 file with one row on each line.")
    parts = split(len(lines), by_name({"file": torch.tensor(files).numpy()}))
    cut: Callable[[str], Sequence[str]] = list if tokens == "characters" else str.split
    known = _vocabulary([cut(lines[row]) for row in parts.train.tolist()], vocabulary)
    number = {token: place for place, token in enumerate(known)}
    raw = torch.zeros(len(lines), length, dtype=torch.long)
    for row, line in enumerate(lines):
        found = [number.get(token, UNKNOWN) for token in cut(line)[:length]]
        raw[row, : len(found)] = torch.tensor(found)
    return assemble(
        "text",
        raw,
        parts,
        levels=len(known),
        names=lambda row: names[row],
        vocabulary=known,
        source=place,
        findings=findings,
    )


def as_text(rows: Tensor, vocabulary: Sequence[str]) -> list[str]:
    """Lines of text from tokens (N, T); a line ends where its padding begins."""
    words = any(len(token) > 1 for token in vocabulary)
    lines = []
    for row in rows.long().tolist():
        end = row.index(PADDING) if PADDING in row else len(row)
        lines.append((" " if words else "").join(vocabulary[token] for token in row[:end]))
    return lines


def _lines(place: Path) -> tuple[list[str], list[str], list[int], list[Finding]]:
    """Lines that are not empty, what a person calls each, the number of its file, and lines that are no UTF-8."""
    lines: list[str] = []
    names: list[str] = []
    files: list[int] = []
    wrong: list[str] = []
    for number, file in enumerate(sorted(place.rglob("*.txt")) if place.is_dir() else [place]):
        try:
            content = file.read_bytes()
        except OSError as error:
            raise DataError(f"{file} cannot be read ({error.strerror}); mend it, or take it away.") from None
        for line_number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
            try:
                words = line.decode("utf-8").strip()
            except UnicodeDecodeError:
                wrong.append(f"{file} line {line_number}")
                continue
            if words:
                lines.append(words)
                names.append(f"{file} line {line_number}")
                files.append(number)
    return lines, names, files, [Finding("unreadable", "lines that are no UTF-8", tuple(wrong))] if wrong else []


def _vocabulary(lines: list[Sequence[str]], most: int) -> tuple[str, ...]:
    """Padding, the unknown, and the most frequent tokens; equally frequent ones in alphabetical order."""
    counts = Counter(token for line in lines for token in line)
    ranked = sorted(counts, key=lambda token: (-counts[token], token))
    return ("", UNKNOWN_MARK, *[token for token in ranked if token != UNKNOWN_MARK][: max(most - 2, 0)])
