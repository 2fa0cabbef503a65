"""Events of the past on their way to Mixpanel: several requests at once, in the order
of the file as far as anybody can see."""

from __future__ import annotations

import collections
import collections.abc as c
import logging
import queue
import threading
import time
import typing as t

from ..deliver.answers import Meaning, backoff
from ..deliver.batches import Batch, pack
from ..deliver.endpoints import MAX_IN_FLIGHT
from ..envelope import Envelope, Message
from ..identity import NOBODY
from .events import Chunk, RefusedLine

if t.TYPE_CHECKING:
    from ..calls import Call
    from ..deliver.delivery import Attempt, Delivery
    from ..deliver.ledger import Balance

logger = logging.getLogger("flask_mengpaneel")

#: Chunks that are in memory at once.
MAX_CHUNKS = 3 * MAX_IN_FLIGHT


class Forbidden(Exception):
    """Mixpanel takes nothing of this project; the message says why."""


class OutOfReach(Exception):
    """Mixpanel can't be reached; the message says why."""


class _Built(t.NamedTuple):
    """The messages of a chunk, in batches."""

    number: int
    chunk: Chunk
    batches: list[Batch]
    #: The line of each message, and its event.
    origins: dict[int, tuple[int, str]]


class Sending:
    """Sends chunks by several threads.

    What it has in hand is a source of the ledger. The file is what it is safe in, so
    that nothing of it goes through the spool.

    :param patience: seconds for which Mixpanel may be out of reach.
    """

    def __init__(self, delivery: Delivery, patience: float) -> None:
        self._delivery = delivery
        self._patience = patience
        self._built: queue.SimpleQueue[_Built | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[_Built | Exception] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._waiting = 0
        self._has_failed = False
        #: Set when nobody waits for the rest any more.
        self._is_over = threading.Event()
        delivery.ledger.add_source(self._count)

    def _count(self, balance: Balance) -> None:
        balance.waiting += self._waiting

    def send(self, chunks: c.Iterable[Chunk]) -> c.Iterator[Chunk]:
        """Send chunks; give back each when it and all before it are done.

        What Mixpanel refuses of a chunk is in its ``refused`` then.

        :raises Forbidden: Mixpanel takes nothing of this project.
        :raises OutOfReach: it can't be reached for too long.
        """
        for _ in range(MAX_IN_FLIGHT):
            # Whatever the end of the process interrupts is sent again by the next run.
            threading.Thread(target=self._work, daemon=True).start()

        try:
            yield from self._send(chunks)
        finally:
            self._is_over.set()

            for _ in range(MAX_IN_FLIGHT):
                self._built.put(None)

    def _send(self, chunks: c.Iterable[Chunk]) -> c.Iterator[Chunk]:
        done: dict[int, Chunk] = {}
        given, returned = 0, 0

        for chunk in chunks:
            self._built.put(self._build(given, chunk))
            given += 1

            while given - returned >= MAX_CHUNKS or not self._done.empty():
                self._collect(done)

                while returned in done:
                    yield done.pop(returned)
                    returned += 1

        while returned < given:
            if returned in done:
                yield done.pop(returned)
                returned += 1
            else:
                self._collect(done)

    def _collect(self, done: dict[int, Chunk]) -> None:
        result = self._done.get()

        if isinstance(result, Exception):
            raise result

        done[result.number] = result.chunk

    def _build(self, number: int, chunk: Chunk) -> _Built:
        ledger = self._delivery.ledger
        messages = self._translate(chunk.calls)

        if len(messages) == len(chunk.calls):
            origins = dict(zip(map(id, messages), _origins(chunk), strict=True))
        else:
            origins, messages = {}, []

            for call, origin in zip(chunk.calls, _origins(chunk), strict=True):
                made = self._translate([call])
                messages += made
                origins |= {id(message): origin for message in made}

                if not made:
                    chunk.refused.append(RefusedLine(*origin, "it can't be sent"))

        with ledger.transfer():
            ledger.record(len(messages) + len(chunk.refused))
            ledger.drop("refused when recorded", len(chunk.refused))
            self._wait_for(len(messages))

        chunk.taken = len(messages)
        # Nothing but where it ends is of use from here on.
        chunk.calls, chunk.lines = [], []
        return _Built(number, chunk, pack(messages), origins)

    def _translate(self, calls: list[Call]) -> list[Message]:
        envelope = Envelope(calls, NOBODY, [], time.time(), records=len(calls))
        return self._delivery.translate(envelope)[0]

    def _wait_for(self, records: int) -> None:
        with self._lock:
            self._waiting += records

    # In the threads.

    def _work(self) -> None:
        while (built := self._built.get()) is not None:
            try:
                self._deliver(built)
            except Exception as error:
                self._done.put(error)
            else:
                self._done.put(built)

    def _deliver(self, built: _Built) -> None:
        pending = collections.deque(built.batches)
        failures = 0
        give_up_at = 0.0

        while pending and not self._is_over.is_set():
            batch = pending.popleft()
            attempt = self._attempt(batch)
            pending.extendleft(reversed(attempt.again))
            refused = [
                RefusedLine(*built.origins[id(message)], reason)
                for dropped, reason in attempt.dropped
                for message in dropped.messages
            ]
            built.chunk.refused += refused
            built.chunk.taken -= len(refused)

            if not attempt.failed:
                failures = 0
                continue

            now = time.monotonic()
            give_up_at = give_up_at if failures else now + self._patience
            pause = backoff(failures, attempt.retry_after)
            failures += 1

            if now + pause > give_up_at:
                raise OutOfReach(attempt.reason)

            if not self._has_failed:
                self._has_failed = True
                logger.warning("Mixpanel can't be reached: %s", attempt.reason)

            if self._is_over.wait(pause):
                return

        built.chunk.refused.sort()

    def _attempt(self, batch: Batch) -> Attempt:
        delivery = self._delivery
        answer = delivery.send(batch)

        if answer.meaning is Meaning.FORBIDDEN:
            raise Forbidden(answer.reason)

        with delivery.ledger.transfer():
            attempt = delivery.apply_answer(batch, answer)
            self._wait_for(sum(one.records for one in attempt.again) - batch.records)

        return attempt


def _origins(chunk: Chunk) -> list[tuple[int, str]]:
    """Return the line of each event of a chunk, and the name of the event."""
    return [(n, call.event) for n, call in zip(chunk.lines, chunk.calls, strict=True)]
