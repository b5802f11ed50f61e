"""What the server does, as an OpenAPI document made from the tables that requests are read by."""

from __future__ import annotations

from typing import Any

from lowerbound.service.serving.problems import PROBLEMS
from lowerbound.service.serving.reading import FORM, JSON, NPY, TYPES
from lowerbound.service.serving.settings import SETTINGS, VERBS, Verb
from lowerbound.service.serving.writing import LINES, PNG, forms_of

# What an answer may be besides 200, by verb or not; 5xx are there to be known, not to be expected.
STATUSES = sorted({status for status, _ in PROBLEMS.values() if status != 499})


def verb_paths() -> dict[str, Any]:
    """The paths of the verbs."""
    return {f"/v1/models/{{name}}/{name}": {"post": _operation(name, verb)} for name, verb in VERBS.items()}


def problem_schema() -> dict[str, Any]:
    """The schema of a problem."""
    texts = {name: {"type": "string"} for name in ("type", "title", "detail", "instance")}
    return {
        "type": "object",
        "required": ["type", "title", "status", "detail", "code", "instance"],
        "properties": {
            **texts,
            "status": {"type": "integer"},
            "code": {"type": "string", "enum": sorted(PROBLEMS)},
        },
    }


def _operation(name: str, verb: Verb) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": name,
        "summary": verb.summary,
        "tags": ["verbs"],
        "parameters": [
            {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}},
            *(
                {
                    "name": setting,
                    "in": "query",
                    "required": False,
                    "description": SETTINGS[setting].help,
                    "schema": dict(SETTINGS[setting].schema),
                }
                for setting in verb.settings
            ),
        ],
        "responses": {"200": {"description": "The answer.", "content": _answers(name)}, **_refusals()},
    }
    found["requestBody"] = {"required": verb.body, "content": _bodies(verb)}
    return found


def _bodies(verb: Verb) -> dict[str, Any]:
    numbers = {"description": "Nested lists of numbers.", "type": "array", "items": {}}
    codes = {"oneOf": [numbers, {"type": "object", "additionalProperties": numbers}]}
    given = {name: codes if name in ("codes", "direction") else numbers for name in verb.inputs}
    settings = {name: _in_json(dict(SETTINGS[name].schema)) for name in verb.settings}
    table: dict[str, Any] = {"type": "object", "properties": {**given, **settings}}
    if verb.inputs:
        table["required"] = [verb.inputs[0]]
    found: dict[str, Any] = {JSON: {"schema": table}}
    if verb.inputs:
        binary = {"schema": {"type": "string", "format": "binary"}}
        kinds = TYPES if "rows" in verb.inputs else (NPY, FORM)
        found |= {kind: binary for kind in kinds if kind not in (JSON, FORM)}
        parts = {name: {"type": "string", "format": "binary"} for name in verb.inputs}
        found[FORM] = {"schema": {"type": "object", "properties": parts}}
    return found


def _in_json(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a setting in a body, where lists are lists."""
    if "pattern" in schema:
        return {"type": "array", "items": {"type": "number"}}
    return schema


def _answers(name: str) -> dict[str, Any]:
    schemas: dict[str, Any] = {JSON: {"type": "object"}, LINES: {"type": "string"}}
    binary = {"type": "string", "format": "binary"}
    return {form: {"schema": schemas.get(form, binary)} for form in forms_of(name) if form != PNG or VERBS[name].rows}


def _refusals() -> dict[str, Any]:
    reference = {"$ref": "#/components/schemas/Problem"}
    return {
        str(status): {
            "description": ", ".join(sorted(code for code, known in PROBLEMS.items() if known[0] == status)),
            "content": {"application/problem+json": {"schema": reference}},
        }
        for status in STATUSES
    }
