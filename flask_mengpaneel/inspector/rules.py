"""What Mixpanel takes and what it refuses of one record, as its documentation has it.

The rules are those of https://docs.mixpanel.com/reference/import-events,
https://docs.mixpanel.com/reference/track-event and
https://docs.mixpanel.com/reference/profile-set. Where they contradict each other, the
stricter one holds, so that what passes here passes there.
"""

from __future__ import annotations

import collections.abc as c
import dataclasses
import json
import typing as t

from ..limits import (
    INSERT_ID,
    MAX_AHEAD,
    MAX_DEPTH,
    MAX_EVENT_VALUE_BYTES,
    MAX_INSERT_ID,
    MAX_ITEMS,
    MAX_PROFILE_PROPERTIES,
    MAX_PROFILE_VALUE_BYTES,
    MAX_RECORD_BYTES,
    MAX_TEXT,
    MAX_TRACK_AGE,
    MIN_IMPORT_TIME,
    MIN_MILLISECONDS,
)
from ..values import FORBIDDEN_IDS

if t.TYPE_CHECKING:
    from ..calls import Json

#: Those that take events; the others take profile and group updates.
EVENT_ENDPOINTS = frozenset({"track", "import"})

#: What a profile or group update may do, and the type that each operation takes.
OPERATIONS: dict[str, type | tuple[type, ...]] = {
    "$set": dict,
    "$set_once": dict,
    "$add": dict,
    "$append": dict,
    "$union": dict,
    "$remove": dict,
    "$unset": list,
    "$delete": object,
}
_NOT_FOR_GROUPS = frozenset({"$add", "$append"})

#: Seconds by which two clocks may differ without a remark.
_CLOCK_SKEW = 5


class Refused(Exception):
    """Raised where Mixpanel refuses a record or a whole request; the message says why.

    :param field: where the mistake is, such as ``properties.time``.
    :param status: the HTTP status, where Mixpanel refuses the whole request.
    """

    def __init__(self, message: str, field: str = "", status: int = 400) -> None:
        super().__init__(message)
        self.field = field
        self.status = status


@dataclasses.dataclass(slots=True)
class Record:
    """One event, or one profile or group update, as it arrived."""

    value: Json
    #: Why Mixpanel would refuse it; empty if it would take it.
    problem: str = ""
    #: Where the problem is, such as ``properties.time``.
    field: str = ""
    #: What Mixpanel would change, each as a sentence.
    remarks: list[str] = dataclasses.field(default_factory=list)

    @property
    def properties(self) -> dict[str, Json]:
        """The properties of the event; empty if it has none."""
        found = self.value.get("properties") if isinstance(self.value, dict) else None
        return found if isinstance(found, dict) else {}


def check_record(endpoint: str, record: Record, now: float) -> None:
    """Set the record's problem and remarks, as Mixpanel would find them.

    :param endpoint: one of :data:`.hosts.ENDPOINTS`.
    :param now: the server's clock, in seconds since the epoch.
    """
    try:
        if not isinstance(record.value, dict):
            raise Refused("a record must be an object")

        _check_size(record.value)

        if endpoint in EVENT_ENDPOINTS:
            _check_event(endpoint, record, record.value, now)
        else:
            _check_update(endpoint, record, record.value)
    except Refused as error:
        record.problem = str(error)
        record.field = error.field
    except RecursionError:
        record.problem = "nested too deeply"


def _check_size(value: dict[str, Json]) -> None:
    try:
        size = len(json.dumps(value, ensure_ascii=False).encode())
    except UnicodeEncodeError:
        raise Refused(
            f"{_unencodable(value)} is invalid: string should be valid utf8",
            _unencodable(value),
        ) from None

    if size >= MAX_RECORD_BYTES:
        raise Refused(f"the record has {size:,} bytes; 1 MB is too large")


def _unencodable(value: dict[str, Json]) -> str:
    for path, text in _texts(value, ""):
        try:
            text.encode()
        except UnicodeEncodeError:
            # A name in the path may be what can't be encoded.
            return path.encode(errors="replace").decode()

    return ""


def _texts(value: Json, path: str) -> c.Iterator[tuple[str, str]]:
    """Yield each text in a value, names included, after the path to it."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item, path)
    elif isinstance(value, dict):
        for name, item in value.items():
            inner = f"{path}.{name}" if path else name
            yield inner, name
            yield from _texts(item, inner)


# -- Events


def _check_event(
    endpoint: str, record: Record, value: dict[str, Json], now: float
) -> None:
    if not isinstance(value.get("event"), str) or not value["event"]:
        raise _invalid("event", "must be a text that isn't empty")

    if not isinstance(value.get("properties"), dict):
        raise _invalid("properties", "must be an object")

    properties = record.properties
    _check_identity(endpoint, record, properties)
    _check_time(endpoint, record, properties, now)

    if len(properties) >= MAX_ITEMS:
        raise _invalid(
            "properties", f"has {len(properties)} properties; {MAX_ITEMS - 1} at most"
        )

    for name, item in properties.items():
        _check_shape(f"properties.{name}", item)

    _remark_values(record, properties, MAX_EVENT_VALUE_BYTES)

    if len(t.cast(str, value["event"]).encode()) > MAX_TEXT:
        record.remarks.append(f"the name is cut to {MAX_TEXT} bytes")

    if properties.get("$ignore") is True:
        record.remarks.append("$ignore: Mixpanel drops the event")


def _check_identity(endpoint: str, record: Record, properties: dict[str, Json]) -> None:
    token = properties.get("token")

    if endpoint == "track" and (not isinstance(token, str) or not token):
        raise _invalid("properties.token", "missing or empty")

    if "distinct_id" in properties:
        _check_id("properties.distinct_id", properties["distinct_id"], empty=True)
    elif "$device_id" not in properties and "$user_id" not in properties:
        if endpoint == "import":
            raise _invalid("properties.distinct_id", "missing")

        record.remarks.append("no distinct_id: Mixpanel makes one from the address")

    if "$insert_id" in properties:
        _check_insert_id(properties["$insert_id"])
    elif endpoint == "import":
        raise _invalid("properties.$insert_id", "missing")
    else:
        record.remarks.append("no $insert_id: sent twice, it counts twice")


def _check_id(field: str, value: Json, empty: bool = False) -> None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _invalid(field, f"must be a text, not {json.dumps(value)[:40]}")

    if value == "" and not empty:
        raise _invalid(field, "missing or empty")

    if str(value).strip().lower() in FORBIDDEN_IDS:
        raise _invalid(field, f"{json.dumps(value)} is nobody's id")


def _check_insert_id(value: Json) -> None:
    field = "properties.$insert_id"
    _check_id(field, value)

    if not INSERT_ID.fullmatch(str(value)):
        raise _invalid(
            field, f"must be at most {MAX_INSERT_ID} letters, digits and '-'"
        )


def _check_time(
    endpoint: str, record: Record, properties: dict[str, Json], now: float
) -> None:
    field = "properties.time"

    if "time" not in properties:
        if endpoint == "import":
            raise _invalid(field, "missing")

        return

    time = seconds(properties["time"])

    if time is None:
        raise _invalid(field, "must be specified as seconds since epoch")

    if time > now + MAX_AHEAD:
        raise _invalid(field, "more than an hour in the future")

    if endpoint == "import" and time < MIN_IMPORT_TIME:
        raise _invalid(field, "before 1971")

    if endpoint == "track" and time < now - MAX_TRACK_AGE:
        raise _invalid(field, "more than 5 days ago, which only /import takes")

    if time > now + _CLOCK_SKEW:
        record.remarks.append("the time is in the future: Mixpanel sets it to now")


def seconds(time: Json) -> float | None:
    """Return an event's time in seconds since the epoch; ``None`` if it isn't a time.

    :param time: seconds or milliseconds since the epoch, both of which Mixpanel takes.
    """
    if isinstance(time, bool) or not isinstance(time, int | float):
        return None

    try:
        return time / 1000 if abs(time) >= MIN_MILLISECONDS else float(time)
    except OverflowError:
        return None


def _check_shape(field: str, value: Json, depth: int = 1) -> None:
    if isinstance(value, dict):
        if depth > MAX_DEPTH:
            raise _invalid(field, f"nested more than {MAX_DEPTH} levels deep")

        if len(value) >= MAX_ITEMS:
            raise _invalid(field, f"has {len(value)} keys; {MAX_ITEMS - 1} at most")

        for name, item in value.items():
            _check_shape(f"{field}.{name}", item, depth + 1)
    elif isinstance(value, list):
        if len(value) >= MAX_ITEMS:
            raise _invalid(field, f"has {len(value)} elements; {MAX_ITEMS - 1} at most")

        for item in value:
            _check_shape(field, item, depth)


# -- Profile and group updates


def _check_update(endpoint: str, record: Record, value: dict[str, Json]) -> None:
    if not isinstance(value.get("$token"), str) or not value["$token"]:
        raise _invalid("$token", "missing or empty")

    if endpoint == "engage":
        _check_id("$distinct_id", value.get("$distinct_id", ""))
    else:
        _check_id("$group_key", value.get("$group_key", ""))
        _check_id("$group_id", value.get("$group_id", ""))

    found = [name for name in OPERATIONS if name in value]

    if not found:
        raise Refused(f"no operation: one of {', '.join(OPERATIONS)} is needed")

    for name in found:
        if endpoint == "groups" and name in _NOT_FOR_GROUPS:
            raise _invalid(name, "is for people, not for groups")

        _check_operation(record, name, value[name])


def _check_operation(record: Record, name: str, value: Json) -> None:
    if not isinstance(value, OPERATIONS[name]):
        kind = "a list of names" if name == "$unset" else "an object"
        raise _invalid(name, f"must be {kind}")

    if name == "$unset" and not all(isinstance(item, str) for item in _as_list(value)):
        raise _invalid(name, "must be a list of names")

    if not isinstance(value, dict):
        return

    for key, item in value.items():
        if name == "$add" and (
            isinstance(item, bool) or not isinstance(item, int | float)
        ):
            raise _invalid(f"{name}.{key}", "must be a number")

        if name == "$union" and not isinstance(item, list):
            raise _invalid(f"{name}.{key}", "must be a list")

    if len(value) > MAX_PROFILE_PROPERTIES:
        record.remarks.append(
            f"{len(value):,} properties; a profile holds {MAX_PROFILE_PROPERTIES:,}"
        )

    _remark_values(record, value, MAX_PROFILE_VALUE_BYTES)


def _as_list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


def _remark_values(record: Record, values: dict[str, Json], limit: int) -> None:
    cut = {path for path, text in _texts(values, "") if len(text.encode()) > MAX_TEXT}

    for path in sorted(cut):
        record.remarks.append(f"{path[:60]} is cut to {MAX_TEXT} bytes")

    for name, item in values.items():
        if name in {"bucket", "$bucket"}:
            record.remarks.append(f"{name} is a name that Mixpanel keeps for itself")

        if isinstance(item, dict | list) and len(json.dumps(item)) > limit:
            record.remarks.append(f"{name[:60]} is over {limit // 1024} KB")


def _invalid(field: str, message: str) -> Refused:
    return Refused(f"'{field}' is invalid: {message}", field)
