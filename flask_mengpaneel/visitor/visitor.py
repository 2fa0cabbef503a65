"""The visitor who made the request: which ids they have, what the browser knows."""

from __future__ import annotations

import collections.abc as c
import copy
import functools
import json
import time
import typing as t

from ..calls import Call, CallLog, Json, count
from ..envelope import Envelope
from ..identity import NOBODY, Identity
from . import mixpanel_cookie
from .client import Client, is_page_url
from .consent import Consent
from .persistence import CHANGING_CALLS, Persistence

if t.TYPE_CHECKING:
    from flask import Request, Response

    from ..config import Config


class Visitor:
    """The visitor who made the request.

    What a browser says of its visitor is untrusted: ids and super properties of sane
    size are believed, nothing else.

    :param request: ``None`` for a job, which has no visitor.
    """

    #: Whether calls that the browser is going to make have the ids of `identity`.
    identity_sent = False
    #: The new visitors with the same browser, one after each ``reset()``.
    successors: tuple[Identity, ...] = ()
    #: What was in the library's cookie, if `cookie` has more by now.
    _original_cookie: c.Mapping[str, Json] | None = None

    def __init__(self, config: Config, request: Request | None) -> None:
        self._config = config
        self._request = request
        #: The program that made the request.
        self.client = Client(config, request)
        #: Whether the visitor may be tracked.
        self.consent = Consent(config, request)

        # A visitor without cookies needn't be asked for what is in them.
        if "HTTP_COOKIE" not in self.client.environ:
            self.cookie, self.browser_identity = {}, NOBODY

        self._identity: Identity | None = None

    # -- who it is

    @functools.cached_property
    def cookie(self) -> c.Mapping[str, Json]:
        """What the browser library keeps in its cookie; empty if there is none."""
        name = self._config.cookie_name

        if self._request is None or name not in self.client.environ["HTTP_COOKIE"]:
            return {}

        return mixpanel_cookie.read(self._request.cookies.get(name, ""))

    @functools.cached_property
    def browser_identity(self) -> Identity:
        """The ids that the browser library has for this visitor."""
        return Identity.from_cookie(self.cookie)

    @property
    def identity(self) -> Identity:
        """The ids for what the server sends: the browser's, else a new device's."""
        if self._identity is None:
            known = self.browser_identity
            is_known = (known is not NOBODY and known) or self._request is None
            self._identity = known if is_known else Identity.new()

        return self._identity

    @identity.setter
    def identity(self, identity: Identity) -> None:
        self._identity = identity

    def as_person(self, person: Identity) -> Visitor:
        """Return a visitor with these ids and the same browser, in front of which
        somebody else may have sat."""
        visitor = copy.copy(self)
        visitor.successors = ()

        if person != self.identity:
            visitor.browser_identity = visitor.identity = person
            visitor.cookie = {}

        return visitor

    def as_browser_identity(self, identity: Identity) -> Visitor:
        """Return the same visitor as the browser knew them once, by these ids: they
        may have signed in since."""
        visitor = copy.copy(self)

        if identity:
            visitor.browser_identity = visitor.identity = identity

        return visitor

    def after(self, calls: c.Iterable[Call], identity: Identity) -> Visitor:
        """Return the same visitor as calls have made of them of which the browser
        doesn't know yet.

        :param identity: the ids that they have after that.
        """
        visitor = copy.copy(self)
        persistence = Persistence(self.cookie, self.identity)

        for call in calls:
            persistence.apply(call, time.time())

        visitor.cookie = persistence.to_cookie()
        visitor.browser_identity = visitor.identity = identity
        return visitor

    def apply(self, calls: c.Sequence[Call]) -> None:
        """Become the visitor that these calls, which were sent, have made of it."""
        if calls:
            self._original_cookie = self._original_cookie or self.cookie
            self.cookie = self._cookie_after(calls)
            self.browser_identity = self.identity = Identity.from_cookie(self.cookie)
            self.successors = ()

    def start_new_visitor(self) -> None:
        """Make place for a new visitor with the same browser: this one signs out."""
        self.successors += (Identity.new(),)

    def envelope(self, log: CallLog) -> Envelope:
        """Put calls that are flushed now into an envelope of this visitor's."""
        client = self.client
        calls = [*log.before_setup, *log.setup, *log.tracking]
        url, referrer = client.page
        identifies = (log.setup or log.before_setup) and log.identifies
        # A program that says whom it is about is no new device of theirs each time.
        is_device = not identifies or client.keeps_cookies

        return Envelope(
            calls,
            self.identity if is_device else self.browser_identity,
            self.successors,
            round(time.time() * 1000) / 1000,
            client.ip,
            client.user_agent,
            url,
            referrer,
            self.cookie,
            count(calls),
            log.size,
        )

    # -- what the browser has to know

    def would_learn(self, set_up: c.Iterable[Call]) -> bool:
        """Whether the browser library would know more by these calls of the set-up."""
        set_up = list(set_up)

        if not self._config.cookie_persistence:
            return bool(set_up)

        user = self.browser_identity.user_id

        # What most say again and again: 0.5 us, and 21 for the rest.
        if all(
            call.name == "identify" and call.arguments[0] == user for call in set_up
        ):
            return False

        if not CHANGING_CALLS.issuperset(call.name for call in set_up):
            return True

        persistence = Persistence(self.cookie, self.browser_identity)
        before = persistence.to_cookie()

        for call in set_up:
            persistence.apply(call, 0.0)

        return not _same(persistence.to_cookie(), before)

    @property
    def may_write_cookie(self) -> bool:
        """Whether the response may tell the browser library who the visitor is.

        If it may have told it before, but its cookie didn't come along, it may not.
        """
        return (
            self.client.keeps_cookies
            and self._config.cookie_persistence
            and self.consent.given is True
            and (bool(self.browser_identity) or not self.client.may_lack_cookies)
        )

    def cookie_is_stale(self, sent: c.Sequence[Call]) -> bool:
        """Whether the browser library would know something else by now.

        :param sent: the calls that the server has sent for it.
        """
        choice = self.consent.choice

        if not self.client.keeps_cookies or choice is not None:
            return choice is not None

        if not (sent or self.identity_sent) or not self.may_write_cookie:
            return False

        timers = self.cookie.get("__timers")
        timed = timers if isinstance(timers, dict) else {}
        return not self.browser_identity or any(
            call.wire[0][0] in CHANGING_CALLS
            or (bool(timed) and call.tracks and call.event in timed)
            for call in sent
        )

    def write_cookie(
        self,
        response: Response,
        sent: c.Sequence[Call],
        *,
        ids: bool = True,
        choice: bool = True,
    ) -> bool:
        """Tell the browser library what it would know if it had made the calls itself,
        by cookies whose value is another one than before.

        :param sent: the calls that the server has sent for it.
        :param ids: whether it may be told who the visitor is.
        :param choice: whether it may be told of what the visitor has chosen.
        :return: whether a cookie was written.
        """
        assert self._request is not None, "a job has no response"
        is_written = choice and self._write_choice(response)

        if self.consent.choice is False:
            return (ids and self._forget(response)) or is_written

        return (ids and self._write_ids(response, sent)) or is_written

    def _write_choice(self, response: Response) -> bool:
        request, config, choice = self._request, self._config, self.consent.choice
        assert request is not None

        if choice is None or (
            request.cookies.get(config.opt_cookie_name) == ("1" if choice else "0")
        ):
            return False

        mixpanel_cookie.write_choice(response, request, config, choice)
        return True

    def _forget(self, response: Response) -> bool:
        request, config = self._request, self._config
        assert request is not None

        if not config.cookie_persistence or not (
            config.cookie_name in request.cookies or self.client.may_lack_cookies
        ):
            return False

        mixpanel_cookie.forget(response, request, config)
        return True

    def _write_ids(self, response: Response, sent: c.Sequence[Call]) -> bool:
        assert self._request is not None

        if not (sent or self.identity_sent) or not self.may_write_cookie:
            return False

        after = self._cookie_after(sent)
        before = self._original_cookie

        if _same(after, self.cookie if before is None else before):
            return False

        mixpanel_cookie.write(response, self._request, self._config, after)
        return True

    def _cookie_after(self, sent: c.Sequence[Call]) -> dict[str, Json]:
        url, referrer = self.client.page
        persistence = Persistence(
            self.cookie,
            self.identity,
            referrer if is_page_url(url) else None,
            self.successors,
        )

        for call in sent:
            persistence.apply(call, time.time())

        return persistence.to_cookie()


def _same(one: c.Mapping[str, Json], other: c.Mapping[str, Json]) -> bool:
    # To Python true is 1, to nobody else.
    return one == other and json.dumps(one, sort_keys=True) == json.dumps(
        other, sort_keys=True
    )
