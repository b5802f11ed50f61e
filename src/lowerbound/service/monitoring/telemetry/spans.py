"""Requests as spans for a collector of OpenTelemetry, by OTLP over HTTP with protobuf."""

from __future__ import annotations

import hashlib
from itertools import groupby
from pathlib import Path
from typing import Any

from lowerbound.extras import need
from lowerbound.service.monitoring.telemetry.database import LABELS, NUMBERS
from lowerbound.service.monitoring.telemetry.otlp import WHAT, label
from lowerbound.service.monitoring.telemetry.post import post
from lowerbound.service.monitoring.telemetry.unsent import send_new

CURSOR = "spans"
BATCH = 2000  # rows of one message
SERVER_ERROR = 500


class SpanExporter:
    """Sends one span for each request that was not sent yet, with what is known of its first row.

    The trace's id is the beginning of the SHA-256 of the request's id, so who has an answer's `x-request-id` finds its
    span. A shadow's span is in the same trace. Where the time went stands in `lowerbound.queue_s` and
    `lowerbound.compute_s`.

    Args:
        folder: of the store.
        url: of the collector, such as http://127.0.0.1:4318; `/v1/traces` is added.
        headers: for the collector, such as its key.
        timeout_s: of one message.

    Raises:
        UsageError: opentelemetry-proto is not installed.
    """

    def __init__(
        self, folder: Path | str, url: str, *, headers: dict[str, str] | None = None, timeout_s: float = 10.0
    ) -> None:
        self._service = need("opentelemetry.proto.collector.trace.v1.trace_service_pb2", "otlp", WHAT)
        self._trace = need("opentelemetry.proto.trace.v1.trace_pb2", "otlp", WHAT)
        self._folder, self._url, self._timeout_s = Path(folder), f"{url.rstrip('/')}/v1/traces", timeout_s
        self._headers = {"Content-Type": "application/x-protobuf", **(headers or {})}

    def push(self) -> int:
        """Send what is new; how many rows it was.

        Raises:
            UsageError: the collector refused it.
            NotSavedError: it could not be reached; what it did not take is sent at the next call.
        """
        return send_new(self._folder, f"{CURSOR} {self._url}", BATCH, self._send)

    def _send(self, facts: list[dict[str, Any]], skipped: int) -> None:
        request = self._service.ExportTraceServiceRequest()
        resource = request.resource_spans.add()
        label(resource.resource, {"service.name": "lowerbound"})
        scope = resource.scope_spans.add()
        scope.scope.name = "lowerbound.serving"
        for _, rows in groupby(facts, lambda fact: (fact["request"], fact["alias"])):
            self._add(scope.spans.add(), list(rows))
        post(self._url, request.SerializeToString(), self._headers, self._timeout_s)

    def _add(self, span: Any, rows: list[dict[str, Any]]) -> None:
        fact = rows[0]
        trace = hashlib.sha256(fact["request"].encode(errors="replace")).digest()
        span.trace_id, span.span_id = trace[:16], hashlib.sha256(trace + fact["alias"].encode()).digest()[:8]
        span.name = f"{fact['verb'] or 'request'} {fact['model']}".strip()
        span.kind = self._trace.Span.SPAN_KIND_SERVER
        span.end_time_unix_nano = round(fact["time"] * 1e9)
        span.start_time_unix_nano = round((fact["time"] - (fact["total_s"] or 0.0)) * 1e9)
        named = {f"lowerbound.{name}": str(fact[name]) for name in LABELS if name != "status" and fact[name]}
        label(span, {"lowerbound.request": fact["request"], **named})
        span.attributes.add(key="http.response.status_code").value.int_value = fact["status"]
        span.attributes.add(key="lowerbound.rows").value.int_value = len(rows)
        for name in NUMBERS:
            if fact[name] is not None:
                span.attributes.add(key=f"lowerbound.{name}").value.double_value = fact[name]
        if fact["status"] >= SERVER_ERROR:
            span.status.code, span.status.message = self._trace.Status.STATUS_CODE_ERROR, fact["reason"]
