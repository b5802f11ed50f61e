"""What a server refuses, each with a stable code (RFC 9457)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from types import MappingProxyType

from lowerbound.errors import LowerboundError

# Code: status and title. Codes are a promise to clients: add, never rename.
PROBLEMS: Mapping[str, tuple[int, str]] = MappingProxyType(
    {
        "bad-http": (400, "The bytes are no HTTP request"),
        "bad-json": (400, "The body is no JSON of the form that was expected"),
        "bad-array": (400, "The body is no whole .npy array of numbers"),
        "bad-form": (400, "The body is no whole multipart form"),
        "bad-setting": (400, "A setting has a value that it cannot have"),
        "bad-picture": (400, "The picture is damaged"),
        "truncated-picture": (400, "The picture ends too early"),
        "trailing-bytes": (400, "Bytes follow the end of the picture"),
        "not-confirmed": (400, "The request does not say that it is meant"),
        "digest-mismatch": (400, "The body is not what its digest says"),
        "empty-body": (400, "The body is empty"),
        "incomplete-body": (400, "The body ended before it was whole"),
        "no-key": (401, "A key is needed"),
        "wrong-role": (403, "The key has not the role for this"),
        "no-such-model": (404, "No model of this name is served"),
        "no-such-verb": (404, "Models have no such verb"),
        "no-such-page": (404, "There is nothing here"),
        "wrong-method": (405, "Another method is needed"),
        "not-acceptable": (406, "The answer has no form that was asked for"),
        "slow-body": (408, "The body came too slowly"),
        "body-too-large": (413, "The body is too large"),
        "too-many-pixels": (413, "The picture is too large once decoded"),
        "too-many-rows": (413, "Too many rows for one request"),
        "unsupported-type": (415, "The body has a type that is not read here"),
        "type-mismatch": (415, "The body is not of the type that it is said to be"),
        "animated-picture": (422, "The picture moves"),
        "black": (422, "The picture is black"),
        "colour": (422, "The colours are unlike those of the reference"),
        "flat": (422, "The picture is flat"),
        "latent-norm": (422, "The code is farther out than those of the reference"),
        "not-finite": (422, "A value is not a finite number"),
        "not-finite-answer": (422, "The model has no finite answer to these codes"),
        "not-supported": (422, "This model cannot do this"),
        "out-of-range": (422, "A value is outside of the model's range"),
        "wrong-channels": (422, "The picture has other channels than the model's"),
        "wrong-shape": (422, "The array has another shape than the model's"),
        "wrong-size": (422, "The picture has another size than the model's"),
        "moved": (409, "The alias is not where it was believed to be"),
        "no-way-back": (409, "The version cannot be rolled back"),
        "overloaded": (429, "More work is waiting than can be done in time"),
        "rate-limited": (429, "The key has used up its rate"),
        "client-gone": (499, "The client went away"),
        "engine-failed": (500, "The engine failed"),
        "engine-not-finite": (500, "The engine gave no finite answer"),
        "internal": (500, "The server failed in a way that was not foreseen"),
        "not-ready": (503, "The server is not ready"),
        "deadline-passed": (504, "The deadline passed before the answer was there"),
    }
)


class RefusedError(LowerboundError):
    """A request that gets a problem instead of an answer.

    Args:
        code: of `PROBLEMS`.
        detail: one sentence for a person: what was given, what was expected.
        headers: of the answer, beside the usual ones.
    """

    def __init__(self, code: str, detail: str, headers: Mapping[str, str] = MappingProxyType({})) -> None:
        super().__init__(detail)
        self.code, self.detail, self.headers = code, detail, headers
        self.status, self.title = PROBLEMS[code]

    def body(self, request_id: str) -> bytes:
        """The problem as JSON."""
        return json.dumps(
            {
                "type": f"urn:lowerbound:problem:{self.code}",
                "title": self.title,
                "status": self.status,
                "detail": self.detail,
                "code": self.code,
                "instance": f"urn:lowerbound:request:{request_id}",
            }
        ).encode()


def busy(code: str, detail: str, wait_s: float) -> RefusedError:
    """A refusal of work for now, with the time after which to come back, whole seconds."""
    return RefusedError(code, detail, {"retry-after": str(max(1, math.ceil(wait_s)))})
