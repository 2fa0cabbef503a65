"""Puts the calls of a request into the session, for a page that can make them."""

from __future__ import annotations

import typing as t

from ..calls import CallLog, Json
from ..outcome import Declined
from ..visitor.attribution import page_properties
from ..visitor.client import join_url
from ..visitor.visitor import Visitor
from .delayed_calls import Entry
from .header_room import room_for_session
from .session_cookie import has_session

if t.TYPE_CHECKING:
    from ..config import Config
    from ..identity import Identity
    from .exchange import Exchange


def store_in_session(calls: CallLog, exchange: Exchange, config: Config) -> None:
    """Keep calls in the session, after those that wait there already.

    :raises Declined: they can't wait there.
    """
    policy, visitor, delayed = exchange.policy, exchange.visitor, exchange.delayed
    reason = policy.new_session_data

    if reason:
        raise Declined(reason)

    identity = visitor.browser_identity

    # A new visitor gets ids with this very response, so that the calls are theirs
    # whoever sits in front of the browser when they are made.
    if visitor.may_write_cookie and policy.cookie is None:
        identity = visitor.identity

    stamped = _stamp_calls(calls, visitor, identity)
    entry = Entry.of(stamped, identity.after(calls), identity)
    entries = [*delayed.entries, entry]

    try:
        if not has_session():
            raise Declined("there is no session: SECRET_KEY is not set")

        room = room_for_session(config, exchange.request, exchange.response, visitor)

        if not delayed.fits(entries, room):
            raise Declined("the session can't hold so much")

        delayed.store(entries)
        exchange.is_in_session = True
        visitor.identity_sent = identity is visitor.identity
    except Declined:
        raise
    except Exception as error:
        raise Declined(f"the session fails: {error!r}") from error


def _stamp_calls(calls: CallLog, visitor: Visitor, identity: Identity) -> CallLog:
    """Name in each event the person whom it happened to, and where.

    What the caller says of an event wins in the browser library, so the event stays
    with this person, whoever uses the browser when it is sent.
    """
    identity = identity.after([*calls.before_setup, *calls.setup])
    page = _page_properties(visitor)
    tracking = []

    for call in calls.tracking:
        identity = identity.after([call])
        tracking.append(
            call.with_defaults({**page, **identity.properties}) if call.tracks else call
        )

    return CallLog(calls.before_setup, calls.setup, tracking, calls.set_up)


def _page_properties(visitor: Visitor) -> dict[str, Json]:
    url, referrer = visitor.client.page
    return dict(page_properties(join_url(url), referrer)) if url else {}
