"""What the server's telemetry knows, sent to a collector of OpenTelemetry now and then."""

from __future__ import annotations

import logging
import os
from urllib.parse import unquote

from lowerbound.errors import LowerboundError, UsageError
from lowerbound.service.monitoring.telemetry.otlp import OtlpExporter
from lowerbound.service.monitoring.telemetry.periodic import Periodic
from lowerbound.service.monitoring.telemetry.spans import SpanExporter
from lowerbound.service.serving.options import Options

HEADERS = "OTEL_EXPORTER_OTLP_HEADERS"  # of OpenTelemetry: KEY=VALUE, separated by commas, values percent-encoded
EVERY_S = 10.0
logger = logging.getLogger("lowerbound.serving")


class Export:
    """Sends totals and spans every 10 s, and once more when it is closed.

    The store has what all processes of the server wrote, so one of them sends it.

    Args:
        options: that name a collector.

    Raises:
        UsageError: there is no telemetry to send, opentelemetry-proto is not installed, or the headers are none.
    """

    def __init__(self, options: Options) -> None:
        if not options.telemetry:
            raise UsageError(
                f"--otlp {options.otlp} was given, but there is no telemetry to send; take --no-telemetry away."
            )
        headers = headers_of(os.environ.get(HEADERS, ""))
        self._totals = OtlpExporter(options.telemetry, options.otlp, headers=headers)
        self._spans = SpanExporter(options.telemetry, options.otlp, headers=headers)
        self._periodic = Periodic("the export to OpenTelemetry", self._push, EVERY_S)

    def close(self) -> None:
        """End, with what is new since the last time; the store is written no more."""
        self._periodic.close()
        try:
            self._push()
        except LowerboundError as error:
            logger.warning("the last export to OpenTelemetry failed: %s", error)

    def _push(self) -> None:
        self._totals.push()
        self._spans.push()


def headers_of(text: str) -> dict[str, str]:
    """Headers from `KEY=VALUE,KEY=VALUE`.

    Raises:
        UsageError: a part has no `=`.
    """
    found = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, equals, value = part.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"${HEADERS} has a part without a name or without `=`; write KEY=VALUE,KEY=VALUE.")
        found[name.strip()] = unquote(value.strip())
    return found
