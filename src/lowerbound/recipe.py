"""A run as data: a strict TOML file that names the parts and their settings.

The run level (what is here) is typed; a part's settings are its constructor's keyword arguments and are checked
when it is built, so that a new part never edits this file.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lowerbound.errors import RecipeError

SCHEMA = 1

Table = dict[str, Any]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Training(_Record):
    """How a model is trained.

    Attributes:
        steps, epochs: how long; exactly one of them is given. A step draws one batch for each turn of each player.
        batch_size: rows per step over all processes and micro-batches together.
        optimizer: name of the method.
        learning_rate: for every role that `learning_rates` does not name.
        learning_rates: by role: encoder, decoder, prior, critic.
        warmup_steps: steps over which learning rates rise linearly from 0.
        betas, weight_decay: the optimiser's.
        clip: largest norm of a player's gradient; larger ones are scaled down to it. None: no limit.
        ema: decay of the moving average of the weights, which is what is kept; 0: none.
        accumulate: micro-batches per batch and process.
        precision: of networks; densities stay in fp32.
        compile: compile the networks.
        keep: weights to keep: "last".
        journal_every: steps between rows of the journal.
        checkpoint_every: steps between checkpoints.
        checkpoints: how many of them are retained.
    """

    steps: int | None = Field(default=None, gt=0)
    epochs: float | None = Field(default=None, gt=0)
    batch_size: int = Field(default=128, gt=0)
    optimizer: Literal["adam", "adamw", "adamax"] = "adam"
    learning_rate: float = Field(default=1e-3, gt=0)
    learning_rates: dict[Literal["encoder", "decoder", "prior", "critic"], float] = {}
    warmup_steps: int = Field(default=0, ge=0)
    betas: list[float] = [0.9, 0.999]
    weight_decay: float = Field(default=0.0, ge=0)
    clip: float | None = Field(default=None, gt=0)
    ema: float = Field(default=0.0, ge=0, lt=1)
    accumulate: int = Field(default=1, gt=0)
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compile: bool = False
    journal_every: int = Field(default=10, gt=0)
    checkpoint_every: int = Field(default=500, gt=0)
    checkpoints: int = Field(default=2, gt=0)

    @model_validator(mode="after")
    def _one_length(self) -> Training:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give exactly one of `steps` and `epochs`")
        return self


class Evaluation(_Record):
    """How a model is judged.

    Attributes:
        split: which rows.
        samples: K of the importance bound.
        batch_size: rows at a time.
        examples: at most so many rows, from the first on; None: all.
        generated: prior samples to draw for figures about samples.
        seed: of all draws.
    """

    split: Literal["train", "validation", "test"] = "test"
    samples: int = Field(default=500, gt=0)
    batch_size: int = Field(default=100, gt=0)
    examples: int | None = Field(default=None, gt=0)
    generated: int = Field(default=1000, gt=0)
    seed: int = 0


class Recipe(_Record):
    """A whole run.

    Attributes:
        name: of the recipe.
        description: one sentence.
        seed: of initial weights, batches and noise.
        data, model, objective: `kind` and the settings of that kind.
        training, evaluation: see there.
    """

    name: str
    description: str = ""
    seed: int = Field(default=0, ge=0)
    data: Table
    model: Table
    objective: Table = {"kind": "elbo"}
    training: Training
    evaluation: Evaluation = Evaluation()

    def dump(self) -> Table:
        """The recipe as plain data, with its schema's version."""
        return {"schema": SCHEMA, **self.model_dump(mode="json")}


def parse(table: Mapping[str, Any], where: str) -> Recipe:
    """Check the run level of a recipe.

    Raises:
        RecipeError: one sentence per wrong key, naming `where`, what was given and what was expected.
    """
    content = dict(table)
    schema = content.pop("schema", SCHEMA)
    if schema != SCHEMA:
        raise RecipeError(f"{where} has schema {schema!r}, but this version reads schema {SCHEMA}; update lowerbound.")
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise RecipeError(f"{where}: {explain(error, 'recipe', _fields(Recipe))}") from None


def explain(error: ValidationError, prefix: str, known: Iterable[str]) -> str:
    """What is wrong with settings, in words: the first error, and how many more there are."""
    details = error.errors()
    first = details[0]
    place = ".".join(str(part) for part in (*([prefix] if prefix != "recipe" else []), *first["loc"]))
    given = json.dumps(first["input"], default=str)
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    if first["type"] == "extra_forbidden":
        return f"there is no setting `{place}`{suggest(str(first['loc'][-1]), known)}{more}."
    if first["type"] == "missing":
        return f"`{place}` is missing{more}."
    message = first["msg"][0].lower() + first["msg"][1:]
    return f"`{place or prefix}`: {message}, but {given[:200]} was given{more}."


def suggest(wrong: str, known: Iterable[str]) -> str:
    """ "; did you mean ...", or the list of what there is."""
    names = sorted(set(known))
    close = get_close_matches(wrong, names, n=1)
    return f"; did you mean `{close[0]}`?" if close else f"; there are: {', '.join(names) or 'none'}"


def _fields(record: type[BaseModel]) -> list[str]:
    names = []
    for name, field in record.model_fields.items():
        names.append(name)
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            names += _fields(inner)
    return names


# ------------------------------------------------------------------------------------------------------- reading


def shipped() -> dict[str, Path]:
    """The recipes that come with the package, by name."""
    folder = resources.files("lowerbound") / "recipes"
    return {Path(str(f)).stem: Path(str(f)) for f in sorted(folder.iterdir(), key=str) if str(f).endswith(".toml")}


def read_recipe(source: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        source: the name of a shipped recipe, or a path to a TOML file (or to a run's recipe.json).
        overrides: `a.b=c` with c a TOML literal; a bare word is taken as a string.

    Raises:
        RecipeError: there is no such recipe, or it is wrong.
    """
    table = _load(source)
    for key, value in sorted(map(_override, overrides), key=lambda pair: not pair[0].endswith("kind")):
        table = _merge(table, _nest(key.split("."), value))
    return parse(table, f"recipe {source}")


def _load(source: str | Path) -> Table:
    """The table of a recipe, its bases merged in."""
    path = shipped().get(str(source), Path(source))
    try:
        text = path.read_text(encoding="utf-8")
        table: Table = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (FileNotFoundError, IsADirectoryError):
        raise RecipeError(
            f"there is no recipe `{source}`: it is neither a file nor a shipped recipe{suggest(str(source), shipped())}"
        ) from None
    except (tomllib.TOMLDecodeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"recipe {source} is not valid {path.suffix.strip('.').upper()}: {error}.") from None
    base = table.pop("base", None)
    return table if base is None else _merge(_load(base), table)


def _merge(below: Table, above: Table) -> Table:
    """`above` over `below`, table by table; a table whose `kind` changes is replaced whole."""
    if above.get("kind", below.get("kind")) != below.get("kind"):
        return above
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    if "steps" in above or "epochs" in above:  # one replaces the other
        for key in {"steps", "epochs"} - set(above):
            merged.pop(key, None)
    return merged


def _override(text: str) -> tuple[str, Any]:
    key, equals, literal = text.partition("=")
    if not equals or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", key.strip()):
        raise RecipeError(f"`--set {text}` was given, but the form is `--set a.b=value` with a TOML value.")
    try:
        return key.strip(), tomllib.loads(f"value = {literal}")["value"]
    except tomllib.TOMLDecodeError:
        if re.fullmatch(r"[\w./-]+", literal.strip()):
            return key.strip(), literal.strip()
        raise RecipeError(
            f'`--set {text}`: {literal!r} is not a TOML value (a number, true, "text", [1, 2]).'
        ) from None


def _nest(keys: list[str], value: Any) -> Table:
    return {keys[0]: value if len(keys) == 1 else _nest(keys[1:], value)}
