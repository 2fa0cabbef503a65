"""One request to Mixpanel's ingestion endpoints: read, checked and answered.

Pure functions, without Flask: a request goes in; its records, each with what is wrong
with it, and Mixpanel's answer come out. The answers are those of
https://docs.mixpanel.com/reference/import-events,
https://docs.mixpanel.com/reference/track-event and
https://docs.mixpanel.com/reference/profile-set.
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

from ..limits import MAX_RECORDS, MAX_REQUEST_BYTES
from .rules import EVENT_ENDPOINTS, Record, Refused, check_record

if t.TYPE_CHECKING:
    from ..calls import Json

# 1 x 1, transparent, for img=1.
_PIXEL = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")

_REASON_PHRASES = {
    400: "Bad Request",
    401: "Unauthorized",
    413: "Request Entity Too Large",
}


@dataclasses.dataclass(slots=True)
class IngestionAnswer:
    """Mixpanel's answer to a request, and the records that were in it."""

    status: int
    content_type: str
    body: bytes
    records: list[Record]
    #: Why Mixpanel refuses the whole request; empty if it checks each record.
    problem: str = ""


def ingest(
    endpoint: str,
    query: c.Mapping[str, str],
    headers: c.Mapping[str, str],
    body: bytes,
    now: float,
) -> IngestionAnswer:
    """Check a request, and answer it, as Mixpanel would.

    :param endpoint: one of :data:`ENDPOINTS`.
    :param headers: by names in the usual spelling, such as ``Content-Type``.
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
        check_record(endpoint, record, now)

    return _answer(endpoint, query, records)


# -- Reading


def _authorize(query: c.Mapping[str, str], headers: c.Mapping[str, str]) -> None:
    scheme, _, credentials = headers.get("Authorization", "").partition(" ")

    try:
        user, _, password = (
            base64.b64decode(credentials, validate=True).decode().partition(":")
        )
    except (binascii.Error, ValueError):
        user = password = ""

    # Without a password the user is the project's token. A service account has one, and
    # says which project it sends to.
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
    """Return the JSON text of a request, and the other parameters of its form."""
    if headers.get("Content-Encoding", "").lower() == "gzip":
        if endpoint not in EVENT_ENDPOINTS:
            raise Refused(f"/{endpoint} doesn't take gzip")

        body = _gunzip(body)

    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise Refused("the body isn't valid utf8") from None

    form: dict[str, str] = {}

    # The content type doesn't tell: a beacon is a form that says it is text/plain.
    if not text.lstrip().startswith(("[", "{")):
        form = dict(parse_qsl(text, keep_blank_values=True))
        text = _decode_data(form.pop("data", "") or query.get("data", ""))

    if len(text.encode()) > MAX_REQUEST_BYTES:
        raise _too_large()

    return text, form


def _gunzip(body: bytes) -> bytes:
    unzip = zlib.decompressobj(wbits=31)

    try:
        plain = unzip.decompress(body, MAX_REQUEST_BYTES + 1)
    except zlib.error:
        raise Refused("the body isn't gzip, as Content-Encoding says") from None

    if len(plain) > MAX_REQUEST_BYTES:
        raise _too_large()

    if not unzip.eof:
        raise Refused("the gzip body ends too early")

    return plain


def _decode_data(data: str) -> str:
    if data.lstrip().startswith(("[", "{")):
        return data

    # Decoding the form has made a space of each "+" that was not escaped.
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
        # 1e999 is valid JSON, but Python reads it as infinity, which isn't.
        if math.isinf(value := float(text)):
            raise ValueError(f"{text[:40]} is too large a number")

        return value

    return t.cast("Json", json.loads(text, parse_constant=constant, parse_float=number))


def _too_large() -> Refused:
    return Refused(
        f"request exceeds max limit of {MAX_REQUEST_BYTES} bytes", status=413
    )


# -- Answering


def _answer(
    endpoint: str, query: c.Mapping[str, str], records: list[Record]
) -> IngestionAnswer:
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
        # Mixpanel answers 1 if it takes any of the records.
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
) -> IngestionAnswer:
    """Return the answer that browsers get: 1 or 0, with status 200 in any case."""
    if query.get("img") == "1":
        return IngestionAnswer(200, "image/gif", _PIXEL, records)

    status = 0 if problem else 1
    callback = query.get("callback", "")

    # Other sites may load this script: nothing but a name may get into it.
    if re.fullmatch(r"[A-Za-z_$][\w$.]{0,99}", callback, re.ASCII):
        script = f"{callback}({status});".encode()
        return IngestionAnswer(200, "text/javascript", script, records)

    if query.get("verbose") == "1":
        value = {"status": status, "error": problem or None}
        return _json_answer(200, value, records)

    return IngestionAnswer(200, "text/plain", str(status).encode(), records)


def _refusal(
    endpoint: str, query: c.Mapping[str, str], error: Refused
) -> IngestionAnswer:
    problem = str(error)

    if endpoint != "import" and error.status == 400:
        answer = _short_answer(query, [], problem)
    else:
        phrase = _REASON_PHRASES[error.status]
        value = {"code": error.status, "error": problem, "status": phrase}
        answer = _json_answer(error.status, value, [])

    answer.problem = problem
    return answer


def _json_answer(status: int, value: t.Any, records: list[Record]) -> IngestionAnswer:
    return IngestionAnswer(
        status, "application/json", json.dumps(value).encode(), records
    )
