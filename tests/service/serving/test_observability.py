"""What a live server tells: a collector of OpenTelemetry gets it, and the dashboard shows only what exists."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families
from servers import Server, serving, until

import lowerbound
from lowerbound.errors import UsageError
from lowerbound.service.serving.exporting import Export, headers_of
from lowerbound.service.serving.options import Options

DASHBOARD = Path(__file__).parents[3] / "deploy" / "grafana" / "dashboards" / "lowerbound.json"
NAME = re.compile(r"\blowerbound_\w+")


@pytest.fixture
def collector() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """The address of a collector, and what it got."""
    got: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", got
        server.shutdown()
        thread.join()


def expressions(dashboard: dict[str, Any]) -> list[str]:
    """All queries."""
    variables = [each["query"]["query"] for each in dashboard["templating"]["list"] if each["type"] == "query"]
    targets = [target for panel in dashboard["panels"] for target in panel.get("targets", [])]
    return [*(target["expr"] for target in targets), *variables]


def get(server: Server, path: str) -> str:
    with urllib.request.urlopen(server.url + path, timeout=20) as found:
        return found.read().decode()


@pytest.mark.slow
def test_a_collector_gets_spans_and_totals_and_the_dashboard_finds_its_series(
    registry: Path, digits: np.ndarray, collector: tuple[str, list[tuple[str, bytes]]], tmp_path: Path
) -> None:
    url, got = collector
    with serving(registry, "digits", "--telemetry", tmp_path / "telemetry", "--otlp", url) as server:
        with lowerbound.Client(server.url, tries=1) as client:
            client.encode("digits", digits[:3])
            client.reconstruct("digits", digits[:2])
            with pytest.raises(lowerbound.ServerError):
                client.encode("digits", np.zeros_like(digits[:1]))
        shown = get(server, "/metrics")
        assert until(lambda: "lowerbound_telemetry_rate_count" in get(server, "/metrics/telemetry"))
        totals = get(server, "/metrics/telemetry")
        assert server.end() == 0

    traces = [ExportTraceServiceRequest.FromString(body) for path, body in got if path == "/v1/traces"]
    spans = [span for each in traces for span in each.resource_spans[0].scope_spans[0].spans]
    assert [span.name for span in spans] == ["encode digits", "reconstruct digits", "encode digits"]
    last = ExportMetricsServiceRequest.FromString([body for path, body in got if path == "/v1/metrics"][-1])
    metrics = {one.name: one for one in last.resource_metrics[0].scope_metrics[0].metrics}
    assert sum(point.as_int for point in metrics["lowerbound.rows"].sum.data_points) == 6

    live = set()
    for text in (shown, totals):
        families = list(text_string_to_metric_families(text))
        assert families
        for family in families:
            live |= {family.name, *(sample.name for sample in family.samples)}
            live |= {f"{family.name}_total"} if family.type == "counter" else set()
    asked = {name for expression in expressions(json.loads(DASHBOARD.read_text())) for name in NAME.findall(expression)}
    assert len(asked) > 20
    assert asked <= live, sorted(asked - live)
    histograms = {name.removesuffix("_bucket") for name in live if name.endswith("_bucket")}
    assert histograms <= {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked}, "all of them are shown"


def test_the_dashboard_is_one() -> None:
    found = json.loads(DASHBOARD.read_text())
    again = json.loads(JSONEncoder().encode(Dashboard.from_json(found)))
    assert lost(found, again) == []
    panels = found["panels"]
    planted = {**found, "panels": [{**panels[1], "target": []}, *panels[2:]]}
    assert lost(planted, json.loads(JSONEncoder().encode(Dashboard.from_json(planted)))), "a key that Grafana has not"
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
        for target in panel.get("targets", []):
            assert target["datasource"]["uid"] == "${datasource}"
            assert set(re.findall(r"\$(\w+)", target["expr"])) <= {"model", "__rate_interval"}


def lost(sent: Any, back: Any, at: str = "") -> list[str]:
    """Where two trees differ."""
    if isinstance(sent, dict) and isinstance(back, dict):
        return [place for key in sent for place in lost(sent[key], back.get(key), f"{at}/{key}")]
    if isinstance(sent, list) and isinstance(back, list) and len(sent) == len(back):
        return [place for number, one in enumerate(sent) for place in lost(one, back[number], f"{at}/{number}")]
    return [] if sent == back else [at]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_prometheus_can_parse_every_query(tmp_path: Path) -> None:
    asked = [text for text in expressions(json.loads(DASHBOARD.read_text())) if not text.startswith("label_values")]
    plain = [text.replace("$__rate_interval", "1m").replace("$model", "digits") for text in asked]

    def check(queries: list[str]) -> int:
        rules = [{"record": f"query:{number}", "expr": text} for number, text in enumerate(queries)]
        path = tmp_path / "rules.yml"
        path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))  # JSON is YAML
        command = ["promtool", "check", "rules", str(path)]
        return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode

    assert check(plain) == 0
    assert check([*plain, "sum(rate(x[1m])"]) != 0


def test_wrong_use_of_the_export_is_said() -> None:
    with pytest.raises(UsageError, match="no telemetry"):
        Export(Options(("digits",), "", otlp="http://127.0.0.1:4318"))
    assert headers_of("key=a%20b, other=1") == {"key": "a b", "other": "1"}
    assert headers_of("") == {}
    with pytest.raises(UsageError, match="KEY=VALUE"):
        headers_of("key")
