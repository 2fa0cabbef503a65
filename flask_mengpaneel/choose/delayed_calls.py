"""Calls that wait in the session for a page that can make them."""

from __future__ import annotations

import collections.abc as c
import dataclasses
import json
import logging
import time
import typing as t
import uuid

from flask import current_app, session

from ..calls import CallLog, count, dumps
from ..identity import NOBODY, Identity, hex_id
from ..limits import MAX_WAITING_BYTES
from ..visitor.persistence import Persistence
from .operations import (
    apart,
    belongs_to_operations,
    is_of_group,
    operation_of,
    operations_of,
    riding,
    riding_records,
)
from .session_cookie import (
    current_session,
    fits_session,
    read_session,
    refreshes_cookie,
    stored_session,
)

if t.TYPE_CHECKING:
    from flask import Flask, Request

logger = logging.getLogger("flask_mengpaneel")

#: Of the form in which calls are in the session.
VERSION = 1


@dataclasses.dataclass(slots=True)
class Entry:
    """The calls of one request whose response couldn't make them."""

    calls: CallLog
    #: Who the visitor was after all of the calls.
    identity_after: Identity
    #: Whom the browser took the visitor for.
    browser_identity: Identity
    #: When the calls were recorded, in seconds since the epoch.
    at: float
    id: str
    #: Whether they wait for consent, and the ledger doesn't have them yet.
    is_held: bool = False

    @classmethod
    def of(
        cls,
        calls: CallLog,
        identity_after: Identity,
        browser_identity: Identity,
        *,
        is_held: bool = False,
    ) -> Entry:
        """Make an entry of calls that were recorded just now."""
        id = hex_id()[:12]
        return cls(calls, identity_after, browser_identity, time.time(), id, is_held)

    def is_of(self, now: Identity, calls: CallLog) -> bool:
        """Whether these calls are of the person whom a request is for.

        :param now: whom the browser takes the visitor for.
        :param calls: those of the request, which may say who it is. If they don't, the
            calls that wait may, unless the browser has learnt of somebody else.
        """
        if calls.was_set_up:
            said = Identity().after([*calls.before_setup, *calls.setup]).user_id
            return self.identity_after.user_id in (None, said) and _agree(
                self.identity_after.device_id, now.device_id
            )

        if not _agree(self.browser_identity.device_id, now.device_id):
            return False

        # A script of the page's may have said who it is that the operations wait for.
        is_awaited = (
            self.is_operations
            and self.browser_identity.device_id is not None
            and not self.identity_after.is_identified
        )
        return is_awaited or now.user_id in (
            None,
            self.identity_after.user_id,
            self.browser_identity.user_id,
        )

    def leads_to(self, known: Identity) -> Identity:
        """Return the ids that the visitor has after these calls.

        :param known: those that the browser has now.
        """
        before, after = self.browser_identity, self.identity_after

        # A script of the page's has said who it is meanwhile.
        if known.user_id != before.user_id:
            return known

        return after if before.device_id else after._replace(device_id=known.device_id)

    @property
    def new_identity(self) -> Identity:
        """The ids of a new visitor, for calls of somebody without any: the same ones
        whenever it is asked."""
        return Identity(str(uuid.uuid5(uuid.NAMESPACE_OID, self.id)))

    @property
    def is_repeatable(self) -> bool:
        """Whether it does no harm if these calls are made twice."""
        return all(call.is_repeatable for call in self.calls)

    @property
    def is_operations(self) -> bool:
        """Whether it is for the server alone, which waits for somebody to be
        identified: it has operations on a profile and nothing that rides."""
        return all(map(belongs_to_operations, self.calls)) and any(
            operation_of(call) is call for call in self.calls
        )

    @property
    def records(self) -> int:
        """How many records these calls make, on the server or in the client that they
        wait for."""
        return (count if self.is_operations else riding_records)(self.calls)

    def parts(self) -> list[Entry]:
        """Return what rides, what changes groups, and what changes profiles as entries
        of their own."""
        if not operations_of(self.calls):
            return [self]

        operations = apart(self.calls)
        of_groups = operations.filtered(is_of_group)
        others = operations.filtered(lambda call: not is_of_group(call))
        parts = [
            dataclasses.replace(self, calls=riding(self.calls)),
            dataclasses.replace(self, calls=of_groups, id=f"{self.id}g"),
        ]

        if operations_of(others):
            parts.append(dataclasses.replace(self, calls=others, id=f"{self.id}o"))

        return [part for part in parts if part.calls]

    def to_json(self) -> list[t.Any]:
        """Return the entry as plain JSON values, in few bytes, for a cookie."""
        return [
            self.id,
            self.at,
            self.identity_after.to_json(),
            self.browser_identity.to_json(),
            self.calls.to_json(),
            *([True] if self.is_held else ()),
        ]

    @classmethod
    def from_json(cls, value: t.Any) -> Entry:
        """Read what :meth:`to_json` gave.

        :raises ValueError: it isn't an entry.
        """
        if not isinstance(value, list) or len(value) not in (5, 6):
            raise ValueError("not an entry")

        id, at, identity_after, browser_identity, calls, *held = value

        if not isinstance(id, str) or not isinstance(at, int | float):
            raise ValueError("not an entry")

        log = CallLog.from_json(calls)
        _check(log)
        return cls(
            log,
            Identity.from_json(identity_after),
            Identity.from_json(browser_identity),
            at,
            id,
            bool(held),
        )


def _check(calls: CallLog) -> None:
    """Make sure that calls have the arguments that are asked for on their way.

    :raises ValueError: they haven't.
    """
    persistence = Persistence({}, NOBODY)

    try:
        for call in calls:
            persistence.apply(call, 0.0)
            operation_of(call)

            if call.tracks:
                call.with_defaults({})
    except Exception as error:
        raise ValueError("not the arguments of a call") from error


def _agree(one: str | None, other: str | None) -> bool:
    return one is None or other is None or one == other


class DelayedCalls:
    """The calls that wait in the session of a request, by entry.

    The session is read only if there is something in it, and then without leaving a
    trace: a response that has nothing to do with it must not vary by cookie.

    :param key: where in the session.
    """

    __slots__ = ("_key", "_marks", "_packed", "changed", "cleared", "entries")

    def __init__(self, app: Flask, request: Request, key: str) -> None:
        self._key = key
        self._marks = (False, False)
        self._packed: tuple[c.Sequence[Entry], str] | None = None
        self.entries: list[Entry] = []
        #: Whether the session was changed for these calls.
        self.changed = False
        #: Whether the app has cleared the session, as one does when somebody signs in
        #: or out. What waited in it is here nevertheless.
        self.cleared = False
        environ = request.environ

        if (
            "HTTP_COOKIE" not in environ
            or app.session_interface.get_cookie_name(app) not in environ["HTTP_COOKIE"]
        ):
            return

        try:
            own = current_session()
            stored = read_session(own).get(key)

            if stored is None and own.modified:
                before = stored_session(app, request)
                stored = None if before is None else before.get(key)
                self.cleared = stored is not None
        except Exception:
            logger.exception("The session can't be read")
            return

        if stored is not None:
            self.entries = read_entries(stored)

    def store(self, entries: c.Sequence[Entry]) -> None:
        """Let these entries wait in the session, and no others."""
        if not entries and not self.entries:
            return

        self.entries = list(entries)

        if not self.changed:
            own = current_session()
            self._marks = own.modified, own.accessed

        if entries:
            session[self._key] = self._pack(entries)
        else:
            session.pop(self._key, None)

        # Not every kind of session notices.
        session.modified = True
        self.changed = True

    def remove(self, entries: c.Iterable[Entry]) -> None:
        """Let these entries wait no longer."""
        removed = {entry.id for entry in entries}
        self.store([entry for entry in self.entries if entry.id not in removed])

    @property
    def own_cookie(self) -> str | None:
        """The name of the session's cookie, if the app itself wouldn't write it."""
        if self._marks[0] or refreshes_cookie():
            return None

        return current_app.session_interface.get_cookie_name(current_app)

    @property
    def is_stored(self) -> bool:
        """Whether there is anything of it in the session, which others may change."""
        return self._key in read_session(current_session())

    def remove_if_saved(self) -> None:
        """Take the calls out of the session, whose saving the app decides on."""
        own = current_session()
        marks = own.modified, own.accessed
        own.pop(self._key, None)
        own.modified, own.accessed = marks
        self.entries = []

    def restore_marks(self) -> None:
        """Let the session be written only if the app has changed it: what was changed
        for these calls is as before."""
        own = current_session()
        own.modified, own.accessed = self._marks

    def fits(self, entries: c.Sequence[Entry], room: int) -> bool:
        """Whether the session has room for these entries beside what is in it.

        :param room: bytes that its cookie may have beside the other headers.
        """
        text = self._pack(entries)
        is_too_much = len(entries) > 1 and len(text) > MAX_WAITING_BYTES
        return not is_too_much and fits_session(self._key, text, room)

    def _pack(self, entries: c.Sequence[Entry]) -> str:
        """Write the entries as a text, which every serializer of a session takes: some
        have no room for an integer of more than 64 bits."""
        if self._packed is None or self._packed[0] is not entries:
            text = dumps([VERSION, *(entry.to_json() for entry in entries)])
            self._packed = entries, text

        return self._packed[1]


def read_entries(stored: t.Any) -> list[Entry]:
    """Read what a session holds, which another version of the package, or anything
    else, may have written."""
    entries = []

    try:
        values = json.loads(stored)
    except (TypeError, ValueError, RecursionError):
        values = None

    if not isinstance(values, list):
        logger.warning("Calls in the session can't be read: %.200r", stored)
        values = []

    for value in values[1:]:
        try:
            entries.append(Entry.from_json(value))
        except ValueError:
            logger.warning("Calls in the session can't be read: %.200r", value)

    return entries
