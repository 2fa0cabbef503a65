"""The calls that a client is given at once, and whose they are."""

from __future__ import annotations

import collections.abc as c
import dataclasses
import typing as t

from ..calls import TRACKING, Call, CallLog
from ..identity import NOBODY, Identity
from .operations import riding_records

if t.TYPE_CHECKING:
    from ..calls import Json
    from .delayed_calls import Entry


#: Why nobody sends what was given to a visitor who has refused since.
CONSENT_REFUSED = "consent was refused"


@dataclasses.dataclass(slots=True)
class HandOver:
    """The calls that a client is given at once."""

    id: str
    #: The calls of the request itself.
    own: CallLog
    #: The entries of the session that go with them.
    entries: list[Entry]
    #: All of these calls.
    calls: CallLog
    #: How many records the ledger hasn't got yet: those of the request itself, and what
    #: has waited for consent.
    records: int
    #: With what the client acknowledges it; ``None``: it is believed.
    token: str | None = None
    #: Seconds that the client has for that.
    timeout: float = 0
    #: Whom the browser takes the visitor for once it has the response.
    browser_identity: Identity = NOBODY
    #: Whether they wait in the session.
    in_session: bool = False

    @classmethod
    def of(cls, id: str, own: CallLog, entries: list[Entry]) -> HandOver:
        """Make one of the calls of a request, and of what is due with them."""
        calls, records = own, riding_records(own.in_order)

        if entries:
            calls = merged(*(entry.calls for entry in entries), own)
            records += sum(entry.records for entry in entries if entry.is_held)

        return cls(id, own, entries, calls, records)

    @classmethod
    def to_session(cls, entry: Entry) -> HandOver:
        """Make one of calls that wait in the session."""
        calls, records = entry.calls, entry.records
        return cls(entry.id, calls, [], calls, records, in_session=True)


def merged(*logs: CallLog) -> CallLog:
    """Put logs together in their order, by stage; the last set-up counts."""
    log = CallLog()

    for one in logs:
        log.size += one.size
        log.before_setup += one.before_setup
        log.tracking += one.tracking

        if one.was_set_up:
            log.setup = one.setup
            log.was_set_up = True

    return log


class Naming:
    """Names in each event the person it happened to.

    What the caller says of an event wins in the browser library. So the client and the
    server send the same event, whenever they do.

    :param identity: the ids of the visitor before the first call.
    :param defaults: further properties of each event.
    """

    def __init__(
        self, identity: Identity, defaults: c.Mapping[str, Json] | None = None
    ) -> None:
        self._defaults = defaults or {}
        #: Whether it is known of each event whose it is.
        self.is_complete = True
        self._go_on_as(identity)

    def _go_on_as(self, identity: Identity) -> None:
        self._identity = identity
        # Once for all events of a person.
        self._properties = {**self._defaults, **identity.properties}

    def name(self, logs: c.Sequence[CallLog]) -> list[CallLog]:
        """Return logs anew, with the ids in their events.

        :param logs: in the order in which they were recorded. They are made together,
            stage by stage, and the last set-up is the one that counts.
        """
        named, setup = [], None

        for log in logs:
            before = self._named(log.before_setup)
            named.append(CallLog(before, log.setup, [], log.was_set_up, log.size))
            setup = log.setup if log.was_set_up else setup

        if setup:
            self._go_on_as(self._identity.after(setup))

        for new, log in zip(named, logs, strict=True):
            new.tracking = self._named(log.tracking)

        return named

    def _named(self, calls: c.Iterable[Call]) -> list[Call]:
        named = []

        for call in calls:
            if call.wire[0][0] not in TRACKING:
                identity = self._identity.after([call])

                if identity is not self._identity:
                    self._go_on_as(identity)

            # What waited says whose it is, and perhaps that nobody was signed in.
            elif "distinct_id" in call.properties:
                call = call.with_defaults(self._defaults)
            else:
                call = call.with_defaults(self._properties)
                self.is_complete &= "distinct_id" in self._properties

            named.append(call)

        return named
