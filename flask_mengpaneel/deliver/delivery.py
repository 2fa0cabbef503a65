"""One attempt to deliver a batch, and what becomes of it.

How requests are sent is in ``http``, what is in an answer in ``answers``, when to try
again is up to the callers: ``inline``, ``pipeline`` and ``celery``.
"""

from __future__ import annotations

import collections.abc as c
import dataclasses
import json
import logging
import typing as t

from .. import process
from ..envelope import Envelope, Message
from .acknowledgements import SharedAcknowledgements, rows_to_send
from .answers import Answer, Meaning, printable, read
from .batches import ENVELOPE, Batch, pack, pack_rows, wrap
from .failures import (
    Dropped,
    DroppedBatch,
    Report,
    ReportEnvelope,
    report_drops,
    unsent,
)
from .hand_overs.news import HandOverNews
from .http import PATHS, HttpClient, RequestFailed, authorized, compressed
from .made_once import MadeOnce

if t.TYPE_CHECKING:
    from ..config import Config
    from .http import Reply
    from .ledger import Ledger
    from .spool import Row, Spool
    from .translation import Translator

logger = logging.getLogger("flask_mengpaneel")

#: Seconds that a request may take, from the name of the host to the whole answer.
REQUEST_TIMEOUT = 10.0
#: Seconds between two polls of the spool for what other processes left there.
SPOOL_POLL_INTERVAL = 30.0

#: Why an operation is dropped that was being sent when its process died.
SENDER_DIED = "may have been taken: the process that sent it died"


@dataclasses.dataclass(slots=True)
class Attempt:
    """What came of sending a batch once."""

    #: To be sent again, in this order.
    again: list[Batch] = dataclasses.field(default_factory=list)
    #: What won't be delivered, with the reason; to be reported.
    dropped: list[DroppedBatch] = dataclasses.field(default_factory=list)
    #: Whether Mixpanel is in trouble, so that it should get a break.
    failed: bool = False
    reason: str = ""
    retry_after: float | None = None


class Delivery:
    """Sends batches to Mixpanel and counts in the ledger what becomes of them.

    :param report: is told of records that won't be delivered, and why.
    :param post: sends the requests.
    :param spool: takes what can't be delivered now.
    """

    def __init__(
        self,
        config: Config,
        translator: Translator,
        ledger: Ledger,
        report: Report,
        *,
        post: HttpClient,
        spool: Spool | None = None,
    ) -> None:
        self.config = config
        self.ledger = ledger
        self.spool = spool
        self.made_once = MadeOnce(spool)
        #: Whether a background transport delivers with it, and closes it.
        self.in_background = False
        #: They are asked before an overdue hand-over is sent out of the spool.
        self.acknowledgements: c.Sequence[SharedAcknowledgements] = ()
        #: What becomes of hand-overs.
        self.news = HandOverNews()
        #: Is told of each envelope of which nothing is sent, and why.
        self.on_drop: ReportEnvelope | None = None
        self._translator = translator
        self._report = report
        self._post = post
        self._headers = authorized(config.token or "")

        if spool is not None:
            ledger.add_source(spool.count)

        process.on_fork(self)

    def after_fork(self) -> None:
        """Start anew in a child process: what waits is the parent's to deliver."""
        self.ledger.reset()

        if self.spool is not None:
            self.spool.after_fork()

    # What an envelope becomes.

    def translate(self, envelope: Envelope) -> tuple[list[Message], dict[str, int]]:
        """Build an envelope's messages; also what isn't sent: reason -> records.

        Reports the envelope if nothing is sent of it: as with :meth:`report_drops`.
        """
        messages, dropped = self._build(envelope)
        self.report_drops(unsent(envelope, messages, dropped))
        return messages, dropped

    def _build(self, envelope: Envelope) -> tuple[list[Message], dict[str, int]]:
        try:
            with process.importing:
                return self._translator.messages(envelope)
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

    def send(self, batch: Batch, timeout: float = REQUEST_TIMEOUT) -> Answer:
        """Send a batch once, and read the answer."""
        if batch.rows and not self._renew_lease(batch):
            return Answer(Meaning.LEASE_LOST, "another process took it")

        try:
            return read(self.post(batch, timeout), batch)
        except RequestFailed as error:
            meaning = Meaning.AMBIGUOUS if error.ambiguous else Meaning.RETRY
            return Answer(meaning, printable(str(error)))
        except Exception as error:
            logger.exception("Sending to Mixpanel failed in an unexpected way.")
            return Answer(Meaning.AMBIGUOUS, printable(repr(error)))

    def post(self, batch: Batch, timeout: float = REQUEST_TIMEOUT) -> Reply:
        """Send a batch once.

        :raises RequestFailed: there was no answer.
        """
        body, headers = self._body(batch)
        return self._post(PATHS[batch.endpoint], body, headers, timeout)

    def _renew_lease(self, batch: Batch) -> bool:
        assert self.spool is not None
        once = [
            row
            for row, message in zip(batch.rows, batch.messages, strict=True)
            if not message.repeatable
        ]
        renewed = self.spool.renew_lease(batch.rows, once)

        # On a disk in trouble: an event may go twice, under one id.
        return not once if renewed is None else renewed

    def _body(self, batch: Batch) -> tuple[bytes, c.Mapping[str, str]]:
        body = f"[{','.join(m.json for m in batch.messages)}]".encode()

        if batch.endpoint != "events":
            # The profile endpoints don't take compressed bodies.
            return body, self._headers

        return compressed(body), self._headers | {"Content-Encoding": "gzip"}

    def apply_answer(self, batch: Batch, answer: Answer) -> Attempt:
        """Count what an answer decides; return what is left to do.

        Inside :meth:`Ledger.transfer`; call :meth:`report_drops` when that is over.
        """
        meaning = answer.meaning

        if meaning is Meaning.TAKEN:
            self._count_delivered(batch)
            return Attempt()

        if meaning is Meaning.LEASE_LOST:
            return Attempt()

        if meaning is Meaning.PARTLY_TAKEN:
            return self._apply_refusals(batch, answer.refused)

        too_much = meaning in {Meaning.REFUSED, Meaning.TOO_LARGE}

        if too_much and len(batch.messages) > 1:
            return Attempt(batch.halves())

        if too_much or meaning is Meaning.FORBIDDEN:
            return Attempt(dropped=self._drop(batch, answer.reason))

        dropped = []

        if meaning is Meaning.AMBIGUOUS:
            once = [i for i, m in enumerate(batch.messages) if not m.repeatable]

            if once:
                reason = f"may have been taken: {answer.reason}"
                dropped = self._drop(batch.pick(once), reason)
                batch = batch.without(once)

        return Attempt(
            [batch] if batch.messages else [],
            dropped,
            True,
            answer.reason,
            answer.retry_after,
        )

    def _apply_refusals(self, batch: Batch, refused: dict[int, str]) -> Attempt:
        self._count_delivered(batch.without(refused))
        attempt = Attempt()
        by_reason: dict[str, list[int]] = {}

        for index, reason in refused.items():
            by_reason.setdefault(reason, []).append(index)

        for reason, indexes in by_reason.items():
            attempt.dropped += self._drop(batch.pick(indexes), reason)

        return attempt

    def _count_delivered(self, batch: Batch) -> None:
        if batch.rows:
            assert self.spool is not None
            self.spool.acknowledge(batch.rows)
        else:
            self.ledger.deliver(batch.records)

    def _drop(self, batch: Batch, reason: str) -> list[DroppedBatch]:
        if batch.rows:
            assert self.spool is not None
            self.spool.acknowledge(batch.rows, reason)
        else:
            self.ledger.drop(reason, batch.records)

        return [(batch, reason)]

    # Out of the spool.

    def lease_batches(
        self,
        limit: int,
        endpoints: c.Container[str] = PATHS,
        in_flight: c.Collection[int] = (),
    ) -> list[Batch]:
        """Lease messages from the spool that nobody is sending, and pack them.

        :param limit: rows, each of which is a message or a whole envelope.
        :param endpoints: those for which it is leased; what comes out of envelopes may
            be for others.
        :param in_flight: rows that the caller has already, however old their lease.
        """
        if self.spool is None:
            return []

        names = [ENVELOPE, *(name for name in PATHS if name in endpoints)]
        rows: list[Row] = []

        # What is all acknowledged isn't all there is.
        while not rows and (leased := self.spool.lease(limit, names, in_flight)):
            rows = rows_to_send(leased, self.spool, self.acknowledgements, self.news)

        self.news.tell()
        unclear = [row for row in rows if row.sent and not row.message.repeatable]
        unpacked = self.spool.unpack(
            [
                (row.id, *self._unwrap(row.message))
                for row in rows
                if row.message.endpoint == ENVELOPE
            ]
        )

        if unclear:
            batch = Batch("", [r.message for r in unclear], [r.id for r in unclear])
            self.report_drops(self._drop(batch, SENDER_DIED))

        ready: list[Row] = []

        for row in rows:
            if row.message.endpoint == ENVELOPE:
                ready += unpacked.get(row.id, [])
            elif not row.sent or row.message.repeatable:
                ready.append(row)

        return pack_rows(ready, from_spool=True)

    def unpack(
        self, translated: c.Sequence[tuple[int, list[Message], dict[str, int]]]
    ) -> list[Batch]:
        """Replace envelopes in the spool by their messages, and pack these.

        :param translated: row of the envelope, and what :meth:`translate` made of it.
        """
        assert self.spool is not None
        unpacked = self.spool.unpack(translated)
        return pack_rows(row for rows in unpacked.values() for row in rows)

    def _unwrap(self, message: Message) -> tuple[list[Message], dict[str, int]]:
        try:
            return self.translate(Envelope.from_json(json.loads(message.json)))
        except (ValueError, LookupError, TypeError):
            logger.exception("An envelope in the spool can't be read; it is dropped.")
            return [], {"error": message.records}

    # Into the spool, or nowhere.

    def spool_batch(self, batch: Batch, reason: str) -> list[DroppedBatch]:
        """Put a batch into the spool; drop it if there is none that takes it.

        Inside :meth:`Ledger.transfer`; what it returns is for :meth:`report_drops`.
        """
        if batch.rows:
            assert self.spool is not None
            self.spool.release(batch.rows, reason)
            return []

        if self.spool is None:
            return self._drop(batch, reason)

        if self.spool.put(batch.messages, reason):
            return []

        return self._drop(batch, f"{reason}; the spool takes nothing")

    def spool_envelopes(
        self, envelopes: c.Sequence[tuple[Envelope, int]], reason: str
    ) -> list[Dropped]:
        """Put envelopes into the spool as they are; drop them if there is none.

        As with :meth:`spool_batch`.

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

        return self.drop_envelopes(plain, reason)

    def drop_envelopes(
        self, envelopes: c.Iterable[Envelope], reason: str
    ) -> list[Dropped]:
        """Count envelopes as dropped, as with :meth:`spool_batch`."""
        reported: list[Dropped] = []
        built: list[Message] = []

        for envelope in envelopes:
            messages, dropped = self._build(envelope)
            self.count_dropped(dropped)
            built += messages
            reported += unsent(envelope, messages, dropped)

        for batch in pack(built):
            reported += self._drop(batch, reason)

        return reported

    def report_drops(self, dropped: c.Iterable[Dropped]) -> None:
        """Report what was dropped, when its transfer is over."""
        report_drops(dropped, self._report, self.on_drop)

    def close(self) -> None:
        """Log what became of everything, at the end of the process."""
        balance = self.ledger.snapshot()

        if balance.dropped:
            logger.warning("%s", balance)
        elif balance.recorded:
            logger.info("%s", balance)

        self.ledger.close()

        if self.spool is not None:
            self.spool.close()
