"""What an answer means for the messages of a request.

This is the only place that knows Mixpanel's answers.
"""

from __future__ import annotations

import dataclasses
import email.utils
import enum
import json
import random
import re
import time
import typing as t

from .. import hosts

if t.TYPE_CHECKING:
    from .batches import Batch
    from .http import Reply

# An app may have seeded the one that all share, and forks share any other that has a
# state.
_random = random.SystemRandom()

#: Seconds before the first retry, and at most between two.
FIRST_BACKOFF = 0.25
MAX_BACKOFF = 60.0
#: Seconds of ``Retry-After`` that are believed.
MAX_RETRY_AFTER = 300.0
#: Characters of somebody else's text that are passed on.
MAX_WORDS = 300


_NOT_BY_MIXPANEL = ", not by Mixpanel"
_REGION = re.compile(r"\b(region|residency|cluster)\b", re.IGNORECASE)


class Meaning(enum.Enum):
    """What an answer means for the messages of a request."""

    TAKEN = enum.auto()
    #: Some were refused, the others taken.
    PARTLY_TAKEN = enum.auto()
    #: Refused as a whole, nothing of it was taken: something in it is bad.
    REFUSED = enum.auto()
    TOO_LARGE = enum.auto()
    #: Refused as a whole, for no fault of a single record.
    FORBIDDEN = enum.auto()
    #: Not taken; to be sent again.
    RETRY = enum.auto()
    #: Nobody knows whether it was taken.
    AMBIGUOUS = enum.auto()
    #: Not sent: another process has leased it.
    LEASE_LOST = enum.auto()


@dataclasses.dataclass(slots=True)
class Answer:
    """An answer, or the lack of one, and what it means."""

    meaning: Meaning
    reason: str = ""
    #: What was refused: index -> Mixpanel's words.
    refused: dict[int, str] = dataclasses.field(default_factory=dict)
    #: Seconds that Mixpanel asks us to wait.
    retry_after: float | None = None


def read(reply: Reply, batch: Batch) -> Answer:
    """Find out what a reply means."""
    status = reply.status
    body = _json_object(reply.body)
    reason = _reason(status, body)
    retry_after = _retry_after(reply)

    if status == 200:
        return _read_ok(body, batch, reason)

    if status == 413:
        return Answer(Meaning.TOO_LARGE, reason)

    if status in {408, 429, 503}:
        return Answer(Meaning.RETRY, reason, retry_after=retry_after)

    if 400 <= status < 500:
        if not _is_refusal(status, body):
            # Somebody in between didn't let it through, so that Mixpanel took nothing.
            reason = f"{reason}{_NOT_BY_MIXPANEL}"
            return Answer(Meaning.RETRY, reason, retry_after=retry_after)

        if status != 400:
            return Answer(Meaning.FORBIDDEN, reason)

        refused = _refused(body, batch)
        meaning = Meaning.PARTLY_TAKEN if refused else Meaning.REFUSED
        return Answer(meaning, reason, refused)

    # Mixpanel's trouble, a captive portal, a proxy's page.
    return Answer(Meaning.AMBIGUOUS, reason, retry_after=retry_after)


def _read_ok(body: dict[str, t.Any], batch: Batch, reason: str) -> Answer:
    status = body.get("status")

    if status in (1, "OK", "ok") and not body.get("failed_records"):
        return Answer(Meaning.TAKEN)

    if refused := _refused(body, batch):
        return Answer(Meaning.PARTLY_TAKEN, reason, refused)

    # The profile endpoints answer 200 to what they refuse.
    if type(status) is int and status == 0 and isinstance(body.get("error"), str):
        return Answer(Meaning.REFUSED, reason)

    return Answer(Meaning.AMBIGUOUS, "the answer isn't Mixpanel's")


def _is_refusal(status: int, body: dict[str, t.Any]) -> bool:
    """Whether an answer has the form in which Mixpanel refuses.

    https://docs.mixpanel.com/troubleshooting/errors. Gateways and frameworks speak JSON
    too, in other forms: ``message``, ``detail``, or a number as ``status``.
    """
    return isinstance(body.get("failed_records"), list) or (
        isinstance(body.get("error"), str)
        and isinstance(body.get("status"), str)
        and body.get("code", status) == status
    )


def what_to_check(reason: str) -> str:
    """Return what to check where Mixpanel refuses all there is; empty if it doesn't.

    With a wrong token or region it answers 401 to events, 403 to operations:
    https://docs.mixpanel.com/troubleshooting/errors/401-unauthorized

    :param reason: as :func:`read` gives it.
    """
    if reason.endswith(_NOT_BY_MIXPANEL) or not (
        reason.startswith(("HTTP 401", "HTTP 403")) or _REGION.search(reason)
    ):
        return ""

    there_are = ", ".join(f"https://{name}" for name in hosts.SERVER_HOSTS)
    return (
        "check that MENGPANEEL_TOKEN is the token of your project, and"
        f" MENGPANEEL_API_HOST the host of its region ({there_are})"
    )


def what_to_do(reason: str) -> str:
    """Return what to check there, and how to see then whether it is right."""
    checks = what_to_check(reason)
    return checks and f"{checks}; 'flask mengpaneel send-test' tries both"


def _json_object(body: bytes) -> dict[str, t.Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}

    return value if isinstance(value, dict) else {}


def _reason(status: int, body: dict[str, t.Any]) -> str:
    error = body.get("error")
    return printable(f"HTTP {status}: {error}" if error else f"HTTP {status}")


def printable(text: str) -> str:
    """Return somebody else's text, short and in one line, for logs and the spool."""
    return "".join(
        character if character.isprintable() else " " for character in text[:MAX_WORDS]
    )


def _refused(body: dict[str, t.Any], batch: Batch) -> dict[int, str]:
    failed = body.get("failed_records")
    refused = {}

    for record in failed if isinstance(failed, list) else []:
        index = record.get("index") if isinstance(record, dict) else None

        # If one isn't known, neither is it known of the others that they were taken.
        if type(index) is not int or not 0 <= index < len(batch.messages):
            return {}

        field, message = record.get("field"), record.get("message", "refused")
        refused[index] = printable(f"{field}: {message}" if field else str(message))

    return refused


def _retry_after(reply: Reply) -> float | None:
    """Return the seconds that an answer asks for, as a number of them or as a date.

    https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3
    """
    value = reply.headers.get("Retry-After", "").strip()[:MAX_WORDS]

    if value.isascii() and value.isdigit():
        return float(min(int(value), MAX_RETRY_AFTER))

    try:
        date = email.utils.parsedate_tz(value)
        moment = email.utils.mktime_tz((*date[:9], date[9] or 0)) if date else None
    except (ValueError, OverflowError, LookupError, TypeError):
        return None

    if moment is None:
        return None

    return min(max(moment - time.time(), 0.0), MAX_RETRY_AFTER)


def backoff(failures: int, retry_after: float | None) -> float:
    """Return the seconds to wait after an attempt failed.

    :param failures: the attempts that failed before it.
    :param retry_after: the seconds that the answer asked for.
    """
    pause = min(FIRST_BACKOFF * 2.0 ** min(failures, 16), MAX_BACKOFF)
    # Spread, so that many processes don't come back all at once.
    pause *= _random.uniform(0.75, 1.25)

    return max(pause, retry_after or 0.0)
