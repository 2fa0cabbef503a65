"""What Mixpanel takes and what it refuses, as its documentation has it.

Pure functions, without Flask: a request to one of the ingestion endpoints goes in,
its records, each with what is wrong with it, and Mixpanel's answer come out.

The rules are those of https://docs.mixpanel.com/reference/import-events,
https://docs.mixpanel.com/reference/track-event and
https://docs.mixpanel.com/reference/profile-set; where they contradict each other (2
or 10 MB a request), the stricter one holds, so that what passes here passes there.
"""

from __future__ import annotations

import base64
import binascii
import collections.abc as c
import dataclasses
import json
import math
import re
import typing as t
import zlib
from urllib.parse import parse_qsl

if t.TYPE_CHECKING:
    from ..calls import Json

#: The endpoints, as they are called in a URL.
ENDPOINTS = ("track", "import", "engage", "groups")

MAX_REQUEST = 2_097_152
MAX_RECORDS = 2_000
MAX_RECORD = 1_000_000
MAX_ITEMS = 255
MAX_DEPTH = 3
MAX_TEXT = 255
MAX_EVENT_VALUE = 8 * 1024
MAX_PROFILE_VALUE = 256 * 1024
MAX_PROFILE_PROPERTIES = 2_000

#: How far from now an event's time may be, in seconds.
TRACK_WINDOW = 5 * 86_400
FUTURE = 3_600
YEAR_1971 = 31_536_000

#: Ids that are mistakes of the program that sent them.
FORBIDDEN_IDS = frozenset(
    "00000000-0000-0000-0000-000000000000 anon anonymous nil none null n/a na"
    " undefined unknown <nil> 0 -1 true false [] {}".split()
)

#: What a profile update may do, and what it takes.
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

# 1 x 1, transparent, for img=1.
_PIXEL = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")


class Refused(Exception):
    """A record or a whole request is not taken; the message says why.

    :param field: where the mistake is, such as ``properties.time``.
    :param status: the HTTP status, where the whole request is refused.
    """

    def __init__(self, message: str, field: str = "", status: int = 400) -> None:
        super().__init__(message)
        self.field = field
        self.status = status


@dataclasses.dataclass(slots=True)
class Record:
    """One event or one profile or group update, as it arrived."""

    value: Json
    #: Why Mixpanel doesn't take it; empty if it does.
    problem: str = ""
    field: str = ""
    #: What Mixpanel does to it that its sender may not want.
    remarks: list[str] = dataclasses.field(default_factory=list)

    @property
    def properties(self) -> dict[str, Json]:
        """The properties of an event; empty if there are none."""
        found = self.value.get("properties") if isinstance(self.value, dict) else None
        return found if isinstance(found, dict) else {}


@dataclasses.dataclass(slots=True)
class Answer:
    """What Mixpanel answers, and the records that it was sent."""

    status: int
    content_type: str
    body: bytes
    records: list[Record]
    #: Why the whole request is refused; empty if each record is judged by itself.
    problem: str = ""


def ingest(
    endpoint: str,
    query: c.Mapping[str, str],
    headers: c.Mapping[str, str],
    body: bytes,
    now: float,
) -> Answer:
    """Judge a request as Mixpanel would.

    :param endpoint: one of :data:`ENDPOINTS`.
    :param headers: looked up in the usual spelling, such as ``Content-Type``.
    :param now: the server's clock, in seconds since the epoch.
    """
    try:
        if endpoint == "import":
            _authorize(query, headers)

        text, form = _payload(endpoint, query, headers, body)
        query = {**query, **form}
        records = [Record(value) for value in _values(text, headers)]
    except Refused as error:
        return _refusal(endpoint, query, error)

    for record in records:
        _judge(endpoint, record, now)

    return _answer(endpoint, query, records)


def _authorize(query: c.Mapping[str, str], headers: c.Mapping[str, str]) -> None:
    scheme, _, credentials = headers.get("Authorization", "").partition(" ")

    try:
        user, _, password = (
            base64.b64decode(credentials, validate=True).decode().partition(":")
        )
    except (binascii.Error, ValueError):
        user = password = ""

    # A service account has a password, and needs the project that it is for.
    if (
        scheme.lower() != "basic"
        or not user
        or (password and not query.get("project_id"))
    ):
        raise Refused("Invalid credentials", status=401)


def _payload(
    endpoint: str,
    query: c.Mapping[str, str],
    headers: c.Mapping[str, str],
    body: bytes,
) -> tuple[str, dict[str, str]]:
    """The JSON text of a request, and the parameters that came with it in a form."""
    if headers.get("Content-Encoding", "").lower() == "gzip":
        if endpoint not in {"track", "import"}:
            raise Refused(f"/{endpoint} doesn't take gzip")

        body = _unzipped(body)

    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise Refused("the body isn't valid utf8") from None

    form: dict[str, str] = {}

    # Not by the content type: what a browser sends with its last breath is a form
    # called text/plain.
    if not text.lstrip().startswith(("[", "{")):
        form = dict(parse_qsl(text, keep_blank_values=True))
        text = _plain(form.pop("data", "") or query.get("data", ""))

    if len(text.encode()) > MAX_REQUEST:
        raise _too_large()

    return text, form


def _unzipped(body: bytes) -> bytes:
    unzip = zlib.decompressobj(wbits=31)

    try:
        plain = unzip.decompress(body, MAX_REQUEST + 1)
    except zlib.error:
        raise Refused("the body isn't gzip, as Content-Encoding says") from None

    if len(plain) > MAX_REQUEST:
        raise _too_large()

    if not unzip.eof:
        raise Refused("the gzip body ends too early")

    return plain


def _plain(data: str) -> str:
    if data.lstrip().startswith(("[", "{")):
        return data

    # A "+" that was not escaped is a space by now.
    data = data.strip().replace(" ", "+")

    try:
        return base64.b64decode(data + "=" * (-len(data) % 4), validate=True).decode()
    except ValueError:
        raise Refused("data is neither JSON nor base64 of it") from None


def _values(text: str, headers: c.Mapping[str, str]) -> list[Json]:
    if not text.strip():
        raise Refused("data, missing or empty")

    try:
        if "ndjson" in headers.get("Content-Type", ""):
            values: list[Json] = [
                _loads(line) for line in text.splitlines() if line.strip()
            ]
        else:
            loaded = _loads(text)
            values = loaded if isinstance(loaded, list) else [loaded]
    except (ValueError, RecursionError) as error:
        raise Refused(f"data isn't valid JSON: {error}") from None

    if not values:
        raise Refused("data, missing or empty")

    if len(values) > MAX_RECORDS:
        raise Refused(f"more than {MAX_RECORDS} records in one request", status=413)

    return values


def _loads(text: str) -> Json:
    def constant(name: str) -> t.NoReturn:
        raise ValueError(f"{name} isn't JSON")

    def number(text: str) -> float:
        # 1e999 is valid JSON, and becomes what isn't.
        if math.isinf(value := float(text)):
            raise ValueError(f"{text[:40]} is too large a number")

        return value

    return t.cast("Json", json.loads(text, parse_constant=constant, parse_float=number))


def _too_large() -> Refused:
    return Refused(f"request exceeds max limit of {MAX_REQUEST} bytes", status=413)


def _judge(endpoint: str, record: Record, now: float) -> None:
    try:
        if not isinstance(record.value, dict):
            raise Refused("a record must be an object")

        _check_size(record.value)

        if endpoint in {"track", "import"}:
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

    if size >= MAX_RECORD:
        raise Refused(f"the record has {size:,} bytes; 1 MB is too large")


def _unencodable(value: dict[str, Json]) -> str:
    for path, text in _texts(value, ""):
        try:
            text.encode()
        except UnicodeEncodeError:
            # The path may be what can't be encoded.
            return path.encode(errors="replace").decode()

    return ""


def _texts(value: Json, path: str) -> c.Iterator[tuple[str, str]]:
    """Every text in a value, names included, with the way to it."""
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


def _check_event(
    endpoint: str, record: Record, value: dict[str, Json], now: float
) -> None:
    if not isinstance(value.get("event"), str) or not value["event"]:
        raise _wrong("event", "must be a text that isn't empty")

    if not isinstance(value.get("properties"), dict):
        raise _wrong("properties", "must be an object")

    properties = record.properties
    _check_identity(endpoint, record, properties)
    _check_time(endpoint, record, properties, now)

    if len(properties) >= MAX_ITEMS:
        raise _wrong(
            "properties", f"has {len(properties)} properties; {MAX_ITEMS - 1} at most"
        )

    for name, item in properties.items():
        _check_shape(f"properties.{name}", item)

    _remark_values(record, properties, MAX_EVENT_VALUE)

    if len(t.cast(str, value["event"]).encode()) > MAX_TEXT:
        record.remarks.append(f"the name is cut to {MAX_TEXT} bytes")

    if properties.get("$ignore") is True:
        record.remarks.append("$ignore: Mixpanel drops the event")


def _check_identity(endpoint: str, record: Record, properties: dict[str, Json]) -> None:
    token = properties.get("token")

    if endpoint == "track" and (not isinstance(token, str) or not token):
        raise _wrong("properties.token", "missing or empty")

    if "distinct_id" in properties:
        _check_id("properties.distinct_id", properties["distinct_id"], empty=True)
    elif "$device_id" not in properties and "$user_id" not in properties:
        if endpoint == "import":
            raise _wrong("properties.distinct_id", "missing")

        record.remarks.append("no distinct_id: Mixpanel makes one from the address")

    if "$insert_id" in properties:
        _check_insert_id(properties["$insert_id"])
    elif endpoint == "import":
        raise _wrong("properties.$insert_id", "missing")
    else:
        record.remarks.append("no $insert_id: sent twice, it counts twice")


def _check_id(field: str, value: Json, empty: bool = False) -> None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _wrong(field, f"must be a text, not {json.dumps(value)[:40]}")

    if value == "" and not empty:
        raise _wrong(field, "missing or empty")

    if str(value).strip().lower() in FORBIDDEN_IDS:
        raise _wrong(field, f"{json.dumps(value)} is nobody's id")


def _check_insert_id(value: Json) -> None:
    field = "properties.$insert_id"
    _check_id(field, value)

    if not re.fullmatch(r"[A-Za-z0-9-]{1,36}", str(value)):
        raise _wrong(field, "must be at most 36 letters, digits and '-'")


def _check_time(
    endpoint: str, record: Record, properties: dict[str, Json], now: float
) -> None:
    field = "properties.time"

    if "time" not in properties:
        if endpoint == "import":
            raise _wrong(field, "missing")

        return

    time = seconds(properties["time"])

    if time is None:
        raise _wrong(field, "must be specified as seconds since epoch")

    if time > now + FUTURE:
        raise _wrong(field, "more than an hour in the future")

    if endpoint == "import" and time < YEAR_1971:
        raise _wrong(field, "before 1971")

    if endpoint == "track" and time < now - TRACK_WINDOW:
        raise _wrong(field, "more than 5 days ago, which only /import takes")

    # Two clocks never agree to the second.
    if time > now + 5:
        record.remarks.append("the time is in the future: Mixpanel sets it to now")


def seconds(time: Json) -> float | None:
    """An event's time in seconds since the epoch, whether it was written in seconds
    or in milliseconds; ``None`` if it isn't a time."""
    if isinstance(time, bool) or not isinstance(time, int | float):
        return None

    try:
        return time / 1000 if abs(time) > 1e11 else float(time)
    except OverflowError:
        return None


def _check_shape(field: str, value: Json, depth: int = 1) -> None:
    if isinstance(value, dict):
        if depth > MAX_DEPTH:
            raise _wrong(field, f"nested more than {MAX_DEPTH} levels deep")

        if len(value) >= MAX_ITEMS:
            raise _wrong(field, f"has {len(value)} keys; {MAX_ITEMS - 1} at most")

        for name, item in value.items():
            _check_shape(f"{field}.{name}", item, depth + 1)
    elif isinstance(value, list):
        if len(value) >= MAX_ITEMS:
            raise _wrong(field, f"has {len(value)} elements; {MAX_ITEMS - 1} at most")

        for item in value:
            _check_shape(field, item, depth)


def _check_update(endpoint: str, record: Record, value: dict[str, Json]) -> None:
    if not isinstance(value.get("$token"), str) or not value["$token"]:
        raise _wrong("$token", "missing or empty")

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
            raise _wrong(name, "is for people, not for groups")

        _check_operation(record, name, value[name])


def _check_operation(record: Record, name: str, value: Json) -> None:
    if not isinstance(value, OPERATIONS[name]):
        kind = "a list of names" if name == "$unset" else "an object"
        raise _wrong(name, f"must be {kind}")

    if name == "$unset" and not all(isinstance(item, str) for item in _list(value)):
        raise _wrong(name, "must be a list of names")

    if not isinstance(value, dict):
        return

    for key, item in value.items():
        if name == "$add" and (
            isinstance(item, bool) or not isinstance(item, int | float)
        ):
            raise _wrong(f"{name}.{key}", "must be a number")

        if name == "$union" and not isinstance(item, list):
            raise _wrong(f"{name}.{key}", "must be a list")

    if len(value) > MAX_PROFILE_PROPERTIES:
        record.remarks.append(
            f"{len(value):,} properties; a profile holds {MAX_PROFILE_PROPERTIES:,}"
        )

    _remark_values(record, value, MAX_PROFILE_VALUE)


def _list(value: Json) -> list[Json]:
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


def _wrong(field: str, message: str) -> Refused:
    return Refused(f"'{field}' is invalid: {message}", field)


def _answer(endpoint: str, query: c.Mapping[str, str], records: list[Record]) -> Answer:
    failed = [
        {
            "index": index,
            "$insert_id": record.properties.get("$insert_id", ""),
            "field": record.field,
            "message": record.problem,
        }
        for index, record in enumerate(records)
        if record.problem
    ]
    strict = query.get("strict") == "1" and endpoint != "track"

    if endpoint != "import" and not strict:
        # One good record is enough for a 1.
        problem = records[0].problem if len(failed) == len(records) else ""
        return _short_answer(query, records, problem)

    answer: dict[str, t.Any] = {
        "code": 200,
        "num_records_imported": len(records) - len(failed),
        "status": "OK",
    }

    if failed and strict:
        answer |= {
            "code": 400,
            "error": "some data points in the request failed validation",
            "failed_records": failed,
            "status": "Bad Request",
        }

    return _json_answer(answer["code"], answer, records)


def _short_answer(
    query: c.Mapping[str, str], records: list[Record], problem: str
) -> Answer:
    """The answer of the endpoints for browsers: 1 or 0, and 200 in any case."""
    if query.get("img") == "1":
        return Answer(200, "image/gif", _PIXEL, records)

    status = 0 if problem else 1
    callback = query.get("callback", "")

    # Nothing but a name: this is a script that other sites may ask for.
    if re.fullmatch(r"[A-Za-z_$][\w$.]{0,99}", callback, re.ASCII):
        script = f"{callback}({status});".encode()
        return Answer(200, "text/javascript", script, records)

    if query.get("verbose") == "1":
        value = {"status": status, "error": problem or None}
        return _json_answer(200, value, records)

    return Answer(200, "text/plain", str(status).encode(), records)


def _refusal(endpoint: str, query: c.Mapping[str, str], error: Refused) -> Answer:
    problem = str(error)

    if endpoint != "import" and error.status == 400:
        answer = _short_answer(query, [], problem)
    else:
        words = {
            400: "Bad Request",
            401: "Unauthorized",
            413: "Request Entity Too Large",
        }
        value = {"code": error.status, "error": problem, "status": words[error.status]}
        answer = _json_answer(error.status, value, [])

    answer.problem = problem
    return answer


def _json_answer(status: int, value: t.Any, records: list[Record]) -> Answer:
    return Answer(status, "application/json", json.dumps(value).encode(), records)
