"""``flask mengpaneel import``: events of the past, out of a file."""

from __future__ import annotations

import collections.abc as c
import concurrent.futures
import contextlib
import gzip
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import typing as t
from pathlib import Path

import pytest
from flask import Flask

from flask_mengpaneel import Mengpaneel
from flask_mengpaneel.cli import mengpaneel
from flask_mengpaneel.deliver.batches import Batch
from flask_mengpaneel.deliver.delivery import Attempt
from flask_mengpaneel.history.events import Chunk, read
from flask_mengpaneel.history.lines import Lines
from flask_mengpaneel.history.sending import Sending
from processes import FOLDER, SETTINGS, Process, settings_for
from sink import Html, Late, Sink, Status

TIME = 1_700_000_000


@pytest.fixture
def app(tmp_path: Path, sink: Sink) -> Flask:
    return make_app(tmp_path, sink)


def make_app(folder: Path, sink: Sink, **settings: t.Any) -> Flask:
    app = Flask(__name__, instance_path=str(folder / "instance"))
    Mengpaneel(app, **{"token": "t", "api_host": sink.url, **settings})
    return app


def load(app: Flask, file: Path, *options: str, code: int = 0) -> t.Any:
    """Run the command, and check its exit code."""
    result = app.test_cli_runner().invoke(mengpaneel, ["import", str(file), *options])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def event(number: int = 0, **properties: t.Any) -> dict[str, t.Any]:
    own = {"distinct_id": "ann", "time": TIME + number, "$insert_id": f"id-{number}"}
    return {"event": f"Event {number}", "properties": own | properties}


def write(path: Path, lines: c.Iterable[t.Any]) -> Path:
    """Write lines: texts as they are, and all else as JSON."""
    texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_text("".join(f"{text}\n" for text in texts))
    return path


def report(result: t.Any) -> list[list[str]]:
    return [line.split("\t") for line in result.stdout.splitlines()]


# What a line says.


def test_events_arrive_as_they_are_in_the_file(
    app: Flask, tmp_path: Path, sink: Sink
) -> None:
    given = [event(n, Plan="pro", Items=n, Tags=["a", {"b": None}]) for n in range(3)]
    result = load(app, write(tmp_path / "old.jsonl", given))

    assert "3 events taken, 0 refused" in result.stderr
    assert result.stdout == ""
    assert [request.path for request in sink.requests] == ["/import"]

    for arrived, sent in zip(sink.events, given, strict=True):
        assert arrived["event"] == sent["event"]
        assert sent["properties"].items() <= arrived["properties"].items()
        assert arrived["properties"]["token"] == "t"


def test_a_csv_has_columns_for_what_an_event_says_of_itself(
    app: Flask, tmp_path: Path, sink: Sink
) -> None:
    file = tmp_path / "old.csv"
    file.write_bytes(
        b"\xef\xbb\xbf\r\nevent,time,distinct_id,$insert_id,Plan,Items,New,Tags,Zip,Note\r\n"
        b'Order,1700000000,42,0815,pro,3,true,"[1, ""a""]",01234,"two\r\nlines"\r\n'
        b"\r\n"
        b'1e3,2023-11-14T23:13:20+01:00,,,,-1.5,,1e3,"""7""",\r\n'
    )
    load(app, file)
    first, second = (one["properties"] for one in sink.events)

    assert [one["event"] for one in sink.events] == ["Order", "1e3"]
    assert first["time"] == second["time"] == TIME
    assert (first["distinct_id"], first["$insert_id"]) == ("42", "0815")
    assert (first["Plan"], first["Items"], first["New"]) == ("pro", 3, True)
    assert (first["Tags"], first["Zip"]) == ([1, "a"], "01234")
    assert first["Note"] == "two\r\nlines"
    assert second["distinct_id"] == ""
    assert (second["Items"], second["Tags"], second["Zip"]) == (-1.5, "1e3", "7")
    assert {"Plan", "New", "Note"}.isdisjoint(second)


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (TIME, TIME),
        (TIME + 0.25, TIME + 0.25),
        (TIME * 1000 + 250, TIME + 0.25),
        (str(TIME), TIME),
        ("2023-11-14T22:13:20", TIME),
        ("2023-11-14 22:13:20Z", TIME),
        ("2023-11-14T22:13:20.250+00:00", TIME + 0.25),
        ("2023-11-15", TIME + 6400),
    ],
    ids=repr,
)
def test_a_time_may_be_written_in_several_ways(
    app: Flask, tmp_path: Path, sink: Sink, given: t.Any, seconds: float
) -> None:
    load(app, write(tmp_path / "old", [event(time=given)]))

    assert sink.events[0]["properties"]["time"] == seconds


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ({"distinct_id": 42}, "42"),
        ({"distinct_id": None}, ""),
        ({"distinct_id": "", "$user_id": "bob"}, "bob"),
        ({"distinct_id": None, "$device_id": "d1"}, "$device:d1"),
    ],
)
def test_whose_event_it_is(
    app: Flask, tmp_path: Path, sink: Sink, ids: dict[str, t.Any], expected: str
) -> None:
    load(app, write(tmp_path / "old", [event(**ids)]))

    assert sink.events[0]["properties"]["distinct_id"] == expected


def test_an_event_without_an_id_has_the_same_on_each_run(
    app: Flask, tmp_path: Path, sink: Sink
) -> None:
    lines = [event(n, **{"$insert_id": None}) for n in range(2)]
    load(app, write(tmp_path / "old", lines))
    load(app, write(tmp_path / "other", lines))

    assert (len(sink.events), len(sink.ids)) == (4, 2)
    assert all(len(id) <= 36 and id.isalnum() for id in sink.ids)


def test_neither_consent_nor_hooks_of_the_app_are_for_what_is_past(
    tmp_path: Path, sink: Sink
) -> None:
    app = make_app(
        tmp_path,
        sink,
        before_send=lambda event: None,
        default_properties={"Release": 7},
        bots="drop",
        consent=lambda: False,
    )
    load(app, write(tmp_path / "old", [event()]))

    assert "Release" not in sink.events[0]["properties"]


@pytest.mark.parametrize("kind", ["json", ""])
def test_the_events_of_the_docs_are_some(
    app: Flask, tmp_path: Path, sink: Sink, kind: str
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "import.md").read_text()
    (example,) = re.findall(rf"^```{kind}\n((?:event|{{).*?)^```", page, re.M | re.S)
    load(app, write(tmp_path / "old", [example.strip()]))

    assert sink.ids == {"order-4711"}
    assert sink.events[0]["properties"]["Items"] == 3


# What is refused.

#: Lines that are no events, and what is said of them.
BAD: list[tuple[t.Any, str]] = [
    ("{", "it isn't JSON: "),
    ("[1]", "it isn't an object"),
    (event() | {"time": 1}, "there are 'event' and 'properties', but no 'time'"),
    (event(time=None), "'time' is missing"),
    (event(time="yesterday"), "'time' must be "),
    (event(time=True), "'time' must be "),
    ('{"event": "E", "properties": {"time": 1e999}}', "'time' must be "),
    ('{"event": "E", "properties": {"time": 1' + "0" * 400 + "}}", "'time' must be "),
    ('{"event": "E", "properties": {"time": 1, "x": NaN}}', "isn't a number"),
    ({"event": "E"}, "'properties' is missing"),
    ({"event": "E", "properties": [1]}, "'properties' isn't an object"),
    ({"properties": {}}, "'event' is missing"),
    (event() | {"event": " "}, "an event name is empty"),
    (event() | {"event": 7}, "an event name must be a text"),
    (event(**{"$insert_id": "x" * 256}), "$insert_id has more than 255"),
    ('{"event": "E", "properties": ' + "[" * 100_000, "it is nested too deeply"),
    (event(x="y" * 1_000_000), "1000000 bytes or more"),
    (event(x="y" * 5_000_000), "it has 2097152 bytes or more"),
]


def test_what_makes_no_event_is_reported_with_its_line_and_the_others_are_taken(
    app: Flask, tmp_path: Path, sink: Sink
) -> None:
    bad = [one for line, _ in BAD for one in (line, "")]
    file = write(tmp_path / "old", [event(1), *bad, event(2)])
    result = load(app, file, code=1)

    assert f"2 events taken, {len(BAD)} refused" in result.stderr
    assert sink.ids == {"id-1", "id-2"}

    for number, (_, expected) in enumerate(BAD):
        line, _, reason = report(result)[number]

        assert int(line) == 2 * number + 2
        assert expected in reason
        assert len(reason) <= 300


def test_a_quote_that_is_not_closed_takes_no_other_line_along(
    app: Flask, tmp_path: Path, sink: Sink
) -> None:
    rows = [f"Good,{TIME + n},{n}" for n in range(3000)]
    rows[10] = f'"Bad,{TIME},x'
    rows[20] = f"Bad,{TIME}"
    rows[30] = f'Bad,{TIME},"x" y'
    rows[-1] = f'Bad,{TIME},"x'
    result = load(app, write(tmp_path / "old", ["event,time,Number", *rows]), code=1)

    assert [line for line, _, _ in report(result)] == ["12", "22", "32", "3001"]
    assert {one["properties"]["Number"] for one in sink.events} == (
        set(range(2999)) - {10, 20, 30}
    )


def test_what_mixpanel_refuses_is_reported_in_its_words(
    app: Flask, tmp_path: Path, sink: Sink
) -> None:
    sink.refuse = lambda record: (
        "too \x1b old" if record["properties"]["time"] % 1000 == 7 else None
    )
    file = write(tmp_path / "old", map(event, range(4500)))
    result = load(app, file, code=1)

    assert report(result) == [
        [str(n + 1), f"Event {n}", "properties: too   old"]
        for n in (7, 1007, 2007, 3007, 4007)
    ]
    assert len(sink.ids) == 4495

    # Also where it doesn't say which.
    sink.names_refused = False
    again = load(make_app(tmp_path / "b", sink), file, code=1)
    assert [line for line, _, _ in report(again)] == [
        line for line, _, _ in report(result)
    ]


def test_the_ledger_has_what_was_imported(
    app: Flask, tmp_path: Path, sink: Sink
) -> None:
    sink.refuse = lambda record: "no" if record["event"] == "Event 3" else None
    load(app, write(tmp_path / "old", ["{", *map(event, range(5))]), code=1)
    balance = app.extensions["mengpaneel"].ledger.snapshot()

    assert balance.balanced
    assert (balance.recorded, balance.delivered, balance.waiting) == (6, 4, 0)
    assert balance.dropped == {"refused when recorded": 1, "properties: no": 1}


@pytest.mark.parametrize(
    "content",
    [
        b"a;b;c\n",
        b"event,Plan\n",
        b"event,time,time\n",
        b"\xff\xfe{\x00",
        b"\x1f\x8bno",
    ],
)
def test_what_is_no_file_of_events_is_an_error(
    app: Flask, tmp_path: Path, sink: Sink, content: bytes
) -> None:
    (tmp_path / "old").write_bytes(content)
    result = load(app, tmp_path / "old", code=1)

    assert result.stderr.startswith("Error: ")
    assert "Traceback" not in result.output
    assert not sink.requests


@pytest.mark.parametrize("content", ["", "\n\n", "event,time\n", "event,time"])
def test_a_file_without_events_is_none(
    app: Flask, tmp_path: Path, sink: Sink, content: str
) -> None:
    (tmp_path / "old").write_text(content)

    for _ in range(2):
        assert "0 events taken, 0 refused" in load(app, tmp_path / "old").stderr


@pytest.mark.filterwarnings("ignore:MENGPANEEL_TOKEN is not set")
def test_where_nothing_is_tracked_it_is_an_error(tmp_path: Path, sink: Sink) -> None:
    file = write(tmp_path / "old", [event()])
    nothing = Flask(__name__)

    assert "no Mengpaneel" in load(nothing, file, code=1).stderr
    assert (
        "MENGPANEEL_TOKEN"
        in load(make_app(tmp_path, sink, token=None), file, code=1).stderr
    )


# When something goes wrong on the way.


def test_trouble_is_outlasted(app: Flask, tmp_path: Path, sink: Sink) -> None:
    sink.script(Status(503), Status(429), Html(takes=True), Status(502))
    sink.most = 700
    load(app, write(tmp_path / "old", map(event, range(4500))))

    assert sink.ids == {f"id-{n}" for n in range(4500)}


def test_when_mixpanel_is_out_of_reach_for_too_long_it_can_be_run_again(
    app: Flask, tmp_path: Path, sink: Sink
) -> None:
    file = write(tmp_path / "old", map(event, range(9000)))
    # The first two take their time, so that the next three are answered before them.
    sink.script(Late(0.3), Late(0.3))
    sink.refuse = lambda record: "no" if record["event"] == "Event 8000" else None
    load(app, file, code=1)
    assert sink.ids == {f"id-{n}" for n in range(9000)} - {"id-8000"}

    write(file, map(event, range(12_000)))
    sink.always = Status(503)
    result = load(app, file, "--timeout=0.1", code=75)
    assert "HTTP 503" in result.stderr
    assert "8,999 events taken, 1 refused" in result.stderr

    sink.always = None
    result = load(app, file, code=1)
    assert "goes on after line 9000" in result.stderr
    assert "11,999 events taken, 1 refused" in result.stderr
    assert sink.ids == {f"id-{n}" for n in range(12_000)} - {"id-8000"}
    assert sum(one["event"] == "Event 0" for one in sink.events) == 1


def test_a_project_that_mixpanel_does_not_let_in_loses_nothing(
    app: Flask, tmp_path: Path, sink: Sink
) -> None:
    file = write(tmp_path / "old", map(event, range(3)))
    sink.always = Status(401)
    result = load(app, file, code=1)

    assert "takes nothing: HTTP 401" in result.stderr
    assert result.stdout == ""

    sink.always = None
    assert "3 events taken, 0 refused" in load(app, file).stderr


def test_the_position_is_of_one_file_with_this_beginning_in_one_project(
    app: Flask, tmp_path: Path, sink: Sink
) -> None:
    file = write(tmp_path / "old", map(event, range(3)))
    load(app, file)
    assert "goes on after line 3" in load(app, file).stderr
    assert len(sink.events) == 3

    # Another project; another file; another content.
    load(make_app(tmp_path, sink, token="other"), file)
    load(app, write(tmp_path / "new", map(event, range(3))))
    assert len(sink.events) == 9

    load(app, write(file, map(event, range(10, 13))))
    assert "goes on" not in load(app, write(file, [event(20)])).stderr
    assert sink.ids == {f"id-{n}" for n in (0, 1, 2, 10, 11, 12, 20)}
    assert len(sink.events) == 13


@pytest.mark.parametrize("kept", ["", "{}", '{"offset": -1, "lines": 0, "digest": ""}'])
def test_a_position_that_is_wrong_does_no_harm(
    app: Flask, tmp_path: Path, sink: Sink, kept: str
) -> None:
    file = write(tmp_path / "old", map(event, range(3)))
    load(app, file)
    (position,) = (tmp_path / "instance").glob("*.import-*")
    assert position.stat().st_mode & 0o077 == 0

    position.write_text(kept)
    assert "3 events taken" in load(app, file).stderr
    assert (len(sink.events), len(sink.ids)) == (6, 3)


def test_a_file_may_be_compressed_and_goes_on_as_well(
    app: Flask, tmp_path: Path, sink: Sink
) -> None:
    file = tmp_path / "old.csv.gz"
    rows = [f"Visit,{TIME + n},id-{n}\n" for n in range(3000)]
    head = "event,time,$insert_id\n"
    whole = gzip.compress((head + "".join(rows)).encode())
    file.write_bytes(whole[: len(whole) // 2])
    result = load(app, file, code=1)

    assert "the file can't be read" in result.stderr
    taken = len(sink.ids)
    assert 0 < taken < 3000

    file.write_bytes(whole)
    assert "goes on after line" in load(app, file).stderr
    assert len(sink.ids) == 3000
    assert len(sink.events) == 3000


def test_without_a_spool_it_begins_at_the_beginning(tmp_path: Path, sink: Sink) -> None:
    app = make_app(tmp_path, sink, spool=None)
    file = write(tmp_path / "old", [event()])
    load(app, file)
    load(app, file)

    assert (len(sink.events), len(sink.ids)) == (2, 1)


def test_only_a_part_of_a_file_is_in_memory_however_long_it_is(
    app: Flask, tmp_path: Path, sink: Sink
) -> None:
    file = write(tmp_path / "old", map(event, range(60_000)))
    delivery = app.extensions["mengpaneel"].delivery
    is_far_ahead = threading.Event()
    ahead: list[int] = []
    taken = 0

    class Held(Sending):
        # Not at the sink, for whose answer nobody waits longer than ten seconds.
        def _attempt(self, batch: Batch) -> Attempt:
            is_far_ahead.wait(300)
            return super()._attempt(batch)

    with file.open("rb") as opened, app.app_context():
        lines = Lines(opened)
        chunks, _ = read(lines, None)

        def counted() -> c.Iterator[Chunk]:
            for chunk in chunks:
                ahead.append(lines.number - taken)

                # What the page says: so much is on its way.
                if ahead[-1] >= 24_000:
                    is_far_ahead.set()

                yield chunk

        for chunk in Held(delivery, 60).send(counted()):
            taken += chunk.taken

    assert taken == len(sink.ids) == 60_000
    assert max(ahead) == 24_000


# In processes of their own.


def start(folder: Path, url: str, file: str) -> Process:
    command = [sys.executable, "-m", "flask", "--app", "processes"]
    return Process(folder, [*command, "mengpaneel", "import", file], settings_for(url))


@pytest.fixture
def heeds_interrupts() -> c.Iterator[None]:
    """Children heed SIGINT, also where a shell has started the tests in the background:
    they would inherit that it is ignored."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


@pytest.mark.usefixtures("heeds_interrupts")
def test_killed_at_any_moment_and_run_again_each_event_is_there_once(
    tmp_path: Path, sink: Sink
) -> None:
    file = write(tmp_path / "old", map(event, range(32_000)))
    # Longer than it takes to be told: all of it would take some seconds.
    sink.latency = 1.0

    for requests, number in [(2, signal.SIGKILL), (6, signal.SIGINT)]:
        sink.requests.clear()
        killed = start(tmp_path, sink.url, str(file))
        assert sink.wait_for(lambda n=requests: len(sink.requests) >= n, 30)
        killed.process.send_signal(number)
        assert killed.wait() != 0

    sink.latency = 0.0
    last = start(tmp_path, sink.url, str(file))
    assert last.wait() == 0, last.output
    assert "goes on after line" in last.output
    assert "32,000 events taken, 0 refused" in last.output

    # All copies of an event are the same event to Mixpanel.
    seen = {(e["event"], *sorted(e["properties"].items())) for e in sink.events}
    assert len(seen) == len(sink.ids) == 32_000


def test_a_pipe_with_a_name_has_no_position(
    app: Flask, tmp_path: Path, sink: Sink
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    for number in range(2):
        writer = threading.Thread(target=write, args=(pipe, [event(number)]))
        writer.start()
        assert "1 event taken, 0 refused" in load(app, pipe).stderr
        writer.join()

    assert sink.ids == {"id-0", "id-1"}


def import_in(folder: Path, sink: Sink, file: str, **options: t.Any) -> t.Any:
    """Run the command in a process of its own."""
    command = [sys.executable, "-m", "flask", "--app", "processes"]
    return subprocess.run(
        [*command, "mengpaneel", "import", file],
        cwd=Path(__file__).parents[1],
        timeout=60,
        env=os.environ
        | {FOLDER: str(folder), SETTINGS: json.dumps(settings_for(sink.url))},
        **options,
    )


def read_terminal(end: int) -> str:
    """Return all that is written to a terminal, until nobody has it open any more."""
    written = b""

    # What Linux says then is an error.
    with contextlib.suppress(OSError):
        while data := os.read(end, 65_536):
            written += data

    return written.decode()


def test_a_bar_shows_on_a_terminal_how_far_it_is(tmp_path: Path, sink: Sink) -> None:
    file = write(tmp_path / "old", [*map(event, range(9_999)), "no event"])
    ours, theirs = pty.openpty()

    with concurrent.futures.ThreadPoolExecutor() as pool:
        written = pool.submit(read_terminal, ours)

        try:
            done = import_in(
                tmp_path, sink, str(file), stdout=subprocess.PIPE, stderr=theirs
            )
        finally:
            os.close(theirs)

        shown = written.result(30)
        os.close(ours)

    percentages = [int(one) for one in re.findall(r"(\d+)%", shown)]
    events = re.findall(r"([\d,]+) events", shown.partition("taken")[0])

    assert done.returncode == 1, shown
    assert "Importing" in shown
    assert percentages == sorted(percentages)
    assert {0, 100} < set(percentages)
    assert list(dict.fromkeys(events)) == [
        *("0", "2,000", "4,000", "6,000", "8,000", "9,999")
    ]
    assert "9,999 events taken, 1 refused." in shown
    # What is refused has its own place, and is a line as ever.
    assert done.stdout.startswith(b"10000\t")
    assert b"Importing" not in done.stdout
    assert b"%" not in done.stdout


def test_no_bar_is_drawn_into_a_file(tmp_path: Path, sink: Sink) -> None:
    file = write(tmp_path / "old", map(event, range(4_000)))
    done = import_in(tmp_path, sink, str(file), capture_output=True)

    assert done.returncode == 0, done.stderr
    assert done.stdout == b""
    assert done.stderr.decode().splitlines()[-1] == "4,000 events taken, 0 refused."
    assert not re.search(rb"[%#\r\x1b]", done.stderr)


def test_events_may_come_in_through_a_pipe(tmp_path: Path, sink: Sink) -> None:
    lines = b"".join(b"%s\n" % json.dumps(event(n)).encode() for n in range(3))
    done = import_in(
        tmp_path, sink, "-", input=gzip.compress(lines), capture_output=True
    )

    assert done.returncode == 0, done.stderr
    assert b"3 events taken" in done.stderr
    assert sink.ids == {"id-0", "id-1", "id-2"}
