"""Answers: from outputs to bytes, in the form that was asked for."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import AsyncIterator
from functools import lru_cache
from typing import Any

import numpy as np

from lowerbound.service.serving import pictures
from lowerbound.service.serving.arrays import to_json, write_npy
from lowerbound.service.serving.contract import Contract
from lowerbound.service.serving.exchange import Request, Response
from lowerbound.service.serving.payload import Array, Arrays
from lowerbound.service.serving.problems import RefusedError
from lowerbound.service.serving.settings import VERBS

JSON, NPY, PNG, LINES = "application/json", "application/x-npy", "image/png", "application/x-ndjson"
SCORES = ("error", "rate", "norm", "p_value")


@lru_cache(maxsize=64)
def forms_of(verb: str, groups: int = 1, shown: bool = True) -> tuple[str, ...]:
    """The forms that the answers of a verb have.

    Args:
        verb: which one.
        groups: of codes, that the model has.
        shown: whether its rows are pictures.
    """
    facts, forms = VERBS[verb], [JSON]
    if facts.rows or (verb == "encode" and groups == 1):
        forms.append(NPY)
    if facts.rows and shown:
        forms.append(PNG)
    if facts.frames:
        forms.append(LINES)
    return tuple(forms)


def chosen(accept: str, verb: str, contract: Contract) -> str:
    """The form of the answer: of those that the client accepts the one it prefers; JSON by default.

    Raises:
        RefusedError: none of them.
    """
    if not accept or accept == "*/*":
        return JSON
    forms = forms_of(verb, len(contract.latents), contract.pictures)
    if accept in forms:
        return accept
    best, quality = "", 0.0
    for item in accept.split(","):
        kind, *options = (part.strip().lower() for part in item.split(";"))
        weight = next((_weight(option[2:]) for option in options if option.startswith("q=")), 1.0)
        fits = next((form for form in forms if kind in ("*/*", form, form.split("/")[0] + "/*")), None)
        if fits is not None and weight > quality:
            best, quality = fits, weight
    if not best:
        raise RefusedError("not-acceptable", f"This model's {verb} answers in {', '.join(forms)}; none was asked for.")
    return best


def _weight(text: str) -> float:
    try:
        return float(text) if math.isfinite(float(text)) else 0.0
    except ValueError:
        return 0.0


def write(request: Request, response: Response) -> bytes:
    """The body of an answer that is no sequence."""
    contract, outputs = request.assigned.contract, response.outputs
    if request.verb == "encode":
        return _codes(outputs, contract, request.form)
    if request.verb == "score":
        found: dict[str, Any] = {name: outputs[name] for name in SCORES if name in outputs}
        limit = request.assigned.judge.norm_limit
        if limit is not None and "norm" in outputs:
            found["beyond"] = outputs["norm"] > limit
        return to_json(found)
    array = outputs["reconstruction"]
    return _rows(array, contract, request.form, math.ceil(math.sqrt(len(array))))


def _rows(array: Array, contract: Contract, form: str, columns: int) -> bytes:
    """Rows (N, *event), or lines of them; pictures as tiles of one."""
    if form == NPY:
        return write_npy(np.ascontiguousarray(array))
    if form == PNG:
        return picture(array.reshape(-1, *contract.event), contract, columns)
    return to_json({"rows": array})


def picture(array: Array, contract: Contract, columns: int) -> bytes:
    """Rows (N, *event) as tiles of one PNG."""
    scale = 255 / max(1, (contract.levels or 2) - 1)
    pixels = np.rint(array * np.float32(scale)).clip(0, 255).astype(np.uint8)
    return pictures.write_png(pictures.tiled(pixels, columns))


def _codes(outputs: Arrays, contract: Contract, form: str) -> bytes:
    names = list(contract.latents)
    if form == NPY:
        return write_npy(np.ascontiguousarray(outputs[names[0]]))
    found: dict[str, Any] = {"codes": {name: outputs[name].tolist() for name in names}}
    found |= {name: outputs[name].tolist() for name in ("rate", "norm", "p_value") if name in outputs}
    return json.dumps(found, allow_nan=False).encode()


async def gathered(request: Request, response: Response) -> bytes:
    """The body of a sequence, whole: rows (lines, frames, *event), or a table of pictures with a line for each."""
    assert response.frames is not None
    found = [frame["reconstruction"] async for frame in response.frames]
    return _rows(np.stack(found, axis=1), request.assigned.contract, request.form, len(found))


async def lines(request: Request, response: Response) -> AsyncIterator[bytes]:
    """The body of a sequence, frame by frame: one JSON object in a line."""
    assert response.frames is not None
    contract, index = request.assigned.contract, 0
    as_picture = request.settings.frames == "png" and contract.pictures
    async for frame in response.frames:
        array = frame["reconstruction"]
        shown: dict[str, Any] = {"frame": index, "of": response.count}
        if as_picture:
            shown["png"] = base64.b64encode(picture(array, contract, len(array))).decode("ascii")
        else:
            shown["rows"] = array.tolist()
        yield json.dumps(shown, allow_nan=False).encode() + b"\n"
        index += 1
