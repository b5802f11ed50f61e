"""Well-known data: files in small, real files where they are, and downloads from this machine."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lowerbound.errors import DataError
from lowerbound.lab.data import cifar10, mnist
from lowerbound.lab.data.download import Remote, fetch
from lowerbound.lab.data.load import load_data

REAL = os.environ.get("LOWERBOUND_DATA")
real = [pytest.mark.real, pytest.mark.skipif(REAL is None, reason="LOWERBOUND_DATA names no folder")]


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def test_frames_are_divided_by_time(tmp_path: Path) -> None:
    frames = numbers(100, 28, 20)
    (tmp_path / "frey_faces").mkdir()
    np.savez(tmp_path / "frey_faces" / "faces.npz", images=frames)
    data = load_data({"kind": "frey-faces"}, tmp_path)
    assert data.spec.event == (1, 28, 20)
    assert data.test.name(0).endswith("faces.npz frame 91")
    assert np.array_equal(data.test.take(torch.arange(10)).raw[:, 0].numpy(), frames[90:])
    np.savez(tmp_path / "frey_faces" / "faces.npz", images=frames[:, :20])
    with pytest.raises(DataError, match=r"shape \[100, 20, 20\]"):
        load_data({"kind": "frey-faces"}, tmp_path)


def cifar_binary(folder: Path, rows: int = 20) -> np.ndarray:
    folder.mkdir(parents=True)
    pixels = numbers(rows, 3 * 32 * 32)
    labels = (np.arange(rows) % 10).astype(np.uint8)
    for name in cifar10.FILES:
        (folder / name).write_bytes(np.concatenate([labels[:, None], pixels], axis=1).tobytes())
    return pixels.reshape(rows, 3, 32, 32)


def test_binary_files_of_cifar10(tmp_path: Path) -> None:
    pixels = cifar_binary(tmp_path / "cifar10" / "cifar-10-batches-bin")
    data = load_data({"kind": "cifar10", "context": "label"}, tmp_path)
    assert (len(data.train), len(data.validation), len(data.test)) == (90, 10, 20)
    assert data.spec.event == (3, 32, 32)
    assert np.array_equal(data.test.take(torch.arange(20)).raw.numpy(), pixels)
    torn = tmp_path / "cifar10" / "cifar-10-batches-bin" / "data_batch_3.bin"
    torn.write_bytes(torn.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"data_batch_3\.bin"):
        load_data({"kind": "cifar10"}, tmp_path)


def test_pictures_of_cifar10(tmp_path: Path) -> None:
    folder = tmp_path / "cifar10"
    folder.mkdir()
    pixels = numbers(40, 32, 32, 3)
    for number in range(2):
        rows = pixels[20 * number : 20 * number + 20].reshape(20, 1024, 3)
        Image.fromarray(rows).save(folder / f"cifar10_batch_{number}.png")
    with pytest.raises(DataError, match="labels"):
        load_data({"kind": "cifar10"}, tmp_path)
    np.save(folder / "labels.npy", np.arange(40, dtype=np.uint8) % 10)
    data = load_data({"kind": "cifar10"}, tmp_path)
    assert (len(data.train), len(data.validation), len(data.test)) == (32, 4, 4)
    assert np.array_equal(data.test.take(torch.arange(4)).raw.numpy(), pixels[36:].transpose(0, 3, 1, 2))


@pytest.mark.parametrize("kind", ["mnist", "fashion-mnist", "frey-faces", "cifar10"])
def test_absent_files_are_asked_for(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOWERBOUND_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(DataError, match=r"--data-dir.*LOWERBOUND_DATA.*data\.download=true"):
        load_data({"kind": kind})


# ----------------------------------------------------------------------------------------------------- downloads


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address of a folder that this machine serves, and the folder."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(folder))  # type: ignore[arg-type]

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/", folder
        running.shutdown()
        thread.join()


CONTENT = bytes(range(256)) * 20_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def test_a_download_is_checked_and_kept(server: tuple[str, Path], tmp_path: Path) -> None:
    url, folder = server
    (folder / "a.gz").write_bytes(gzip.compress(CONTENT, 1))
    said: list[str] = []
    path = fetch(Remote((f"{url}nowhere.gz", f"{url}a.gz"), SHA256, True), tmp_path / "new" / "a", said.append)
    assert path.read_bytes() == CONTENT
    assert said[-1].endswith("MB")
    (folder / "a.gz").unlink()
    assert fetch(Remote((f"{url}a.gz",), SHA256, True), path) == path  # it is there: nothing is fetched


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (gzip.compress(b"other"), "gave another file than a.*--data-dir"),
        (b"<html>no archive</html>", "no gzipped file"),
        (gzip.compress(CONTENT)[:-9], "could not be downloaded"),
        (None, "not found"),
    ],
    ids=["other", "page", "torn", "absent"],
)
def test_a_wrong_download_leaves_nothing(
    server: tuple[str, Path], tmp_path: Path, content: bytes | None, words: str
) -> None:
    url, folder = server
    if content is not None:
        (folder / "a.gz").write_bytes(content)
    path = tmp_path / "new" / "a"
    with pytest.raises(DataError, match=words):
        fetch(Remote((f"{url}a.gz",), SHA256, True), path)
    assert list(path.parent.iterdir()) == []


def test_nobody_answers(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"could not be downloaded \(http://127\.0\.0\.1:9/a: .*put it at"):
        fetch(Remote(("http://127.0.0.1:9/a",), SHA256), tmp_path / "a")


def test_mnist_is_downloaded_where_it_was_asked_for(
    server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, folder = server
    hashes = {}
    for part, count in (("train", 5020), ("t10k", 10)):
        for name, array in (("images-idx3", numbers(count, 4, 4)), ("labels-idx1", numbers(count) % 10)):
            shape = b"".join(size.to_bytes(4, "big") for size in array.shape)
            content = bytes([0, 0, 8, array.ndim]) + shape + array.tobytes()
            hashes[f"{part}-{name}-ubyte"] = hashlib.sha256(content).hexdigest()
            (folder / f"{part}-{name}-ubyte.gz").write_bytes(gzip.compress(content))
    monkeypatch.setattr(mnist, "MNIST", replace(mnist.MNIST, mirrors=(url,), hashes=hashes))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("LOWERBOUND_DATA", raising=False)
    data = load_data({"kind": "mnist", "download": True})
    assert len(data.test) == 10
    assert len(load_data({"kind": "mnist"}).test) == 10  # from the cache
    assert sorted(path.name for path in (tmp_path / "lowerbound" / "mnist").iterdir()) == sorted(hashes)


# ----------------------------------------------------------------------------------------------------- real files


@pytest.mark.parametrize(
    ("kind", "event", "counts"),
    [
        pytest.param("mnist", (1, 28, 28), (55_000, 5_000, 10_000), marks=real),
        pytest.param("fashion-mnist", (1, 28, 28), (55_000, 5_000, 10_000), marks=real),
        pytest.param("frey-faces", (1, 28, 20), (1571, 197, 197), marks=real),
        pytest.param("cifar10", (3, 32, 32), (3_200, 400, 400), marks=real),
    ],
)
def test_real_files(kind: str, event: tuple[int, ...], counts: tuple[int, ...]) -> None:
    data = load_data({"kind": kind})
    assert data.spec.event == event
    assert (len(data.train), len(data.validation), len(data.test)) == counts


@pytest.mark.real
@pytest.mark.skipif(REAL is None, reason="LOWERBOUND_DATA names no folder")
@pytest.mark.parametrize("source", [mnist.MNIST, mnist.FASHION], ids=lambda source: source.name)
def test_hashes_are_those_of_the_canonical_files(source: mnist.Source) -> None:
    assert REAL is not None
    folder = next(Path(REAL) / name for name in source.folders if (Path(REAL) / name).exists())
    for name, sha256 in source.hashes.items():
        assert hashlib.sha256(gzip.decompress((folder / f"{name}.gz").read_bytes())).hexdigest() == sha256
