"""How a model is retrained: the tiers, and what a plan may say of the rows, the training and the guard."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lowerbound.errors import RecipeError
from lowerbound.recipe import Recipe, explain, merge, overridden, parse, suggest

PRODUCTION = "production"
Table = dict[str, Any]
Share = Annotated[float, Field(ge=0, le=1)]


class Plan(BaseModel):
    """How a model is retrained.

    Attributes:
        tier: what it began as.
        days: of requests to look back at.
        newest: inputs of requests to look at, at most, the newest first.
        least: rows that must be left of them.
        rows: training rows of the data before, at most.
        shares: of the rows of a batch, by slice; `production` stands for the requests. The other slices share the rest
            in proportion to their rows.
        weighting: of the rows of the data before: all alike, or by how much more frequent rows like them are among the
            requests (the ratio of densities, by a classifier of codes).
        wrong: share of the requests that validation may find something wrong with; they are left out.
        slices: what the data before are divided by: labels where there are any, else clusters of codes; or as said.
        clusters: of codes.
        smallest: test rows of a slice; smaller ones are joined into `others`.
        start: whether training begins with the stable version's weights, or from scratch.
        role: that alone is trained; None: the whole model.
        training: settings over those of the model's own recipe.
        suite_rows: rows of a frozen slice, at most.
        freeze: whether the held-out requests become a slice of the suite once a candidate passed.
        margin: relative, by which a candidate may be worse on a slice.
        level: probability that one passes which is worse by the margin.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    tier: str
    days: float = Field(gt=0)
    newest: int = Field(default=100_000, gt=0)
    least: int = Field(default=200, gt=0)
    rows: int = Field(default=100_000, gt=0)
    shares: dict[str, Share] = {PRODUCTION: 0.5}
    weighting: Literal["none", "density-ratio"] = "none"
    wrong: Share = 0.05
    slices: Literal["auto", "label", "cluster", "none"] = "auto"
    clusters: int = Field(default=8, gt=1)
    smallest: int = Field(default=100, ge=20)
    start: bool
    role: Literal["decoder", "prior"] | None = None
    training: Table = {}
    suite_rows: int = Field(default=2000, gt=20)
    freeze: bool
    margin: float = Field(default=0.02, gt=0)
    level: float = Field(default=0.05, gt=0, lt=0.5)

    @model_validator(mode="after")
    def _all_shares(self) -> Plan:
        if sum(self.shares.values()) > 1:
            raise ValueError(f"the shares add up to {sum(self.shares.values()):g}; they are of one whole")
        return self


GENTLE: Table = {"warmup_steps": 0, "schedule": "constant", "keep": "last", "validate_every": None, "patience": None}
TIERS: dict[str, Table] = {
    "incremental": {
        "days": 7.0,
        "start": True,
        "role": "decoder",
        "freeze": False,
        "training": {**GENTLE, "learning_rate": 1e-5, "learning_rates": {}, "epochs": 5.0},
    },
    "full": {"days": 31.0, "start": False, "freeze": True, "shares": {PRODUCTION: 0.3}},
    "emergency": {
        "days": 7.0,
        "start": True,
        "freeze": True,
        "shares": {PRODUCTION: 0.2},
        "training": {**GENTLE, "schedule": "cosine", "epochs": 40.0},
    },
}


def read_plan(tier: str, file: Path | None = None, overrides: Iterable[str] = ()) -> Plan:
    """The plan of a tier.

    Args:
        tier: "incremental", "full" or "emergency".
        file: settings over those of the tier, in TOML.
        overrides: settings over both, `a.b=c` with c a TOML literal.

    Raises:
        RecipeError: there is no such tier or setting, or a value is wrong.
    """
    if tier not in TIERS:
        raise RecipeError(f"there is no tier `{tier}`{suggest(tier, TIERS)}")
    table = overridden(merge({"tier": tier, **TIERS[tier]}, {} if file is None else _read(file)), overrides)
    try:
        return Plan.model_validate(table)
    except ValidationError as error:
        raise RecipeError(f"the plan of tier {tier}: {explain(error, known=Plan.model_fields)}") from None


def candidate_recipe(origin: Recipe, plan: Plan, data: Table, stable: Path) -> Recipe:
    """The recipe of a candidate.

    Args:
        origin: the model's own recipe, as it was before it was ever retrained.
        plan: what is changed.
        data: table of the collected rows.
        stable: folder of the stable version.

    Raises:
        RecipeError: a setting of the plan is wrong.
    """
    training = origin.training.model_dump()
    for one, other in (("steps", "epochs"), ("epochs", "steps")):
        if one in plan.training:
            training.pop(other)
    table = origin.dump() | {"data": data, "training": training | plan.training}
    table["start"] = str(stable) if plan.start else None
    if plan.start:
        table["objective"] = {"kind": "settled", "objective": table["objective"]}
    if plan.role is not None:
        table["objective"] = {"kind": "focus", "role": plan.role, "objective": table["objective"]}
    return parse(table, f"the recipe of a candidate (tier {plan.tier})")


def _read(file: Path) -> Table:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(f"the plan {file} cannot be read ({error}); give a file in TOML.") from None
