"""The parts that belong to one app."""

from __future__ import annotations

import collections.abc as c
import contextlib
import dataclasses
import logging
import threading
import typing as t

from .. import guard, hosts, process, signals
from ..asking import Asking
from ..config import UNSET
from ..deliver.recording import RecordingTransport
from ..deliver.spooling import SpoolingTransport
from ..identity import NEVER_SHARED
from ..proxies import active_request, current_flask
from ..record.errors import handle_error
from ..record.with_blocks import managers_of_jobs
from ..transport import Transport
from ..values import plain
from ..visitor.portable import PortableVisitor
from .person import person_of

if t.TYPE_CHECKING:
    from ..calls import Call, CallLog, Json
    from ..config import Config
    from ..deliver.delivery import Delivery
    from ..deliver.hand_overs.keeper import HandOvers
    from ..deliver.ledger import Ledger
    from ..outcome import Outcome
    from ..record.manager import Manager
    from ..record.on_commit import Pending
    from ..record.refusals import Refusal
    from ..record.running_views import RunningViews
    from .chain import Chain
    from .flusher import Flusher
    from .handing_over import HandingOver
    from .sign_in import SignIn
    from .signing import Signer
    from .uncommitted import Uncommitted
    from .unrecorded import Reporter

logger = logging.getLogger("flask_mengpaneel")

# What receivers are told of calls.
_SIGNALS = (signals.recorded, signals.unrecorded, signals.dropped)

_lock = threading.Lock()
_asking = Asking("MENGPANEEL_DEFAULT_PROPERTIES")


@dataclasses.dataclass(slots=True)
class AppState:
    """The parts of one app, at ``app.extensions["mengpaneel"]``."""

    config: Config
    ledger: Ledger
    delivery: Delivery
    #: Delivers after the response, by a thread or somewhere else; ``None``: nothing.
    background: Transport | None
    #: Delivers in the request.
    inline: Transport
    #: Of what browsers are given.
    signer: Signer
    #: What clients have been given and haven't acknowledged yet; ``None``: they are
    #: believed.
    hand_overs: HandOvers | None
    handing_over: HandingOver
    chain: Chain
    flusher: Flusher
    #: The calls that wait for a database longer than for their flush.
    uncommitted: Uncommitted
    running_views: RunningViews
    #: Sets up who has signed in; ``None``: the app does that itself.
    sign_in: SignIn | None
    reporter: Reporter
    #: Whether the app has been used.
    is_in_use: bool = False

    def begin_use(self) -> None:
        """The app is used for the first time: not before is it known whether it is in
        testing, as many say so when the extension is initialised already."""
        with _lock:
            if not self.is_in_use:
                if current_flask().testing or guard.keeps_calls(self.config):
                    self._begin_testing()

                self.is_in_use = True

    def _begin_testing(self) -> None:
        """Send nothing to Mixpanel."""
        config, own = self.config, self.config.transport
        is_real = not config.inspector and hosts.meant(config.api_host) is not None

        if isinstance(own, Transport):
            # Not even where a view insists on the inline one.
            if is_real:
                self.chain.divert(own)
        elif (
            is_real
            or guard.keeps_calls(config)
            or (own is UNSET and not config.inspector)
        ):
            self.background = RecordingTransport()
            self.chain.divert(self.background)
            self.hand_overs = None
            self.flusher.believe_clients()
            self.running_views.stay_in_foreground()
            self.delivery.made_once.leave_spool()

    def serve_first(self) -> None:
        """The app serves its first request: send what other processes have left."""
        process.begin_serving()

        if not self.is_in_use:
            self.begin_use()

        if isinstance(self.background, SpoolingTransport):
            self.background.resume_spooled()

    @contextlib.contextmanager
    def asked(self) -> c.Iterator[list[Outcome]]:
        """Within the block the app is only asked what would become of calls: nothing is
        sent, kept, counted or taken from where it waits, and no receiver is told.

        Gives what becomes of them: a list, to which each flush adds its outcome.
        """
        background, self.background = self.background, None

        try:
            with contextlib.ExitStack() as stack:
                diverted = self.chain.diverted(RecordingTransport())
                outcomes = stack.enter_context(diverted)
                stack.enter_context(self.ledger.paused())
                stack.enter_context(self.delivery.made_once.paused())
                stack.enter_context(self.flusher.sharing.paused())

                if self.hand_overs is not None:
                    stack.enter_context(self.hand_overs.paused())

                for signal in _SIGNALS:
                    stack.enter_context(signal.muted())

                yield outcomes
        finally:
            self.background = background

    @property
    def pending(self) -> dict[int, Pending]:
        """The calls that wait for a database in their units of work, by the `id` of the
        call."""
        return self.uncommitted.pending

    def begin(self, manager: Manager) -> None:
        """Set up whom a request is about, before its first call."""
        if self.sign_in is not None:
            self.sign_in.begin(manager)

    def begin_thread(self, manager: Manager) -> None:
        """Set up whom a request is about, before the first call of one of its
        threads."""
        if self.sign_in is not None:
            self.sign_in.begin_thread(manager)

    def signed_in(self, manager: Manager, former: list[Call]) -> list[Call]:
        """Return those calls of a former set-up that say who has signed in."""
        return [] if self.sign_in is None else self.sign_in.calls_of(manager, former)

    def take_visitor(self, manager: Manager) -> PortableVisitor:
        """Return the visitor whom the calls of a manager are from, to be taken
        elsewhere."""
        # The browser gets the device's id with the response, if it is a new one.
        manager.visitor.take_elsewhere()
        key = self.config.session_key
        person = person_of(manager, manager.calls, current_flask(), key)
        return PortableVisitor.of(person, manager.recorded)

    def default_properties(self) -> dict[str, Json]:
        """Return the properties that the app adds to every event, as they are now."""
        properties = self.config.default_properties

        if properties is None:
            return {}

        try:
            given = plain(_asking(properties) if callable(properties) else properties)

            if not isinstance(given, dict):
                raise TypeError(f"it gave {given!r}, which is no dict")
        except Exception:
            logger.exception(
                "MENGPANEEL_DEFAULT_PROPERTIES failed: the event is without"
            )
            return {}

        return {name: given[name] for name in given if name not in NEVER_SHARED}

    def drop(self, reason: str) -> None:
        """Count a call that isn't kept."""
        self.ledger.record_dropped(reason)

    def refuse(self, refusal: Refusal, during: str) -> None:
        """Count and report what can't be recorded of a call."""
        self.reporter.refuse(refusal, during)

    def skip(self, manager: Manager, call: Call) -> None:
        """Count and report a call that isn't recorded."""
        self.reporter.skip(manager, call)

    def note_alias(self, manager: Manager) -> None:
        """Say of an alias that it has no effect, if it has none."""
        self.reporter.note_alias(manager)

    def keep_pending(
        self, calls: CallLog, pending: dict[int, Pending]
    ) -> list[Pending]:
        """Take over those of drained calls that wait for a database to commit."""
        return self.uncommitted.keep(calls, pending)

    def leave_pending(
        self, manager: Manager, calls: CallLog, staying: list[Pending]
    ) -> CallLog:
        """Return drained calls without those that go on waiting for a database."""
        return self.uncommitted.leave(manager, calls, staying)

    def send_pending(self, pending: list[Pending]) -> None:
        """Send calls that have stayed behind: their database has committed."""
        self.uncommitted.send(pending)

    def drop_pending(self, pending: list[Pending]) -> None:
        """Drop calls whose database was rolled back."""
        self.uncommitted.drop(pending)

    def end_job(self, manager: Manager) -> None:
        """A ``with Manager():`` block has ended, and flushed its calls."""
        if not manager.is_current:
            self.running_views.end(manager)

        background = self.background

        if (
            background is None
            or manager.request is not None
            or not process.may_vanish()
        ):
            return

        if any(map(self.running_views.is_running, managers_of_jobs())):
            # The block around this one does it.
            return

        try:
            if isinstance(background, SpoolingTransport):
                background.deliver_or_spool()
            else:
                background.flush(self.config.shutdown_timeout)
        except Exception as error:
            handle_error(self.flusher.app, "what a job has tracked may be lost", error)

    def flush(self, manager: Manager) -> Outcome | None:
        """Send the calls that no response can carry."""
        return self.flusher.flush(manager)

    def flush_late(self, manager: Manager) -> None:
        """Send the calls of a manager where nobody waits for the outcome."""
        self.flusher.flush_late(manager)

    def flush_running(self, manager: Manager, *, is_last: bool) -> None:
        """Send the calls of a view that runs, from a thread that has no context.

        :param is_last: whether the process ends.
        """
        visitor, is_here = manager.visitor, active_request() is manager.request

        if not is_last:
            if visitor.consent.given is None:
                # The session can keep them, with the response.
                return

            may_be_named = self.config.visitor and not visitor.browser_identity

            if may_be_named and not is_here:
                # Only there the app says who it is: the view's next call sends them.
                manager.flush_threshold = 1
                return

        self.flusher.flush_running(manager)
