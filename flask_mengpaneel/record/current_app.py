"""The state of the current app, as far as those who record have to know."""

from __future__ import annotations

import typing as t

from ..proxies import current_flask

if t.TYPE_CHECKING:
    from ..calls import Call, CallLog, Json
    from ..config import Config
    from ..outcome import Outcome
    from ..visitor.portable import PortableVisitor
    from .on_commit import Pending
    from .recorder import RecordsCalls
    from .refusals import Refusal
    from .running_views import RunningViews

NO_CONTEXT = (
    "Mengpaneel works inside a request, or inside an app context with 'with"
    " Manager():'. There is no app context here: use 'with app.app_context():'."
)
NOT_IN_USE = (
    "This Manager is not in use: call its methods inside of 'with Manager() as"
    " manager:'."
)


class AppState(t.Protocol):
    """The part of an app's state that its managers need."""

    @property
    def config(self) -> Config:
        """The app's settings."""
        ...

    @property
    def running_views(self) -> RunningViews:
        """The managers of requests that have no response yet."""
        ...

    @property
    def is_in_use(self) -> bool:
        """Whether the app has been used."""
        ...

    def begin_use(self) -> None:
        """The app is used for the first time."""

    @property
    def pending(self) -> dict[int, Pending]:
        """The calls that wait for a database in their units of work, by the `id` of the
        call."""
        ...

    def begin(self, manager: RecordsCalls) -> None:
        """Set up whom a request is about, before its first call."""

    def begin_thread(self, manager: RecordsCalls) -> None:
        """Set up whom a request is about, before the first call of one of its
        threads."""

    def signed_in(self, manager: RecordsCalls, former: list[Call]) -> list[Call]:
        """Return those calls of a former set-up that say who has signed in."""
        ...

    def take_visitor(self, manager: RecordsCalls) -> PortableVisitor:
        """Return the visitor whom the calls of a manager are from, to be taken
        elsewhere."""
        ...

    def default_properties(self) -> dict[str, Json]:
        """Return the properties that the app adds to every event, as they are now."""
        ...

    def drop(self, reason: str) -> None:
        """Count a call that isn't kept."""

    def skip(self, manager: RecordsCalls, call: Call) -> None:
        """Count and report a call that isn't recorded."""

    def refuse(self, refusal: Refusal, during: str) -> None:
        """Count and report what can't be recorded of a call."""

    def note_alias(self, manager: RecordsCalls) -> None:
        """Say of an alias that it has no effect, if it has none."""

    def keep_pending(
        self, calls: CallLog, pending: dict[int, Pending]
    ) -> list[Pending]:
        """Take over those of drained calls that wait for a database to commit."""
        ...

    def leave_pending(
        self, manager: RecordsCalls, calls: CallLog, staying: list[Pending]
    ) -> CallLog:
        """Return drained calls without those that go on waiting for a database."""
        ...

    def send_pending(self, pending: list[Pending]) -> None:
        """Send calls that have stayed behind: their database has committed."""

    def drop_pending(self, pending: list[Pending]) -> None:
        """Drop calls whose database was rolled back."""

    def end_job(self, manager: RecordsCalls) -> None:
        """A ``with Manager():`` block has ended, and flushed its calls."""

    def flush(self, manager: RecordsCalls) -> Outcome | None:
        """Send the calls that no response can carry."""

    def flush_late(self, manager: RecordsCalls) -> None:
        """Send the calls of a manager where nobody waits for the outcome."""

    def flush_running(self, manager: RecordsCalls, *, is_last: bool) -> None:
        """Send the calls of a view that runs, from a thread that has no context."""


def current_app_state() -> AppState:
    """Return the state of the current app.

    :raises RuntimeError: there is no app context, or its app has no Mengpaneel.
    """
    try:
        app = current_flask()
    except RuntimeError:
        raise RuntimeError(NO_CONTEXT) from None

    app_state: AppState | None = app.extensions.get("mengpaneel")

    if app_state is None:
        raise RuntimeError(
            "This app has no Mengpaneel: call 'mengpaneel.init_app(app)'."
        )

    return app_state
