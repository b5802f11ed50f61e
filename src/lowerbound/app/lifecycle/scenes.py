"""What is played: data, the kinds that do not exist at first, and how large everything is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lowerbound.errors import UsageError


@dataclass(frozen=True)
class Scene:
    """A story.

    Attributes:
        name: of it, and of the model.
        recipe: that the model is trained by.
        data: the whole data set.
        withheld: labels that the model is not trained on.
        newcomer: the one of them that comes later.
        settings: over those of the recipe.
        hasty: settings of the deliberately bad candidate, over those.
        gate_level: share of ordinary rows that each check of the gate may refuse.
        window: requests of a look.
        plan: settings of the emergency retraining.
        noise: levels by which pixels of a request differ from the held-out row that it is made of, at most.
        share_new, share_black: of the requests during the incident.
    """

    name: str
    recipe: str
    data: Mapping[str, Any]
    withheld: tuple[int, ...]
    newcomer: int
    settings: tuple[str, ...]
    hasty: tuple[str, ...]
    gate_level: float
    window: int
    plan: tuple[str, ...] = ()
    noise: int = 1
    share_new: float = 0.15
    share_black: float = 0.03


SCENES = {
    "digits": Scene(
        name="digits",
        recipe="digits",
        data={"kind": "digits"},
        withheld=(0, 6),
        newcomer=0,
        settings=("training.epochs=150", "evaluation.samples=20"),
        hasty=("training.epochs=3", "seed=9"),
        gate_level=0.02,
        window=1000,
        plan=("margin=0.1", "newest=10_000", "training.epochs=20"),
    ),
    "fashion-shift": Scene(
        name="fashion",
        recipe="fashion-mnist",
        data={"kind": "fashion-mnist"},
        withheld=(8, 9),
        newcomer=8,
        settings=(
            "training.epochs=12",
            "objective.beta.steps=1000",
            "evaluation.samples=20",
            "evaluation.examples=500",
        ),
        hasty=("training.epochs=0.2", "seed=9"),
        gate_level=0.001,
        window=1000,
        plan=("newest=20_000", "rows=20_000", "training.epochs=6"),
        noise=2,
    ),
}


def scene_of(name: str) -> Scene:
    """A scene by its name.

    Raises:
        UsageError: there is no such scene.
    """
    if name not in SCENES:
        raise UsageError(f"there is no scene {name}; there are {', '.join(SCENES)}.")
    return SCENES[name]
