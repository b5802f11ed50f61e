"""The telemetry store: what goes in comes out, nothing waits, and what is lost is counted."""

from __future__ import annotations

import logging
import resource
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from made_facts import NOW, UNITS, fact

from lowerbound.errors import DataError, TamperedError, UsageError
from lowerbound.service.monitoring.telemetry import housekeeping
from lowerbound.service.monitoring.telemetry.database import MOST_SERIES, OTHER, connect
from lowerbound.service.monitoring.telemetry.fact import Fact, Privacy, digest
from lowerbound.service.monitoring.telemetry.history import Choice, History
from lowerbound.service.monitoring.telemetry.housekeeping import Retention, keep_house, tidy
from lowerbound.service.monitoring.telemetry.store import Telemetry
from lowerbound.service.monitoring.telemetry.vectors import pack, pack_input, unpack, unpack_input


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    facts = [fact(index) for index in range(500)]
    with Telemetry(tmp_path) as telemetry:
        assert all(telemetry(one) for one in facts)
        assert telemetry.flush()
        assert telemetry.counts.committed == telemetry.counts.recorded == 500
    window = History(tmp_path).window()
    assert len(window) == 500
    assert window.request.tolist() == [one.request for one in facts]
    assert window.code.shape == (500, UNITS)
    for name in ("code", "rates"):
        wanted = np.stack([getattr(one, name) for one in facts])
        assert np.allclose(getattr(window, name), wanted, rtol=1e-3)  # half precision
    for name in ("time", "error", "rate", "norm", "p_value", "queue_s", "compute_s", "total_s"):
        assert getattr(window, name).tolist() == [getattr(one, name) for one in facts]
    assert set(window.gate) == {"passed"}
    assert set(window.status) == {200}
    assert window.variances.shape == (500, 0)


def test_what_was_not_computed_is_nan(tmp_path: Path) -> None:
    with Telemetry(tmp_path) as telemetry:
        telemetry(fact(0))
        telemetry(Fact(NOW + 1, "bare", "digits"))
    window = History(tmp_path).window()
    assert np.isnan(window.code[1]).all()
    assert not np.isnan(window.code[0]).any()
    assert np.isnan([window.error[1], window.rate[1], window.norm[1], window.p_value[1], window.queue_s[1]]).all()
    assert len(History(tmp_path).window(Choice(coded=True))) == 1


def test_windows_by_time_model_version_verb_and_answer(tmp_path: Path) -> None:
    with Telemetry(tmp_path) as telemetry:
        for index in range(60):
            other = {"model": "faces", "version": "xyz", "code": np.arange(3, dtype=np.int64)} if index % 3 == 0 else {}
            bad = {"status": 422, "reason": "flat-image", "gate": "flat-image"} if index % 5 == 0 else {}
            telemetry(fact(index, **other, **bad))
    history = History(tmp_path)
    assert history.models() == [("digits", "abc"), ("faces", "xyz")]
    part = history.window(Choice(since=NOW + 10, until=NOW + 20, model="digits"))
    assert part.time.tolist() == [NOW + index for index in range(10, 20) if index % 3]
    faces = history.window(Choice(version="xyz"))
    assert faces.code.dtype == np.int64
    assert faces.code.tolist() == [[0, 1, 2]] * 20
    assert len(history.window(Choice(model="digits", answered=False))) == 8
    assert len(history.window(Choice(model="digits", gate="passed"))) == 32
    assert history.window(Choice(model="digits", newest=3)).time.tolist() == [NOW + 56, NOW + 58, NOW + 59]
    assert len(history.window(Choice(verb="decode"))) == 0
    with pytest.raises(DataError, match="several kinds"):
        history.window()


def test_vectors_keep_what_half_precision_cannot() -> None:
    assert unpack(pack([np.array([1e6, -2.0]), None]), "code")[0].tolist() == [1e6, -2.0]
    assert unpack(pack([np.array([70000, 3])]), "code").tolist() == [[70000, 3]]
    assert unpack(pack([np.array([1.0, np.nan])]), "code")[0, 0] == 1.0
    mixed = unpack(pack([np.array([1.0, 2.0], np.float32), np.array([1e9, 2.0]), None]), "code")
    assert mixed[:2].tolist() == [[1.0, 2.0], [1e9, 2.0]]
    with pytest.raises(DataError, match="several kinds"):
        unpack(pack([np.zeros(2), np.zeros(3)]), "code")
    with pytest.raises(DataError, match="real numbers or integers"):
        pack([np.array(["a"])])
    image = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    assert (unpack_input(pack_input(image)) == image).all()


class Broken:
    """An array that cannot be read."""

    def __getattr__(self, name: str) -> None:
        raise RuntimeError("broken")


def test_rows_that_are_no_facts_fail_alone(tmp_path: Path) -> None:
    bad = [
        fact(1, time=float("nan")),
        fact(2, code=np.array(["a"])),
        fact(3, error="high"),
        fact(4, request="\udc80"),
        fact(5, status=2**80),
        fact(6, model=None),
        fact(8, code=Broken()),
    ]
    with Telemetry(tmp_path) as telemetry:
        for one in [fact(0), *bad, fact(7)]:
            telemetry(one)
        telemetry.flush()
        assert telemetry.counts.bad == len(bad)
        assert telemetry.counts.committed == 2
    history = History(tmp_path)
    assert history.window().time.tolist() == [NOW, NOW + 7]
    assert history.losses() == {"bad": len(bad)}
    assert sum(total.rows for total in history.totals()) == 2


def test_a_full_buffer_drops_and_counts(tmp_path: Path) -> None:
    blocker = connect(tmp_path)
    blocker.execute("BEGIN IMMEDIATE")  # nobody else can write
    with Telemetry(tmp_path, most_rows=100) as telemetry:
        taken = sum(telemetry(fact(index)) for index in range(250))
        assert taken == 100
        assert telemetry.counts.full == 150
        blocker.execute("ROLLBACK")
        assert telemetry.flush(30)
    assert len(History(tmp_path).window()) == 100
    assert History(tmp_path).losses() == {"full": 150}


def test_inputs_that_are_too_many_bytes_are_dropped_and_the_rows_kept(tmp_path: Path) -> None:
    blocker = connect(tmp_path)
    blocker.execute("BEGIN IMMEDIATE")
    image = np.zeros(1000, np.uint8)
    with Telemetry(tmp_path, privacy=Privacy("sample", 1.0), most_bytes=5500) as telemetry:
        assert all(telemetry(fact(index, input=image)) for index in range(8))
        blocker.execute("ROLLBACK")
    history = History(tmp_path)
    assert len(history.window()) == 8
    assert len(history.inputs()[0]) == 5
    assert history.losses() == {"inputs": 3}


@pytest.mark.parametrize(
    ("privacy", "codes", "digests", "inputs"),
    [
        (Privacy("none"), 0, 0, 0),
        (Privacy("hash"), 0, 200, 0),
        (Privacy("code"), 200, 200, 0),
        (Privacy("sample", 0.25), 200, 200, None),
        (Privacy("sample", 1.0), 200, 200, 200),
    ],
    ids=["none", "hash", "code", "quarter", "all"],
)
def test_privacy(tmp_path: Path, privacy: Privacy, codes: int, digests: int, inputs: int | None) -> None:
    images = np.random.default_rng(0).integers(0, 256, (100, 4, 4), dtype=np.uint8)
    with Telemetry(tmp_path, privacy=privacy) as telemetry:
        for index in range(200):
            image = images[index % 100]
            telemetry(fact(index, input=image, pixels=np.ones(2), variances=np.ones(UNITS)))
    history = History(tmp_path)
    window = history.window()
    stored = sqlite3.connect(tmp_path / "telemetry.db")
    for name in ("code", "rates", "pixels", "variances"):
        assert stored.execute(f"SELECT count({name}) FROM facts").fetchone()[0] == codes
    assert window.code.shape[1] == (UNITS if codes else 0)
    found = [one for (one,) in stored.execute("SELECT digest FROM facts WHERE digest IS NOT NULL ORDER BY id")]
    assert len(found) == digests
    assert len(set(found)) == digests // 2  # repetitions are seen
    ids, kept = history.inputs()
    assert 20 < len(ids) < 85 if inputs is None else len(ids) == inputs
    assert all((row == images[(number - 1) % 100]).all() for number, row in zip(ids, kept, strict=True))
    if privacy.mode == "none":
        raw = b"".join(path.read_bytes() for path in tmp_path.glob("telemetry.db*"))
        assert images[0].tobytes() not in raw
    assert sum(history.window().error) == pytest.approx(sum(0.01 * (1 + index % 3) for index in range(200)))


def test_digests_need_the_salt() -> None:
    image = np.zeros((2, 2), np.uint8)
    assert digest(image, b"a") != digest(image, b"b")
    assert digest(image, b"a") != digest(image.reshape(4), b"a")
    with pytest.raises(UsageError, match="privacy mode all"):
        Privacy("all")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="between 0 and 1"):
        Privacy("sample", 2)


def test_roll_ups_equal_the_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    order = rng.permutation(1000)  # clocks jump
    with Telemetry(tmp_path, flush_s=0.01) as telemetry:
        for index in map(int, order):
            bad = {"status": 429, "reason": "busy", "error": None} if index % 10 == 0 else {}
            strange = {"error": float("inf")} if index % 77 == 0 else {}
            telemetry(fact(index, row=index % 2, **(bad | strange)))
            if index % 100 == 0:
                telemetry.flush()
    history = History(tmp_path)
    window, minutes = history.window(), history.minutes()
    minute = (window.time // 60).astype(int)
    assert minutes.minute.tolist() == sorted(set(minute.tolist()))
    finite = np.isfinite(window.error)
    for place, when in enumerate(minutes.minute):
        mine = minute == when
        assert minutes.rows[place] == mine.sum()
        assert minutes.requests[place] == (mine & (window.row == 0)).sum()
        assert minutes.failed[place] == (mine & (window.status >= 400)).sum()
        errors = window.error[mine & finite]
        assert minutes.n["error"][place] == len(errors)
        assert minutes.mean["error"][place] == pytest.approx(errors.mean())
        assert minutes.log_mean["error"][place] == pytest.approx(np.log(errors).mean())
        assert minutes.log_variance["error"][place] == pytest.approx(np.log(errors).var(), abs=1e-12)
        assert minutes.highest["error"][place] == errors.max()
    totals = history.totals()
    assert sum(total.rows for total in totals) == 1000
    assert sum(total.total["error"] for total in totals if total.n.get("error")) == pytest.approx(
        window.error[finite].sum()
    )
    good = next(total for total in totals if total.labels["status"] == "200")
    assert good.buckets["total_s"][-1] == good.n["total_s"]
    assert good.buckets["total_s"][:4] == (0, 0, good.n["total_s"], good.n["total_s"])  # 4 ms is over 2 ms
    part = history.minutes(Choice(since=NOW + 100, until=NOW + 200))
    assert part.minute.tolist() == list(range(int(NOW + 100) // 60, int(NOW + 199) // 60 + 1))


def test_names_that_clients_make_up_do_not_fill_the_disk(tmp_path: Path) -> None:
    with Telemetry(tmp_path) as telemetry:
        for index in range(MOST_SERIES + 500):
            telemetry(fact(index, model=f"model-{index}", status=404))
        telemetry.flush(30)
    models = History(tmp_path).models()
    assert len(models) == MOST_SERIES + 1
    assert len(History(tmp_path).window(Choice(model=OTHER))) == 500


def test_old_rows_move_to_parquet_and_come_back_the_same(tmp_path: Path) -> None:
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    with Telemetry(tmp_path, privacy=Privacy("sample", 1.0)) as telemetry:
        for index in range(400):
            telemetry(fact(index, input=image if index % 4 == 0 else None, error=None if index % 9 == 0 else 0.5))
    history = History(tmp_path)
    before = history.window(), history.inputs(), history.minutes().rows.tolist()
    done = tidy(tmp_path, Retention(hot_hours=100 / 3600, segment_rows=70), now=NOW + 400)
    assert done is not None
    assert done.moved == 300
    assert len(list((tmp_path / "segments").glob("*.parquet"))) == 5
    after = history.window(), history.inputs(), history.minutes().rows.tolist()
    for one, other in zip(vars(before[0]).values(), vars(after[0]).values(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert (before[1][1] == after[1][1]).all()
    assert before[1][0].tolist() == after[1][0].tolist()
    assert before[2] == after[2]
    assert history.window(Choice(newest=150)).time.tolist() == [NOW + index for index in range(250, 400)]
    assert len(history.window(Choice(since=NOW + 50, until=NOW + 150))) == 100
    assert history.verify() == 5
    again = tidy(tmp_path, Retention(hot_hours=100 / 3600, segment_rows=70), now=NOW + 400)
    assert again is not None
    assert again.moved == 0
    with Telemetry(tmp_path) as telemetry:  # ids go on where they were, though the oldest rows are gone
        telemetry(fact(400))
    assert history.window().id[-1] == 401


def test_a_file_of_history_that_was_changed_is_found(tmp_path: Path) -> None:
    with Telemetry(tmp_path) as telemetry:
        for index in range(10):
            telemetry(fact(index))
    tidy(tmp_path, Retention(hot_hours=0.001), now=NOW + 1000)
    (path,) = (tmp_path / "segments").glob("*.parquet")
    path.write_bytes(path.read_bytes().replace(b"digits", b"digitz"))
    with pytest.raises(TamperedError, match="not what was written"):
        History(tmp_path).verify()
    path.unlink()
    with pytest.raises(DataError, match="lacks files"):
        History(tmp_path).window()


def test_indices_of_a_codebook_survive_parquet(tmp_path: Path) -> None:
    with Telemetry(tmp_path) as telemetry:
        for index in range(50):
            telemetry(fact(index, code=np.array([index, 70000]), rates=None))
    assert tidy(tmp_path, Retention(hot_hours=0.001), now=NOW + 1000) is not None
    window = History(tmp_path).window()
    assert window.code.tolist() == [[index, 70000] for index in range(50)]
    assert window.rates.shape == (50, 0)


def test_retention_by_age_and_by_size(tmp_path: Path) -> None:
    with Telemetry(tmp_path) as telemetry:
        for index in range(4000):
            telemetry(fact(index))
    now = NOW + 4000
    history = History(tmp_path)
    retention = Retention(days=3000 / 86400, hot_hours=500 / 3600, segment_rows=500)
    done = tidy(tmp_path, retention, now)
    assert done is not None
    assert (done.moved, done.expired) == (3500, 1000)
    assert history.window().time.min() == NOW + 1000
    small = tidy(tmp_path, Retention(bytes=done.bytes - 30_000, hot_hours=500 / 3600), now)
    assert small is not None
    assert small.bytes <= done.bytes - 30_000
    assert 0 < small.expired < 3000
    assert len(history.window()) == 3000 - small.expired
    assert history.window().time.max() == NOW + 3999
    assert history.minutes().rows.sum() == 4000  # roll-ups outlive the rows
    later = tidy(tmp_path, Retention(minute_days=1), now + 10 * 86400)
    assert later is not None
    assert later.minutes > 60
    assert len(history.minutes().minute) == 0
    assert sum(total.rows for total in history.totals()) == 4000


def test_retention_without_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "find_spec", lambda name: None)
    with Telemetry(tmp_path) as telemetry:
        for index in range(3000):
            telemetry(fact(index))
    done = tidy(tmp_path, Retention(days=1000 / 86400), NOW + 3000)
    assert done is not None
    assert (done.moved, done.expired) == (0, 2000)
    less = tidy(tmp_path, Retention(days=1000 / 86400, bytes=done.bytes - 40_000), NOW + 3000)
    assert less is not None
    assert 0 < less.expired < 1000
    assert len(History(tmp_path).window()) == 1000 - less.expired
    with pytest.raises(UsageError, match="must be positive"):
        Retention(days=0)


def test_a_round_of_housekeeping_that_was_killed_leaves_no_orphans(tmp_path: Path) -> None:
    with Telemetry(tmp_path) as telemetry:
        for index in range(100):
            telemetry(fact(index))
    orphan = tmp_path / "segments" / "000000000000000-000000000000050.parquet"
    orphan.parent.mkdir()
    orphan.write_bytes(b"half")
    history = History(tmp_path)
    assert len(history.window()) == 100
    assert tidy(tmp_path, Retention(), NOW + 100) is not None
    assert not orphan.exists()


def test_readers_see_each_row_once_while_rows_are_written_and_moved(tmp_path: Path) -> None:
    """Nothing twice, nothing missing: what was committed before a reader asked is in its answer."""
    ended = threading.Event()

    def house() -> None:
        while not ended.is_set():
            tidy(tmp_path, Retention(hot_hours=50 / 3600, segment_rows=60), telemetry_now[0])

    telemetry_now = [NOW]
    with Telemetry(tmp_path, flush_s=0.02) as telemetry:
        telemetry(fact(0))
        telemetry.flush()
        mover = threading.Thread(target=house)
        mover.start()
        try:
            for start in range(1, 500, 25):
                for index in range(start, start + 25):
                    telemetry(fact(index))
                telemetry.flush()
                telemetry_now[0] = NOW + start
                seen = History(tmp_path).window().request.tolist()
                assert seen == [f"request-{index}" for index in range(start + 25)]
        finally:
            ended.set()
            mover.join()
    assert list((tmp_path / "segments").glob("*.parquet"))


def test_one_keeps_house_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Telemetry(tmp_path) as telemetry:
        telemetry(fact(0))
    with housekeeping.exclusive(tmp_path / housekeeping.LOCK, "the test"):
        assert tidy(tmp_path, Retention()) is None
    with keep_house(tmp_path, Retention(days=1), every_s=0.01):
        for _ in range(1000):
            if not len(History(tmp_path).window()):
                break
            time.sleep(0.01)
    assert not len(History(tmp_path).window())  # its time is years ago


@pytest.fixture
def no_large_files() -> Iterator[Callable[[int | None], None]]:
    """Refuses larger files to this process, as a full disk does; the test ends with what was allowed before."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def limit(size: int | None) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before[0] if size is None else size, before[1]))

    yield limit
    limit(None)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_is_counted_said_and_survived(
    tmp_path: Path, no_large_files: Callable[[int | None], None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with Telemetry(tmp_path, most_rows=500, flush_s=0.02) as telemetry:
        for index in range(100):
            telemetry(fact(index))
        telemetry.flush()
        no_large_files((tmp_path / "telemetry.db-wal").stat().st_size)
        for index in range(100, 1000):
            telemetry(fact(index))  # neither raises nor waits
        for _ in range(500):
            if telemetry.trouble:
                break
            time.sleep(0.01)
        assert telemetry.trouble
        counts = telemetry.counts
        assert counts.full >= 300
        assert counts.recorded + counts.full == 1000
        no_large_files(None)
        assert telemetry.flush(30)
        assert not telemetry.trouble
        kept = telemetry.counts.committed
    assert "cannot be written" in caplog.text
    history = History(tmp_path)
    assert len(history.window()) == kept == sum(total.rows for total in history.totals())
    assert history.losses()["full"] == 1000 - kept


def test_what_the_disk_never_takes_is_counted_at_the_end(
    tmp_path: Path, no_large_files: Callable[[int | None], None], caplog: pytest.LogCaptureFixture
) -> None:
    telemetry = Telemetry(tmp_path, flush_s=0.02)
    no_large_files((tmp_path / "telemetry.db-wal").stat().st_size)
    for index in range(50):
        telemetry(fact(index))
    telemetry.close()
    no_large_files(None)
    assert telemetry.counts.disk == 50
    assert "lost 50 rows" in caplog.text
    assert not telemetry(fact(0))  # closed


def test_folders_that_cannot_be_stores_are_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no telemetry"):
        History(tmp_path)
    (tmp_path / "telemetry.db").write_bytes(b"something else entirely" * 100)
    with pytest.raises(DataError, match="is no telemetry store"):
        Telemetry(tmp_path)
    with pytest.raises(DataError, match="is no telemetry store"):
        History(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        Telemetry(tmp_path / "file" / "store")
    later = tmp_path / "later"
    Telemetry(later).close()
    with sqlite3.connect(later / "telemetry.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(DataError, match="schema 99"):
        History(later)


def test_rollups_of_several_minutes_and_rows_by_labels_agree_with_the_rows(tmp_path: Path) -> None:
    with Telemetry(tmp_path) as store:
        for index in range(900):
            changes = {"status": 422, "reason": "flat"} if index % 9 == 0 else {}
            assert store(fact(index, alias="canary" if index % 4 == 0 else "stable", **changes))
        assert store.flush()
    history = History(tmp_path)
    window, single = history.window(), history.minutes()
    wide = history.minutes(width=5, names=("error",))
    spans = window.time // 300 * 5
    assert wide.minute.tolist() == np.unique(spans).astype(int).tolist()
    assert wide.rows.sum() == single.rows.sum() == 900
    np.testing.assert_allclose(wide.mean["error"], [window.error[spans == span].mean() for span in wide.minute])
    assert wide.n["rate"].sum() == 0
    counted = history.counts(Choice(alias="canary"), width=5)
    assert {labels["alias"] for labels, _, _ in counted} == {"canary"}
    for labels, minutes, rows in counted:
        own = (window.alias == "canary") & (window.status == labels["status"])
        assert rows.tolist() == [int((own & (spans == minute)).sum()) for minute in minutes]
    assert history.counts(Choice(model="nobody")) == []
    assert history.last_time() == NOW + 899
    assert history.last_time(Choice(alias="canary")) == NOW + 896
    assert history.last_time(Choice(model="nobody")) is None


def test_times_are_those_of_the_newest_requests_of_each_span(tmp_path: Path) -> None:
    with Telemetry(tmp_path) as store:
        for index in range(100):
            assert store(fact(index, total_s=float(index)))
            assert store(fact(index, row=1, total_s=1000.0))
            assert store(fact(index, verb="idle", total_s=None))
        assert store.flush()
    found = History(tmp_path).times(Choice(since=NOW, until=NOW + 100), 4, 10)
    assert found["span"].tolist() == [span for span in range(4) for _ in range(10)]
    assert sorted(found["total_s"].tolist()) == [25.0 * span + 15 + step for span in range(4) for step in range(10)]
    assert len(History(tmp_path).times(Choice(since=NOW, until=NOW + 100, model="nobody"), 4, 10)["span"]) == 0
