"""Bodies of requests: from bytes to arrays of rows or codes."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from lowerbound.service.serving import pictures
from lowerbound.service.serving.arrays import read_json, read_npy, to_array
from lowerbound.service.serving.contract import Contract
from lowerbound.service.serving.exchange import Request
from lowerbound.service.serving.payload import CODE, DIRECTION, Array, Arrays
from lowerbound.service.serving.problems import RefusedError
from lowerbound.service.serving.settings import MOST_ROWS, VERBS, read_settings

NPY = "application/x-npy"
JSON = "application/json"
FORM = "multipart/form-data"
TYPES = (*pictures.FORMATS, NPY, JSON, FORM)
MOST_PARTS = MOST_ROWS + 32
FIELD_BYTES = 4096  # of a part that is a setting


def check_digest(body: bytes, digest: str) -> None:
    """Compare a body with its Content-Digest (RFC 9530), where it is by SHA-256.

    Raises:
        RefusedError: they differ.
    """
    for item in digest.split(","):
        name, _, value = item.strip().partition("=")
        if name.lower() == "sha-256":
            found = base64.b64encode(hashlib.sha256(body).digest()).decode()
            if not hmac.compare_digest(found, value.strip(":")):
                raise RefusedError("digest-mismatch", "The body is not what its Content-Digest says; send it again.")


def read_inputs(request: Request, body: bytes, contract: Contract) -> None:
    """Fill in the arrays and settings of a request: "rows" (B, *event), codes by group, and others by name.

    Raises:
        RefusedError: the body cannot be read, or does not fit the verb or the model.
    """
    verb = VERBS[request.verb]
    if not body:
        if verb.body:
            raise RefusedError("empty-body", f"{request.verb} needs a body: {_needed(verb.inputs)}.")
        request.settings = read_settings(request.verb, request.query)
        return
    if not verb.inputs and request.content_type != JSON:
        raise RefusedError(
            "unsupported-type", f"{request.verb} takes no rows: give its settings in the address or as JSON."
        )
    if request.content_type == NPY:
        main = read_npy(body)
        arrays = {verb.inputs[0]: main} if verb.inputs[0] != "codes" else _only_group(main, contract)
        given: Mapping[str, Any] = {}
    elif request.content_type in pictures.FORMATS:
        arrays, given = {_pictured(verb.inputs[0]): _picture(body, request.content_type, contract)}, {}
    elif request.content_type == JSON:
        arrays, given = _from_json(read_json(body), verb.inputs, contract)
    elif request.content_type == FORM:
        arrays, given = _from_form(body, request.boundary, verb.inputs, contract)
    else:
        named = request.content_type or "no type"
        raise RefusedError("unsupported-type", f"The body is of {named}; {', '.join(TYPES)} are read.")
    request.settings = read_settings(request.verb, request.query, given)
    if verb.inputs and not any(name == verb.inputs[0] or name.startswith(CODE) for name in arrays):
        raise RefusedError("empty-body", f"{request.verb} needs {_needed(verb.inputs)}; the body has none.")
    request.arrays = arrays


def _needed(inputs: tuple[str, ...]) -> str:
    return "`codes`" if inputs[:1] == ("codes",) else "`rows`"


def _pictured(name: str) -> str:
    if name == "codes":
        raise RefusedError("unsupported-type", "Codes are given as .npy, JSON or a form, not as a picture.")
    return name


def _picture(body: bytes, content_type: str, contract: Contract) -> Array:
    if not contract.pictures:
        raise RefusedError("not-supported", "This model is not one of pictures: give its rows as .npy or JSON.")
    pixels = pictures.read_picture(body, content_type, contract.event)
    if contract.levels == 256:
        return pixels[None]
    levels = contract.levels or 1
    return np.rint(pixels[None] * ((levels - 1) / 255)).astype(np.uint8)


def _only_group(array: Array, contract: Contract) -> Arrays:
    """An array of codes by the name of its group."""
    if len(contract.latents) != 1:
        names = ", ".join(contract.latents)
        raise RefusedError(
            "not-supported", f"This model has the groups of codes {names}: give them by name, as JSON or a form."
        )
    return {CODE + next(iter(contract.latents)): array}


def _from_json(found: dict[str, Any], inputs: tuple[str, ...], contract: Contract) -> tuple[Arrays, dict[str, Any]]:
    """Arrays, and what else the object has: settings."""
    arrays: Arrays = {}
    for name in inputs:
        if name not in found:
            continue
        value = found.pop(name)
        prefix = {"codes": CODE, "direction": DIRECTION}.get(name)
        if prefix is None:
            arrays[name] = to_array(value, name)
        elif isinstance(value, dict):
            arrays |= {prefix + group: to_array(codes, group) for group, codes in value.items()}
        else:
            (only,) = _only_group(to_array(value, name), contract).items()
            arrays[prefix + only[0].removeprefix(CODE)] = only[1]
    return arrays, found


@dataclass
class _Part:
    headers: dict[bytes, bytes] = field(default_factory=dict)
    name: bytearray = field(default_factory=bytearray)
    value: bytearray = field(default_factory=bytearray)
    body: bytearray = field(default_factory=bytearray)


def _parts(body: bytes, boundary: str) -> list[_Part]:
    """The parts of a form.

    Raises:
        RefusedError: it is none, or ends too early.
    """
    parts: list[_Part] = []
    ended: list[bool] = []

    def begin() -> None:
        if len(parts) >= MOST_PARTS:
            raise RefusedError("too-many-rows", f"The form has more than {MOST_PARTS} parts.")
        parts.append(_Part())

    def header_end() -> None:
        part = parts[-1]
        if len(part.headers) >= 8:
            raise RefusedError("bad-form", "A part of the form has too many headers.")
        part.headers[bytes(part.name).lower()] = bytes(part.value)
        part.name.clear()
        part.value.clear()

    def header_name(data: bytes, start: int, stop: int) -> None:
        parts[-1].name.extend(data[start:stop])

    def header_value(data: bytes, start: int, stop: int) -> None:
        parts[-1].value.extend(data[start:stop])

    def data(chunk: bytes, start: int, stop: int) -> None:
        parts[-1].body.extend(chunk[start:stop])

    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": begin,
                "on_header_field": header_name,
                "on_header_value": header_value,
                "on_header_end": header_end,
                "on_part_data": data,
                "on_end": lambda: ended.append(True),
            },
        )
        parser.write(body)
        parser.finalize()
    except (MultipartParseError, ValueError, UnicodeError):
        raise RefusedError("bad-form", "The body is no whole multipart form.") from None
    if not ended:
        raise RefusedError("bad-form", "The form ends before its last boundary.")
    return parts


def _from_form(
    body: bytes, boundary: str, inputs: tuple[str, ...], contract: Contract
) -> tuple[Arrays, dict[str, Any]]:
    """Arrays (parts of one name are rows of one array) and settings (parts without a type)."""
    rows: dict[str, list[Array]] = {}
    given: dict[str, Any] = {}
    for part in _parts(body, boundary):
        _, options = parse_options_header(part.headers.get(b"content-disposition", b""))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        kind = part.headers.get(b"content-type", b"").split(b";")[0].strip().lower().decode("latin1")
        if name in inputs and name not in ("codes", "direction"):
            rows.setdefault(name, []).append(_part(bytes(part.body), kind, contract))
        elif name in contract.latents and ("codes" in inputs or "direction" in inputs):
            prefix = CODE if "codes" in inputs else DIRECTION
            rows.setdefault(prefix + name, []).append(read_npy(bytes(part.body)))
        elif len(part.body) <= FIELD_BYTES and not kind:
            given[name] = bytes(part.body).decode("utf-8", "replace")
        else:
            raise RefusedError("bad-form", f"The form has a part that is none of {', '.join(inputs)} and no setting.")
    return {name: _joined(name, parts, contract) for name, parts in rows.items()}, given


def _part(body: bytes, kind: str, contract: Contract) -> Array:
    if kind in pictures.FORMATS:
        return _picture(body, kind, contract)
    if kind in (NPY, "application/octet-stream") and body[:6] == b"\x93NUMPY":
        return read_npy(body)
    raise RefusedError("unsupported-type", f"A part of the form is of {kind or 'no type'}; pictures and .npy are read.")


def _joined(name: str, parts: list[Array], contract: Contract) -> Array:
    if len(parts) == 1:
        return parts[0]
    lifted = [part[None] if part.shape == contract.event else part for part in parts]
    try:
        return np.concatenate(lifted)
    except ValueError:
        raise RefusedError("wrong-shape", f"The parts `{name}` of the form differ in shape.") from None
