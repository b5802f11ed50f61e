"""Two finished runs as one: a model of rows, and a model of its codes."""

from __future__ import annotations

from pathlib import Path

from lowerbound.errors import RunError
from lowerbound.lab.run import Run
from lowerbound.recipe import Recipe


def stack_runs(second: Run | Path | str, out: Path | str) -> Run:
    """Write a run that is the stack of a second stage on the run whose codes it was trained on.

    It holds the weights of both, so that every command takes it as any other run, and neither folder is needed again.

    Args:
        second: a finished run on data of kind "latents".
        out: folder to make.

    Raises:
        RunError: the run is not on codes of another, or the folder is not empty.
        ShapeError: the stages do not fit together.
        TamperedError: a file is not what training wrote.
    """
    above = second if isinstance(second, Run) else Run(second)
    recipe, run = above.recipe(), Run(out)
    if recipe.data.get("kind") != "latents":
        raise RunError(
            f"{above.path} was trained on data of kind {recipe.data.get('kind')!r}; a stack needs a second stage, a "
            'run that was trained on the codes of another one (`data.kind = "latents"`).'
        )
    if run.path.exists() and any(run.path.iterdir()):
        raise RunError(f"{run.path} is not empty; choose another folder.")
    below = Run(str(recipe.data["run"]))
    weights = {
        f"{name}.{key}": value
        for name, stage in (("first", below), ("second", above))
        for key, value in stage.model().state_dict().items()
    }
    spec = above.data_spec()
    run.path.mkdir(parents=True, exist_ok=True)
    with run.locked():
        known = spec.conditioning(below.data_spec())
        run.start(_together(below.recipe(), recipe), known)
        run.finish(weights, 0)
    run.model()
    return run


def _together(below: Recipe, above: Recipe) -> Recipe:
    """The recipe of both: the first stage's data with the second's context."""
    context = above.data.get("context", "none")
    return below.model_copy(
        update={
            "name": f"{below.name}-{above.name}",
            "description": f"{below.description} Its codes: {above.description}",
            "data": below.data if context == "none" else {**below.data, "context": context},
            "model": {"kind": "stack", "first": below.model, "second": above.model},
            "evaluation": below.evaluation.model_copy(update={"samples": 1}),
        }
    )
