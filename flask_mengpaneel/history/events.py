"""Lines of a file turned into calls: each line is an event of the past."""

from __future__ import annotations

import collections
import collections.abc as c
import csv
import dataclasses
import datetime as dt
import hashlib
import json
import math
import re
import typing as t
import zlib

from ..calls import Call, Json
from ..identity import Identity
from ..limits import MAX_RECORDS, MAX_REQUEST_BYTES, MIN_MILLISECONDS
from ..record import arguments as checked
from ..values import is_number
from .lines import MAX_LINE_BYTES, FilePlace, Lines

#: Bytes of lines after which a chunk is full: mostly one request's worth.
MAX_CHUNK_BYTES = MAX_REQUEST_BYTES
#: Lines that one row of CSV may have, by a text of several lines in it.
MAX_ROW_LINES = 1_000

_TOO_LONG = f"it has {MAX_LINE_BYTES} bytes or more"

#: Columns that are texts, whatever they look like.
_TEXTS = frozenset({"event", "distinct_id", "$insert_id", "$device_id", "$user_id"})
#: Without an exponent: that is more often the number of an article than a number.
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")
_EMPTY: tuple[Json, ...] = (None, "")


class Unreadable(Exception):
    """The file isn't one of events; the message says why."""


class RefusedLine(t.NamedTuple):
    """A line that isn't taken."""

    line: int
    #: Its name, where it can be read.
    event: str
    reason: str


@dataclasses.dataclass(slots=True)
class Chunk:
    """Some lines that are sent together."""

    #: The event of each line, and its number.
    calls: list[Call]
    lines: list[int]
    #: The lines that make no event.
    refused: list[RefusedLine]
    #: Where it ends.
    end: FilePlace
    #: Bytes of the file that were read at its end.
    bytes_read: int
    #: Why nothing more could be read, if it couldn't.
    fault: str = ""
    #: How many of the events Mixpanel has taken.
    taken: int = 0


#: What a line says, and its bytes: those that tell it from others.
_Record = tuple[dict[str, t.Any], bytes]


def read(lines: Lines, start: FilePlace | None) -> tuple[c.Iterator[Chunk], bool]:
    """Read events in chunks: JSON lines, or CSV, as the first line says.

    :param start: where to go on, if what is before it is what was there.
    :return: the chunks, and whether it goes on there.
    :raises Unreadable: it is neither.
    """
    try:
        records, goes_on = _opened(lines, start)
    except (OSError, EOFError, zlib.error) as error:
        raise Unreadable(f"the file can't be read: {error}") from None

    return _chunks(lines, records), goes_on


def _opened(lines: Lines, start: FilePlace | None) -> tuple[JsonLines | CsvRows, bool]:
    records = _records(lines)
    goes_on = start is not None and lines.go_to(start)

    if goes_on:
        records.go_on()
    elif start is not None:
        records = _records(lines)

    return records, goes_on


def _records(lines: Lines) -> JsonLines | CsvRows:
    """Find out what a file has, at its beginning."""
    head = lines.next()

    if head is not None:
        head = head.removeprefix(b"\xef\xbb\xbf")

    while head is not None and not head.strip():
        head = lines.next()

    if head is None or head.lstrip()[:1] == b"{":
        return JsonLines(lines, head)

    return CsvRows(lines, head)


class JsonLines:
    """Events as JSON, one a line."""

    def __init__(self, lines: Lines, first: bytes | None) -> None:
        self._lines = lines
        self._first = first
        #: The number of the first line of the last record.
        self.number = 0

    @property
    def is_between(self) -> bool:
        """Whether all lines that were read are done with."""
        return True

    def go_on(self) -> None:
        """Leave the first line alone: it was done with before."""
        self._first = None

    def next(self) -> _Record | None:
        """Return the next record; ``None``: there is none.

        :raises ValueError: it is none.
        """
        self.number = self._lines.number + (self._first is None)
        line, self._first = self._first, None

        if line is None and (line := self._lines.next()) is None:
            return None

        if len(line) >= MAX_LINE_BYTES:
            raise ValueError(_TOO_LONG)

        line = line.strip()

        if not line:
            return {}, b""

        try:
            record = json.loads(line.decode())
        except RecursionError:
            raise ValueError("it is nested too deeply") from None
        except UnicodeDecodeError:
            raise ValueError("it isn't UTF-8") from None
        except json.JSONDecodeError as error:
            raise ValueError(
                f"it isn't JSON: {error.msg}, in column {error.colno}"
            ) from None

        if not isinstance(record, dict):
            raise ValueError("it isn't an object")

        if unknown := record.keys() - {"event", "properties"}:
            raise ValueError(
                f"there are 'event' and 'properties', but no {min(unknown)!r}"
            )

        return record, line


class CsvRows:
    """Events as CSV, one a row, with a head."""

    def __init__(self, lines: Lines, head: bytes) -> None:
        self._lines = lines
        self._pending: collections.deque[tuple[int, bytes]] = collections.deque()
        self.number = 0

        try:
            self._columns = next(csv.reader([head.decode()], strict=True))
        except (UnicodeDecodeError, csv.Error) as error:
            raise Unreadable(
                f"the first line is neither an event as JSON nor the head of a CSV:"
                f" {error}"
            ) from None

        for name in ("event", "time"):
            if name not in self._columns:
                raise Unreadable(
                    "the first line is neither an event as JSON nor the head of a CSV"
                    f" with a column {name!r}"
                )

        if len(set(self._columns)) != len(self._columns):
            raise Unreadable("two columns have the same name")

    @property
    def is_between(self) -> bool:
        """Whether all lines that were read are done with."""
        return not self._pending

    def go_on(self) -> None:
        """Leave the head alone, which has no event."""

    def next(self) -> _Record | None:
        """Return the next record; ``None``: there is none.

        :raises ValueError: it is none.
        """
        pulled: list[tuple[int, bytes]] = []
        self.number = self._pending[0][0] if self._pending else self._lines.number + 1

        try:
            cells = next(csv.reader(self._pull(pulled), strict=True), None)
        except (UnicodeDecodeError, csv.Error) as error:
            # A quote that isn't closed has taken lines along.
            self._pending.extendleft(reversed(pulled[1:]))
            is_text = isinstance(error, csv.Error)
            raise ValueError(
                f"it isn't CSV: {error}" if is_text else "it isn't UTF-8"
            ) from None

        if cells is None:
            return None

        if not any(cells):
            return {}, b""

        if len(cells) != len(self._columns):
            raise ValueError(
                f"it has {len(cells)} cells, and the head has {len(self._columns)}"
            )

        properties: dict[str, t.Any] = {
            name: cell if name in _TEXTS else value_of(cell)
            for name, cell in zip(self._columns, cells, strict=True)
            if cell
        }
        event = properties.pop("event", "")
        raw = b"".join(line for _, line in pulled).strip()
        return {"event": event, "properties": properties}, raw

    def _pull(self, pulled: list[tuple[int, bytes]]) -> c.Iterator[str]:
        size = 0

        while len(pulled) < MAX_ROW_LINES and size < MAX_LINE_BYTES:
            if self._pending:
                number, line = self._pending.popleft()
            elif (read := self._lines.next()) is not None:
                number, line = self._lines.number, read
            else:
                return

            pulled.append((number, line))
            size += len(line)

            if len(line) >= MAX_LINE_BYTES:
                raise csv.Error(_TOO_LONG)

            yield line.decode()


def value_of(cell: str) -> Json:
    """Return what a cell of a CSV says: what is JSON is that, and all else a text."""
    if cell in {"true", "false", "null"} or cell[0] in '{["' or _NUMBER.fullmatch(cell):
        try:
            return t.cast("Json", json.loads(cell))
        except (ValueError, RecursionError):
            pass

    return cell


def _chunks(lines: Lines, records: JsonLines | CsvRows) -> c.Iterator[Chunk]:
    calls: list[Call] = []
    numbers: list[int] = []
    refused: list[RefusedLine] = []
    size = 0

    def chunk(fault: str = "") -> Chunk:
        return Chunk(calls, numbers, refused, lines.place, lines.bytes_read, fault)

    while True:
        record: dict[str, t.Any] = {}

        try:
            if (found := records.next()) is None:
                break

            record, raw = found

            if raw:
                calls.append(call_of(record, raw))
                numbers.append(records.number)
                size += len(raw)
        except (TypeError, ValueError) as error:
            event = record.get("event", "")
            name = event if isinstance(event, str) else ""
            refused.append(RefusedLine(records.number, name, str(error)))
        except (OSError, EOFError, zlib.error) as error:
            yield chunk(f"after line {lines.number} the file can't be read: {error}")
            return

        if records.is_between and (
            len(calls) + len(refused) >= MAX_RECORDS or size >= MAX_CHUNK_BYTES
        ):
            yield chunk()
            calls, numbers, refused, size = [], [], [], 0

    yield chunk()


def call_of(record: c.Mapping[str, t.Any], raw: bytes) -> Call:
    """Return the call that tracks an event of the past.

    :param raw: what tells the event from others, if it has no ``$insert_id``.
    :raises TypeError: it has something that can't be sent.
    :raises ValueError: it has something that can't be sent, or lacks something.
    """
    for name in ("event", "properties"):
        if name not in record:
            raise ValueError(f"{name!r} is missing")

    event = checked.event_name(record["event"])
    given = record["properties"]

    if not isinstance(given, dict):
        raise ValueError("'properties' isn't an object")

    # Spreadsheets and databases have these for no value.
    for name in ("distinct_id", "$insert_id", "$device_id", "$user_id"):
        if given.get(name, "") in _EMPTY:
            given.pop(name, None)

    moment = _time_of(given.pop("time", None))

    if "$insert_id" not in given:
        given["$insert_id"] = hashlib.blake2b(raw, digest_size=16).hexdigest()
    elif is_number(given["$insert_id"]):
        given["$insert_id"] = str(given["$insert_id"])

    if "distinct_id" not in given:
        ids = Identity.from_ids(given.get("$device_id"), given.get("$user_id"))
        # Mixpanel wants it; "" is nobody.
        given["distinct_id"] = ids.distinct_id

    properties = checked.event_properties(given)
    properties["time"] = moment
    call = Call([["track"], [event, properties]])
    checked.checked_size(call)
    return call


def _time_of(value: Json) -> float:
    """Return a time in seconds since the epoch."""
    if value in _EMPTY:
        raise ValueError("'time' is missing")

    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = float(value)

    if is_number(value):
        try:
            moment = float(t.cast(float, value))
        except OverflowError:
            # JSON's integers have any number of digits.
            moment = math.inf

        if math.isfinite(moment):
            return moment / 1000 if moment >= MIN_MILLISECONDS else moment

    if isinstance(value, str):
        try:
            date = dt.datetime.fromisoformat(value)
        except ValueError:
            pass
        else:
            date = date if date.tzinfo else date.replace(tzinfo=dt.UTC)
            return round(date.timestamp(), 3)

    raise ValueError(
        f"'time' must be seconds since the epoch, or a date and time as in"
        f" '2024-03-01T09:30:00Z', not {value!r}"
    )
