"""The verbs of the server, and their settings: one table, for reading requests and for describing them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal
from urllib.parse import parse_qsl

from lowerbound.service.serving.problems import RefusedError

MOST_ROWS = 1024  # of one request, frames included
WHOLE = re.compile(r"-?[0-9]{1,19}")
REAL = re.compile(r"-?[0-9]{1,19}(\.[0-9]{1,19})?(e-?[0-9]{1,3})?")


@dataclass(frozen=True, slots=True)
class Settings:
    """What a request says beside its rows."""

    count: int = 1
    seed: int = 0
    temperature: float = 1.0
    observe: Literal["point", "sample"] = "point"
    steps: int = 9
    method: Literal["linear", "spherical"] = "linear"
    units: tuple[int, ...] | None = None
    reach: float = 3.0
    group: str | None = None
    strengths: tuple[float, ...] = (-1.0, 0.0, 1.0, 2.0)
    label: int | None = None
    frames: str = "values"


NONE = Settings()


@dataclass(frozen=True)
class Setting:
    """One setting: how it is read, and its JSON schema."""

    read: Callable[[Any], Any]
    schema: Mapping[str, Any]
    help: str


def _whole(low: int, high: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if isinstance(value, str) and WHOLE.fullmatch(value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return value

    return read


def _real(low: float, high: float) -> Callable[[Any], float]:
    def read(value: Any) -> float:
        if isinstance(value, str) and REAL.fullmatch(value):
            value = float(value)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise ValueError(f"a number from {low:g} to {high:g}")
        return float(value)

    return read


def _one_of(*words: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in words:
            raise ValueError(" or ".join(words))
        return str(value)

    return read


def _several(one: Callable[[Any], Any], most: int) -> Callable[[Any], tuple[Any, ...]]:
    def read(value: Any) -> tuple[Any, ...]:
        values = value.split(",") if isinstance(value, str) else value
        if not isinstance(values, list) or not 1 <= len(values) <= most:
            raise ValueError(f"1 to {most} numbers with commas between them")
        return tuple(map(one, values))

    return read


def _name(value: Any) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= 64:
        raise ValueError("a name of at most 64 characters")
    return value


def _number(kind: str, low: float, high: float, default: float | None) -> dict[str, Any]:
    found: dict[str, Any] = {"type": kind, "minimum": low, "maximum": high}
    return found if default is None else {**found, "default": default}


LARGEST = 2**62
SETTINGS: Mapping[str, Setting] = MappingProxyType(
    {
        "count": Setting(_whole(1, 256), _number("integer", 1, 256, 1), "Rows to draw."),
        "seed": Setting(_whole(0, LARGEST), _number("integer", 0, LARGEST, 0), "Row i is a function of (seed, i)."),
        "temperature": Setting(_real(0, 10), _number("number", 0, 10, 1), "Scales sigma of the latents."),
        "observe": Setting(
            _one_of("point", "sample"),
            {"type": "string", "enum": ["point", "sample"], "default": "point"},
            "The point of p(x|z), or a sample of it.",
        ),
        "steps": Setting(_whole(2, 256), _number("integer", 2, 256, 9), "Frames, both ends included."),
        "method": Setting(
            _one_of("linear", "spherical"),
            {"type": "string", "enum": ["linear", "spherical"], "default": "linear"},
            "Along a line or a great circle.",
        ),
        "units": Setting(
            _several(_whole(0, 2**31), 256), {"type": "string", "pattern": r"^\d+(,\d+)*$"}, "Units to move: 0,3,5."
        ),
        "reach": Setting(
            _real(1e-6, 100), _number("number", 1e-6, 100, 3), "Outermost values, in sigmas of the prior."
        ),
        "group": Setting(_name, {"type": "string", "maxLength": 64}, "Group of latents."),
        "strengths": Setting(
            _several(_real(-1000, 1000), 256), {"type": "string", "pattern": r"^-?[\d.]+(,-?[\d.]+)*$"}, "0 is the row."
        ),
        "label": Setting(_whole(0, 2**31), _number("integer", 0, 2**31, None), "For a conditional model."),
        "frames": Setting(
            _one_of("values", "png"),
            {"type": "string", "enum": ["values", "png"], "default": "values"},
            "What the lines of a streamed answer hold.",
        ),
    }
)


@dataclass(frozen=True)
class Verb:
    """What one verb takes and gives.

    Attributes:
        summary: one sentence.
        inputs: arrays of the body, the main one first; those after it are optional.
        settings: names of its settings.
        frames: whether its answer is a sequence, which may be streamed.
        body: whether a body is needed.
        rows: whether the answer holds rows (which may be pictures).
    """

    summary: str
    inputs: tuple[str, ...] = ("rows",)
    settings: tuple[str, ...] = field(default=("label",))
    frames: bool = False
    body: bool = True
    rows: bool = True


VERBS: Mapping[str, Verb] = MappingProxyType(
    {
        "encode": Verb("Codes of rows: the posterior's point.", rows=False),
        "decode": Verb("Rows of codes: the point of p(x|z).", inputs=("codes",)),
        "reconstruct": Verb("Rows through the model and back."),
        "score": Verb("How strange rows are: error, rate, norm of the code, p-values.", rows=False),
        "sample": Verb(
            "Rows from the prior.",
            inputs=(),
            settings=("count", "seed", "temperature", "observe", "label"),
            body=False,
        ),
        "interpolate": Verb(
            "The way from the first of two rows to the second, through their codes.",
            settings=("steps", "method", "label", "frames"),
            frames=True,
        ),
        "traverse": Verb(
            "One unit of a row's code after another, moved through the prior.",
            settings=("steps", "units", "reach", "group", "label", "frames"),
            frames=True,
        ),
        "edit": Verb(
            "Rows moved along a direction: one of codes, or from rows that lack an attribute to rows that have it.",
            inputs=("rows", "direction", "having", "lacking"),
            settings=("strengths", "label", "frames"),
            frames=True,
        ),
    }
)


def read_settings(verb: str, query: str, given: Mapping[str, Any] | None = None) -> Settings:
    """The settings of a request, from the query of its address and from the object of its body.

    Raises:
        RefusedError: an unknown setting, or a value that it cannot have.
    """
    if not query and not given:
        return NONE
    values: dict[str, Any] = dict(given or {})
    try:
        values.update(parse_qsl(query, keep_blank_values=True, max_num_fields=32, errors="strict"))
    except ValueError:
        raise RefusedError("bad-setting", "The query of the address cannot be read.") from None
    known = VERBS[verb].settings
    found: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise RefusedError("bad-setting", f"{verb} has no setting {_shown(name)}; it has {', '.join(known)}.")
        try:
            found[name] = SETTINGS[name].read(value)
        except ValueError as error:
            raise RefusedError("bad-setting", f"{name} is {_shown(value)}; expected: {error}.") from None
    return Settings(**found)


def _shown(value: Any) -> str:
    """A value of the client's, short and harmless."""
    text = json.dumps(value) if isinstance(value, (str, int, float, bool, list, dict)) or value is None else "?"
    return text if len(text) <= 60 else text[:57] + "..."
