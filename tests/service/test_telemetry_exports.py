"""Exporters of telemetry against real servers on loopback; those that are not installed are skipped with a reason."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from made_facts import NOW, fact
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from lowerbound.errors import NotSavedError, UsageError
from lowerbound.service.monitoring.telemetry.fact import Fact
from lowerbound.service.monitoring.telemetry.history import Choice, History
from lowerbound.service.monitoring.telemetry.housekeeping import Retention, tidy
from lowerbound.service.monitoring.telemetry.influx import InfluxExporter, line
from lowerbound.service.monitoring.telemetry.otlp import OtlpExporter
from lowerbound.service.monitoring.telemetry.periodic import Periodic
from lowerbound.service.monitoring.telemetry.prometheus import prometheus_text
from lowerbound.service.monitoring.telemetry.spans import SpanExporter
from lowerbound.service.monitoring.telemetry.store import Telemetry

START_S = 60


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Three hundred rows; some of odd names, some refused, some lost."""
    folder = tmp_path / "store"
    with Telemetry(folder, most_rows=300) as telemetry:
        for index in range(300):
            odd = {"model": 'a, "b"=c\\', "request": 'say "x"\\'} if index % 10 == 0 else {}
            bad = {"status": 422, "reason": "flat-image", "error": None} if index % 7 == 0 else {}
            assert telemetry(fact(index, time=NOW + index // 3, **(odd | bad)))
        telemetry.flush()
        for _ in range(3):
            telemetry(fact(0, time=-1.0))
    return folder


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def get(url: str, **query: str) -> Any:
    with urllib.request.urlopen(f"{url}?{urllib.parse.urlencode(query)}", timeout=10) as answer:
        return json.loads(answer.read() or b"{}")


@contextmanager
def running(command: list[str], ready: str, folder: Path) -> Iterator[None]:
    """A server in a process of its own, until it answers at `ready`; it is ended afterwards."""
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
    try:
        for _ in range(START_S * 10):
            if server.poll() is not None:
                break
            try:
                urllib.request.urlopen(ready, timeout=5).close()
            except OSError:
                time.sleep(0.1)
            else:
                yield
                return
        pytest.fail(f"{command[0]} did not start: {(folder / 'server.log').read_text()[-2000:]}")
    finally:
        server.kill()
        server.wait(30)


@contextmanager
def answering(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """An HTTP server in this process; yields its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


# ---------------------------------------------------------------------------------------------------- InfluxDB

INFLUX = """
reporting-disabled = true
bind-address = "127.0.0.1:{rpc}"
[meta]
  dir = "meta"
[data]
  dir = "data"
  wal-dir = "wal"
[http]
  bind-address = "127.0.0.1:{port}"
[monitor]
  store-enabled = false
"""


@pytest.mark.skipif(shutil.which("influxd") is None, reason="influxd is not installed (Debian: influxdb)")
def test_influxdb_takes_every_row_once(store: Path, tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "influx.conf").write_text(INFLUX.format(port=port, rpc=free_port()))
    url = f"http://127.0.0.1:{port}"
    exporter = InfluxExporter(store, url, "watch", batch=70)
    with pytest.raises(NotSavedError, match="could not be reached"):
        exporter.push()
    with running(["influxd", "-config", "influx.conf"], f"{url}/ping", tmp_path):
        with pytest.raises(UsageError, match="refused telemetry"):
            exporter.push()  # there is no such database
        create = urllib.parse.urlencode({"q": "CREATE DATABASE watch"}).encode()
        urllib.request.urlopen(f"{url}/query", create, timeout=10).close()
        assert exporter.push() == 300
        assert InfluxExporter(store, url, "watch").push() == 0  # where it stopped is known
        with Telemetry(store) as telemetry:
            telemetry(fact(1000))
        assert exporter.push() == 1
        assert exporter.skipped == 0

        def ask(query: str) -> Any:
            return get(f"{url}/query", db="watch", q=query)["results"][0]["series"]

        assert ask('SELECT count("rate") FROM lowerbound')[0]["values"][0][1] == 301
        window = History(store).window(Choice(model="digits"))
        errors = window.error[window.error == window.error]
        total = ask("SELECT sum(error), count(error) FROM lowerbound WHERE model = 'digits'")[0]["values"][0]
        assert total[1:] == [pytest.approx(errors.sum()), len(errors)]
        models = {group["tags"]["model"] for group in ask("SELECT count(row) FROM lowerbound GROUP BY model")}
        assert models == {"digits", 'a, "b"=c\\_'}
        odd = ask("SELECT first(request) FROM lowerbound WHERE model != 'digits'")[0]["values"][0][1]
        assert odd == 'say "x"\\'
        refused = ask("SELECT count(row) FROM lowerbound WHERE status = '422'")[0]["values"][0][1]
        assert refused == (History(store).window().status == 422).sum()


def test_lines_cannot_be_broken_by_what_clients_send(store: Path) -> None:
    facts = History(store).after(0, 1)
    text = line(facts[0] | {"model": "a\nb,c=d e", "request": 'x" 1\ny', "error": float("inf"), "rate": 1.5})
    assert text.startswith("lowerbound,model=a_b\\,c\\=d\\ e,")
    assert "error=" not in text
    assert "rate=1.5" in text
    stamps = [line(one).rsplit(" ", 1)[1] for one in History(store).after(0, 300)]
    assert len(set(stamps)) == 300


def test_rows_that_moved_before_they_were_sent_are_counted(store: Path) -> None:
    class Taking(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    done = tidy(store, Retention(hot_hours=50 / 3600), NOW + 100)
    assert done is not None
    with answering(Taking) as url:
        exporter = InfluxExporter(store, url, "watch", token="secret")
        assert exporter.push() == 300 - done.moved
    assert exporter.skipped == done.moved > 0


# ---------------------------------------------------------------------------------------------------- Prometheus


def test_the_text_for_prometheus_has_the_totals(store: Path) -> None:
    text = prometheus_text(store).decode()
    counts = [line for line in text.splitlines() if line.startswith("lowerbound_telemetry_rows_total{")]
    assert sum(float(line.rsplit(" ", 1)[1]) for line in counts) == 300
    assert 'lowerbound_telemetry_lost_rows_total{cause="bad"} 3.0' in text
    assert "lowerbound_telemetry_total_seconds_bucket" in text


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed (Debian: prometheus)")
def test_prometheus_scrapes_it(store: Path, tmp_path: Path) -> None:
    class Metrics(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = prometheus_text(store)
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with answering(Metrics) as target:
        jobs = [{"job_name": "lowerbound", "static_configs": [{"targets": [target.removeprefix("http://")]}]}]
        settings = {"global": {"scrape_interval": "1s"}, "scrape_configs": jobs}
        (tmp_path / "prometheus.yml").write_text(json.dumps(settings))  # JSON is YAML
        url = f"http://127.0.0.1:{free_port()}"
        command = ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data"]
        command.append(f"--web.listen-address={url.removeprefix('http://')}")
        with running(command, f"{url}/-/ready", tmp_path):

            def ask(query: str) -> Any:
                for _ in range(200):
                    found = get(f"{url}/api/v1/query", query=query)["data"]["result"]
                    if found:
                        return found
                    time.sleep(0.1)
                pytest.fail(f"{query} found nothing")

            assert float(ask("sum(lowerbound_telemetry_rows_total)")[0]["value"][1]) == 300
            assert float(ask('sum(lowerbound_telemetry_rows_total{status="422"})')[0]["value"][1]) == 43
            assert float(ask("sum(lowerbound_telemetry_rate_count)")[0]["value"][1]) == 300
            half = ask("histogram_quantile(0.5, sum by (le) (lowerbound_telemetry_total_seconds_bucket))")
            assert 0.002 <= float(half[0]["value"][1]) <= 0.005  # all of them took 4 ms
            names = {one["metric"]["model"] for one in ask("count by (model) (lowerbound_telemetry_rows_total)")}
            assert names == {"digits", 'a, "b"=c\\'}


# ---------------------------------------------------------------------------------------------------- OTLP


def test_a_collector_of_opentelemetry_gets_sums_and_histograms(store: Path) -> None:
    got: list[tuple[str, str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append((self.path, self.headers["Content-Type"], self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(503 if len(got) == 1 else 200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with answering(Collector) as url:
        exporter = OtlpExporter(store, url, headers={"x-key": "secret"})
        with pytest.raises(NotSavedError, match="503"):
            exporter.push()
        assert exporter.push() == len(History(store).totals())
    path, kind, body = got[1]
    assert (path, kind) == ("/v1/metrics", "application/x-protobuf")
    request = ExportMetricsServiceRequest.FromString(body)
    metrics = {one.name: one for one in request.resource_metrics[0].scope_metrics[0].metrics}
    assert sum(point.as_int for point in metrics["lowerbound.rows"].sum.data_points) == 300
    assert metrics["lowerbound.rows"].sum.is_monotonic
    lost = metrics["lowerbound.lost_rows"].sum.data_points
    assert [(point.attributes[0].value.string_value, point.as_int) for point in lost] == [("bad", 3)]
    for point in metrics["lowerbound.total_s"].histogram.data_points:
        assert sum(point.bucket_counts) == point.count
        assert len(point.bucket_counts) == len(point.explicit_bounds) + 1
        assert point.sum == pytest.approx(0.004 * point.count)
        assert point.start_time_unix_nano < point.time_unix_nano
    labels = {one.key: one.value.string_value for one in metrics["lowerbound.rows"].sum.data_points[0].attributes}
    assert set(labels) == {"model", "version", "alias", "verb", "status", "reason", "gate"}


def test_exports_go_on_after_a_failure() -> None:
    calls = threading.Semaphore(0)
    fail = [True]

    def push() -> None:
        calls.release()
        if fail[0]:
            raise NotSavedError("not now.")

    with Periodic("export", push, 0.005) as periodic:
        for _ in range(3):
            assert calls.acquire(timeout=30)
        assert periodic.failures >= 2
        fail[0] = False
        for _ in range(3):
            assert calls.acquire(timeout=30)
        assert periodic.failures == 0


def test_addresses_that_are_none_are_refused(store: Path) -> None:
    with pytest.raises(UsageError, match="begins with http"):
        InfluxExporter(store, "file:///etc", "x").push()


def test_a_collector_gets_one_span_for_each_request_once(tmp_path: Path) -> None:
    answers, got = [200, 503, 200], []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status = answers.pop(0)
            if status == 200:
                got.append((self.path, ExportTraceServiceRequest.FromString(body)))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    ordinary = {"model": "digits", "version": "1f0c", "alias": "stable", "verb": "encode"}
    first = [Fact(1000.5, "one", **ordinary, row=row, rate=2.0, total_s=0.25, queue_s=0.125) for row in range(3)]
    shadow = Fact(1000.6, "one", **{**ordinary, "alias": "shadow", "version": "9a9a"}, rate=3.0)
    failed = Fact(1001.0, "two", **ordinary, status=500, reason="engine-failed", total_s=1.0)
    with Telemetry(tmp_path) as telemetry, answering(Collector) as url:
        exporter = SpanExporter(tmp_path, url)
        for fact in (*first, shadow):
            telemetry(fact)
        assert telemetry.flush()
        assert exporter.push() == 4
        assert exporter.push() == 0
        telemetry(failed)
        assert telemetry.flush()
        with pytest.raises(NotSavedError, match="503"):
            exporter.push()
        assert exporter.push() == 1
    assert [path for path, _ in got] == ["/v1/traces", "/v1/traces"]
    spans = [span for _, request in got for span in request.resource_spans[0].scope_spans[0].spans]
    one, beside, two = spans
    assert one.trace_id == beside.trace_id == hashlib.sha256(b"one").digest()[:16] != two.trace_id
    assert one.span_id != beside.span_id
    assert one.end_time_unix_nano - one.start_time_unix_nano == 250_000_000
    assert (one.name, one.kind, one.status.code) == ("encode digits", Span.SPAN_KIND_SERVER, 0)
    said = {each.key: each.value for each in one.attributes}
    assert said["lowerbound.rows"].int_value == 3
    assert said["lowerbound.queue_s"].double_value == 0.125
    assert said["lowerbound.request"].string_value == "one"
    assert "lowerbound.norm" not in said, "which is not known"
    assert (two.status.code, two.status.message) == (Status.STATUS_CODE_ERROR, "engine-failed")
