"""Hand-overs: what clients were given, until it is known that Mixpanel has it.

What a page, a header or the session has been given isn't delivered yet. It is *kept*
here until one of these happens:

=============== ==================================== ==================================
acknowledged    the client says that Mixpanel has    delivered
                taken it
settled         a later response has taken it up,    its records are counted anew
                or the client has handed it back
withdrawn       the response isn't sent after all    as if it had never been kept
overdue         nobody said anything in time         the server sends it; or dropped: a
                                                     robot's page, or never shown
=============== ==================================== ==================================

All copies of an event have one ``$insert_id``: what is sent although it arrived is the
same event to Mixpanel.

A request keeps a hand-over, and says that others are acknowledged, by one step each
that nothing can interrupt: it puts something into a dict or a queue. The rest happens
in a thread, where no exception arrives from outside. So the ledger is right at each
step.
"""

from __future__ import annotations

import collections.abc as c
import contextlib
import dataclasses
import logging
import os
import time
import typing as t

from ... import process, server
from ..acknowledgements import DELIVERED, AckKind
from ..queue import SpoolWrite
from ..thread import SPOOL_TIMEOUT
from .memory import BLOCK_SIZE, CarriedBy, HandOverMemory, KeptHandOver
from .silence import Silence
from .spooled import SpooledHandOvers, Withdrawal
from .stepper import Stepper
from .steps import HandOverSteps

if t.TYPE_CHECKING:
    from ...envelope import Envelope
    from ...transport import Transport
    from ..acknowledgements import SharedAcknowledgements
    from ..delivery import Delivery
    from ..ledger import Balance

logger = logging.getLogger("flask_mengpaneel")


@dataclasses.dataclass(slots=True)
class Counts:
    """What became of the hand-overs of this process, by their carriers."""

    waiting: dict[str, int]
    acknowledged: dict[str, int]
    #: Overdue, and sent by the server.
    sent: dict[str, int]
    #: Left to the spool; what becomes of them is counted there.
    spooled: dict[str, int]
    #: By reason.
    dropped: dict[str, int]

    @property
    def kept(self) -> int:
        """How many there were, but for those that others have taken over."""
        return sum(
            sum(numbers.values())
            for numbers in (
                self.waiting,
                self.acknowledged,
                self.sent,
                self.spooled,
                self.dropped,
            )
        )

    def __str__(self) -> str:
        parts = []

        for name, numbers in (
            ("waiting", self.waiting),
            ("acknowledged", self.acknowledged),
            ("sent by the server", self.sent),
            ("left to the spool", self.spooled),
            ("dropped", self.dropped),
        ):
            of = ", ".join(f"{one}: {number}" for one, number in numbers.items())
            parts.append(f"{sum(numbers.values())} {name}" + (f" ({of})" if of else ""))

        return f"{self.kept} hand-overs = {' + '.join(parts)}"


class HandOvers:
    """Keeps hand-overs of an app in this process, and sends what is overdue.

    :param transport: sends in the background.
    :param shared: where processes share acknowledgements.
    :param spooled: those in the spool, if the transport sends what is in there.
    """

    def __init__(
        self,
        delivery: Delivery,
        transport: Transport,
        shared: c.Sequence[SharedAcknowledgements] = (),
        spooled: SpooledHandOvers | None = None,
    ) -> None:
        self._delivery = delivery
        self._ledger = delivery.ledger
        self._news = delivery.news
        self._transport = transport
        self._shared = shared
        self._spooled = spooled
        #: Those in the spool, if requests write them into it.
        self._durable = (
            spooled if delivery.config.durable or server.may_be_killed() else None
        )
        delivery.acknowledgements = shared
        self._reset()
        delivery.ledger.add_source(self._count)
        process.on_fork(self)

    def _reset(self) -> None:
        self._memory = HandOverMemory()
        self._steps = HandOverSteps(
            self._memory, self._delivery, self._transport, self._shared, self._spooled
        )
        self._stepper = Stepper(self._memory, self._steps.step, self._steps.next_moment)
        self._is_closed = False
        self._is_paused = False

    def after_fork(self) -> None:
        """Start anew in a child process: what waits is the parent's."""
        self._reset()

    def _notice_changes(self) -> None:
        """Notice a fork that Python wasn't told of, and green threads that took the
        place of others when the app was made already."""
        if process.pid != os.getpid():
            process.after_fork()

        if not self._memory.threads.is_current:
            self._stepper.notice_green_threads()
            # Whatever waits woke the other one.
            self._wake()

    def _wake(self) -> None:
        process.before_exit(self)
        self._stepper.wake()

    def _count(self, balance: Balance) -> None:
        self._steps.count(balance)

    # In the request.

    def keep(
        self,
        id: str,
        envelope: Envelope,
        carrier: CarriedBy,
        timeout: float,
        *,
        if_shown: bool = False,
    ) -> None:
        """Keep a hand-over until it is acknowledged, settled, withdrawn or overdue.

        If this raises, it isn't kept, unless what it raises is no :exc:`Exception`.

        :param id: a new one.
        :param carrier: what it goes with.
        :param timeout: seconds after which it is overdue.
        :param if_shown: the page was fetched in advance: when it is overdue, it has
            never been shown, and is dropped.
        """
        if self._is_paused:
            return

        self._notice_changes()
        due = time.monotonic() + timeout
        recent = self._memory.recent
        write = None if self._durable is None else SpoolWrite(envelope)
        kind = (carrier, envelope.records)
        hand_over = KeptHandOver(envelope, kind, due, if_shown, write)
        is_kept = False

        try:
            # Nothing can come between the two.
            is_kept, recent[id] = True, hand_over

            if write is not None:
                self._write(id, hand_over, write)

            wakes_at = self._stepper.wakes_at

            if write or due < wakes_at or len(recent) >= BLOCK_SIZE:
                self._wake()

            if self._is_closed:
                self.hand_on()
        except BaseException as error:
            if write is not None:
                write.done = True

            if is_kept:
                self._wake()

            if not is_kept or not isinstance(error, Exception):
                raise

            # From outside, such as a time limit. Nobody else may send it now.
            logger.warning("Something came in the way of a hand-over.", exc_info=True)

    def _write(self, id: str, hand_over: KeptHandOver, write: SpoolWrite) -> None:
        assert self._durable is not None
        reason = hand_over.dropped_for(write.envelope)

        try:
            with self._ledger.transfer():
                self._durable.put(
                    [(id, hand_over, reason)], rows=write.rows, timeout=SPOOL_TIMEOUT
                )
        finally:
            write.done = True

    def withdraw(self, id: str) -> bool:
        """Forget a hand-over, as if it had never been kept; ``False`` if it isn't
        here."""
        return self._release(id, "withdrawn")

    def settle(self, id: str) -> bool:
        """Give up a hand-over that a later response has taken up, or that was handed
        back: its records are counted again there.

        :return: whether it was here. If not, this acknowledges it to the process that
            has it.
        """
        if self._release(id, "settled"):
            return True

        self.acknowledge([id])
        return False

    def take_over(self, id: str, *, has_operations: bool = False) -> bool:
        """As `settle`, for what the server makes either way; ``False`` if it has made
        it already, since it was overdue."""
        if self._release(id, "settled"):
            return True

        if id in self._steps.sent:
            return False

        self.acknowledge([id], AckKind(has_operations))
        return True

    def discard(
        self, id: str, records: int, reason: str, *, has_operations: bool = False
    ) -> None:
        """Drop a hand-over that must not be sent any more.

        :param records: that it has.
        :param has_operations: whether it is of operations.
        """
        if self._release(id, "settled"):
            self._ledger.record_dropped(reason, records)
        else:
            self.acknowledge([id], AckKind(has_operations, reason))

    def _release(self, id: str, what: t.Literal["withdrawn", "settled"]) -> bool:
        if self._is_paused:
            return True

        self._notice_changes()
        is_released = self._take_out(id, what)

        if is_released:
            self._news.add(id, what)
            self._news.tell()

        return is_released

    def _take_out(self, id: str, what: str) -> bool:
        steps = self._steps

        with self._memory.lock:
            if id in steps.acknowledged:
                return False

            write = self._memory.write_of(id)

            if write is not None:
                # The thread isn't to leave it to the spool now.
                write.done = False
            elif kind := self._memory.remove(id):
                steps.became[what, kind[0]] += 1
                return True

        return self._durable is not None and self._release_spooled(id, write)

    def _release_spooled(self, id: str, write: SpoolWrite | None) -> bool:
        assert self._durable is not None
        steps = self._steps
        withdrawal = Withdrawal(write.rows if write is not None else [])

        try:
            with self._ledger.transfer():
                if write is None:
                    steps.withdrawals.append(withdrawal)

                self._durable.withdraw(id, withdrawal)

                if write is not None and not write.rows:
                    self._memory.remove(id)
                    return True
        finally:
            withdrawal.done = True

            if write is not None:
                write.done = True

        return withdrawal.records > 0

    def acknowledge(self, ids: c.Sequence[str], kind: AckKind = DELIVERED) -> None:
        """Count hand-overs as delivered: Mixpanel has what is in them; or as dropped.

        Those that aren't here are passed on to the other processes, by the thread.
        """
        if self._is_paused:
            return

        self._notice_changes()
        self._steps.silence.was_broken = True

        if self._memory or self._shared:
            if kind != DELIVERED:
                self._steps.ack_kinds.update(dict.fromkeys(ids, kind))

            self._steps.acknowledged.extend(ids)

            if self._is_closed:
                self.hand_on()
            elif self._stepper.wakes_at:
                self._wake()

    @contextlib.contextmanager
    def paused(self) -> c.Iterator[None]:
        """Keep nothing for a while, as what is handed over reaches nobody; and leave
        alone what is kept."""
        self._is_paused = True

        try:
            yield
        finally:
            self._is_paused = False

    # For those who look, and at the end.

    @property
    def silence(self) -> Silence:
        """Whether anything was ever acknowledged."""
        return self._steps.silence

    def counts(self) -> Counts:
        """Return what became of the hand-overs of this process."""
        counts = Counts({}, {}, {}, {}, {})

        with self._memory.lock:
            for (carrier, _), _ in self._memory.kinds():
                counts.waiting[carrier] = counts.waiting.get(carrier, 0) + 1

            became = dict(self._steps.became)

        for (what, of), number in became.items():
            by_what = getattr(counts, what, None)

            if by_what is not None:
                by_what[of] = number

        return counts

    def hand_on(self) -> None:
        """Leave what waits to others, since the process ends."""
        was_closed, self._is_closed = self._is_closed, True
        timeout = self._delivery.config.shutdown_timeout
        deadline = time.monotonic() + timeout
        self._stepper.await_step(timeout)
        self._steps.hand_on(deadline)
        counts = self.counts()

        if counts.kept and not was_closed:
            logger.info("%s", counts)
