"""A page on which people say which of two pictures is better, and do not know which version made which."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import torch

from lowerbound.app.report.page import png, render
from lowerbound.app.report.pictures import small
from lowerbound.errors import NotSupportedError
from lowerbound.files import write_text
from lowerbound.lab.generation.use import sample
from lowerbound.lab.run import load
from lowerbound.noise import generator
from lowerbound.service.registry.version import Version

PAIRS = 40
SIZE = 320  # pixels


def write_blind(out: Path, one: Version, other: Version, pairs: int = PAIRS, seed: int = 0) -> None:
    """Write the page: pairs of samples of two versions from the same seeds, the sides thrown by a coin.

    Args:
        out: the page, .html.
        one, other: the versions.
        pairs: to be judged.
        seed: of samples and sides.

    Raises:
        NotSupportedError: rows are no pictures, or a version cannot sample without a context.
    """
    models = [load(version.path) for version in (one, other)]
    spec = models[0].data
    if len(spec.event) != 3:
        raise NotSupportedError(
            f"people judge pictures, and rows of {one.reference} have shape {list(spec.event)}; leave --blind out."
        )
    made = [sample(model, pairs, seed) for model in models]
    turned = torch.rand(pairs, generator=generator(seed)) < 0.5
    shown = []
    for place in range(pairs):
        both = [base64.b64encode(png(small(rows[place : place + 1], spec, 1, SIZE))).decode() for rows in made]
        shown.append(both[::-1] if turned[place] else both)
    key = json.dumps({"names": [one.reference, other.reference], "turned": turned.int().tolist()})
    page = render("blind.html", {"name": one.name, "pairs": shown, "key": base64.b64encode(key.encode()).decode()})
    write_text(out, page)
