"""Papers as data: which figures were published, and which runs of ours stand beside them."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lowerbound.errors import RecipeError
from lowerbound.recipe import LARGEST_SEED, explain, suggest

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
Sentence = Annotated[str, Field(min_length=1)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class PaperRun(_Record):
    """One run of ours, once for each seed.

    Attributes:
        recipe: name of a shipped recipe, or a path to one.
        settings: what is overridden, as with `--set`; {runs} stands for the folder of the paper's runs.
        seeds: how many, from the recipe's own on.
        keep: keep its weights beside the page, so that the bound can be judged again.
        more: what it would take to come closer, a sentence.
    """

    recipe: Sentence
    settings: list[str] = []
    seeds: int = Field(default=1, gt=0, le=LARGEST_SEED)
    keep: bool = False
    more: str = ""


class PaperFigure(_Record):
    """A published figure, and the number of ours beside it.

    Attributes:
        what: is compared, a few words.
        where: it stands in the paper: table, equation, page.
        published: the value; None where the paper draws it, or says only which is better.
        run: of ours.
        over: another run, where the figure is the difference of `run` from it.
        number: of `evaluation.json`.
        better: whether less is better or more.
        target: what we aim at; None: the published value.
    """

    what: Sentence
    where: Sentence
    published: float | None = None
    run: Name
    over: Name | None = None
    number: Sentence
    better: Literal["less", "more"] = "less"
    target: float | None = None

    @property
    def aim(self) -> float | None:
        """What a reproduction should reach."""
        return self.published if self.target is None else self.target

    def reached(self, value: float) -> bool:
        """Whether a value is as good as the aim."""
        assert self.aim is not None, "the record was checked"
        return value <= self.aim if self.better == "less" else value >= self.aim


class Paper(_Record):
    """A paper whose figures are reproduced.

    Attributes:
        title, citation: of the paper.
        differs: in what our runs differ from the paper's, sentences.
        runs: by name.
        figures: in order.
    """

    title: Sentence
    citation: Sentence
    differs: Sentence
    runs: dict[Name, PaperRun] = Field(min_length=1)
    figures: list[PaperFigure] = Field(min_length=1)

    @model_validator(mode="after")
    def _figures_have_runs(self) -> Paper:
        for figure in self.figures:
            for run in (figure.run, figure.over):
                if run is not None and run not in self.runs:
                    raise ValueError(f"the figure `{figure.what}` is of a run `{run}`{suggest(run, self.runs)}")
            if figure.aim is None:
                raise ValueError(f"the figure `{figure.what}` needs a published value or a target")
        return self


def shipped_papers() -> dict[str, Path]:
    """The papers that come with the package, by name."""
    folder = resources.files("lowerbound") / "papers"
    paths = [Path(str(file)) for file in folder.iterdir()]
    return {path.stem: path for path in sorted(paths, key=lambda path: path.stem) if path.suffix == ".toml"}


def read_paper(source: str) -> tuple[str, Paper]:
    """A paper and its name.

    Args:
        source: the name of a shipped paper, or a path to a TOML file.

    Raises:
        RecipeError: there is no such paper, or it is wrong.
    """
    path = shipped_papers().get(source, Path(source))
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError:
        near = suggest(path.name, shipped_papers())
        raise RecipeError(f"there is no paper `{source}`: it is neither a file nor a shipped paper{near}") from None
    except ValueError as error:
        raise RecipeError(f"paper {source} is not valid TOML: {error}.") from None
    try:
        return path.stem, Paper.model_validate(table)
    except ValidationError as error:
        known = [name for record in (Paper, PaperRun, PaperFigure) for name in record.model_fields]
        raise RecipeError(f"paper {source}: {explain(error, known=known)}") from None


def chosen_runs(paper: Paper, only: Sequence[str]) -> dict[str, PaperRun]:
    """The runs that are asked for; all where none is named.

    Raises:
        RecipeError: the paper has no such run.
    """
    for name in only:
        if name not in paper.runs:
            raise RecipeError(f"`--only {name}`: this paper has no run `{name}`{suggest(name, paper.runs)}")
    return {name: run for name, run in paper.runs.items() if not only or name in only}
