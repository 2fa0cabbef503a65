"""A request, the response to it, and what is derived from them."""

from __future__ import annotations

import collections.abc as c
import typing as t
import weakref

from ..calls import Call, CallLog
from ..outcome import REDIRECTS, Declined
from . import redirects
from .carrier import Carrier, copy_response, mark_private
from .person import before_of, identity_after, person_after
from .response_policy import ResponsePolicy

if t.TYPE_CHECKING:
    from flask import Request, Response

    from ..config import Config
    from ..identity import Identity
    from ..visitor.visitor import Visitor
    from .delayed_calls import DelayedCalls, Entry
    from .hand_over import HandOver
    from .response_headers import ResponseHeaders

#: Why clients don't make some calls.
OPERATIONS = "the server makes operations on profiles and groups"


class Exchange:
    """A request, the response to it, and what is known of its visitor.

    :param headers: the response's, as the app has set them.
    :param delayed: what waits in the session.
    :param is_copy: whether the response is a copy already, made to be changed.
    """

    __slots__ = (
        "before",
        "declined",
        "delayed",
        "due_entries",
        "handed_over",
        "headers",
        "is_copy",
        "is_page",
        "policy",
        "request",
        "response",
        "sent_by_server",
        "visitor",
        "waiting_operations",
        "waits_if_unsent",
    )

    def __init__(
        self,
        config: Config,
        request: Request,
        response: Response,
        headers: ResponseHeaders,
        visitor: Visitor,
        delayed: DelayedCalls,
        *,
        is_copy: bool = False,
    ) -> None:
        self.request = request
        self.response = response
        self.headers = headers
        self.visitor = visitor
        self.delayed = delayed
        self.is_copy = is_copy
        #: What the response may be given.
        self.policy = ResponsePolicy(config, request, response, headers, visitor)
        #: What this visitor has done before of which the browser doesn't know yet: it
        #: waits in the session.
        self.before: list[Entry] = []
        #: What of that which waits may be made with this response.
        self.due_entries: list[Entry] = []
        #: Why strategies declined until now, by their names.
        self.declined: dict[str, str] = {}
        #: What waits in the session if this response isn't sent after all.
        self.waits_if_unsent: list[Entry] = []
        #: Whether the response is a page that has got the script.
        self.is_page = False
        #: The calls that the server sends for the browser library.
        self.sent_by_server: c.Sequence[Call] = ()
        #: What the client or the session was given, if it was given anything.
        self.handed_over: HandOver | None = None
        #: The operations of the request that wait in the session.
        self.waiting_operations: HandOver | None = None

    @property
    def is_redirect(self) -> bool:
        """Whether the response sends the visitor somewhere else."""
        return "location" in self.headers and self.response.status_code in REDIRECTS

    @property
    def departure(self) -> str | None:
        """Why the visitor, who is sent somewhere else, doesn't come back from there
        with the session; ``None`` if they do, or stay."""
        if not self.is_redirect:
            return None

        return redirects.departure(self.headers["location"], self.request)

    @property
    def introduces(self) -> bool:
        """Whether the response may tell the browser who the visitor is, who is new."""
        visitor = self.visitor
        return (
            not visitor.browser_identity
            and visitor.may_write_cookie
            and self.policy.cookie is None
        )

    @property
    def known_identity(self) -> Identity:
        """The ids that the browser will have on the next page, as far as one knows: a
        new visitor gets them with this response."""
        known = self.visitor.browser_identity
        return self.visitor.identity if not known and self.introduces else known

    def find_before(self, calls: CallLog) -> None:
        """Find out what the visitor has done before of which the browser doesn't know.

        :param calls: those of the request itself, which may say who it is.
        """
        self.before = before_of(self.visitor, calls, self.delayed.entries)

    @property
    def person(self) -> Visitor:
        """The visitor, as what they have done before has made of them."""
        # Else it would have to be known who is new: 4 us of 51, an event by a webhook.
        if not self.before:
            return self.visitor

        return person_after(self.before, self.visitor, self.known_identity)

    def decline_old_news(self, calls: CallLog) -> None:
        """Tell a client nothing that it knows.

        :raises Declined: there is nothing else.
        """
        reason = no_news(calls, self.person, self)

        if reason:
            raise Declined(reason)

    def identity_after(self, entries: c.Iterable[Entry]) -> Identity:
        """Return the ids that the visitor has after calls that wait."""
        return identity_after(entries, self.known_identity)

    def writable_response(self) -> Carrier:
        """Return the response as one that is given to nobody else, and so may be
        changed: a view may give the same object to everybody."""
        if not self.is_copy:
            self.response = copy_response(self.response)
            self.is_copy = True

        return t.cast(Carrier, self.response)

    def private_response(self) -> Response:
        """Return the response to be changed: a copy that no cache keeps.

        :raises Declined: what is in its headers wouldn't come to the visitor, or could
            come to others as well; the message says why.
        """
        reason = self.policy.header

        if reason:
            raise Declined(reason)

        response = self.writable_response()
        mark_private(response, header=True)
        return response

    def mark_carried(self) -> None:
        """Note that the response has the calls now: those of them that waited need not
        any more."""
        if self.due_entries:
            self.delayed.remove(self.due_entries)


def no_news(calls: CallLog, visitor: Visitor, exchange: Exchange | None) -> str | None:
    """Return why there is nothing to tell a client; ``None`` if there is something."""
    if calls.before_setup or calls.tracking:
        return None

    if exchange is not None and exchange.due_entries:
        return None

    if not calls.setup:
        return OPERATIONS

    return None if visitor.would_learn(calls.setup) else "the browser knows it already"


class ResponseState:
    """What a request has to know of its response until it ends: which calls went with
    it, to the client or into the session."""

    __slots__ = (
        "_response",
        "delayed",
        "handed_over",
        "request",
        "waiting_operations",
        "waits_if_unsent",
    )

    def __init__(self, exchange: Exchange) -> None:
        self.request = exchange.request
        # A weak reference, since what has the request may live until Python's garbage
        # collector comes by.
        self._response = weakref.ref(exchange.response)
        #: What the client or the session was given.
        self.handed_over = exchange.handed_over
        self.delayed = exchange.delayed
        #: What waits in the session if the response isn't sent after all.
        self.waits_if_unsent = exchange.waits_if_unsent
        #: The operations of the request itself that wait in the session.
        self.waiting_operations = exchange.waiting_operations

    @property
    def response(self) -> Response | None:
        """The response that has the calls, if it is still there."""
        return self._response()

    @property
    def is_in_session(self) -> bool:
        """Whether the calls of the request itself wait in the session."""
        return self.handed_over is not None and self.handed_over.in_session

    def has_waiting(self, entry: Entry) -> bool:
        """Whether an entry waits in the session whatever becomes of the response."""
        own = self.waiting_operations
        return entry in self.waits_if_unsent or (own is not None and entry.id == own.id)

    def is_replaced_by(self, response: Response) -> bool:
        """Whether another response has come in the place of the one with the calls."""
        has_calls = self.handed_over is not None or self.waiting_operations is not None
        return has_calls and self.response is not response
