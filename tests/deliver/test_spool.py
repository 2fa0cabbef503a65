from __future__ import annotations

import collections.abc as c
import contextlib
import os
import sqlite3
import stat
import threading
import time
import typing as t
from pathlib import Path

import pytest

from flask_mengpaneel.config import Config
from flask_mengpaneel.deliver import spool as spools
from flask_mengpaneel.deliver.answers import Answer
from flask_mengpaneel.deliver.assembly import open_spool
from flask_mengpaneel.deliver.batches import Batch
from flask_mengpaneel.deliver.delivery import Attempt
from flask_mengpaneel.deliver.ledger import Balance
from flask_mengpaneel.deliver.spool import Row, Spool, SpoolError
from rig import PlainEnvelope, event, events, rig, update
from sink import Sink, Status
from waiting import Clock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.sqlite3"


def ids(count: int) -> list[t.Any]:
    return [event() for _ in range(count)]


def test_what_is_put_in_is_leased_in_order_by_one(path: Path) -> None:
    ours, theirs = Spool(path), Spool(path)
    messages = ids(5)
    assert ours.put(messages, "down")

    rows = theirs.lease(10)
    assert [row.message.json for row in rows] == [m.json for m in messages]
    assert ours.lease(10) == []

    theirs.acknowledge([row.id for row in rows])
    assert theirs.lease(10) == []
    assert ours.summary().records == 0
    assert ours.summary().delivered == 5


def test_apps_of_several_projects_send_nothing_of_each_other_s(path: Path) -> None:
    ours, theirs = Spool(path, "ours"), Spool(path, "theirs")
    (message,) = ids(1)
    ours.put([message], "down")

    assert theirs.lease(10) == []
    assert [row.message.json for row in ours.lease(10)] == [message.json]


def test_updates_of_profiles_come_before_events(path: Path) -> None:
    spool = Spool(path)
    spool.put([event(), update("$set", {"a": 1}), event()], "down")

    assert [r.message.endpoint for r in spool.lease(10)] == [
        "people",
        "events",
        "events",
    ]


def test_no_file_is_made_to_look(path: Path) -> None:
    spool = Spool(path)
    spool.check()

    assert spool.lease(10) == []
    assert spool.summary().records == 0
    assert not path.exists()


def test_a_lease_ends(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = Spool(path), Spool(path)
    ours.put(ids(3), "down")
    rows = [row.id for row in ours.lease(10)]
    monkeypatch.setattr(spools, "LEASE", 0.0)

    assert [row.id for row in theirs.lease(10)] == rows
    assert not ours.renew_lease(rows, [])

    # What isn't ours any more is not settled by us.
    ours.acknowledge(rows)
    assert theirs.summary().records == 3


def test_a_lease_from_before_a_restart_of_the_machine_is_over(path: Path) -> None:
    ours, theirs = Spool(path), Spool(path)
    ours.put(ids(3), "down")
    ours.lease(10)

    with sqlite3.connect(path) as connection:
        # As by a machine that had been running for longer than this one.
        connection.execute("UPDATE messages SET leased_until = leased_until + 1e6")

    connection.close()
    assert len(theirs.lease(10)) == 3


def test_only_what_is_for_some_endpoints_is_taken(path: Path) -> None:
    spool = Spool(path)
    spool.put([event(), update("$set", {"a": 1}), event()], "down")

    assert [row.id for row in spool.lease(9, ["people", "groups"])] == [2]
    assert spool.lease(9, ["groups"]) == []
    assert [row.id for row in spool.lease(9, ["events"])] == [1, 3]


def test_nobody_waits_for_rows_that_an_earlier_version_put_off(path: Path) -> None:
    spool = Spool(path)
    spool.put(ids(3), "HTTP 503")

    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE messages SET not_before = 1e12")
        connection.commit()

    assert len(spool.lease(10)) == 3


def test_the_ledger_follows_what_another_process_does(path: Path) -> None:
    ours, theirs = Spool(path), Spool(path)
    ours.put(ids(10), "down")
    rows = [row.id for row in theirs.lease(10)]
    theirs.acknowledge(rows[:6])
    theirs.acknowledge(rows[6:8], "no")

    balance = Balance(recorded=10)
    ours.count(balance)
    assert balance.balanced
    assert (balance.delivered, balance.waiting) == (6, 2)
    assert balance.dropped == {"no": 2}

    balance = Balance()
    theirs.count(balance)
    assert balance.forwarded == 6
    assert balance.balanced


def test_a_full_spool_refuses_what_comes(path: Path) -> None:
    spool = Spool(path, max_bytes=200_000)

    while spool.put(ids(50), "down"):
        kept = spool.summary().records

    assert kept > 50
    assert spool.summary().records == kept
    # It takes again when there is room.
    spool.acknowledge([row.id for row in spool.lease(2000)])
    assert spool.put(ids(50), "down")


@pytest.mark.parametrize("count", [3, 350])
def test_what_is_not_held_as_a_whole_is_not_marked_as_sent(
    path: Path, count: int
) -> None:
    spool = Spool(path)
    rows = spool.put(ids(count), "down", leased=True)
    nobodys = rows[-1] + 1

    assert spool.renew_lease([*rows, nobodys], rows) is False
    assert marked(path) == 0
    assert spool.renew_lease(rows, rows[1:]) is True
    assert marked(path) == count - 1


def test_who_is_in_a_hurry_writes_nothing_but_what_is_new(path: Path) -> None:
    spool = Spool(path)
    # As after a disk that took nothing when these were delivered.
    spool._unwritten_acks.append((spool.put(ids(3), "down", leased=True), ""))
    spool.put(ids(1), "down", timeout=0.1)
    assert spool.summary().records == 4
    spool.put(ids(1), "down")
    assert (spool.summary().records, spool.summary().delivered) == (2, 3)


def marked(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        (found,) = connection.execute("SELECT total(sent) FROM messages").fetchone()

    return int(found)


def test_the_file_is_closed_when_nobody_needs_it(path: Path) -> None:
    spool = Spool(path)
    spool.put(ids(3), "down")
    connection = spool._connection
    assert connection is not None
    del spool

    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connection.execute("SELECT 1")


def test_a_hundred_thousand_ordinary_events_fit(path: Path) -> None:
    spool = Spool(path)
    properties = {f"Property {n}": "some value of it" for n in range(20)}

    for _ in range(50):
        assert spool.put([event(**properties) for _ in range(2000)], "down")

    assert spool.summary().records == 100_000


@pytest.mark.parametrize("damage", ["garbage", "middle"])
def test_a_corrupt_file_is_set_aside(
    path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    if damage == "garbage":
        path.write_bytes(os.urandom(20_000))
    else:
        spool = Spool(path)
        spool.put(ids(500), "down")
        spool.close()
        content = bytearray(path.read_bytes())
        content[4096 : len(content) - 4096] = os.urandom(len(content) - 8192)
        path.write_bytes(content)

    spool = Spool(path)
    spool.check()

    for _ in range(3):
        spool.lease(1000)
        spool.put(ids(500), "down")

    assert spool.put(ids(3), "down")
    assert list(path.parent.glob("*.corrupt-*"))
    assert "corrupt" in caplog.text


def test_a_path_that_cannot_be_used_is_found_at_once(tmp_path: Path) -> None:
    with pytest.raises(SpoolError, match="not a file"):
        Spool(tmp_path).check()

    (tmp_path / "file").touch()

    with pytest.raises(SpoolError, match="can't be written"):
        Spool(tmp_path / "file" / "spool").check()

    with pytest.raises(ValueError, match="MENGPANEEL_SPOOL is"):
        open_spool(Config(spool=tmp_path), str(tmp_path))


@pytest.mark.parametrize(
    "name",
    ["locked/spool", "locked/instance/spool", "loop/spool", "loop", "file/a/spool"]
    + ["x" * 300, "nul\0", "fifo"],
    ids=repr,
)
def test_any_place_that_cannot_be_used_is_a_warning_or_names_the_key(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "locked").mkdir(0o700)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "fifo")
    path = tmp_path / name

    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and folder != Path("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o055)

    # Whoever runs the tests may be root, for whom everything is allowed.
    with as_nobody(tmp_path / "locked"):
        with pytest.raises(ValueError, match="MENGPANEEL_SPOOL is"):
            open_spool(Config(spool=path), str(tmp_path))

        if "\0" in name:
            return

        spool = Spool(path)
        assert not spool.exists() or path.name == "fifo"
        assert spool.summary().records == 0
        assert spool.lease(1) == []
        assert spool.put([event()], "x") == []


def test_a_default_place_in_a_folder_of_another_is_one_warning(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(0o700)

    with as_nobody(tmp_path / "locked"):
        with pytest.warns(UserWarning, match="MENGPANEEL_SPOOL") as warned:
            assert open_spool(Config(), str(tmp_path / "locked" / "instance")) is None

        assert len(warned) == 1


@contextlib.contextmanager
def as_nobody(locked: Path) -> c.Iterator[None]:
    """Be somebody who may not enter a folder."""
    if os.getuid():
        locked.chmod(0)
        yield
        locked.chmod(0o700)
        return

    os.seteuid(65534)

    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("existing", [None, 0o644, 0o666], ids=str)
def test_only_the_owner_can_read_what_waits(path: Path, existing: int | None) -> None:
    former = os.umask(0)

    try:
        if existing is not None:
            path.touch(existing)

        spool = Spool(path)
        assert spool.put([event()], "x")
        files = list(path.parent.glob(f"{path.name}*"))
        assert len(files) == 3
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
        spool.close()
        path.write_bytes(b"no database " * 100)
        spool = Spool(path)
        assert spool.put([event()], "x")
        files = list(path.parent.glob(f"{path.name}*"))
        assert any("corrupt" in file.name for file in files)
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    finally:
        os.umask(former)


def test_the_default_place_is_the_instance_folder(tmp_path: Path) -> None:
    spool = open_spool(Config(), str(tmp_path / "instance"))

    assert spool is not None
    assert spool.path == tmp_path / "instance" / "mengpaneel-spool.sqlite3"
    assert not (tmp_path / "instance").exists()


def test_a_default_place_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "instance").touch()

    with pytest.warns(UserWarning, match="won't survive"):
        assert open_spool(Config(), str(tmp_path / "instance")) is None


def test_none_is_no_spool(tmp_path: Path) -> None:
    assert open_spool(Config(spool=None), str(tmp_path)) is None


def test_what_cannot_be_delivered_is_spooled_at_exit_and_sent_later(
    path: Path,
) -> None:
    envelope = PlainEnvelope([event() for _ in range(20)] + [update("$set", {"a": 1})])

    with rig("http://127.0.0.1:9", spool=Spool(path), shutdown_timeout=0.2) as first:
        first.send(envelope)
        first.thread.close()
        first.check(recorded=21, delivered=0, waiting=21, dropped={})

    with Sink() as sink, rig(sink.url, spool=Spool(path)) as second:
        second.thread.resume_spooled()
        assert sink.wait_for(21)
        assert second.thread.flush(60)
        second.check(recorded=0, forwarded=21)
        first.check(recorded=21, delivered=21, waiting=0)


def test_what_is_taken_from_the_spool_at_the_very_end_is_put_back(path: Path) -> None:
    entered, ended = threading.Event(), threading.Event()

    class SlowSpool(Spool):
        def lease(self, *args: t.Any) -> list[Row]:
            entered.set()
            assert ended.wait(60)
            return super().lease(*args)

    Spool(path).put([event()], "down")

    with rig("http://127.0.0.1:9", spool=SlowSpool(path), shutdown_timeout=0.0) as r:
        r.thread.resume_spooled()
        assert entered.wait(60)

    ended.set()
    deadline = time.monotonic() + 60

    while not (rows := Spool(path).lease(10)) and time.monotonic() < deadline:
        time.sleep(0.01)

    assert len(rows) == 1


def test_what_fails_at_the_very_end_is_spooled(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, ended = threading.Event(), threading.Event()

    with rig("http://127.0.0.1:9", spool=Spool(path), shutdown_timeout=0.0) as r:
        apply_answer = r.delivery.apply_answer

        def slowly(batch: Batch, answer: Answer) -> Attempt:
            entered.set()
            assert ended.wait(60)
            return apply_answer(batch, answer)

        monkeypatch.setattr(r.delivery, "apply_answer", slowly)
        r.send(events(1))
        assert entered.wait(60)
        threading.Timer(0.1, ended.set).start()
        r.thread.close()

        assert Spool(path).summary().records == 1
        r.check(recorded=1, waiting=1)


def test_operations_that_were_on_their_way_in_a_dead_process_are_not_sent_again(
    path: Path,
) -> None:
    dead = Spool(path)
    dead.put(
        [update("$add", {"n": 1}, repeatable=False), update("$set", {"a": 1})], "down"
    )
    rows = dead.lease(10)
    dead.renew_lease([row.id for row in rows], [rows[0].id])

    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE messages SET leased_until = 0")

    connection.close()

    with Sink() as sink, rig(sink.url, spool=Spool(path)) as r:
        r.thread.resume_spooled()
        assert sink.wait_for(1)
        assert r.thread.flush(60)

    assert [u for u in sink.updates if "$add" in u] == []
    assert len(r.reports) == 1
    summary = dead.summary()
    assert (summary.records, summary.delivered) == (0, 1)


def test_a_durable_envelope_is_in_the_spool_when_it_is_taken(path: Path) -> None:
    with (
        Sink() as sink,
        rig(sink.url, spool=Spool(path), durable=True) as r,
    ):
        sink.script(Status(503))
        r.send(events(3))
        assert Spool(path).summary().records == 3
        r.check(recorded=3, waiting=3)
        assert r.thread.flush(60)
        assert len(sink.ids) == 3
        assert sink.copies == 0
        r.check(recorded=3, delivered=3, waiting=0, forwarded=0)


def test_a_disk_that_takes_nothing_does_not_stop_delivery(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_bytes(b"")
    path.parent.joinpath("folder").mkdir()
    broken = Spool(path.parent / "folder")

    with Sink() as sink, rig(sink.url, spool=broken, durable=True) as r:
        for _ in range(5):
            assert r.send(events(2))

        assert r.thread.flush(60)
        assert len(sink.ids) == 10
        r.check(recorded=10, delivered=10)

    assert "can't be used" in caplog.text


@pytest.mark.parametrize("room", ["on the disk", "by its own limit"])
def test_a_full_spool_that_can_be_read_is_told_of_once_a_minute(
    path: Path,
    room: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr(spools, "time", clock)
    spool = Spool(path)
    assert spool.put(ids(1), "down")

    if room == "on the disk":
        assert spool._connection is not None
        # No smaller than it is.
        spool._connection.execute("PRAGMA max_page_count = 1")
    else:
        spool._max_bytes = 0

    for minutes in (1, 2):
        for _ in range(30):
            assert not spool.put([event(Text="x" * 10_000)], "down")
            assert spool.summary().records == 1

        assert caplog.text.count("can't be used") == minutes
        clock.passed += 61


def test_two_threads_that_share_a_file_lose_and_double_nothing(path: Path) -> None:
    Spool(path).put(ids(3000), "down")
    taken: list[int] = []

    def drain() -> None:
        spool = Spool(path)

        while rows := spool.lease(100):
            taken.extend(row.id for row in rows)
            spool.acknowledge([row.id for row in rows])

    threads = [threading.Thread(target=drain) for _ in range(4)]

    for thread in threads:
        thread.start()

    for thread in threads:
        thread.join()

    assert sorted(taken) == sorted(set(taken))
    assert len(taken) == 3000
