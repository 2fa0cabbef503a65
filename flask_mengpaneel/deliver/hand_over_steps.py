"""What becomes of hand-overs, by a thread and at the end of the process."""

from __future__ import annotations

import collections
import collections.abc as c
import logging
import time
import typing as t

from ..visitor.devices import is_bot
from .hand_over_memory import BLOCK_SIZE, Block, HandOver, HandOverMemory
from .pipeline import AT_EXIT
from .silence import Silence
from .stepper import Stepper

if t.TYPE_CHECKING:
    from ..envelope import Envelope
    from ..transport import Transport
    from .acknowledgements import SharedAcknowledgements
    from .delivery import Delivery
    from .ledger import Balance

logger = logging.getLogger("flask_mengpaneel")

#: Seconds after which what the transport had no room for is offered again.
RETRY_INTERVAL = 1.0

NEVER_SHOWN = "fetched in advance and never shown"
ROBOT = "a robot's page"


class HandOverSteps:
    """The hand-overs of a process, and what its thread does with them."""

    def __init__(
        self,
        delivery: Delivery,
        transport: Transport,
        shared: c.Sequence[SharedAcknowledgements],
    ) -> None:
        self._delivery = delivery
        self._ledger = delivery.ledger
        self._transport = transport
        self.shared = shared
        self.memory = HandOverMemory()
        #: Ids that are acknowledged, until the thread has seen to it.
        self.acknowledged: collections.deque[str] = collections.deque()
        self.stepper = Stepper(self._step, self._next_moment)
        #: (what became of it, its carrier or the reason) -> hand-overs.
        self.became: collections.Counter[tuple[str, str]] = collections.Counter()
        self.silence = Silence()
        #: Nothing is sent before that: the transport had no room.
        self._pause_until = 0.0

    def count(self, balance: Balance) -> None:
        """Add what is here to a balance."""
        with self.stepper.lock:
            # The thread hasn't seen to these yet.
            kinds = map(self.memory.get, set(self.acknowledged))
            delivered = sum(kind[1] for kind in kinds if kind)
            balance.delivered += delivered
            balance.waiting -= delivered

            for (_, records), is_spooled in self.memory.kinds():
                balance.recorded += records
                balance.waiting += 0 if is_spooled else records

    def _next_moment(self) -> float:
        if self.acknowledged or len(self.memory.recent) >= BLOCK_SIZE:
            return time.monotonic()

        with self.stepper.lock:
            return max(self.memory.next_due, self._pause_until)

    def _step(self) -> None:
        self._apply_acknowledged()

        if time.monotonic() >= self._pause_until:
            self._send_overdue()
            self.silence.check(self.became["sent", "page"])

        self._pack()

    def _apply_acknowledged(self) -> None:
        with self._ledger.transfer():
            ids = []

            while self.acknowledged:
                ids.append(self.acknowledged.popleft())

            others = self._deliver(ids)

        if others:
            for shared in self.shared:
                shared.add(others)

    def _deliver(self, ids: c.Iterable[str]) -> list[str]:
        """Count hand-overs as delivered, in a transfer; return which aren't here."""
        others = []
        delivered = 0

        with self.stepper.lock:
            for id in ids:
                if kind := self.memory.remove(id):
                    delivered += kind[1]
                    self.became["acknowledged", kind[0]] += 1
                else:
                    others.append(id)

        self._ledger.record(delivered)
        self._ledger.deliver(delivered)
        return others

    def _acknowledged_elsewhere(self, ids: c.Collection[str]) -> set[str]:
        found = set[str]().union(*(shared.found(ids) for shared in self.shared))
        self.silence.was_broken |= bool(found)
        return found

    def _send_overdue(self) -> None:
        with self.stepper.lock:
            moment = max(time.monotonic(), self.memory.horizon())

        while due := self._due(moment):
            for id, hand_over in due:
                if not self._send(id, hand_over):
                    self._pause_until = time.monotonic() + RETRY_INTERVAL
                    return

    def _due(self, moment: float) -> list[tuple[str, HandOver]]:
        """Return some of those that are due then, but for the acknowledged ones."""
        while True:
            self._apply_acknowledged()

            with self.stepper.lock:
                due = self.memory.unpack_due(moment)

            found = self._acknowledged_elsewhere([id for id, _ in due]) if due else ()

            if not found:
                return due

            with self._ledger.transfer():
                self._deliver(found)

    def _send(self, id: str, hand_over: HandOver) -> bool:
        """Send a hand-over, or drop it; ``False`` if the transport has no room."""
        envelope = hand_over.envelope
        reason = _reason_to_drop(hand_over, envelope)

        with self._ledger.transfer():
            with self.stepper.lock:
                if id in self.acknowledged or self.memory.remove(id) is None:
                    return True

            if reason:
                self._ledger.record(hand_over.records)
                self._ledger.drop(reason, hand_over.records)
                self.became["dropped", reason] += 1
            elif self._offer(envelope):
                self.became["sent", hand_over.carrier] += 1
            else:
                self.memory.add(id, hand_over)
                return False

        return True

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
        with self.stepper.lock:
            chunks = self.memory.to_pack()

        for chunk in chunks:
            block = Block(chunk)

            with self.stepper.lock:
                self.memory.replace([id for id, _ in chunk], block)

    def hand_on(self) -> None:
        """Send what waits, since the process ends."""
        deadline = time.monotonic() + self._delivery.config.shutdown_timeout
        self.stepper.await_step(self._delivery.config.shutdown_timeout)

        while left := self._due(float("inf")):
            for id, hand_over in left:
                if time.monotonic() > deadline or not self._send(id, hand_over):
                    self._drop(id, hand_over)

    def _drop(self, id: str, hand_over: HandOver) -> None:
        with self._ledger.transfer():
            with self.stepper.lock:
                if self.memory.remove(id) is None:
                    return

            self._ledger.record(hand_over.records)
            dropped = self._delivery.drop_envelopes([hand_over.envelope], AT_EXIT)
            self.became["dropped", AT_EXIT] += 1

        self._delivery.report_drops(dropped)


def _reason_to_drop(hand_over: HandOver, envelope: Envelope) -> str | None:
    if hand_over.if_shown:
        return NEVER_SHOWN

    if hand_over.carrier == "page" and is_bot(envelope.user_agent):
        return ROBOT

    return None
