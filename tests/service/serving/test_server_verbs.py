"""The verbs, over real connections: by curl, by the client and by hand; compared with the library."""

from __future__ import annotations

import base64
import io
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from servers import Server, post, raw, until
from sklearn.datasets import load_digits

import lowerbound
from conftest import LEVEL
from lowerbound.lab.facts import Facts, facts_of
from lowerbound.service.client import ServerError
from lowerbound.service.monitoring.telemetry.history import Choice, History
from lowerbound.service.registry.registry import Registry
from lowerbound.service.serving.arrays import write_npy


def picture(row: np.ndarray, format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.rint(row[0] * (255 / 16)).astype(np.uint8)).save(buffer, format=format, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def model(registry: Path) -> lowerbound.model.families.family.Family:  # type: ignore[name-defined]
    return lowerbound.load(Registry(registry).resolve("digits").path)


@pytest.fixture(scope="module")
def client(server: Server) -> lowerbound.Client:
    return server.client()


def test_encode_decode_reconstruct_and_score_are_those_of_the_library(client, model, digits) -> None:
    rows = digits[:20]
    known = facts_of(Facts(model), torch.from_numpy(rows))
    found = client.facts("digits", rows)
    np.testing.assert_allclose(found["codes"]["z"], known["z"], atol=1e-4)
    np.testing.assert_allclose(found["rate"], known["rate"], atol=1e-3)
    np.testing.assert_allclose(client.reconstruct("digits", rows), known["reconstruction"], atol=1e-3)
    decoded = client.decode("digits", client.encode("digits", rows))
    np.testing.assert_allclose(decoded, known["reconstruction"], atol=1e-3)
    np.testing.assert_allclose(client.score("digits", rows)["error"], known["error"], atol=1e-2)


def test_scores_are_those_of_the_reference(client, registry: Path, model, digits) -> None:
    version = Registry(registry).resolve("digits")
    reference, rows = version.calibration(), digits[:20]
    scores = reference.score(facts_of(Facts(model), torch.from_numpy(rows)))
    p_values = torch.stack([reference.p_value(name, values) for name, values in scores.items()])
    found = client.score("digits", rows)
    np.testing.assert_allclose(found["norm"], scores["norm"], rtol=1e-4)
    np.testing.assert_allclose(found["p_value"], (len(scores) * p_values.amin(dim=0)).clamp_max(1), atol=0.03)
    limit = reference.limit("norm", LEVEL).high
    np.testing.assert_array_equal(found["beyond"], scores["norm"].numpy() > limit)


def test_an_answer_does_not_depend_on_batch_mates(client, digits) -> None:
    together = client.encode("digits", digits[:64])
    for row in (0, 7, 63):
        np.testing.assert_allclose(client.encode("digits", digits[row : row + 1])[0], together[row], atol=1e-5)


def test_samples_are_those_of_the_library_and_of_their_seed(client, model) -> None:
    found = client.sample("digits", count=5, seed=11, temperature=0.5)
    np.testing.assert_allclose(found, lowerbound.sample(model, 5, 11, temperature=0.5), atol=1e-4)
    again = client.sample("digits", count=3, seed=11, temperature=0.5)
    np.testing.assert_allclose(found[:3], again, rtol=1e-5)
    assert np.abs(found - client.sample("digits", count=5, seed=12, temperature=0.5)).max() > 0.1


def test_ways_through_the_latents_are_those_of_the_library(client, model, digits) -> None:
    one, other = torch.from_numpy(digits[:1]), torch.from_numpy(digits[1:2])
    found = client.interpolate("digits", digits[0], digits[1], steps=5, method="spherical")
    np.testing.assert_allclose(found, lowerbound.interpolate(model, one, other, 5, "spherical"), atol=1e-3)
    moved = client.traverse("digits", digits[:1], units=[0, 3], steps=4, reach=2)
    np.testing.assert_allclose(moved, lowerbound.traverse(model, one, [0, 3], 4, 2.0)[0], atol=1e-3)
    direction = lowerbound.attribute_direction(model, one, other)
    edited = client.edit("digits", digits[:1], direction["z"].numpy(), strengths=[0, 0.5, 1])
    np.testing.assert_allclose(edited, lowerbound.edit(model, one, direction, [0, 0.5, 1]), atol=1e-3)


def test_frames_come_in_order_and_are_the_same_as_together(client, digits) -> None:
    whole = client.interpolate("digits", digits[0], digits[1], steps=6)
    frames = list(client.frames("digits", "interpolate", digits[:2], steps=6))
    np.testing.assert_allclose(np.stack(frames, axis=1), whole, atol=1e-5)


def test_a_slider_needs_one_encoding_and_a_decoding_a_move(client, digits) -> None:
    code = client.encode("digits", digits[:1])
    moves = []
    for value in (-2.0, 0.0, 2.0):
        moved = code.copy()
        moved[0, 3] = value
        moves.append(client.decode("digits", moved)[0])
    whole = client.decode("digits", np.stack([np.r_[code[0, :3], v, code[0, 4:]] for v in (-2.0, 0.0, 2.0)]))
    np.testing.assert_allclose(np.stack(moves), whole, atol=1e-4)


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("JPEG", {"quality": 100}), ("WEBP", {"lossless": True})])
def test_curl_sends_a_picture_and_gets_one(server: Server, digits, tmp_path: Path, kind: str, options: dict) -> None:
    (tmp_path / "in").write_bytes(picture(digits[0], kind, **options))
    name = f"image/{kind.lower()}"
    command = ["curl", "-sf", f"{server.url}/v1/models/digits/reconstruct", "-H", f"content-type: {name}"]
    command += ["-H", "accept: image/png", "--data-binary", f"@{tmp_path / 'in'}", "-o", str(tmp_path / "out.png")]
    subprocess.run(command, check=True, timeout=20)
    with Image.open(tmp_path / "out.png") as image:
        shown = np.asarray(image) / (255 / 16)
    known = server.client().reconstruct("digits", picture(digits[0], kind, **options))[0, 0]
    np.testing.assert_allclose(shown, known, atol=0.04)


def test_curl_sends_a_form_of_several_pictures(server: Server, digits, tmp_path: Path) -> None:
    parts = []
    for index in range(3):
        (tmp_path / f"{index}.png").write_bytes(picture(digits[index]))
        parts += ["-F", f"rows=@{tmp_path / f'{index}.png'};type=image/png"]
    found = subprocess.run(
        ["curl", "-sf", f"{server.url}/v1/models/digits/encode", *parts], check=True, timeout=20, capture_output=True
    )
    codes = json.loads(found.stdout)["codes"]["z"]
    np.testing.assert_allclose(codes, server.client().encode("digits", digits[:3]), atol=1e-4)


def test_streamed_frames_as_pictures(server: Server, digits) -> None:
    buffer = io.BytesIO()
    np.save(buffer, digits[:1])
    path = "/v1/models/digits/traverse?units=1,2&steps=3&frames=png"
    command = ["curl", "-sf", f"{server.url}{path}", "-H", "content-type: application/x-npy"]
    command += ["-H", "accept: application/x-ndjson", "--data-binary", "@-"]
    lines = subprocess.run(command, input=buffer.getvalue(), check=True, timeout=20, capture_output=True).stdout
    found = [json.loads(line) for line in lines.splitlines()]
    assert [line["frame"] for line in found] == [0, 1, 2]
    with Image.open(io.BytesIO(base64.b64decode(found[0]["png"]))) as image:
        assert image.size == (16, 8), "two units side by side"


def test_a_conditional_model_needs_its_label_and_uses_it(client, registry: Path, digits) -> None:
    with pytest.raises(ServerError, match="label"):
        client.encode("labelled", digits[:2])
    own = lowerbound.load(Registry(registry).resolve("labelled").path)
    context = lowerbound.label_context(own, 3, 2)
    known = lowerbound.reconstruct(own, torch.from_numpy(digits[:2]), context)
    np.testing.assert_allclose(client.reconstruct("labelled", digits[:2], label=3), known, atol=1e-3)
    assert client.sample("labelled", count=2, label=9).shape == (2, 1, 8, 8)


def test_a_version_by_number_is_served_beside_the_stable_one(client, digits) -> None:
    found = {model["name"]: model for model in client.models()}
    assert found["digits"]["version"] == 1
    assert found["digits:2"]["version"] == 2
    assert found["digits"]["engine"] == "onnx"
    assert np.abs(client.encode("digits", digits[:1]) - client.encode("digits:2", digits[:1])).max() > 0.01
    checks = {check["code"]: check for check in found["digits"]["gate"]}
    assert checks["latent-norm"]["limit"]["high"] > 0
    assert 0 <= checks["latent-norm"]["measured_false_rejects"] <= 3 * LEVEL


def test_headers_say_who_when_and_how_long(server: Server, digits) -> None:
    body = picture(digits[0])
    command = ["curl", "-si", f"{server.url}/v1/models/digits/encode", "-H", "content-type: image/png"]
    command += ["-H", "x-request-id: mine-1", "--data-binary", "@-"]
    head = subprocess.run(command, input=body, check=True, timeout=20, capture_output=True).stdout.decode()
    assert "x-request-id: mine-1" in head
    assert "x-model-version: 1-" in head
    for part in ("queue;dur=", "decode;dur=", "compute;dur=", "encode;dur="):
        assert part in head


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


GOOD = load_digits().images[:1, None].astype(np.uint8)
NPY = {"content_type": "application/x-npy"}
PNG = {"content_type": "image/png"}
JSON = {"content_type": "application/json"}
ENCODE = "/v1/models/digits/encode"


def _flat(value: int) -> bytes:
    return picture(np.full((1, 8, 8), value))


def _coloured() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()


# What is sent, and the status and code of what comes back.
REFUSED = {
    "no model": (post("/v1/models/nobody/encode", npy(GOOD), **NPY), 404, "no-such-model"),
    "no verb": (post("/v1/models/digits/dream", npy(GOOD), **NPY), 404, "no-such-verb"),
    "no page": (b"GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\n", 404, "no-such-page"),
    "wrong method": (b"POST /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n", 405, "wrong-method"),
    "no HTTP": (b"hello\r\n\r\n", 400, "bad-http"),
    "two lengths": (post(ENCODE, b"x", **NPY, transfer_encoding="chunked"), 400, "bad-http"),
    "no body": (post(ENCODE, b"", **NPY), 400, "empty-body"),
    "unknown type": (post(ENCODE, b"x", content_type="text/plain"), 415, "unsupported-type"),
    "GIF": (post(ENCODE, b"GIF89a", content_type="image/gif"), 415, "unsupported-type"),
    "other type than said": (post(ENCODE, npy(GOOD), **PNG), 415, "type-mismatch"),
    "no JSON": (post(ENCODE, b"{", **JSON), 400, "bad-json"),
    "deep JSON": (post(ENCODE, b'{"rows": ' + b"[" * 100_000, **JSON), 400, "bad-json"),
    "JSON with NaN": (post(ENCODE, b'{"rows": [[[NaN]]]}', **JSON), 422, "not-finite"),
    "ragged JSON": (post(ENCODE, b'{"rows": [[1], [1, 2]]}', **JSON), 400, "bad-json"),
    "unknown setting": (post(ENCODE + "?colour=1", npy(GOOD), **NPY), 400, "bad-setting"),
    "wrong setting": (post("/v1/models/digits/sample?count=-1", b""), 400, "bad-setting"),
    "too many": (post("/v1/models/digits/sample?count=100000", b""), 400, "bad-setting"),
    "pickle": (post(ENCODE, npy(np.array([None])), **NPY), 400, "bad-array"),
    "cut array": (post(ENCODE, npy(GOOD)[:-1], **NPY), 400, "bad-array"),
    "longer array": (post(ENCODE, npy(GOOD) + b"x", **NPY), 400, "bad-array"),
    "wrong shape": (post(ENCODE, npy(GOOD[:, :, :7]), **NPY), 422, "wrong-shape"),
    "too many rows": (post(ENCODE, npy(np.repeat(GOOD, 1025, axis=0)), **NPY), 413, "too-many-rows"),
    "out of range": (post(ENCODE, npy(GOOD + 100), **NPY), 422, "out-of-range"),
    "NaN": (post(ENCODE, npy(np.full((1, 1, 8, 8), np.nan)), **NPY), 422, "not-finite"),
    "black": (post(ENCODE, _flat(0), **PNG), 422, "black"),
    "flat": (post(ENCODE, _flat(8), **PNG), 422, "flat"),
    "colours of noise": (post(ENCODE, npy(np.tile([16, 0], 32).reshape(1, 1, 8, 8)), **NPY), 422, "colour"),
    "wrong size": (post(ENCODE, picture(np.ones((1, 8, 9))), **PNG), 422, "wrong-size"),
    "colour for grey": (post(ENCODE, _coloured(), **PNG), 422, "wrong-channels"),
    "picture for codes": (post("/v1/models/digits/decode", _flat(8), **PNG), 415, "unsupported-type"),
    "codes out of range": (post("/v1/models/digits/decode", npy(np.full((1, 8), 1e30)), **NPY), 422, "out-of-range"),
    "one of a pair": (post("/v1/models/digits/interpolate", npy(GOOD), **NPY), 422, "wrong-shape"),
    "wrong digest": (post(ENCODE, npy(GOOD), **NPY, content_digest="sha-256=:AAAA:"), 400, "digest-mismatch"),
    "no such form": (post(ENCODE, npy(GOOD), **NPY, accept="text/html"), 406, "not-acceptable"),
    "large body": (post(ENCODE, b"", **NPY).replace(b"length: 0", b"length: 99999999"), 413, "body-too-large"),
    "cut form": (post(ENCODE, b"--b\r\n", content_type="multipart/form-data; boundary=b"), 400, "bad-form"),
    "form without boundary": (post(ENCODE, b"--b\r\n", content_type="multipart/form-data"), 400, "bad-form"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_and_why(server: Server, name: str) -> None:
    content, status, code = REFUSED[name]
    found, body = raw(server, content)
    problem = json.loads(body)
    assert (found, problem["status"], problem["code"]) == (status, status, code), body
    assert problem["detail"]
    assert problem["title"]


def test_a_row_that_the_engine_cannot_compute_fails_alone(server: Server, digits) -> None:
    bad = digits[:1].copy()
    bad[0, 0, 0, 0] = 16
    client = server.client()
    with pytest.raises(ServerError) as refused:
        client.encode("broken", bad)
    assert refused.value.code in ("engine-not-finite", "latent-norm")
    assert client.encode("broken", digits[:1]).shape == (1, 8)


def test_pages_and_state(server: Server) -> None:
    for path, words in {
        "/healthz": '"ok":true',
        "/readyz": '"ok":true',
        "/": "/static/dashboard.js",
        "/v1/dashboard": '"versions"',
        "/docs": "/v1/models/{name}/encode",
        "/openapi.json": '"operationId":"encode"',
        "/v1/incidents": "incidents",
        "/metrics": "lowerbound_requests_total",
    }.items():
        status, body = raw(server, f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
        assert status == 200, path
        assert words in body.decode(), path


def test_every_request_has_its_facts(server: Server, registry: Path, digits) -> None:
    client, known = server.client(), Registry(registry).resolve("digits:1")
    head = {"content_type": "application/x-npy", "x_request_id": "three-rows"}
    raw(server, post("/v1/models/digits/score", write_npy(digits[:3]), **head))
    raw(server, post(ENCODE, _flat(0), **PNG, x_request_id="black-one"))
    raw(server, post("/v1/models/digits/encode", write_npy(digits[:2, :, :4]), **{**head, "x_request_id": "narrow"}))
    raw(server, post("/v1/models/digits:2/encode", write_npy(digits[:1]), **{**head, "x_request_id": "by-number"}))
    raw(server, post("/v1/models/nobody/encode", b"", x_request_id="nobody"))
    history = History(registry.parent / "telemetry")

    def rows(request: str) -> np.ndarray:
        return np.flatnonzero(history.window().request == request)

    assert until(lambda: all(len(rows(name)) for name in ("three-rows", "black-one", "by-number", "nobody")), 10)
    found = history.window()
    own = rows("three-rows")
    assert found.row[own].tolist() == [0, 1, 2]
    labels = [set(getattr(found, name)[own].tolist()) for name in ("model", "version", "alias", "verb", "gate")]
    assert labels == [{"digits"}, {known.hash}, {"stable"}, {"score"}, {"passed"}]
    np.testing.assert_allclose(found.code[own], client.encode("digits", digits[:3]), atol=0.01)
    scores = client.score("digits", digits[:3])
    for name in ("error", "rate", "norm", "p_value"):
        np.testing.assert_allclose(getattr(found, name)[own], scores[name], rtol=1e-4)
    assert np.isfinite(found.rates[own]).all()
    statistics = np.stack([digits[:3].mean(axis=(1, 2, 3)) / 16, digits[:3].var(axis=(1, 2, 3)) / 256], axis=1)
    np.testing.assert_allclose(found.pixels[own], statistics, atol=1e-3)
    assert (found.total_s[own] >= found.compute_s[own]).all()
    ids, inputs = history.inputs(Choice(model="digits", verb="score"))
    kept = dict(zip(ids.tolist(), inputs, strict=True))
    for place, row in zip(own, digits[:3], strict=True):
        np.testing.assert_array_equal(kept[int(found.id[place])], row)
    black = int(rows("black-one")[0])
    refusal = [getattr(found, name)[black] for name in ("status", "reason", "gate", "verb", "row")]
    assert refusal == [422, "black", "black", "encode", 0]
    assert np.isnan(found.error[black])
    assert found.pixels[black].tolist() == [0, 0]
    narrow = int(rows("narrow")[0])
    assert (found.reason[narrow], found.gate[narrow]) == ("wrong-shape", "wrong-shape")
    by_number = int(rows("by-number")[0])
    assert (found.model[by_number], found.alias[by_number]) == ("digits", "")
    nobody = int(rows("nobody")[0])
    assert (found.model[nobody], found.status[nobody], found.gate[nobody]) == ("", 404, "")


def test_client_says_what_is_wrong(server: Server) -> None:
    with pytest.raises(lowerbound.LowerboundError, match="no address"):
        lowerbound.Client("localhost:8000")
    with pytest.raises(ServerError) as refused:
        server.client().encode("nobody", GOOD)
    assert (refused.value.code, refused.value.status) == ("no-such-model", 404)
