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
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lowerbound.errors import RecipeError

SCHEMA = 1

Table = dict[str, Any]
Rate = Annotated[float, Field(gt=0)]
Decay = Annotated[float, Field(ge=0, lt=1)]

LARGEST_SEED = 2**63 - 1


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Guard(_Record):
    """What looks out for a posterior collapse while a model trains.

    Attributes:
        policy: what an alarm does: warn; stop with a checkpoint; cure, which goes back to before the onset and goes on
            with a relieved rate; off, where nobody looks.
        window: steps that a sign must last before there is an alarm; also the steps between looks at held-out rows.
        dead: mean rate per unit below which a step counts as collapsed, nats.
        information: mutual information of rows and codes below which codes say nothing, nats.
        change: change of decoded values along a unit below which the decoder ignores it, as a share of the difference
            between two rows.
        rows: held-out rows to look at.
        cures: how often an alarm is answered by a cure; the next one stops.
        floor: nats per unit at which a relieved rate weighs in full.
        relief_steps: over which the floor of a cure falls to 0; the last cure keeps half of it for good.
        stages: checkpoints from before an onset that are retained to go back to, besides the one of step 0.
    """

    policy: Literal["off", "warn", "stop", "cure"] = "warn"
    window: int = Field(default=100, gt=0)
    dead: float = Field(default=0.01, gt=0)
    information: float = Field(default=0.05, gt=0)
    change: float = Field(default=0.02, gt=0)
    rows: int = Field(default=128, gt=1)
    cures: int = Field(default=2, gt=0)
    floor: float = Field(default=1.0, gt=0)
    relief_steps: int = Field(default=1000, gt=0)
    stages: int = Field(default=4, gt=0)


class Training(_Record):
    """How a model is trained.

    Attributes:
        steps, epochs: how long; exactly one of them is given. A step draws one batch for each turn of each player.
        batch_size: rows per step over all processes and micro-batches together.
        optimizer: name of the method.
        learning_rate: for every role that `learning_rates` does not name.
        learning_rates: by role: encoder, decoder, prior, critic.
        warmup_steps: steps over which learning rates rise linearly from 0.
        schedule: of learning rates after the warm-up: constant, or half a cosine down to `final_rate`.
        final_rate: share of the learning rates at the end of the cosine.
        betas, weight_decay: the optimiser's.
        clip: largest norm of a player's gradient; larger ones are scaled down to it. None: no limit.
        spike: skip a step whose gradient norm is above so many times the recent median. None: never.
        ema: decay of the moving average of the weights, which is what is kept; 0: none.
        accumulate: micro-batches per batch and process.
        precision: of networks; densities stay in fp32.
        compile: compile the networks.
        checkpoint_activations: keep no activations inside networks, compute them again for the gradient.
        shard: share out weights, gradients and optimiser among processes (FSDP2).
        context_dropout: share of the rows whose context is hidden in training (0.1 for guidance).
        augment: changes of raw training images, each a table with a `kind`: flip, shift.
        validate_every: steps between judgements on the validation rows. None: never.
        keep: which weights are kept: the last, or the best by the validation bound.
        patience: judgements in a row without a better one after which training ends. None: it never does.
        journal_every: steps between rows of the journal.
        checkpoint_every: steps between checkpoints.
        checkpoints: how many of them are retained.
        film: frames of the film of training: samples and reconstructions after steps that are evenly spaced in their
            logarithm; 0: none.
        guard: what looks out for a posterior collapse.
    """

    steps: int | None = Field(default=None, gt=0)
    epochs: float | None = Field(default=None, gt=0)
    batch_size: int = Field(default=128, gt=0)
    optimizer: Literal["adam", "adamw", "adamax"] = "adam"
    learning_rate: Rate = 1e-3
    learning_rates: dict[Literal["encoder", "decoder", "prior", "critic"], Rate] = {}
    warmup_steps: int = Field(default=0, ge=0)
    schedule: Literal["constant", "cosine"] = "constant"
    final_rate: float = Field(default=0.0, ge=0, le=1)
    betas: list[Decay] = Field(default=[0.9, 0.999], min_length=2, max_length=2)
    weight_decay: float = Field(default=0.0, ge=0)
    clip: float | None = Field(default=None, gt=0)
    spike: float | None = Field(default=None, gt=1)
    ema: Decay = 0.0
    accumulate: int = Field(default=1, gt=0)
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compile: bool = False
    checkpoint_activations: bool = False
    shard: bool = False
    context_dropout: float = Field(default=0.0, ge=0, le=1)
    augment: list[Table] = []
    validate_every: int | None = Field(default=None, gt=0)
    keep: Literal["last", "best"] = "last"
    patience: int | None = Field(default=None, gt=0)
    journal_every: int = Field(default=10, gt=0)
    checkpoint_every: int = Field(default=500, gt=0)
    checkpoints: int = Field(default=2, gt=0)
    film: int = Field(default=8, ge=0, le=100)
    guard: Guard = Guard()

    @model_validator(mode="after")
    def _one_length(self) -> Training:
        if (self.steps is None) == (self.epochs is None):
            given = "neither is given" if self.steps is None else "both are given"
            raise ValueError(f"give exactly one of `steps` and `epochs`; {given}")
        return self

    @model_validator(mode="after")
    def _something_to_choose_by(self) -> Training:
        if self.validate_every is None and (self.keep == "best" or self.patience is not None):
            raise ValueError('`keep = "best"` and `patience` choose by the validation bound: give `validate_every`')
        return self


class Evaluation(_Record):
    """How a model is judged.

    Attributes:
        split: which rows.
        samples: K of the importance bound.
        batch_size: rows at a time.
        examples: at most so many rows, from the first on; None: all.
        generated: prior samples to draw for figures about samples.
        annealing: temperatures of annealed importance sampling on rows that the model makes (a few hundred; takes
            minutes): log p(x) from both sides, and how loose the other bounds are. None: not done.
        features: what samples are compared with data by: "raw" values; "own", the codes of the judged model;
            "shape", the size and form of solids; "motion", of what is bright in clips; a network in a file .onnx, or
            the weights of AlexNet or VGG-16 in a file .safetensors; or the folder of a run, for the codes of its model.
        perceptual: file of weights of the perceptual distance LPIPS (safetensors). None: it is not measured.
        seed: of all draws.
    """

    split: Literal["train", "validation", "test"] = "test"
    samples: int = Field(default=500, gt=0)
    batch_size: int = Field(default=100, gt=0)
    examples: int | None = Field(default=None, gt=0)
    generated: int = Field(default=1000, gt=0)
    annealing: int | None = Field(default=None, gt=0)
    features: list[str] = Field(default_factory=lambda: ["raw"])
    perceptual: str | None = None
    seed: int = Field(default=0, ge=0, lt=2**32)


class Recipe(_Record):
    """A whole run.

    Attributes:
        name: of the recipe.
        description: one sentence.
        seed: of initial weights, batches and noise.
        start: folder of a finished run of the same model, from whose weights training begins; what its preparation
            learned stays as it is. None: from weights that are a function of the seed.
        data, model, objective: `kind` and the settings of that kind.
        training, evaluation: see there.
    """

    name: str
    description: str = ""
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED)
    start: str | None = None
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
        raise RecipeError(f"{where}: {explain(error, known=_fields(Recipe))}") from None


WORDS = {
    "dict_type": "input should be a table",
    "model_type": "input should be a table",
    "is_instance_of": "input should be a list",
}


def explain(error: ValidationError, setting: str = "", known: Iterable[str] = ()) -> str:
    """What is wrong, in words: the first error of a recipe's run level, or the one of a part's setting.

    Args:
        error: what validation found.
        setting: place of the part's setting in the recipe; "" for the run level.
        known: names that there are, to suggest from.
    """
    details = error.errors()
    if setting:  # a value that may be of several types has an error for each; the deepest one tells most
        first = max(details, key=lambda detail: len(detail["loc"]))
        place, more = ".".join([setting, *(str(part) for part in first["loc"] if isinstance(part, int))]), ""
    else:
        first = details[0]
        place = ".".join(str(part) for part in first["loc"] if part != "[key]")
        more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    if first["type"] == "extra_forbidden":
        return f"there is no setting `{place}`{more}{suggest(str(first['loc'][-1]), known)}"
    if first["type"] == "missing":
        return f"`{place}` is missing{more}."
    if first["type"] == "value_error":
        return f"`{place}`: {first['ctx']['error']}{more}."
    message = WORDS.get(first["type"], first["msg"][0].lower() + first["msg"][1:])
    return f"`{place or 'recipe'}`: {message}, but {_shortly(first['input'])} was given{more}."


def suggest(wrong: str, known: Iterable[str]) -> str:
    """ "; did you mean ...?", or the list of what there is: the end of a sentence."""
    names = sorted(set(known))
    close = get_close_matches(wrong, names, n=1)
    return f"; did you mean `{close[0]}`?" if close else f"; there are: {', '.join(names) or 'none'}."


def _shortly(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 100 else f"{text[:100]}..."


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
    paths = [Path(str(file)) for file in folder.iterdir()]
    return {path.stem: path for path in sorted(paths, key=lambda path: path.stem) if path.suffix == ".toml"}


def read_recipe(source: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        source: the name of a shipped recipe, or a path to a TOML file (or to a run's recipe.json).
        overrides: `a.b=c` with c a TOML literal; a bare word is taken as a string.

    Raises:
        RecipeError: there is no such recipe, or it is wrong.
    """
    return parse(overridden(_load(str(source)), overrides), f"recipe {source}")


def overridden(table: Table, overrides: Iterable[str]) -> Table:
    """A table with settings `a.b=c` over it, c a TOML literal; a bare word is taken as a string.

    Raises:
        RecipeError: a setting of another form.
    """
    changes: Table = {}
    for text in overrides:
        key, value = _override(text)
        changes = _overlay(changes, _nest(key.split("."), value))
    return merge(table, changes)


def _load(source: str, above: tuple[Path, ...] = ()) -> Table:
    """The table of a recipe, its bases merged in; `above` are the recipes that it is a base of."""
    path = shipped().get(source, Path(source))
    if path in above:
        chain = " -> ".join(str(link) for link in (*above, path))
        raise RecipeError(f"recipe {above[0]} is its own base ({chain}); let the last of them name another, or none.")
    table = _table(path, source + (f" (the base of {above[-1]})" if above else ""))
    base = table.pop("base", None)
    if base is None:
        return table
    if not isinstance(base, str):
        raise RecipeError(f"recipe {source}: `base` is {base!r}; it must be the name of one recipe, or a path to one.")
    return merge(_load(base if base in shipped() else str(path.parent / base), (*above, path)), table)


def _table(path: Path, source: str) -> Table:
    """What one file says."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        table = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except FileNotFoundError:
        raise RecipeError(
            f"there is no recipe `{source}`: it is neither a file nor a shipped recipe{suggest(path.name, shipped())}"
        ) from None
    except OSError as error:
        raise RecipeError(f"recipe `{source}` cannot be read ({error.strerror}); give a name or a file.") from None
    except ValueError as error:
        kind = "JSON" if path.suffix == ".json" else "TOML"
        raise RecipeError(f"recipe {source} is not valid {kind}: {error}.") from None
    if not isinstance(table, dict):
        raise RecipeError(f"recipe {source} holds no table; it must be a recipe in TOML, or a run's recipe.json.")
    if path.suffix == ".json":
        table.pop("data_spec", None)  # a run adds the facts of its data
    return table


def merge(below: Table, above: Table) -> Table:
    """`above` over `below`, table by table; a table whose `kind` changes is replaced whole."""
    if "kind" in below and above.get("kind", below["kind"]) != below["kind"]:
        return above
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    if "steps" in above or "epochs" in above:  # one replaces the other
        for key in {"steps", "epochs"} - set(above):
            merged.pop(key, None)
    return merged


def _overlay(before: Table, after: Table) -> Table:
    """Both, table by table; where they clash, `after`."""
    merged = before | after
    for key in before.keys() & after.keys():
        if isinstance(before[key], dict) and isinstance(after[key], dict):
            merged[key] = _overlay(before[key], after[key])
    return merged


def _override(text: str) -> tuple[str, Any]:
    key, equals, literal = text.partition("=")
    if not equals or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", key.strip()):
        raise RecipeError(f"`--set {text}` was given, but the form is `--set a.b=value` with a TOML value.")
    try:
        found = tomllib.loads(f"value = {literal}")
    except tomllib.TOMLDecodeError:
        found = {"value": literal.strip()} if re.fullmatch(r"[\w./-]+", literal.strip()) else {}
    if found.keys() != {"value"}:
        raise RecipeError(f'`--set {text}`: {literal!r} is not a TOML value (a number, true, "text", [1, 2]).')
    return key.strip(), found["value"]


def _nest(keys: list[str], value: Any) -> Table:
    return {keys[0]: value if len(keys) == 1 else _nest(keys[1:], value)}
