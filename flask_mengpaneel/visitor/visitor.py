"""The visitor who made the request: which ids they have, what the browser knows."""

from __future__ import annotations

import collections.abc as c
import copy
import time
import typing as t

from ..calls import Call, CallLog, Json, count
from ..envelope import Envelope
from ..identity import NOBODY, Identity
from . import browser_memory, mixpanel_cookie, named_by_app
from .browser_memory import BrowserMemory
from .client import CAPABLE, Client, is_page_url
from .consent import Consent
from .lazy import lazy, lazy_until_set
from .persistence import CHANGING_CALLS, Persistence, changes

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
    #: Whether the app has taken the ids elsewhere, such as into a job.
    is_taken_elsewhere = False
    #: The new visitors with the same browser, one after each ``reset()``.
    successors: tuple[Identity, ...] = ()
    #: Who it is, as the app says; ``None``: it wasn't asked.
    _named: Identity | None = None
    #: What was in the library's cookie, if `cookie` has more by now.
    _original_cookie: c.Mapping[str, Json] | None = None

    def __init__(self, config: Config, request: Request | None) -> None:
        self._config = config
        self._request = request
        #: The program that made the request.
        self.client = Client(config, request)
        #: Whether the visitor may be tracked.
        self.consent = Consent(config, request)

        environ = self.client.environ

        # A visitor without cookies needn't be asked for what is in them.
        if "HTTP_COOKIE" not in environ and "visitor=" not in environ.get(CAPABLE, ""):
            self.cookie, self.browser_identity = {}, NOBODY

        self._identity: Identity | None = None

    @property
    def may_be_tracked(self) -> bool:
        """Whether calls of this visitor go anywhere at all."""
        return (
            self._config.active
            and self.consent.given is not False
            # What tracks all requests doesn't mean those of the extension itself.
            and not self.client.path.startswith(self._config.own_paths)
        )

    # -- who it is

    @lazy_until_set
    def cookie(self) -> c.Mapping[str, Json]:
        """What the browser library knows, as far as its cookies show it."""
        return {} if self._request is None else self._memory.content

    @lazy
    def _memory(self) -> BrowserMemory:
        assert self._request is not None, "a job has no browser"
        return BrowserMemory(self._config, self._request, self.client)

    @lazy_until_set
    def browser_identity(self) -> Identity:
        """The ids that the browser library has for this visitor."""
        return Identity.from_cookie(self.cookie)

    @property
    def identity(self) -> Identity:
        """The ids for what the server sends: the browser's, those that the app names,
        or a new device's; nobody's, where a client keeps no cookies."""
        if self._identity is None:
            if self._config.visitor is not None and named_by_app.is_asked(
                self._request
            ):
                return NOBODY

            identity = self.known_identity or self.client.visitor_after(None)

            # A thread may have signed in meanwhile.
            if self._identity is None:
                self._identity = identity

        return self._identity

    @identity.setter
    def identity(self, identity: Identity) -> None:
        self._identity = identity

    @property
    def known_identity(self) -> Identity:
        """The ids that the browser has for this visitor, or else the app; nobody's, if
        neither knows them."""
        return self.browser_identity or self._named_identity

    @property
    def is_unknown(self) -> bool:
        """Whether nobody has any ids for this visitor yet."""
        return not (self.known_identity or self.is_taken_elsewhere)

    def take_elsewhere(self) -> None:
        """Let the browser have the ids: somebody else has them, too."""
        self.identity_sent = self.is_taken_elsewhere = True

    def identity_after(self, calls: c.Iterable[Call]) -> Identity:
        """Return the ids that the visitor has after calls of theirs."""
        persistence = Persistence({}, self.identity, successors=self.successors)

        for call in calls:
            if call.says_who:
                persistence.apply(call, 0.0)

        return persistence.identity

    @property
    def _named_identity(self) -> Identity:
        """The id that the app gives to a visitor without the library's cookie."""
        if self._config.visitor is None or self._request is None:
            return NOBODY

        if self._named is None and not named_by_app.is_asked(self._request):
            answer = named_by_app.ask(self._config.visitor, self._request)
            # Threads of one request may ask at once; they are told the same.
            self._named = self._named or answer

        return self._named or NOBODY

    def as_person(self, person: Identity) -> Visitor:
        """Return a visitor with these ids and the same browser, in front of which
        somebody else may have sat."""
        visitor = copy.copy(self)
        visitor.successors = ()

        if person != self.identity:
            visitor.browser_identity = visitor.identity = person
            visitor.cookie = {}

        return visitor

    def as_browser_knew(self, identity: Identity) -> Visitor:
        """Return the same visitor as the browser knew them once, by these ids: they
        may have signed in since."""
        visitor = copy.copy(self)

        if identity:
            visitor.browser_identity = visitor.identity = identity

        return visitor

    def after_unseen(self, calls: c.Iterable[Call], identity: Identity) -> Visitor:
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

    def apply_sent(self, calls: c.Sequence[Call]) -> None:
        """Become the visitor that these calls, which were sent, have made of it."""
        if calls:
            if self._original_cookie is None:
                self._original_cookie = self.cookie

            self.cookie = self._cookie_after(calls)
            self.browser_identity = self.identity = Identity.from_cookie(self.cookie)
            resets = sum(call.name == "reset" for call in calls)
            self.successors = self.successors[resets:]

    def to_take_elsewhere(self, calls: c.Sequence[Call]) -> Visitor:
        """Return the visitor that these calls have made of it, as another one if they
        say anything of it: to be taken elsewhere."""
        self.take_elsewhere()

        if not any(call.wire[0][0] in CHANGING_CALLS for call in calls):
            return self

        visitor = copy.copy(self)
        # Those of a new visitor are made when they are first needed.
        visitor.identity = self.identity
        visitor.apply_sent(calls)
        visitor.successors = ()
        return visitor

    def start_new_visitor(self) -> None:
        """Make place for a new visitor with the same browser: this one signs out."""
        last = self.successors[-1] if self.successors else self.browser_identity
        self.successors += (self.client.visitor_after(last),)

    def envelope(self, log: CallLog, identity: Identity | None = None) -> Envelope:
        """Put calls that are flushed now into an envelope; by default with own ids."""
        client = self.client
        calls = log.in_order
        url, referrer = client.page
        return Envelope(
            calls,
            self.identity if identity is None else identity,
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

        if not self.is_shown:
            return bool(set_up)

        user = self.browser_identity.user_id

        # What most say again and again: 0.5 us, and 21 for the rest, of 39, a request
        # without a call that is set up.
        if all(
            call.wire[0][0] == "identify" and call.wire[1][0] == user for call in set_up
        ):
            return False

        if not CHANGING_CALLS.issuperset(call.name for call in set_up):
            return True

        persistence = Persistence(self.cookie, self.browser_identity)
        before = persistence.to_cookie()

        for call in set_up:
            persistence.apply(call, 0.0)

        return not mixpanel_cookie.is_same(persistence.to_cookie(), before)

    @property
    def may_write_cookie(self) -> bool:
        """Whether the response may tell the browser library who the visitor is.

        If it may have told it before, but its cookie didn't come along, it may not.
        """
        return (
            self.client.keeps_cookies
            and self.consent.given is True
            and (
                self._was_known
                or not (
                    self.client.may_lack_cookies
                    # Who has a name in the app needs none in the browser.
                    or self._named_identity
                )
            )
        )

    @property
    def is_shown(self) -> bool:
        """Whether the server sees who the visitor is to the browser library, and may
        change it by a cookie."""
        # With nothing but that, a library begins that forgets with the page.
        begins = self._config.forgets_with_page and self.client.is_page_view
        return self._config.cookie_persistence or begins or self._was_known

    @property
    def _was_known(self) -> bool:
        """Whether the browser knew the visitor when it made the request."""
        cookie = self._original_cookie
        known = None if cookie is None else Identity.from_cookie(cookie)
        return bool(self.browser_identity if known is None else known)

    def cookie_is_stale(self, sent: c.Sequence[Call]) -> bool:
        """Whether the browser library would know something else by now.

        :param sent: the calls that the server has sent for it.
        """
        choice = self.consent.choice

        if not self.client.keeps_cookies or choice is not None:
            return choice is not None

        if not self._may_be_stale(sent):
            return False

        # Calls that were sent before the response have changed it.
        is_news = (
            self._original_cookie is not None
            or not self.browser_identity
            or changes(self.cookie, sent)
        )
        # Of what most send nothing is.
        return is_news and self.may_write_cookie

    def _may_be_stale(self, sent: c.Sequence[Call]) -> bool:
        return bool(sent) or self.identity_sent or self._original_cookie is not None

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

        is_seen = not self.client.may_lack_cookies
        return browser_memory.forget(response, request, config, is_seen=is_seen)

    def _write_ids(self, response: Response, sent: c.Sequence[Call]) -> bool:
        assert self._request is not None

        if not self._may_be_stale(sent) or not self.may_write_cookie:
            return False

        after = self._cookie_after(sent)
        before = self._original_cookie

        if mixpanel_cookie.is_same(after, self.cookie if before is None else before):
            return False

        self._memory.write(response, self._request, after)
        return True

    def _cookie_after(self, sent: c.Sequence[Call]) -> dict[str, Json]:
        url, referrer = self.client.page
        # Where the script shows what the library knows, it doesn't show that of it.
        is_kept = is_page_url(url) and not self._memory.is_shown
        persistence = Persistence(
            self.cookie,
            self.identity,
            referrer if is_kept else None,
            self.successors,
        )

        for call in sent:
            persistence.apply(call, time.time())

        return persistence.to_cookie()
