"""Signed-in visitors are identified, and those who have signed out are no more."""

from __future__ import annotations

import collections.abc as c
import functools
import logging
import typing as t

from ..asking import Asking, undisturbed
from ..calls import Call, Stage
from ..identity import Identity
from ..proxies import active_request, current_flask, current_request
from ..record.arguments import person_id
from ..record.context import current_manager, request_state
from ..record.errors import handle_error
from ..record.manager import Manager
from ..record.on_commit import outside_blocks
from ..record.refusals import Refusal
from ..values import identifier
from ..visitor.client import Client
from .delayed_calls import read_entries
from .response_headers import headers_of
from .session_cookie import current_session, is_strict, stored_session

if t.TYPE_CHECKING:
    from flask import Flask, Request, Response

    from ..config import Config
    from ..login import Login
    from ..record.context import RequestState

logger = logging.getLogger("flask_mengpaneel")

#: In place of a user: the app can't say who it is.
_UNKNOWN = object()

_asking = Asking("MENGPANEEL_LOGIN")


class _Seen:
    """What a request has shown of who is signed in."""

    __slots__ = ("expiry", "is_known", "is_leaving", "leaver", "set_up")

    def __init__(self) -> None:
        #: Whether the manager of the request has been told who it is.
        self.is_known = False
        #: Whether somebody has signed out. Their events go on being theirs until the
        #: response, as they track "Sign Out" before or after that.
        self.is_leaving = False
        #: The user who has signed out, if they were known.
        self.leaver: str | None = None
        #: The call that makes a new visitor of one whose session has expired.
        self.expiry: Call | None = None
        #: What was set up of who is signed in, also in threads that had to ask.
        self.set_up: list[Call] = []


class SignIn:
    """Sets up who the visitors of an app are, as the app's login has it.

    A request that tracks nothing and shows no page doesn't ask the app.

    :param boots: whether pages without calls get the browser library.
    """

    def __init__(self, config: Config, login: Login, *, boots: bool) -> None:
        self._config = config
        self._login = login
        self._boots = boots
        #: Held here, so that they end with the app.
        self._receivers: list[c.Callable[..., None]] = []

    def connect(self, app: Flask) -> None:
        """Take part in the sign-ins of an app."""
        for signal, user_after in self._login.signals.items():
            receiver = functools.partial(self._change, user_after)
            self._receivers.append(receiver)
            signal.connect(receiver, app)

    def begin(self, manager: Manager) -> None:
        """Set up who it is, before the first call of a request."""
        if manager.request is not None and manager.is_recording:
            seen = _seen(manager.request)
            self._begin(manager, seen)
            seen.is_known = True

    def begin_thread(self, manager: Manager) -> None:
        """Set up who it is in a thread of a request that can't know it from the first
        call: the app is just being asked there."""
        request = manager.request
        assert request is not None, "it has a thread"
        seen = _seen(request)

        # What is asked may track in an app context of its own.
        if not seen.is_known and manager.is_recording and not _asking.is_asked(request):
            _asking(self._begin, manager, seen, subject=request)

    def _begin(self, manager: Manager, seen: _Seen) -> None:
        try:
            # The visitor signed in before the block in which the first call is.
            with outside_blocks():
                self._set_up_user(manager, seen)
        except Exception as error:
            handle_error(current_flask(), "Who has signed in is unknown.", error)

    def _set_up_user(self, manager: Manager, seen: _Seen) -> None:
        user = self._ask(self._login.user)

        if user is _UNKNOWN or (user is not None and self._set_up(manager, user, seen)):
            return

        if not seen.is_leaving and self._has_expired(manager):
            with manager.in_use(), manager.stage(Stage.BEFORE_SETUP):
                manager.reset()
                seen.expiry = manager.calls.before_setup[-1]

    def _has_expired(self, manager: Manager) -> bool:
        """Whether the browser takes the visitor for somebody who is signed in no more.

        It doesn't learn of a sign-out before it makes the calls that wait for it.
        """
        visitor = manager.visitor
        return (
            visitor.browser_identity.user_id is not None
            and visitor.consent.given is True
            and self._sees_all(manager)
        )

    def _sees_all(self, manager: Manager) -> bool:
        """Whether the request says of the visitor all that the browser knows, or is
        going to know by what waits for it."""
        waits = self._config.session_key in (current_session() or ())
        return not waits and _has_cookies(manager.visitor.client)

    def _set_up(self, manager: Manager, user: t.Any, seen: _Seen) -> bool:
        """Set up a user.

        :return: ``False`` if they have no id: they aren't who was there before either.
        """
        user_id = self._ask(self._login.user_id, user)

        if user_id is _UNKNOWN:
            return True

        try:
            user_id = person_id(user_id)
        except (TypeError, ValueError) as error:
            manager.refuse(Refusal(Manager.identify, (manager, user_id), {}, error))
            return False

        profile = None

        if self._config.login_profile is not None:
            profile = self._ask(self._config.login_profile, user)

        # It may have been answered meanwhile, if this is a thread's.
        with manager.in_use(), manager.setup():
            manager.identify(user_id)

            if profile is not None and profile is not _UNKNOWN:
                manager.people.set(profile)

            seen.set_up += manager.calls.setup

        return True

    def calls_of(self, manager: Manager, former: list[Call]) -> list[Call]:
        """Return those calls of a set-up that say who has signed in."""
        request = manager.request
        own = [] if request is None else _seen(request).set_up
        return [call for call in former if any(call is one for one in own)]

    def _change(
        self, user_after: c.Callable[..., t.Any], app: Flask, **sent: t.Any
    ) -> None:
        """Somebody has signed in or out."""
        request = active_request()

        if request is None:
            return

        try:
            user = self._ask(functools.partial(user_after, **sent))

            if user is None:
                # Before the app is asked who it is: some still say who it was.
                seen = _seen(request)
                seen.is_leaving = True

                if (manager := _manager_of(request)) is not None:
                    seen.leaver = _user_of(manager)
                    seen.is_leaving = self._may_be_somebody(manager)
            elif user is not _UNKNOWN and (manager := _manager_of(request)):
                with manager.in_use():
                    self._enter(manager, user, _seen(request))
        except Exception as error:
            handle_error(app, "A sign-in or sign-out was overlooked.", error)

    def _enter(self, manager: Manager, user: t.Any, seen: _Seen) -> None:
        if seen.is_leaving:
            seen.is_leaving = False

            if self._is_somebody_else(manager, user):
                manager.reset()

        if not self._set_up(manager, user, seen) and _user_of(manager) is not None:
            manager.reset()

    def _may_be_somebody(self, manager: Manager) -> bool:
        """Whether somebody signs out who was named by the app or the browser library.

        Else it is the visitor who was anonymous before, too.
        """
        return (
            self._has_forgotten()
            or manager.visitor.identity_after(manager.recorded).is_identified
            or not manager.visitor.is_shown
            or not _has_cookies(manager.visitor.client)
            or self._waits_for_a_page()
        )

    def _has_forgotten(self) -> bool:
        """Whether the session may have said before who it was: it lacks something, or
        has something else in its place."""
        session, app = current_session(), current_flask()

        if not session.modified:
            return False

        before = stored_session(app, current_request())
        return before is None or any(
            session.get(name) != value
            for name, value in before.items()
            # Flask-Login makes a note that nobody is fresh.
            if value
        )

    def _waits_for_a_page(self) -> bool:
        """Whether it waits in the session that somebody was named."""
        waiting = current_session().get(self._config.session_key)
        entries = [] if waiting is None else read_entries(waiting)
        return any(entry.identity_after.is_identified for entry in entries)

    def _is_somebody_else(self, manager: Manager, user: t.Any) -> bool:
        user_id = self._ask(self._login.user_id, user)
        is_known = user_id is not _UNKNOWN
        return is_known and _user_of(manager) != identifier(user_id, "an id")

    def before_response(
        self, request: Request, state: RequestState, response: Response
    ) -> None:
        """Finish with a request whose response is ready."""
        if state.is_answered:
            return

        try:
            if state.manager is None:
                self._begin_page(request, state, response)

            if state.manager is not None and state.sign_in is not None:
                with state.manager.in_use():
                    self._finish(state.manager, state.sign_in)
        except Exception as error:
            handle_error(current_flask(), "Who has signed in was overlooked.", error)

    def _begin_page(
        self, request: Request, state: RequestState, response: Response
    ) -> None:
        """Set up who looks at a page that has no calls, if the page has to say so."""
        if not self._boots or not self._is_page(request, response):
            return

        session = current_session()
        accessed, is_changed, before = session.accessed, session.modified, {**session}
        manager = current_manager()

        if not manager.calls:
            # As if nobody had asked: Flask-Login makes notes in the session.
            manager.close()
            del state.manager

            if session.modified and not is_changed:
                session.clear()
                session.update(before)
                session.modified = False

            session.accessed = accessed

    def _is_page(self, request: Request, response: Response) -> bool:
        environ, status = request.environ, response.status_code
        return (
            # Else nobody is signed in.
            ("HTTP_COOKIE" in environ or "HTTP_AUTHORIZATION" in environ)
            # While all is on fire, nobody asks the database for a user.
            and (status < 300 or 400 <= status < 500)
            and headers_of(response).is_html
            # That one is for all visitors.
            and not response.cache_control.public
            and response.cache_control.s_maxage is None
            and Client(self._config, request).is_page_view
        )

    def _finish(self, manager: Manager, seen: _Seen) -> None:
        calls = manager.calls

        if seen.is_leaving and not self._has_left(manager, seen):
            manager.reset()

        expiry, seen.expiry = seen.expiry, None

        # The app has said by itself, or by a new sign-in, that it is still the same.
        if expiry is not None and any(call is expiry for call in calls.before_setup):
            others = [call for call in calls.before_setup if call is not expiry]
            person = Identity().after([*others, *calls.setup]).user_id

            if person == manager.visitor.browser_identity.user_id:
                calls.before_setup = others
                manager.visitor.successors = manager.visitor.successors[1:]

    def _has_left(self, manager: Manager, seen: _Seen) -> bool:
        """Whether the app itself has made a new visitor of who has signed out."""
        if any(call.name == "reset" for call in manager.recorded):
            return True

        return seen.leaver is not None and _user_of(manager) is None

    def _ask(self, callable: c.Callable[..., t.Any], *arguments: t.Any) -> t.Any:
        """Return what the app says of a user."""
        try:
            with undisturbed():
                return callable(*arguments)
        except Exception:
            logger.exception("MENGPANEEL_LOGIN failed: it isn't known who this is")
            return _UNKNOWN


def _has_cookies(client: Client) -> bool:
    """Whether the request has the cookies that the browser has for this site."""
    is_left_behind = client.is_cross_site and is_strict()
    return not client.may_lack_cookies and not is_left_behind


def _manager_of(request: Request) -> Manager | None:
    """Return the manager of a request, ``None`` if a job has begun in it before."""
    state = request_state(request)

    if state.manager is None:
        current_manager()

    return state.manager


def _user_of(manager: Manager) -> str | None:
    return manager.visitor.identity_after(manager.recorded).user_id


def _seen(request: Request) -> _Seen:
    state = request_state(request).__dict__

    if "sign_in" not in state:
        # Threads of a request may come at once.
        state.setdefault("sign_in", _Seen())

    seen: _Seen = state["sign_in"]
    return seen
