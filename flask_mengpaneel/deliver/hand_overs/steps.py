"""What becomes of hand-overs, by a thread and at the end of the process."""

from __future__ import annotations

import collections
import collections.abc as c
import logging
import time
import typing as t

from ...recently_seen import RecentlySeen
from ..acknowledgements import DELIVERED, AckKind, found_by
from ..pipeline import AT_EXIT
from ..queue import row_of
from ..spooling import SpoolingTransport
from .memory import BLOCK_SIZE, HandOverMemory, KeptHandOver, PackedHandOvers
from .news import NEVER_ACKNOWLEDGED
from .silence import Silence

if t.TYPE_CHECKING:
    from ...envelope import Envelope
    from ...transport import Transport
    from ..acknowledgements import SharedAcknowledgements
    from ..delivery import Delivery
    from ..ledger import Balance
    from .spooled import SpooledHandOvers, Withdrawal

logger = logging.getLogger("flask_mengpaneel")

#: Seconds after which what the transport had no room for is offered again.
RETRY_INTERVAL = 1.0

# Ids that are remembered; each takes 150 bytes.
_MAX_SENT = 10_000


class HandOverSteps:
    """What the thread does with the hand-overs of a process, and what becomes of
    them."""

    def __init__(
        self,
        memory: HandOverMemory,
        delivery: Delivery,
        transport: Transport,
        shared: c.Sequence[SharedAcknowledgements],
        spooled: SpooledHandOvers | None,
    ) -> None:
        self._delivery = delivery
        self._spooled = spooled
        self._ledger = delivery.ledger
        self._transport = transport
        self._shared = shared
        self._news = delivery.news
        self._memory = memory
        #: Ids that are acknowledged, until the thread has seen to it.
        self.acknowledged: collections.deque[str] = collections.deque()
        #: The kinds of those that aren't of events that Mixpanel has.
        self.ack_kinds: dict[str, AckKind] = {}
        #: Hand-overs that requests take out of the spool.
        self.withdrawals: collections.deque[Withdrawal] = collections.deque()
        #: Seconds, by the monotonic clock, at which the spool has overdue ones.
        self._spooled_dues: set[int] = set()
        #: (what became of it, its carrier or the reason) -> hand-overs.
        self.became: collections.Counter[tuple[str, str]] = collections.Counter()
        #: Ids of those of sessions that were overdue and are sent: a browser may come
        #: back with them much later. The oldest are forgotten.
        self.sent = RecentlySeen(_MAX_SENT)
        self.silence = Silence()
        #: Nothing is sent before that: the transport had no room.
        self._pause_until = 0.0

    def count(self, balance: Balance) -> None:
        """Add what is here to a balance."""
        with self._memory.lock:
            # The thread hasn't seen to these yet.
            ids = set(self.acknowledged).difference(self.ack_kinds)
            delivered = sum(kind[1] for kind in map(self._memory.get, ids) if kind)
            balance.delivered += delivered
            balance.waiting -= delivered

            for (_, records), is_spooled in self._memory.kinds():
                balance.recorded += records
                balance.waiting += 0 if is_spooled else records

            balance.recorded -= sum(one.records for one in list(self.withdrawals))

    def next_moment(self) -> float:
        """Return when there is something to do again, by the monotonic clock."""
        if self.acknowledged or len(self._memory.recent) >= BLOCK_SIZE:
            return time.monotonic()

        with self._memory.lock:
            return min(
                max(self._memory.next_due, self._pause_until),
                min(self._spooled_dues, default=float("inf")),
            )

    def step(self) -> None:
        """Do what there is to do."""
        self._apply_written()
        self._apply_acknowledged()
        self._poll_spool()

        self._pack()

        if time.monotonic() >= self._pause_until:
            self._send_overdue()
            self.silence.check()

        self._news.tell()

    def _apply_written(self) -> None:
        """Leave to the spool what requests have written into it; the ledger has what
        they took out."""
        with self._ledger.transfer():
            records = 0

            with self._memory.lock:
                for id, hand_over in self._memory.written():
                    if row_of(hand_over.write):
                        self._memory.remove(id)
                        records += hand_over.records
                        # A second later: the row says when, by a clock that was
                        # read after this one.
                        self._spooled_dues.add(int(hand_over.due) + 2)
                        self.became["spooled", hand_over.carrier] += 1
                    else:
                        # The spool took nothing.
                        self._memory.add(id, hand_over._replace(write=None))

                while self.withdrawals and self.withdrawals[0].done:
                    records -= self.withdrawals.popleft().records

            self._ledger.record(records)

    def _poll_spool(self) -> None:
        now = time.monotonic()
        overdue = {moment for moment in self._spooled_dues if moment <= now}

        if overdue:
            self._spooled_dues -= overdue
            assert isinstance(self._transport, SpoolingTransport)
            self._transport.poll_spool()

    def _apply_acknowledged(self) -> None:
        with self._ledger.transfer():
            # A reader in between would find a hand-over that isn't acknowledged.
            with self._memory.lock:
                ids = [
                    self.acknowledged.popleft() for _ in range(len(self.acknowledged))
                ]
                done, others = self._remove_acknowledged(ids)

            for reason, records in done.items():
                self._ledger.record(records)

                if reason:
                    self._ledger.drop(reason, records)
                else:
                    self._ledger.deliver(records)

        for kind, some in others.items():
            for shared in self._shared:
                shared.add(some, kind)

    def _remove_acknowledged(
        self, ids: c.Iterable[str]
    ) -> tuple[dict[str, int], dict[AckKind, list[str]]]:
        """Remove hand-overs, with the lock; return how many records they have, by the
        reason why they are dropped, and the ids of those that aren't here."""
        done: collections.Counter[str] = collections.Counter()
        others: dict[AckKind, list[str]] = {}

        for id in ids:
            if self._memory.write_of(id) is not None:
                self.acknowledged.append(id)
                continue

            kind = self.ack_kinds.pop(id, DELIVERED)

            if removed := self._memory.remove(id):
                carrier, records = removed
                reason = kind.dropped_for
                done[reason] += records
                what = ("dropped", reason) if reason else ("acknowledged", carrier)
                self.became[what] += 1
                self._news.add_acknowledged(id, reason)
            else:
                others.setdefault(kind, []).append(id)

        return done, others

    def _send_overdue(self) -> None:
        with self._memory.lock:
            moment = max(time.monotonic(), self._memory.horizon())

        while due := self._due(moment):
            for id, hand_over in due:
                if not self._send(id, hand_over, NEVER_ACKNOWLEDGED):
                    self._pause_until = time.monotonic() + RETRY_INTERVAL
                    return

    def _due(self, moment: float) -> list[tuple[str, KeptHandOver]]:
        """Return some of those that are due then, but for the acknowledged ones."""
        while True:
            self._apply_acknowledged()

            with self._memory.lock:
                due = self._memory.unpack_due(moment)

            found = found_by(self._shared, [id for id, _ in due])

            if not found:
                return due

            self.silence.was_broken = True

            # From now on these are like those that have come to this process.
            for id, reason in found.items():
                if reason:
                    self.ack_kinds[id] = AckKind(dropped_for=reason)

                self.acknowledged.append(id)

    def _send(self, id: str, hand_over: KeptHandOver, why: str) -> bool:
        """Send a hand-over, or drop it; ``False`` if the transport has no room.

        :param why: it is sent.
        """
        envelope = hand_over.envelope
        reason = hand_over.dropped_for(envelope)
        is_session = hand_over.carrier in ("session", "operations")
        # Another process may be making it.
        is_ours = hand_over.carrier != "operations" or self._claim(id)

        with self._ledger.transfer():
            with self._memory.lock:
                if id in self.acknowledged or self._memory.remove(id) is None:
                    return True

                if is_session:
                    self.sent.count(id)

            if not is_ours:
                # The process that makes it counts it.
                self.became["settled", hand_over.carrier] += 1
                self._news.add(id, "settled")
            elif reason:
                self._ledger.record(hand_over.records)
                self._ledger.drop(reason, hand_over.records)
                self.became["dropped", reason] += 1
                self._news.add(id, "dropped", reason)
            elif self._offer(envelope):
                self.became["sent", hand_over.carrier] += 1
                self._news.add(id, "sent", why)

                if hand_over.carrier == "page" and hand_over.due <= time.monotonic():
                    self.silence.sent_pages += 1
            else:
                self._memory.add(id, hand_over)
                return False

        return True

    def _count_delivered(self, hand_over: KeptHandOver, what: str) -> None:
        self._ledger.record(hand_over.records)
        self._ledger.deliver(hand_over.records)
        self.became[what, hand_over.carrier] += 1

    def _claim(self, id: str) -> bool:
        """Whether operations are to be made by the thread, and not by a request."""
        # It may be offered again, as the transport had no room.
        return id in self.sent or self._delivery.made_once.claim(id)

    def _offer(self, envelope: Envelope) -> bool:
        try:
            taken = self._transport.send(envelope)
        except Exception:
            logger.exception("The transport failed; what it was given is kept.")
            return False

        if taken and not self._transport.reports_delivery:
            self._ledger.record(envelope.records)
            self._ledger.deliver(envelope.records)

        return taken

    def _pack(self) -> None:
        with self._memory.lock:
            chunks = self._memory.to_pack()

        for chunk in chunks:
            block = PackedHandOvers(chunk)

            with self._memory.lock:
                self._memory.replace([id for id, _ in chunk], block)

    def hand_on(self, deadline: float) -> None:
        """Leave what waits to the spool, or to the transport, when no step is under
        way any more.

        :param deadline: until when something is given to the transport.
        """
        self._apply_written()
        may_spool = self._spooled is not None

        while left := self._due(float("inf")):
            if may_spool and (may_spool := self._spool(left)):
                continue

            for id, hand_over in left:
                if hand_over.carrier == "operations":
                    self._leave_to_session(id, hand_over)
                elif time.monotonic() > deadline or not self._send(
                    id, hand_over, AT_EXIT
                ):
                    self._drop(id, hand_over)

        self._news.tell()

    def _leave_to_session(self, id: str, hand_over: KeptHandOver) -> None:
        """Believe that the session with these operations comes back: who is identified
        then gets them, and not a device."""
        with self._ledger.transfer():
            with self._memory.lock:
                if self._memory.remove(id) is None:
                    return

            self._count_delivered(hand_over, "settled")

    def _spool(self, hand_overs: list[tuple[str, KeptHandOver]]) -> bool:
        """Put hand-overs into the spool; ``False`` if it doesn't take them."""
        assert self._spooled is not None

        with self._ledger.transfer():
            with self._memory.lock:
                here = [
                    (id, hand_over)
                    for id, hand_over in hand_overs
                    if id not in self.acknowledged and self._memory.remove(id)
                ]

            if here and not self._spooled.put(
                [(id, one, one.dropped_for(one.envelope)) for id, one in here]
            ):
                self._memory.recent.update(here)
                return False

            self._ledger.record(sum(hand_over.records for _, hand_over in here))

        for _, hand_over in here:
            self.became["spooled", hand_over.carrier] += 1

        return True

    def _drop(self, id: str, hand_over: KeptHandOver) -> None:
        with self._ledger.transfer():
            with self._memory.lock:
                if self._memory.remove(id) is None:
                    return

            self._ledger.record(hand_over.records)
            dropped = self._delivery.drop_envelopes([hand_over.envelope], AT_EXIT)
            self.became["dropped", AT_EXIT] += 1
            self._news.add(id, "dropped", AT_EXIT)

        self._delivery.report_drops(dropped)
