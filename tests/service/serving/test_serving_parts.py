"""Parts of the server by themselves: pictures, keys, metrics, incidents, settings, latencies."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import socket
import stat
import struct
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lowerbound.errors import NotSupportedError, UsageError
from lowerbound.model.build import build_model
from lowerbound.model.spec import DataSpec
from lowerbound.service.monitoring.incidents import Incidents as KeptIncidents
from lowerbound.service.registry.registry import Registry
from lowerbound.service.serving.arrays import read_npy, to_json, write_npy
from lowerbound.service.serving.contract import Contract
from lowerbound.service.serving.gate import Incident, Incidents, keep
from lowerbound.service.serving.keys import Keys, make_key
from lowerbound.service.serving.metrics import Metrics, leave, merged
from lowerbound.service.serving.options import Options
from lowerbound.service.serving.pictures import read_picture, tiled, write_png
from lowerbound.service.serving.problems import RefusedError
from lowerbound.service.serving.recorder import LatencyWatch
from lowerbound.service.serving.settings import read_settings
from lowerbound.service.serving.supervisor import Supervisor, listen, take_no_more
from lowerbound.service.serving.writing import chosen, forms_of

EVENT = (3, 12, 10)
PIXELS = np.random.default_rng(0).integers(0, 255, (12, 10, 3), np.uint8)


def saved(kind: str, pixels: np.ndarray = PIXELS, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=kind, **options)
    return buffer.getvalue()


def refused(body: bytes, kind: str = "image/png", event: tuple[int, ...] = EVENT) -> str:
    with pytest.raises(RefusedError) as found:
        read_picture(body, kind, event)
    return found.value.code


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_chunk(body: bytes, extra: bytes) -> bytes:
    return body[:33] + extra + body[33:]


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True})])
def test_lossless_pictures_are_read_exactly(kind: str, options: dict) -> None:
    found = read_picture(saved(kind, **options), f"image/{kind.lower()}", EVENT)
    np.testing.assert_array_equal(found, PIXELS.transpose(2, 0, 1))


def test_grey_pictures_in_colour_formats_are_grey() -> None:
    grey = np.repeat(PIXELS[:, :, :1], 3, axis=2)
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True})):
        found = read_picture(saved(kind, grey, **options), f"image/{kind.lower()}", (1, 12, 10))
        np.testing.assert_array_equal(found[0], grey[:, :, 0])
    assert refused(saved("PNG"), event=(1, 12, 10)) == "wrong-channels"
    assert refused(saved("PNG", PIXELS[:, :, 0]), event=EVENT) == "wrong-channels"


def test_every_flipped_bit_of_a_png_is_noticed() -> None:
    body = saved("PNG")
    for place in range(0, 8 * len(body), 7):
        broken = bytearray(body)
        broken[place // 8] ^= 1 << place % 8
        assert refused(bytes(broken))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_every_truncation_and_every_appendix_is_noticed(kind: str) -> None:
    body, name = saved(kind), f"image/{kind.lower()}"
    for length in range(len(body)):
        assert refused(body[:length], name)
    for extra in (b"x" * 2, b"PK\x03\x04" + bytes(30), b"<script>" * 3):
        assert refused(body + extra, name) == "trailing-bytes"


def test_bombs_are_refused_by_what_they_say_before_they_are_unpacked() -> None:
    body = saved("PNG")
    huge = chunk(b"IHDR", struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0))
    assert refused(body[:8] + huge + body[33:]) == "too-many-pixels"
    wide = chunk(b"IHDR", struct.pack(">IIBBBBB", 4_000, 3_000, 8, 2, 0, 0, 0))
    assert refused(body[:8] + wide + body[33:]) == "wrong-size"
    webp = bytearray(saved("WEBP", lossless=True))
    webp[21:25] = struct.pack("<I", (16382 & 0x3FFF) | (16382 << 14))
    assert refused(bytes(webp), "image/webp") == "too-many-pixels"
    packed = with_chunk(body, chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(50_000_000))) * 20)
    start = time.perf_counter()
    np.testing.assert_array_equal(read_picture(packed, "image/png", EVENT), PIXELS.transpose(2, 0, 1))
    assert time.perf_counter() - start < 5, "text is not unpacked"


def test_odd_pictures_are_refused() -> None:
    assert refused(with_chunk(saved("PNG"), chunk(b"acTL", bytes(8)))) == "animated-picture"
    assert refused(saved("PNG", PIXELS[:, :, 0].astype(np.uint16) * 257)) in ("wrong-channels", "wrong-size")
    moving = io.BytesIO()
    frames = [Image.fromarray(PIXELS), Image.fromarray(255 - PIXELS)]
    frames[0].save(moving, format="WEBP", save_all=True, append_images=frames[1:])
    assert refused(moving.getvalue(), "image/webp") == "animated-picture"
    assert refused(saved("PNG"), "image/jpeg") == "type-mismatch"
    assert refused(b"%PDF-1.4" + saved("PNG")) == "type-mismatch"
    jpeg = saved("JPEG")
    assert (
        refused(jpeg[:-2] + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" * 100 + b"\xff\xd9", "image/jpeg")
        == "bad-picture"
    )


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400), st.sampled_from(["PNG", "JPEG", "WEBP"]), st.integers(0, 60))
def test_any_bytes_give_pixels_or_a_reason(noise: bytes, kind: str, kept: int) -> None:
    body = saved(kind)[:kept] + noise
    try:
        found = read_picture(body, f"image/{kind.lower()}", EVENT)
    except RefusedError:
        return
    assert found.shape == EVENT


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 130))
def test_any_bytes_give_an_array_or_a_reason(noise: bytes, kept: int) -> None:
    with contextlib.suppress(RefusedError):
        read_npy(write_npy(PIXELS)[:kept] + noise)


def test_arrays_come_back_as_they_were() -> None:
    for array in (PIXELS, PIXELS.astype(">f4"), np.asfortranarray(PIXELS.astype(np.float64)), np.zeros((0, 3))):
        np.testing.assert_array_equal(read_npy(write_npy(np.ascontiguousarray(array))), array)
        buffer = io.BytesIO()
        np.save(buffer, array)
        np.testing.assert_array_equal(read_npy(buffer.getvalue()), array)
    assert json.loads(to_json({"x": np.array([1.0, np.nan, np.inf])})) == {"x": [1.0, None, None]}


def test_tiles() -> None:
    grid = tiled(np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1) + 1, 2)
    np.testing.assert_array_equal(grid, [[1, 2], [3, 0]])
    with Image.open(io.BytesIO(write_png(grid))) as image:
        np.testing.assert_array_equal(np.asarray(image), grid)


def test_accept() -> None:
    class Contract:
        latents, pictures = {"z": (3,)}, True

    found = {
        text: chosen(text, "reconstruct", Contract())  # type: ignore[arg-type]
        for text in ("", "*/*", "image/*", "text/html, image/png;q=0.5", "application/json;q=0.1, application/x-npy")
    }
    assert list(found.values()) == [
        "application/json",
        "application/json",
        "image/png",
        "image/png",
        "application/x-npy",
    ]
    assert "image/png" not in forms_of("score")
    with pytest.raises(RefusedError, match="none was asked"):
        chosen("image/png", "encode", Contract())  # type: ignore[arg-type]


def test_settings_are_read_or_refused() -> None:
    found = read_settings("traverse", "units=0,3&steps=5&reach=2.5")
    assert (found.units, found.steps, found.reach) == ((0, 3), 5, 2.5)
    for query in ("steps=1", "steps=x", "steps=1e3", "units=", "units=-1", "seed=3", "steps=%ff", "reach=nan"):
        with pytest.raises(RefusedError) as refused_:
            read_settings("traverse", query)
        assert refused_.value.code == "bad-setting", query


def test_keys_are_kept_as_hashes_and_spent(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    key, boss = make_key(path, "cam1", "use", 2.0), make_key(path, "ops", "operate", 0.0)
    assert key.split("_", 2)[2] not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(UsageError, match="is there already"):
        make_key(path, "cam1", "use", 1.0)
    keys = Keys(path)
    found = keys.check(key)
    assert found is not None
    assert keys.check(boss, "operate") is not None
    for wrong, role, code in ((key[:-1], "use", "no-key"), ("", "use", "no-key"), (key, "operate", "wrong-role")):
        with pytest.raises(RefusedError) as refused_:
            keys.check(wrong, role)  # type: ignore[arg-type]
        assert refused_.value.code == code
    keys.spend(found)
    keys.spend(found)
    with pytest.raises(RefusedError) as spent:
        keys.spend(found)
    assert (spent.value.code, spent.value.headers["retry-after"]) == ("rate-limited", "1")
    path.write_text("".join(line + "\n" for line in path.read_text().splitlines() if '"cam1"' not in line))
    keys.refresh()
    with pytest.raises(RefusedError):
        keys.check(key)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux filters packets of a listening socket")
def test_who_comes_during_the_end_is_refused_and_never_reset() -> None:
    listener = listen("127.0.0.1", 0)
    address = listener.getsockname()
    early = socket.create_connection(address, timeout=5)
    take_no_more(listener)
    with ThreadPoolExecutor() as pool:
        late = pool.submit(socket.create_connection, address, timeout=5)
        time.sleep(0.1)
        assert not late.done()
        taken, _ = listener.accept()
        with pytest.raises(BlockingIOError):
            listener.accept()
        listener.close()
        with pytest.raises(ConnectionRefusedError):
            late.result()
    for word in (b"what was connected", b"stays so"):
        early.sendall(word)
        assert taken.recv(64) == word
    early.close()
    taken.close()


def test_without_keys_only_the_loopback_is_listened_on() -> None:
    with pytest.raises(UsageError, match="no keys are given"):
        Supervisor(Options(("x",), "registry", host="0.0.0.0"), lambda _: None)


def test_metrics_of_several_processes_are_added(tmp_path: Path) -> None:
    one, other = Metrics(), Metrics()
    for metrics, times in ((one, 3), (other, 4)):
        for _ in range(times):
            metrics.request(("m", "1", "encode", ""), (0.004, 0.001, 0.0, 0.002))
        metrics.set("workers", 1)
        metrics.batches([1, 20])
    leave(tmp_path / "1.prom", other.text())
    text = merged(one.text(), [tmp_path / "1.prom", tmp_path / "gone.prom"]).decode()
    assert 'lowerbound_requests_total{model="m",reason="",verb="encode",version="1"} 7.0' in text
    assert 'lowerbound_request_seconds_bucket{le="0.005"} 7.0' in text
    assert 'lowerbound_request_seconds_bucket{le="0.0025"} 0.0' in text
    assert "lowerbound_batch_rows_count 4.0" in text
    assert "lowerbound_workers 2.0" in text


def test_many_flat_pictures_are_an_incident_and_few_are_none() -> None:
    told: list[dict] = []
    incidents = Incidents(lambda incident: told.append(incident.describe()))
    for index in range(3000):
        incidents.note("m", index % 100 == 0)
    assert told == [], "1 % is allowed"
    for index in range(1000):
        incidents.note("m", index % 50 == 0)
    assert [record["incident"] for record in told] == ["flat-inputs"]
    assert told[0]["closed"] is None
    for _ in range(1000):
        incidents.note("m", False)
    assert len(told) == 2
    assert told[1]["closed"] is not None
    assert not incidents.open


def test_the_gate_closes_only_an_incident_that_is_all_its_own(registry: Path, tmp_path: Path) -> None:
    version, kept = Registry(registry).resolve("digits:1"), KeptIncidents(tmp_path)
    opened = Incident("digits:1", opened=100.0, flat=11)
    keep(opened, version, tmp_path)
    keep(replace(opened, closed=200.0), version, tmp_path)
    keep(replace(opened, opened=300.0), version, tmp_path)
    kept.raise_alerts("digits", version.hash, ("drift-latent",), 350.0, "Units moved.")
    keep(replace(opened, closed=400.0), version, tmp_path)
    assert [(one.closed, one.alerts) for one in kept.all("digits")] == [
        (200.0, ("flat-inputs",)),
        (None, ("flat-inputs", "drift-latent")),
    ]


def test_a_model_of_texts_is_not_taken_for_one_of_labels() -> None:
    table = {"kind": "described", "inner": {"kind": "density", "density": {"kind": "flow"}}}
    model = build_model(table, DataSpec((2,), None, 3, words=("", "red", "blue"), contexts="texts"), 0)
    with pytest.raises(NotSupportedError, match="--context"):
        Contract.of(model, ())


def test_slow_answers_alert_with_advice_after_some_windows(caplog: pytest.LogCaptureFixture) -> None:
    watch = LatencyWatch(limit_s=0.05, window_s=0.0, windows=3)
    with caplog.at_level(logging.INFO, "lowerbound.serving"):
        for window in range(3):
            assert not watch.alerting
            for _ in range(100):
                watch.note(0.2, 0.18, 0.0, 0.01)
            watch.look()
            assert watch.alerting == (window == 2)
        for _ in range(100):
            watch.note(0.01, 0.0, 0.0, 0.01)
        watch.look()
    assert not watch.alerting
    assert "add workers" in caplog.text
    assert "200.0 ms" in caplog.text
