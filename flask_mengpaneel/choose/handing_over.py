"""Hands the calls of a flush over to a client, and keeps them until it acknowledges."""

from __future__ import annotations

import collections.abc as c
import dataclasses
import typing as t

from ..calls import Call, CallLog
from ..identity import hex_id
from .operations import riding_records, without_group_operations

if t.TYPE_CHECKING:
    from ..calls import Json
    from ..deliver.hand_over_memory import Carrier
    from ..deliver.hand_overs import HandOvers
    from ..deliver.ledger import Ledger
    from ..identity import Identity
    from ..visitor.visitor import Visitor
    from .delayed_calls import Entry
    from .exchange import Exchange, ResponseState
    from .signing import Signer

#: Seconds for which the server keeps what was fetched in advance, at least: browsers
#: show it within that time or not at all.
#: https://developer.chrome.com/docs/web-platform/prerender-pages
_MAX_ADVANCE = 300.0


@dataclasses.dataclass(slots=True)
class HandOver:
    """The calls that a client is given at once."""

    id: str
    #: The calls of the request itself.
    own: CallLog
    #: The entries of the session that go with them.
    entries: list[Entry]
    #: With what the client acknowledges it; ``None``: it is believed.
    token: str | None = None

    @property
    def calls(self) -> CallLog:
        """All of the calls."""
        return merged(*(entry.calls for entry in self.entries), self.own)


class HandingOver:
    """Hands calls over to clients.

    :param hand_overs: keeps them; ``None``: all clients are believed.
    """

    def __init__(
        self, ledger: Ledger, hand_overs: HandOvers | None, signer: Signer
    ) -> None:
        self._ledger = ledger
        self._hand_overs = hand_overs
        self._signer = signer

    @property
    def is_on(self) -> bool:
        """Whether clients are asked to acknowledge."""
        return self._hand_overs is not None

    def prepare(
        self, calls: CallLog, exchange: Exchange, *, acknowledges: bool = True
    ) -> HandOver:
        """Prepare to hand over calls, and what is due of those that wait.

        :param acknowledges: whether the client says that it will.
        """
        hand_over = HandOver(hex_id()[:16], calls, exchange.due_entries)

        if self._hand_overs is None or not exchange.ack_timeout or not acknowledges:
            return hand_over

        logs = [*(entry.calls for entry in hand_over.entries), calls]

        if not any(map(riding_records, logs)):
            return hand_over

        naming = Naming(exchange.known_identity)
        *others, own = naming.name(logs)

        # Else the client's events and the server's would be different ones.
        if naming.is_complete:
            hand_over.own = own
            hand_over.entries = [
                dataclasses.replace(entry, calls=log)
                for entry, log in zip(hand_over.entries, others, strict=True)
            ]
            hand_over.token = self._signer.token(hand_over.id)

        return hand_over

    def complete(
        self, hand_over: HandOver, exchange: Exchange, carrier: Carrier
    ) -> None:
        """Count what the client has got, and keep it if that is to be acknowledged."""
        exchange.handed_over = hand_over
        visitor = exchange.visitor

        if hand_over.token is not None and exchange.introduces:
            # Its events have the ids that a new visitor gets with it.
            visitor.identity_sent = True

        if hand_over.token is None:
            self.believe(riding_records(hand_over.own))
        else:
            is_advance = visitor.client.is_prefetch
            timeout = exchange.ack_timeout
            self._keep(
                hand_over.id,
                hand_over.calls,
                visitor,
                carrier,
                max(timeout, _MAX_ADVANCE) if is_advance else timeout,
                if_shown=is_advance,
            )

    def to_session(
        self, entry: Entry, exchange: Exchange, carrier: Carrier, timeout: float
    ) -> HandOver:
        """Count what waits in the session, and keep it until that is taken up.

        :param timeout: seconds after which the server sends it itself.
        """
        records = riding_records(entry.calls)
        names = all(
            "distinct_id" in call.properties for call in entry.calls if call.tracks
        )
        hand_over = HandOver(entry.id, entry.calls, [])

        if self._hand_overs is None or not exchange.ack_timeout or not names:
            self.believe(records)
        elif records:
            hand_over.token = self._signer.token(entry.id)
            self._keep(entry.id, entry.calls, exchange.visitor, carrier, timeout)

        return hand_over

    def _keep(
        self,
        id: str,
        calls: CallLog,
        visitor: Visitor,
        carrier: Carrier,
        timeout: float,
        *,
        if_shown: bool = False,
    ) -> None:
        """Keep calls until somebody says what has become of them."""
        assert self._hand_overs is not None, "somebody keeps them"
        envelope = visitor.envelope(without_group_operations(calls, visitor))
        self._hand_overs.keep(id, envelope, carrier, timeout, if_shown=if_shown)

    def withdraw(self, hand_over: HandOver) -> None:
        """Take calls back that the client or the session doesn't get after all."""
        if hand_over.token is None:
            self.believe(-riding_records(hand_over.own))
        elif self._hand_overs is not None:
            self._hand_overs.withdraw(hand_over.id)

    def take_up(self, former: ResponseState) -> None:
        """Keep what has waited in the session no longer, as a response has it."""
        hand_over = former.handed_over

        if self._hand_overs is None or hand_over is None:
            return

        for entry in hand_over.entries:
            if hand_over.token is None:
                self._hand_overs.acknowledge([entry.id])
            else:
                self._hand_overs.settle(entry.id)

    def take_back(
        self, token: t.Any, calls: c.Sequence[Call], positions: c.Iterable[int]
    ) -> None:
        """Keep calls no longer of which a client hands some back, for the server.

        :param token: of their hand-over, as the client says.
        :param positions: of those that are handed back; the others have arrived.
        """
        id = self._signer.id_of(token) if isinstance(token, str) else None

        if id is not None and self._hand_overs and self._hand_overs.settle(id):
            returned = riding_records(calls[position] for position in positions)
            self.believe(riding_records(calls) - returned)

    def believe(self, records: int) -> None:
        """Count records as delivered: nobody will say more of them."""
        with self._ledger.transfer():
            self._ledger.record(records)
            self._ledger.deliver(records)


def merged(*logs: CallLog) -> CallLog:
    """Put logs together in their order, by stage; the last set-up counts."""
    log = CallLog()

    for one in logs:
        log.size += one.size
        log.before_setup += one.before_setup
        log.tracking += one.tracking

        if one.set_up:
            log.setup = one.setup
            log.set_up = True

    return log


class Naming:
    """Names in each event the person whom it happened to.

    What the caller says of an event wins in the browser library. So whoever sends the
    event, and whenever, sends the same one.

    :param identity: the ids of the visitor before the first call.
    :param defaults: further properties of each event.
    """

    def __init__(
        self, identity: Identity, defaults: c.Mapping[str, Json] | None = None
    ) -> None:
        self._identity = identity
        self._defaults = defaults or {}
        #: Whether it is known of each event whose it is.
        self.is_complete = True

    def name(self, logs: c.Sequence[CallLog]) -> list[CallLog]:
        """Return logs anew, with the ids in their events.

        :param logs: in the order in which they were recorded. They are made together,
            stage by stage, and the last set-up is the one that counts.
        """
        before = [self._named(log.before_setup) for log in logs]
        self._identity = self._identity.after(merged(*logs).setup)
        tracking = [self._named(log.tracking) for log in logs]
        return [
            CallLog(first, log.setup, last, log.set_up, log.size)
            for first, log, last in zip(before, logs, tracking, strict=True)
        ]

    def _named(self, calls: c.Iterable[Call]) -> list[Call]:
        named = []

        for call in calls:
            if call.tracks:
                ids = self._identity.properties
                call = call.with_defaults({**self._defaults, **ids})

                if "distinct_id" not in call.properties:
                    self.is_complete = False
            else:
                self._identity = self._identity.after([call])

            named.append(call)

        return named
