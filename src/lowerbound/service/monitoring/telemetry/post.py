"""Sending bytes to a server of measurements."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Mapping

from lowerbound.errors import NotSavedError, UsageError


def post(url: str, body: bytes, headers: Mapping[str, str], timeout_s: float) -> None:
    """Send a POST request.

    Raises:
        UsageError: the server refused it as wrong, so that trying again does not help.
        NotSavedError: it could not be reached, or failed.
    """
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"{url} was given to export to; give an address that begins with http:// or https://.")
    request = urllib.request.Request(url, body, dict(headers), method="POST")
    try:
        with urllib.request.urlopen(request, timeout=timeout_s):
            pass
    except urllib.error.HTTPError as error:
        with error:
            said = error.read(300).decode(errors="replace").strip()
        if error.code < 500 and error.code != 429:
            raise UsageError(
                f"{url} refused telemetry ({error.code} {said}); check the address and its rights."
            ) from None
        raise NotSavedError(f"{url} did not take telemetry ({error.code} {said}); it will have it later.") from None
    except OSError as error:
        raise NotSavedError(f"{url} could not be reached ({error}); it will have the telemetry later.") from None
