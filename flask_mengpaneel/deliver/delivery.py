"""Messages to Mixpanel, over HTTP: what is sent, what the answer means, what then."""

from __future__ import annotations

import base64
import collections
import collections.abc as c
import dataclasses
import email.utils
import enum
import functools
import importlib
import json
import logging
import random
import time
import typing as t
import warnings
from pathlib import Path

from .. import process
from ..calls import dumps

if t.TYPE_CHECKING:
    from ..config import Config
    from ..envelope import Envelope, Message
    from .http import Client
    from .ledger import Balance, Ledger
    from .spool import Row, Spool
    from .translation import Translator

try:
    # Six times as fast.
    zlib = importlib.import_module("isal.isal_zlib")
except ImportError:
    zlib = importlib.import_module("zlib")

logger = logging.getLogger("flask_mengpaneel")

#: The most records in a request, by Mixpanel's rules.
MAX_RECORDS = 2000
#: The most bytes in a request before compression: a margin below Mixpanel's 2 MB
#: (2,097,152), which its documentation gives for some endpoints only.
MAX_BYTES = 2_000_000
#: Seconds that a request may take, from the name of the host to the whole answer.
READ_TIMEOUT = 10.0
#: Seconds that one endpoint isn't made to leave to the others, where little is left.
LEAST_SHARE = 1.0
#: Seconds before the first retry, and at most between two.
FIRST_BACKOFF = 0.25
MAX_BACKOFF = 60.0
#: Seconds between looks into the spool for what other processes left there.
SPOOL_POLL_INTERVAL = 30.0
#: Seconds of ``Retry-After`` that are believed.
MAX_RETRY_AFTER = 300.0
#: Characters of what somebody else said that are passed on.
MAX_WORDS = 300

#: Why an operation is dropped that was on its way when its process died.
UNCLEAR = "may have been taken: the process that sent it died"
#: What waits in the spool without an endpoint, being a whole envelope.
ENVELOPE = "envelope"
PATHS = {
    "events": "/import?strict=1",
    "people": "/engage?ip=0&verbose=1",
    "groups": "/groups?ip=0&verbose=1",
}


class Reply(t.NamedTuple):
    """An HTTP response, as far as it matters here."""

    status: int
    headers: c.Mapping[str, str]
    body: bytes


class PostError(Exception):
    """A request got no answer.

    :param ambiguous: whether it may have been taken all the same.
    """

    def __init__(self, reason: str, *, ambiguous: bool) -> None:
        super().__init__(reason)
        self.ambiguous = ambiguous


class HttpClient(t.Protocol):
    """Sends one HTTP request to Mixpanel."""

    def __call__(
        self,
        path: str,
        body: bytes,
        headers: c.Mapping[str, str],
        timeout: float,
    ) -> Reply:
        """HttpClient and wait for the answer.

        :param timeout: the seconds that all of it may take.
        :raises PostError: there was none.
        """
        ...


@dataclasses.dataclass(slots=True, eq=False)
class Batch:
    """Messages for one endpoint, on their way together.

    :param rows: which rows of the spool they are, if they are in the spool.
    """

    endpoint: str
    messages: list[Message]
    rows: list[int] = dataclasses.field(default_factory=list)

    @property
    def records(self) -> int:
        """How many recorded operations it stands for."""
        return sum(message.records for message in self.messages)

    def has_room_for(self, other: Batch) -> bool:
        """Whether the messages of both fit into one request."""
        if bool(self.rows) != bool(other.rows):
            return False

        messages = [*self.messages, *other.messages]
        return (
            len(messages) <= MAX_RECORDS
            and sum(len(message.json) + 1 for message in messages) < MAX_BYTES
        )

    def pick(self, indexes: c.Iterable[int]) -> Batch:
        """A batch of some of the messages."""
        chosen = list(indexes)
        return Batch(
            self.endpoint,
            [self.messages[i] for i in chosen],
            [self.rows[i] for i in chosen] if self.rows else [],
        )

    def without(self, indexes: c.Container[int]) -> Batch:
        """A batch of the other messages."""
        return self.pick(i for i in range(len(self.messages)) if i not in indexes)

    def halves(self) -> list[Batch]:
        """The same in two batches."""
        middle = len(self.messages) // 2
        return [
            self.pick(range(middle)),
            self.pick(range(middle, len(self.messages))),
        ]


def batches(messages: c.Iterable[Message], rows: c.Sequence[int] = ()) -> list[Batch]:
    """Pack messages into batches that Mixpanel takes, in order by endpoint.

    :param rows: the rows of the spool they are in, if they are.
    """
    packed: list[Batch] = []
    last: dict[str, tuple[Batch, int]] = {}

    for index, message in enumerate(messages):
        batch, size = last.get(message.endpoint, (None, 0))
        size += len(message.json) + 1

        if batch is None or len(batch.messages) == MAX_RECORDS or size > MAX_BYTES - 2:
            batch, size = Batch(message.endpoint, []), len(message.json) + 1
            packed.append(batch)

        batch.messages.append(message)

        if rows:
            batch.rows.append(rows[index])

        last[message.endpoint] = batch, size

    return packed


def _batches_of(rows: c.Iterable[Row]) -> list[Batch]:
    rows = list(rows)
    return batches((row.message for row in rows), [row.id for row in rows])


def wrap(envelope: Envelope) -> Message:
    """An envelope as it waits in the spool: its messages aren't built yet."""
    from ..envelope import Message

    return Message(
        ENVELOPE, dumps(envelope.to_json()), envelope.records, repeatable=True
    )


#: What was given up, and why.
Dropped = tuple[Batch, str]


class Kind(enum.Enum):
    """What an answer means for the messages of a request."""

    TAKEN = enum.auto()
    #: Some were refused, the others taken.
    PARTLY = enum.auto()
    #: Refused as a whole, nothing of it was taken: something in it is bad.
    REFUSED = enum.auto()
    TOO_LARGE = enum.auto()
    #: Refused as a whole, for no fault of a single record.
    FORBIDDEN = enum.auto()
    #: Not taken; to be sent again.
    NOT_NOW = enum.auto()
    #: Nobody knows whether it was taken.
    AMBIGUOUS = enum.auto()
    #: Not sent: it isn't this process's any more.
    LOST = enum.auto()


@dataclasses.dataclass(slots=True)
class Verdict:
    """An answer, read."""

    kind: Kind
    reason: str = ""
    #: What was refused: index -> Mixpanel's words.
    refused: dict[int, str] = dataclasses.field(default_factory=dict)
    #: Seconds that Mixpanel asks for.
    retry_after: float | None = None


def read(reply: Reply, batch: Batch) -> Verdict:
    """Find out what an answer means."""
    status = reply.status
    answer = _json_object(reply.body)
    reason = _words(status, answer)
    retry_after = _retry_after(reply)

    if status == 200:
        return _read_ok(answer, batch, reason)

    if status == 413:
        return Verdict(Kind.TOO_LARGE, reason)

    if status in {408, 429, 503}:
        return Verdict(Kind.NOT_NOW, reason, retry_after=retry_after)

    if 400 <= status < 500:
        if not _is_refusal(status, answer):
            # Somebody in between didn't let it through, so that Mixpanel took nothing.
            reason = f"{reason}, not by Mixpanel"
            return Verdict(Kind.NOT_NOW, reason, retry_after=retry_after)

        if status != 400:
            return Verdict(Kind.FORBIDDEN, reason)

        refused = _refused(answer, batch)
        return Verdict(Kind.PARTLY if refused else Kind.REFUSED, reason, refused)

    # Mixpanel's trouble, a captive portal, a proxy's page.
    return Verdict(Kind.AMBIGUOUS, reason, retry_after=retry_after)


def _read_ok(answer: dict[str, t.Any], batch: Batch, reason: str) -> Verdict:
    status = answer.get("status")

    if status in (1, "OK", "ok") and not answer.get("failed_records"):
        return Verdict(Kind.TAKEN)

    if refused := _refused(answer, batch):
        return Verdict(Kind.PARTLY, reason, refused)

    # The profile endpoints answer 200 to what they refuse.
    if type(status) is int and status == 0 and isinstance(answer.get("error"), str):
        return Verdict(Kind.REFUSED, reason)

    return Verdict(Kind.AMBIGUOUS, "the answer isn't Mixpanel's")


def _is_refusal(status: int, answer: dict[str, t.Any]) -> bool:
    """Whether an answer has the form in which Mixpanel refuses.

    https://docs.mixpanel.com/troubleshooting/errors. Gateways and frameworks speak JSON
    too, in other forms: ``message``, ``detail``, or a number as ``status``.
    """
    return isinstance(answer.get("failed_records"), list) or (
        isinstance(answer.get("error"), str)
        and isinstance(answer.get("status"), str)
        and answer.get("code", status) == status
    )


def _json_object(body: bytes) -> dict[str, t.Any]:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return {}

    return answer if isinstance(answer, dict) else {}


def _words(status: int, answer: dict[str, t.Any]) -> str:
    error = answer.get("error")
    return plain(f"HTTP {status}: {error}" if error else f"HTTP {status}")


def plain(words: str) -> str:
    """What somebody else said, short and in one line, for logs and for the spool."""
    return "".join(
        character if character.isprintable() else " " for character in words[:MAX_WORDS]
    )


def _refused(answer: dict[str, t.Any], batch: Batch) -> dict[int, str]:
    failed = answer.get("failed_records")
    refused = {}

    for record in failed if isinstance(failed, list) else []:
        index = record.get("index") if isinstance(record, dict) else None

        # If one isn't known, neither is it known of the others that they were taken.
        if type(index) is not int or not 0 <= index < len(batch.messages):
            return {}

        field, message = record.get("field"), record.get("message", "refused")
        refused[index] = plain(f"{field}: {message}" if field else str(message))

    return refused


def _retry_after(reply: Reply) -> float | None:
    """The seconds for which an answer asks, as a number of them or as a date."""
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


class Http:
    """Posts to Mixpanel over HTTP; loads what that takes when it is needed."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._client: Client | None = None

    def forget(self) -> None:
        """Leave the connections to the process that opened them."""
        self._client = None

    def _connect(self) -> Client:
        with process.importing:
            from .http import Client

            # Looking a name up imports this.
            "mixpanel".encode("idna")

        return Client(self._host)

    def __call__(
        self, path: str, body: bytes, headers: c.Mapping[str, str], timeout: float
    ) -> Reply:
        """HttpClient and wait for the answer."""
        client = self._client = self._client or self._connect()
        return client.post(path, body, headers, timeout)


@dataclasses.dataclass(slots=True)
class Attempt:
    """What came of sending a batch once."""

    #: To be sent again, in this order.
    again: list[Batch] = dataclasses.field(default_factory=list)
    #: Given up, with the reason.
    dropped: list[Dropped] = dataclasses.field(default_factory=list)
    #: Whether Mixpanel is in trouble, so that it should get a break.
    failed: bool = False
    reason: str = ""
    retry_after: float | None = None


Report = c.Callable[[list[dict[str, t.Any]], str], None]


class Delivery:
    """Takes messages to Mixpanel and keeps the books on them.

    :param report: is told of records that won't be delivered, and why.
    :param post: sends the requests; over HTTP by default.
    :param spool: keeps what can't be delivered now.
    """

    def __init__(
        self,
        config: Config,
        tracker: Translator,
        ledger: Ledger,
        report: Report,
        *,
        post: HttpClient | None = None,
        spool: Spool | None = None,
    ) -> None:
        self.config = config
        self.tracker = tracker
        self.ledger = ledger
        self.spool = spool
        #: Whether a background transport delivers with it.
        self.in_background = False
        self._report = report
        self._post = post or Http(config.api_host)
        self._headers = _headers(config.token or "")
        self._reset()
        ledger.add_source(self._count)

        if spool is not None:
            ledger.add_source(spool.count)

        process.on_fork(self)

    def _reset(self) -> None:
        #: What requests and tasks are delivering themselves at the moment.
        self._deferred: dict[int, Envelope] = {}
        self._held: set[Batch] = set()
        self._look_at = 0.0

    def _count(self, balance: Balance) -> None:
        balance.waiting += sum(b.records for b in list(self._deferred.values()))
        balance.waiting += sum(p.records for p in list(self._held) if not p.rows)

    def after_fork(self) -> None:
        """Start anew in a child process: what waits is the parent's to deliver."""
        self.ledger.reset()
        self._reset()

        if isinstance(self._post, Http):
            self._post.forget()

        if self.spool is not None:
            self.spool.after_fork()

    # What an envelope becomes.

    def pack(self, envelope: Envelope) -> tuple[list[Message], dict[str, int]]:
        """Build an envelope's messages; also what isn't sent: reason -> records."""
        try:
            with process.importing:
                return self.tracker.messages(envelope)
        except Exception:
            logger.exception(
                "Building the messages of an envelope failed; it is dropped."
            )
            return [], {"error": envelope.records}

    def count_dropped(self, dropped: c.Mapping[str, int]) -> None:
        """Count what isn't sent of an envelope."""
        for reason, records in dropped.items():
            self.ledger.drop(reason, records)

    # One attempt.

    def ask(self, batch: Batch, timeout: float = READ_TIMEOUT) -> Verdict:
        """Send a batch once, and read the answer."""
        if batch.rows and not self._hold(batch):
            return Verdict(Kind.LOST, "another process took it")

        body, headers = self._body(batch)

        try:
            reply = self._post(PATHS[batch.endpoint], body, headers, timeout)
            return read(reply, batch)
        except PostError as error:
            kind = Kind.AMBIGUOUS if error.ambiguous else Kind.NOT_NOW
            return Verdict(kind, plain(str(error)))
        except Exception as error:
            logger.exception("Sending to Mixpanel failed in an unexpected way.")
            return Verdict(Kind.AMBIGUOUS, plain(repr(error)))

    def _hold(self, batch: Batch) -> bool:
        assert self.spool is not None
        once = [
            row
            for row, message in zip(batch.rows, batch.messages, strict=True)
            if not message.repeatable
        ]
        held = self.spool.hold(batch.rows, once)

        # On a disk in trouble: an event may go twice, under one id.
        return not once if held is None else held

    def _body(self, batch: Batch) -> tuple[bytes, c.Mapping[str, str]]:
        body = f"[{','.join(m.json for m in batch.messages)}]".encode()

        if batch.endpoint != "events":
            # The profile endpoints don't take compressed bodies.
            return body, self._headers

        # Level 1 takes a fifth of the time of the default.
        compressor = zlib.compressobj(1, wbits=31)
        compressed: bytes = compressor.compress(body) + compressor.flush()
        return compressed, self._headers | {"Content-Encoding": "gzip"}

    def settle(self, batch: Batch, verdict: Verdict) -> Attempt:
        """Count what an answer settles; say what is left to do.

        Inside :meth:`Ledger.moving`; call :meth:`tell` when that is over.
        """
        kind = verdict.kind

        if kind is Kind.TAKEN:
            self._delivered(batch)
            return Attempt()

        if kind is Kind.LOST:
            return Attempt()

        if kind is Kind.PARTLY:
            return self._settle_partly(batch, verdict.refused)

        if kind in {Kind.REFUSED, Kind.TOO_LARGE} and len(batch.messages) > 1:
            return Attempt(batch.halves())

        if kind in {Kind.REFUSED, Kind.TOO_LARGE, Kind.FORBIDDEN}:
            return Attempt(dropped=self._dropped(batch, verdict.reason))

        dropped = []

        if kind is Kind.AMBIGUOUS:
            once = [i for i, m in enumerate(batch.messages) if not m.repeatable]

            if once:
                reason = f"may have been taken: {verdict.reason}"
                dropped = self._dropped(batch.pick(once), reason)
                batch = batch.without(once)

        return Attempt(
            [batch] if batch.messages else [],
            dropped,
            True,
            verdict.reason,
            verdict.retry_after,
        )

    def _settle_partly(self, batch: Batch, refused: dict[int, str]) -> Attempt:
        self._delivered(batch.without(refused))
        attempt = Attempt()
        by_reason: dict[str, list[int]] = {}

        for index, reason in refused.items():
            by_reason.setdefault(reason, []).append(index)

        for reason, indexes in by_reason.items():
            attempt.dropped += self._dropped(batch.pick(indexes), reason)

        return attempt

    def drain(self, limit: int, endpoints: c.Container[str] = PATHS) -> list[Batch]:
        """Take what waits in the spool and is nobody's at the moment.

        :param endpoints: those for which it is taken; what comes out of envelopes may
            be for others.
        """
        if self.spool is None:
            return []

        rows = self.spool.lease(
            limit, [ENVELOPE, *(name for name in PATHS if name in endpoints)]
        )
        unclear = [row for row in rows if row.sent and not row.message.repeatable]
        opened = [
            (row.id, *self._unwrap(row.message))
            for row in rows
            if row.message.endpoint == ENVELOPE
        ]
        unpacked = self.spool.unpack(opened) if opened else {}

        if unclear:
            batch = Batch("", [r.message for r in unclear], [r.id for r in unclear])
            self.tell(self._dropped(batch, UNCLEAR))

        return _batches_of(
            ready
            for row in rows
            if not row.sent or row.message.repeatable
            for ready in (
                unpacked.get(row.id, []) if row.message.endpoint == ENVELOPE else [row]
            )
        )

    def unpack(
        self, opened: c.Sequence[tuple[int, list[Message], dict[str, int]]]
    ) -> list[Batch]:
        """Pack the messages of envelopes that are in the spool.

        :param opened: row of the envelope, and what :meth:`pack` made of it.
        """
        assert self.spool is not None
        unpacked = self.spool.unpack(opened)
        return _batches_of(row for rows in unpacked.values() for row in rows)

    def _unwrap(self, message: Message) -> tuple[list[Message], dict[str, int]]:
        from ..envelope import Envelope

        try:
            return self.pack(Envelope.from_json(json.loads(message.json)))
        except (ValueError, LookupError, TypeError):
            logger.exception("An envelope in the spool can't be read; it is dropped.")
            return [], {"error": message.records}

    # The end of a message's way.

    def _delivered(self, batch: Batch) -> None:
        if batch.rows:
            assert self.spool is not None
            self.spool.settle(batch.rows)
        else:
            self.ledger.deliver(batch.records)

    def _dropped(self, batch: Batch, reason: str) -> list[Dropped]:
        if batch.rows:
            assert self.spool is not None
            self.spool.settle(batch.rows, reason)
        else:
            self.ledger.drop(reason, batch.records)

        return [(batch, reason)]

    def keep(self, batch: Batch, reason: str) -> list[Dropped]:
        """Put a batch into the spool; drop it if there is none that takes it.

        Inside :meth:`Ledger.moving`; what it returns is for :meth:`tell`.
        """
        if batch.rows:
            assert self.spool is not None
            self.spool.release(batch.rows, reason)
            return []

        if self.spool is None:
            return self._dropped(batch, reason)

        if self.spool.put(batch.messages, reason):
            return []

        return self._dropped(batch, f"{reason}; the spool takes nothing")

    def keep_envelopes(
        self, envelopes: c.Sequence[tuple[Envelope, int]], reason: str
    ) -> list[Dropped]:
        """Put envelopes into the spool as they are; drop them if there is none.

        As with :meth:`keep`.

        :param envelopes: with their rows in the spool, or 0 if they aren't there yet.
        """
        stored = [row for _, row in envelopes if row]
        plain = [envelope for envelope, row in envelopes if not row]

        if stored:
            assert self.spool is not None
            self.spool.release(stored, reason)

        if not plain or (
            self.spool is not None
            and self.spool.put([wrap(envelope) for envelope in plain], reason)
        ):
            return []

        return self.drop(plain, reason)

    def drop(self, envelopes: c.Iterable[Envelope], reason: str) -> list[Dropped]:
        """Count envelopes as dropped, as with :meth:`keep`."""
        packed = [self.pack(envelope) for envelope in envelopes]

        for _, dropped in packed:
            self.count_dropped(dropped)

        return [
            told
            for batch in batches(m for messages, _ in packed for m in messages)
            for told in self._dropped(batch, reason)
        ]

    def tell(self, dropped: c.Iterable[Dropped]) -> None:
        """Report what was dropped."""
        for batch, reason in dropped:
            try:
                self._report([json.loads(m.json) for m in batch.messages], reason)
            except Exception:
                logger.exception("Reporting what was dropped failed.")

    def close(self) -> None:
        """Say what became of everything, at the end of the process."""
        balance = self.ledger.snapshot()

        if balance.dropped:
            logger.warning("%s", balance)
        elif balance.recorded:
            logger.info("%s", balance)

        if self.spool is not None:
            self.spool.close()

    # Now, in the request or in a task.

    def defer(self, envelope: Envelope) -> c.Callable[[], None]:
        """Put an envelope on the books; calling the result delivers it."""
        self.ledger.record(envelope.records)
        self._deferred[id(envelope)] = envelope

        return functools.partial(self._deliver, envelope)

    def _deliver(self, envelope: Envelope) -> None:
        packed: collections.deque[Batch] = collections.deque()

        try:
            self._deliver_now(envelope, packed)
        except BaseException:
            # From outside, such as a time limit.
            self._interrupt(envelope, packed)
            raise

    def _interrupt(self, envelope: Envelope, packed: collections.deque[Batch]) -> None:
        """Keep what was being delivered: its request goes on with something else."""
        reason = "its delivery was interrupted"
        told: list[Dropped] = []

        with self.ledger.transfer():
            if self._deferred.pop(id(envelope), None) is not None:
                told += self.keep_envelopes([(envelope, 0)], reason)
            elif packed:
                under_way = packed.popleft()
                attempt = self.settle(under_way, Verdict(Kind.AMBIGUOUS, reason))
                self.let_go([under_way, *packed])
                told += attempt.dropped

                for batch in [*attempt.again, *packed]:
                    told += self.keep(batch, reason)

        self.tell(told)

    def _deliver_now(
        self, envelope: Envelope, packed: collections.deque[Batch]
    ) -> None:
        deadline = time.monotonic() + self.config.timeout
        messages, dropped = self.pack(envelope)
        packed.extend(batches(messages))

        with self.ledger.transfer():
            del self._deferred[id(envelope)]
            self.count_dropped(dropped)
            self.hold(packed)

        left = self.run(packed, deadline)

        with self.ledger.transfer():
            self.let_go(packed)
            told = [told for p in packed for told in self.keep(p, left.reason)]

        self.tell(told)

        # Where no thread does it, requests send what waits from before.
        if not packed and time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + SPOOL_POLL_INTERVAL
            self._forward(deadline, MAX_RECORDS)

    def send_spool(self, deadline: float) -> int:
        """Send what waits in the spool; how many records were delivered."""
        before = self.ledger.forwarded
        self._forward(deadline)

        return self.ledger.forwarded - before

    def _forward(self, deadline: float, most: float = float("inf")) -> None:
        """Send what waits in the spool, at most about that many messages."""
        endpoints = set(PATHS)

        while endpoints and most > 0 and time.monotonic() < deadline:
            drained = self.drain(int(min(most, MAX_RECORDS)), endpoints)

            if not drained:
                break

            pending = collections.deque(p for p in drained if p.endpoint in endpoints)
            late = [p for p in drained if p.endpoint not in endpoints]
            most -= sum(len(batch.messages) for batch in pending)
            last = self.run(pending, deadline)

            for batch in (*pending, *late):
                self.keep(batch, last.reason)

            for batch in pending:
                # The others aren't to wait behind it.
                endpoints.discard(batch.endpoint)
                most += len(batch.messages)

    def hold(self, batches: c.Iterable[Batch]) -> None:
        """Count batches as being delivered by :meth:`run`."""
        self._held.update(batches)

    def let_go(self, batches: c.Iterable[Batch]) -> None:
        """Count batches as that no more."""
        self._held.difference_update(batches)

    def run(
        self,
        pending: collections.deque[Batch],
        deadline: float,
        *,
        patient: bool = True,
    ) -> Attempt:
        """Send batches one after the other until the deadline.

        No endpoint waits for another that fails, pauses or is slow.

        :param pending: what couldn't be sent is left in there.
        :param patient: try again after a failure.
        :return: the last attempt that failed.
        """
        failures: collections.Counter[str] = collections.Counter()
        not_before: dict[str, float] = {}
        last = Attempt(reason="no time was left")

        while (left := deadline - time.monotonic()) > 0:
            names = dict.fromkeys(batch.endpoint for batch in pending)
            name = min(names, key=lambda name: not_before.get(name, 0.0), default="")
            moment = not_before.get(name, 0.0)

            if not names or moment >= deadline:
                break

            if (pause := moment - time.monotonic()) > 0:
                time.sleep(pause)
                continue

            batch = next(batch for batch in pending if batch.endpoint == name)
            share = max(left / len(names), LEAST_SHARE)
            verdict = self.ask(batch, min(left, share, READ_TIMEOUT))

            with self.ledger.transfer():
                attempt = self.settle(batch, verdict)
                pending.remove(batch)
                pending.extendleft(reversed(attempt.again))
                self.let_go([batch])
                self.hold(attempt.again)

            self.tell(attempt.dropped)

            if attempt.failed:
                last = attempt
                pause = backoff(failures[name], attempt.retry_after)
                failures[name] += 1
                not_before[name] = time.monotonic() + pause if patient else deadline

        return last


def open_spool(config: Config, folder: str) -> Spool | None:
    """The spool of an app; its file isn't made before it is needed.

    :param folder: the app's instance folder, where it is by default.
    :raises ValueError: ``MENGPANEEL_SPOOL`` can't be used.
    """
    if config.spool is None:
        return None

    from .spool import Spool, SpoolError

    project = config.token or ""

    if isinstance(config.spool, Path):
        spool = Spool(config.spool, project)

        try:
            spool.check()
        except SpoolError as error:
            raise ValueError(
                f"MENGPANEEL_SPOOL is {str(config.spool)!r}; it must be a file that can"
                f" be written, or None ({error})."
            ) from None

        return spool

    # What such a platform has on disk is gone before anybody could send it.
    if config.serverless:
        return None

    spool = Spool(Path(folder) / "mengpaneel-spool.sqlite3", project)

    try:
        spool.check()
    except SpoolError as error:
        warnings.warn(
            f"Events that can't be delivered won't survive this process: {error}. Set"
            " MENGPANEEL_SPOOL to a file, or to None.",
            stacklevel=2,
        )
        return None

    return spool


def _headers(token: str) -> dict[str, str]:
    credentials = base64.b64encode(f"{token}:".encode()).decode()
    return {
        "Authorization": f"Basic {credentials}",
        "Content-Type": "application/json",
        "Accept": "application/json",
    }


def backoff(failures: int, retry_after: float | None) -> float:
    """Seconds to wait after an attempt failed, that many having failed before."""
    pause = min(FIRST_BACKOFF * 2.0 ** min(failures, 16), MAX_BACKOFF)
    # Spread, so that many processes don't come back all at once.
    pause *= random.uniform(0.75, 1.25)

    return max(pause, retry_after or 0.0)
