"""The calls of a request or job, given to the first strategy that takes them; with
those that wait in the session."""

from __future__ import annotations

import collections.abc as c
import logging
import typing as t
import weakref

from ..calls import CallLog
from ..outcome import Declined
from ..record.errors import handle_error
from ..visitor.browser_memory import hide
from ..visitor.client import may_show_page
from ..visitor.visitor import Visitor
from . import carrier, reused
from .delayed_calls import DelayedCalls
from .exchange import Exchange, ResponseState
from .held_calls import HeldCalls
from .late_calls import NOTHING_WAITS
from .operations import share, without_group_operations
from .person import person_of
from .response_headers import headers_of
from .session_cookie import session_comes_back
from .set_up import signs_out, without_set_up_operations

if t.TYPE_CHECKING:
    from flask import Flask, Request, Response

    from ..config import Config
    from ..outcome import Outcome
    from ..record.manager import Manager
    from .chain import Chain
    from .handing_over import HandingOver
    from .late_calls import LateCalls
    from .sharing import Sharing

logger = logging.getLogger("flask_mengpaneel")


class Flusher:
    """Flushes the calls of an app's requests and jobs."""

    def __init__(
        self,
        app: Flask,
        config: Config,
        chain: Chain,
        handing_over: HandingOver,
        late_calls: LateCalls,
        sharing: Sharing,
        held_calls: HeldCalls,
    ) -> None:
        # Else an app would be freed by Python's garbage collector only.
        self._reference = weakref.ref(app)
        self._config = config
        self._chain = chain
        #: Loads the browser library on pages without calls.
        self._client_side = chain.client_side
        self._handing_over = handing_over
        self._late_calls = late_calls
        #: Remembers what was made.
        self.sharing = sharing
        self._held_calls = held_calls
        self.explain: c.Callable[[Exchange, Outcome | None], None] | None = None

    def believe_clients(self) -> None:
        """Ask no client to acknowledge, from now on."""
        self._handing_over.turn_off()

    @property
    def boots(self) -> bool:
        """Whether pages without calls get the browser library too."""
        return self._client_side is not None

    @property
    def app(self) -> Flask:
        """The app, which is at work."""
        app = self._reference()
        assert app is not None, "it is at work"
        return app

    # -- the end of a request

    def respond(
        self,
        manager: Manager | None,
        request: Request,
        response: Response,
        former: ResponseState | None,
    ) -> tuple[Response, ResponseState | None]:
        """Let a response carry the calls of its request, and those that wait for it.

        :param manager: of the request, if anything was recorded in it.
        :param former: what is known of an earlier response to the same request.
        :return: the response, or a copy of it if that carries anything; and what has to
            be known of it until the request ends.
        """
        # An error page comes in the place of the response that has the calls.
        undone = former if former and former.is_replaced_by(response) else None

        if undone is not None:
            self._undo(undone, manager)

        delayed = DelayedCalls(self.app, request, self._config.session_key)

        if undone is not None:
            # In the session, of which the request's cookie may know nothing.
            delayed.entries = undone.waits_if_unsent

        headers = headers_of(response)
        may_have_snippet = self._client_side is not None and headers.is_html
        may_boot = may_have_snippet and may_show_page(request.environ)
        is_used = reused.is_reused(response, headers, self._config, may_have_snippet)
        is_idle = manager is None and undone is None and not delayed.entries

        if is_idle and not may_boot and not is_used and self.explain is None:
            return response, None

        # What waits is not for the inspector's pages, nor for what is handed back.
        if request.environ.get("PATH_INFO", "").startswith(self._config.own_paths):
            return response, None

        if is_used:
            response = reused.without_carried(response, self._config)
            headers = headers_of(response)

        exchange = Exchange(
            self._config,
            request,
            response,
            headers,
            manager.visitor if manager else Visitor(self._config, request),
            delayed,
            is_copy=is_used,
        )
        exchange.waits_if_unsent = delayed.entries

        if undone is not None and undone.delayed.changed:
            if exchange.policy.session is None:
                delayed.changed = True
            else:
                undone.delayed.restore_marks()

        nothing = None, None
        set_up, outcome = nothing if is_idle else self._flush_into(exchange, manager)

        if may_boot and not exchange.is_page:
            self._boot(exchange)

        if set_up and exchange.is_page:
            self._send_set_up(set_up, exchange)

        if self.explain is not None:
            self.explain(exchange, outcome)

        if exchange.handed_over or exchange.waits_if_unsent or delayed.entries:
            return exchange.response, ResponseState(exchange)

        return exchange.response, None

    def _flush_into(
        self, exchange: Exchange, manager: Manager | None
    ) -> tuple[CallLog | None, Outcome | None]:
        """Flush the calls of a request, and what waits in the session; return a set-up
        with nothing that it goes with, but perhaps a page, and the outcome."""
        visitor, delayed = exchange.visitor, exchange.delayed
        calls = manager.drain() if manager else CallLog()
        set_up = outcome = None

        # Most have nothing that waits, and needn't be asked who they are.
        if delayed.entries:
            exchange.find_before(calls)

            if visitor.is_unknown:
                # Requests that are under way at once find the same new visitor.
                visitor.identity = delayed.entries[0].new_identity

        if delayed.cleared and exchange.policy.session is None:
            delayed.store(delayed.entries)

        if visitor.consent.given is None:
            self._held_calls.hold_for_consent(calls, exchange)
        else:
            if not calls.before_setup and not calls.tracking:
                set_up = calls
                calls = without_set_up_operations(calls, visitor)

            outcome = self._offer(calls, exchange, manager)

            if set_up and not outcome and signs_out(calls, visitor):
                # Nobody takes a set-up alone, but of this the browser has to hear.
                exchange.sent_by_server = [*exchange.sent_by_server, *calls.setup]

        self._write_cookie(exchange)

        if delayed.changed:
            response = exchange.writable_response()
            carrier.mark_private(response)
            carrier.leave_out_own_cookie(response, delayed.own_cookie)

        return set_up, outcome

    def _offer(
        self, calls: CallLog, exchange: Exchange, manager: Manager | None
    ) -> Outcome | None:
        person, waiting, outcome = exchange.person, NOTHING_WAITS, None

        if exchange.delayed.entries:
            waiting = self._late_calls.sort(calls, exchange)
            self._late_calls.send_operations(waiting, exchange)

        shares = self.sharing.share(calls, person, exchange, waiting.operations)
        exchange.waits_if_unsent = exchange.delayed.entries

        if (own := exchange.waiting_operations) is not None:
            # As one of the calls of the request itself.
            others = [one for one in exchange.waits_if_unsent if one.id != own.id]
            exchange.waits_if_unsent = others

        if shares.whole:
            insisted = manager.strategy if manager else None
            outcome = self._chain.offer(shares, person, exchange, insisted)
        elif exchange.due_entries:
            outcome = self._chain.offer_delayed(shares.riding, person, exchange)

        if outcome and not outcome.is_client_side:
            exchange.sent_by_server = [*exchange.sent_by_server, *outcome.calls]

        if waiting.late or waiting.foreign:
            self._late_calls.send(waiting, exchange)

        return outcome

    def _send_set_up(self, calls: CallLog, exchange: Exchange) -> None:
        """Send what the set-up says of a person who looks at a page."""
        operations = self.sharing.share_set_up(calls, exchange).operations

        if operations.tracking:
            self._chain.send_from_server(operations, exchange.person)

    def _write_cookie(self, exchange: Exchange) -> None:
        """Tell the browser library what the server has learnt in its place."""
        visitor, policy = exchange.visitor, exchange.policy
        sent = exchange.sent_by_server

        if not visitor.cookie_is_stale(sent):
            return

        ids, choice = policy.cookie is None, policy.choice is None
        is_written = (ids or choice) and visitor.write_cookie(
            exchange.writable_response(), sent, ids=ids, choice=choice
        )

        if is_written:
            carrier.mark_private(exchange.response)

    def _boot(self, exchange: Exchange) -> None:
        """Load the browser library on a page that has no calls of its own."""
        if self._client_side is None:
            return

        try:
            self._client_side.boot(exchange)

            if exchange.visitor.consent.given is False and not exchange.policy.cookie:
                hide(exchange.response, exchange.request, self._config)
        except Declined:
            # There is nothing that another strategy could take.
            pass
        except Exception as error:
            # What the response has been given already it keeps.
            handle_error(self.app, "a page doesn't load the browser library", error)

    # -- responses that don't reach the visitor

    def abandon_response(self, manager: Manager | None, error: Exception) -> None:
        """Leave a response as it is, since something went wrong."""
        if manager is not None:
            self.flush_late(manager)

        handle_error(self.app, "the response was left as it was", error)

    def _undo(self, former: ResponseState, manager: Manager | None) -> None:
        """Take calls back from a response that isn't sent.

        A function that runs after the extension's has failed, or the session couldn't
        be saved; what comes now is an error page.
        """
        former.delayed.store(former.waits_if_unsent)
        self._restore(former, manager)

        operations = former.waiting_operations

        if operations is not None and manager is not None:
            self._handing_over.withdraw(operations)
            manager.calls.tracking += operations.own.tracking

    def _restore(self, former: ResponseState, manager: Manager | None) -> None:
        is_held = manager is not None and manager.visitor.consent.given is None
        hand_over = former.handed_over

        if hand_over is not None and not is_held:
            self._handing_over.withdraw(hand_over)

        if manager is not None:
            calls = hand_over.own if hand_over else CallLog()
            # The server has made their operations already, if it may.
            manager.restore(
                calls if is_held else without_group_operations(calls, manager.visitor)
            )

    def conclude(self, former: ResponseState, manager: Manager | None) -> None:
        """End with a response that has left: what it carries waits nowhere else, and
        what waits in a session that isn't there any more is sent."""
        delayed, request, response = former.delayed, former.request, former.response
        self._handing_over.take_up(former)

        if not delayed.entries or response is None:
            return

        if (
            not carrier.is_overruled(response)
            and delayed.is_stored
            and session_comes_back(request, response, is_written=delayed.changed)
        ):
            return

        if former.is_in_session and manager is not None:
            self._restore(former, manager)
            self.flush_late(manager)

        lost = [entry for entry in delayed.entries if former.has_waiting(entry)]
        visitor = manager.visitor if manager else Visitor(self._config, request)

        if lost and visitor.consent.given is True:
            try:
                self._late_calls.send_lost(lost, visitor)
            except Exception as error:
                what = "what waited in the session could not be sent"
                handle_error(self.app, what, error)

    def send_returned(
        self, calls: CallLog, visitor: Visitor, response: Response | None
    ) -> None:
        """Send calls from the server that a browser couldn't make.

        :param response: tells the browser library of them; ``None`` if none may.
        """
        outcome = self._chain.send_from_server(calls, visitor)
        sent = outcome.calls if outcome else ()

        if response is not None and visitor.cookie_is_stale(sent):
            visitor.write_cookie(response, sent)

    # -- jobs, and what a request does after its response

    def flush(self, manager: Manager) -> Outcome | None:
        """Send the calls that no response can carry.

        :return: which strategy took them, or ``None`` if there was nothing to send.
        """
        if not manager.calls:
            return None

        calls = manager.drain()
        person = person_of(manager, calls, self.app, self._config.session_key)
        return self.send_late(calls, person, manager.strategy)

    def send_late(
        self, calls: CallLog, person: Visitor, insisted: str | None
    ) -> Outcome | None:
        """Send calls that no response can carry.

        :param person: whom they are from.
        :param insisted: the strategy that is asked first, if there is one.
        """
        if person.consent.given is None:
            self._held_calls.drop(calls, person.client)
            return None

        shares = share(calls, person)
        # There is no session in which they could.
        shares.stop_waiting()
        return self._chain.offer(shares, person, None, insisted)

    def flush_late(self, manager: Manager) -> None:
        """Send the calls of a manager where nobody waits for the outcome."""
        try:
            self.flush(manager)
        except Exception as error:
            handle_error(self.app, "what was left could not be sent", error)

    def flush_running(self, manager: Manager) -> None:
        """Send the calls of a view that runs, from a thread that has no context."""
        if (app := self._reference()) is not None:
            with app.app_context():
                self.flush_late(manager)
