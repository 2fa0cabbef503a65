"""What visitors have done before of which the browser doesn't know yet: it waits in the
session."""

from __future__ import annotations

import collections.abc as c
import logging
import typing as t

from ..record.context import request_state
from .delayed_calls import read_entries
from .hand_over import merged
from .session_cookie import stored_session

if t.TYPE_CHECKING:
    from flask import Flask, Request

    from ..calls import CallLog
    from ..identity import Identity
    from ..record.manager import Manager
    from ..visitor.visitor import Visitor
    from .delayed_calls import Entry

logger = logging.getLogger("flask_mengpaneel")


def before_of(
    visitor: Visitor, calls: CallLog, entries: c.Iterable[Entry]
) -> list[Entry]:
    """Return what of that which waits the visitor has done.

    :param calls: those of the request itself, which may say who it is.
    """
    known = visitor.browser_identity
    return [
        entry
        for entry in entries
        if not entry.is_operations and entry.is_of(known, calls)
    ]


def identity_after(entries: c.Iterable[Entry], known: Identity) -> Identity:
    """Return the ids that a visitor has after calls that wait.

    :param known: those that the browser has now.
    """
    identity = known

    for entry in entries:
        identity = entry.leads_to(known)

    return identity


def person_after(before: list[Entry], visitor: Visitor, known: Identity) -> Visitor:
    """Return a visitor as what they have done before has made of them.

    :param known: the ids that the browser has now.
    """
    if not before:
        return visitor

    done = merged(*(entry.calls for entry in before))
    identity = identity_after(before, known)

    if not identity:
        # After a sign-out it is somebody new.
        is_new = any(call.name == "reset" for call in done)
        identity = before[-1].new_identity if is_new else visitor.identity

    return visitor.after_unseen(done, identity)


def person_of(manager: Manager, calls: CallLog, app: Flask, key: str) -> Visitor:
    """Return the visitor from whom a manager's calls are, which no response carries.

    :param key: where in the session calls wait.
    """
    visitor, request = manager.visitor, manager.request

    # A job has a visitor of its own.
    if request is None or not visitor.client.environ:
        return visitor

    state = request_state(request)

    if state.waiting_entries is None:
        state.waiting_entries = _waiting(app, request, key)

    if not state.waiting_entries:
        return visitor

    if visitor.is_unknown:
        # Requests that are under way at once find the same new visitor.
        visitor.identity = state.waiting_entries[0].new_identity

    before = before_of(visitor, calls, state.waiting_entries)
    return person_after(before, visitor, visitor.browser_identity)


def _waiting(app: Flask, request: Request, key: str) -> list[Entry]:
    """Return what waited when the request came, which may have had a response since."""
    interface = app.session_interface
    header = request.environ.get("HTTP_COOKIE", "")

    if interface.get_cookie_name(app) not in header:
        return []

    try:
        session = stored_session(app, request)
        stored = None if session is None else session.get(key)
    except Exception:
        logger.exception("The session can't be read")
        return []

    return [] if stored is None else read_entries(stored)
