"""The map for maintainers is right: a real call passes the files that it lists."""

from __future__ import annotations

import collections.abc as c
import contextlib
import dataclasses
import functools
import itertools
import pathlib
import re
import sys
import threading
import types
import typing as t

import pytest
from flask import redirect
from flask.testing import FlaskClient

import flask_mengpaneel
from sink import Sink
from sites import CAPABLE, PAGE, Site

PACKAGE = pathlib.Path(flask_mengpaneel.__file__).parent
ROOT = PACKAGE.parent
TEXT = (ROOT / "docs" / "architecture.md").read_text()

#: The call that is followed is known by this name; each journey has one of its own.
EVENT = "Follow Me"
#: What a call travels in. The page lists the same.
CARRIERS = frozenset(
    {"Call", "CallLog", "Shares", "Entry", "Envelope", "Message", "Batch"}
)
#: The script, which Python can't follow.
BROWSER = "static/mengpaneel.js"
MOST_FILES = 7
#: Seconds that delivery may take.
DEADLINE = 20.0


# -- what the page says


@functools.cache
def sections() -> dict[str, str]:
    """What is below each heading of the page."""
    parts = re.split(r"^#+ (.*)\n", TEXT, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def listed(heading: str) -> list[str]:
    """The files with which the lines of a numbered list begin."""
    return re.findall(r"^\d\. `([\w/.]+)`", sections()[heading], re.M)


def asked() -> set[str]:
    return set(re.findall(r"^\| `([\w/.]+)` \|", sections()["Asked on the way"], re.M))


#: Those that take calls where they are kept.
TAKING = {"choose/flusher.py", "deliver/pipeline.py"}

# -- where a call really goes


class Entry(t.NamedTuple):
    """A function was given the call."""

    file: str
    #: The file from which it was called; ``None``: from outside of the package.
    by: str | None
    function: str


@dataclasses.dataclass
class Trace:
    """The functions that were given the call, in order, in all threads."""

    entries: list[Entry] = dataclasses.field(default_factory=list)
    is_on: bool = True

    def __call__(self, frame: types.FrameType, event: str, _argument: object) -> None:
        if event != "call" or not self.is_on:
            return

        file = file_of(frame)

        # What looks after hand-overs comes by at any moment, or doesn't.
        if threading.current_thread().name == "mengpaneel-hand-overs":
            return

        if file is not None and any(map(has_call, arguments(frame))):
            self.entries.append(Entry(file, caller(frame), frame.f_code.co_name))

    @property
    def files(self) -> list[str]:
        """The files in the order in which the call came to them."""
        return list(dict.fromkeys(entry.file for entry in self.entries))

    @property
    def steps(self) -> set[tuple[str, str]]:
        """From which file to which one the call was handed."""
        return {
            (entry.by, entry.file)
            for entry in self.entries
            if entry.by is not None and entry.by != entry.file
        }


@contextlib.contextmanager
def tracing() -> c.Iterator[Trace]:
    trace = Trace()
    threading.setprofile(trace)
    sys.setprofile(trace)

    try:
        yield trace
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
        trace.is_on = False


def file_of(frame: types.FrameType) -> str | None:
    """The file of a function, unless it is no file of the package, or one of the words
    at its top level."""
    path = pathlib.PurePath(frame.f_code.co_filename)

    if not path.is_relative_to(PACKAGE):
        return None

    file = path.relative_to(PACKAGE).as_posix()
    return file if "/" in file else None


def caller(frame: types.FrameType) -> str | None:
    back = frame.f_back

    while back is not None and file_of(back) is None:
        back = back.f_back

    return None if back is None else file_of(back)


def arguments(frame: types.FrameType) -> list[t.Any]:
    """What a function was given, but the object that it is a method of."""
    code = frame.f_code
    rest = bool(code.co_flags & 4) + bool(code.co_flags & 8)
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount + rest]
    return [frame.f_locals.get(name) for name in names if name not in ("self", "cls")]


def has_call(value: t.Any, depth: int = 8) -> bool:
    """Whether the call is in a value."""
    inner: c.Iterable[t.Any] = ()

    if isinstance(value, str):
        return EVENT in value

    if isinstance(value, bytes):
        return EVENT.encode() in value

    if isinstance(value, dict):
        inner = list(value.values())
    elif isinstance(value, list | tuple):
        inner = list(value)
    elif type(value).__name__ in CARRIERS:
        inner = [getattr(value, name, None) for name in type(value).__slots__]

    return depth > 0 and any(has_call(one, depth - 1) for one in inner)


# -- the five ways


def site(sink: Sink, answer: c.Callable[[], t.Any]) -> Site:
    made = Site(transport="thread", api_host=sink.url)

    def view() -> t.Any:
        made.mengpaneel.track(EVENT)
        return answer()

    made.view("/", view)
    made.view("/page", lambda: PAGE)
    return made


def visitor(made: Site) -> FlaskClient:
    return made.visitor(distinct_id="ann", **{"$device_id": "ann"})


def follow_delayed(sink: Sink) -> None:
    visitor(site(sink, lambda: redirect("/page"))).get("/")


def follow_client_side(sink: Sink) -> None:
    page = visitor(site(sink, lambda: PAGE)).get("/").text
    assert EVENT in page
    assert pathlib.PurePath(BROWSER).name in page


def follow_capable_client_side(sink: Sink) -> None:
    response = visitor(site(sink, lambda: "done")).get("/", headers=CAPABLE)
    assert EVENT in response.headers["X-Mengpaneel-Calls"]


def follow_async_server_side(sink: Sink) -> None:
    made = site(sink, lambda: "done")
    visitor(made).get("/")
    assert made.mengpaneel.flush(DEADLINE)
    assert sink.count() == 1


def follow_server_side(sink: Sink) -> None:
    def insist() -> str:
        made.mengpaneel.strategy = "ServerSide"
        return "done"

    made = site(sink, insist)
    visitor(made).get("/")
    assert sink.count() == 1


FOLLOW: dict[str, c.Callable[[Sink], None]] = {
    "Delayed": follow_delayed,
    "ClientSide": follow_client_side,
    "CapableClientSide": follow_capable_client_side,
    "AsyncServerSide": follow_async_server_side,
    "ServerSide": follow_server_side,
}
WAYS = list(FOLLOW)


@functools.cache
def journey(way: str) -> Trace:
    # An app of a journey before delivers what it has left when it goes, at any moment.
    global EVENT
    EVENT = f"Follow by {way}"

    with Sink() as sink, tracing() as trace:
        FOLLOW[way](sink)

    return trace


@pytest.mark.parametrize("way", WAYS)
def test_a_call_passes_the_files_that_the_page_lists(way: str) -> None:
    passed = [file for file in journey(way).files if file not in asked()]

    assert passed == [file for file in listed(way) if file != BROWSER]


def test_delayed_calls_go_with_those_of_the_next_page() -> None:
    with Sink() as sink:
        client = visitor(site(sink, lambda: redirect("/page")))
        client.get("/")

        with tracing() as trace:
            assert EVENT in client.get("/page").text

    session = listed("Delayed")[-1]
    # What the page says of it below the list.
    last = sections()["Delayed"].strip().split("\n\n")[-1]
    further = set(re.findall(r"`([\w/]+\.py)`", last))
    passed = set(trace.files) - asked() - {session} - further

    assert {session, *further} <= set(trace.files)
    assert passed <= set(listed("ClientSide"))


@pytest.mark.parametrize("way", WAYS)
def test_a_call_passes_few_files_and_none_twice(way: str) -> None:
    files = listed(way)

    assert len(files) == len(set(files)) <= MOST_FILES


@pytest.mark.parametrize("way", WAYS)
def test_no_file_hands_a_call_back(way: str) -> None:
    order = {file: number for number, file in enumerate(listed(way))}
    back = [
        (one, other)
        for one, other in journey(way).steps
        if other in order and (one in asked() or order.get(one, -1) > order[other])
    ]

    assert back == []


@pytest.mark.parametrize("way", WAYS)
def test_each_file_hands_a_call_on_to_the_next(way: str) -> None:
    files = [file for file in listed(way) if file != BROWSER]
    steps = journey(way).steps

    for file, following in itertools.pairwise(files):
        reached = {file}

        while more := {
            to
            for by, to in steps
            if by in reached and to in {*asked(), following} - reached
        }:
            reached |= more

        # The manager of a request and the queue keep calls until somebody takes them.
        assert (following in reached) != (following in TAKING), (file, following)


def test_the_page_says_to_how_many_files_a_call_comes() -> None:
    (numbers,) = re.findall(r"comes to (\d+) files .* to (\d+) on", TEXT, re.S)
    passed = [len(journey(way).files) for way in WAYS]

    assert [min(passed), max(passed)] == list(map(int, numbers))


def test_the_files_that_are_asked_on_the_way_are_those_of_the_page() -> None:
    passed = {file for way in WAYS for file in journey(way).files}

    assert passed - {file for way in WAYS for file in listed(way)} == asked()


def test_the_page_names_what_a_call_travels_in() -> None:
    (sentence,) = re.findall(r"^A call \*\*passes\*\*.*?\. ", TEXT, re.M | re.S)

    assert set(re.findall(r"`(\w+)`", sentence)) == CARRIERS


def test_the_files_and_folders_that_the_page_names_are_there() -> None:
    named = set(re.findall(r"`([\w/]+(?:\.(?:py|js|md)|/))`", TEXT))

    assert len(named) > 20
    assert [
        one for one in named if not ((PACKAGE / one).exists() or (ROOT / one).exists())
    ] == []


def test_every_way_starts_alike() -> None:
    starts = list(itertools.islice(zip(*map(listed, WAYS), strict=False), 4))

    assert all(len(set(files)) == 1 for files in starts)


def test_each_part_of_the_package_is_in_one_layer() -> None:
    parts = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py"}
    parts |= {f"{path.parent.name}/" for path in PACKAGE.glob("*/__init__.py")}
    named = re.findall(r"`([\w.]+(?:py|/))`", sections()["Layers"])

    assert sorted(named) == sorted(parts)
