"""Puts the calls of a request into the session, for a page that can make them."""

from __future__ import annotations

import typing as t

from .. import reasons
from ..calls import CallLog, Json
from ..outcome import Declined
from ..visitor.attribution import page_properties
from ..visitor.client import join_url
from ..visitor.visitor import Visitor
from .delayed_calls import Entry
from .hand_over import Naming
from .header_room import room_for_session
from .session_cookie import has_session

if t.TYPE_CHECKING:
    from ..config import Config
    from .exchange import Exchange


def store_in_session(
    calls: CallLog,
    exchange: Exchange,
    config: Config,
    *,
    is_named: bool = False,
    is_held: bool = False,
) -> Entry:
    """Keep calls in the session, after those that wait there already.

    :param is_named: whether it must be known of each event whose it is.
    :param is_held: whether all of them wait for consent, operations too.
    :return: the entry with them.
    :raises Declined: they can't wait there.
    """
    policy, visitor, delayed = exchange.policy, exchange.visitor, exchange.delayed
    reason = policy.new_session_data

    if reason:
        raise Declined(reason)

    # A new visitor gets ids with this very response, so that the calls are theirs
    # whoever sits in front of the browser when they are made.
    known = exchange.known_identity
    identity = exchange.identity_after(exchange.before)
    naming = Naming(identity, _page_properties(visitor))
    (named,) = naming.name([calls])

    if is_named and not naming.is_complete:
        # The server couldn't send it later as the same event.
        raise Declined("the browser alone knows who this is")

    entry = Entry.of(named, identity.after(calls), known, is_held=is_held)
    entries = [*delayed.entries, *(entry.parts() if is_held else [entry])]

    try:
        if not has_session():
            raise Declined(reasons.NO_SESSION)

        room = room_for_session(config, exchange.request, exchange.response, visitor)

        if not delayed.fits(entries, room):
            raise Declined(reasons.NO_ROOM_IN_SESSION)

        delayed.store(entries)
        visitor.identity_sent = known is visitor.identity
    except Declined:
        raise
    except Exception as error:
        raise Declined(f"the session fails: {error!r}") from error

    return entry


def _page_properties(visitor: Visitor) -> dict[str, Json]:
    url, referrer = visitor.client.page
    return dict(page_properties(join_url(url), referrer)) if url else {}
