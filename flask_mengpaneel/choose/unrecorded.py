"""Says why calls go nowhere: to the ledger, to the signal, and to developers."""

from __future__ import annotations

import contextlib
import logging
import typing as t
import weakref

from flask import current_app
from flask.logging import default_handler, has_level_handler

from .. import reasons, signals
from ..outcome import Unrecorded
from ..recently_seen import RecentlySeen
from ..record.errors import handle_error
from ..record.source import place_of_call
from ..visitor import consent

if t.TYPE_CHECKING:
    from flask import Flask

    from ..calls import Call, CallLog
    from ..config import Config
    from ..deliver.ledger import Ledger
    from ..envelope import Envelope
    from ..record.manager import Manager
    from ..record.refusals import Refusal
    from ..visitor.client import Client
    from ..visitor.visitor import Visitor

logger = logging.getLogger("flask_mengpaneel")

#: Reasons and visitors that a process remembers.
_MAX_SAID = 1_000

#: Why calls go nowhere, whoever the visitor is.
OWN_PATH = "a request for the extension itself"
#: Why calls are dropped whose visitor hasn't been asked for consent.
NO_CONSENT_YET = "no consent yet"
#: Why calls wait.
WAITING = "waiting for consent"

_TO_TRY = "to try the app with it, set MENGPANEEL_RESPECT_DNT to False"

#: The reasons, as developers are told.
_WORDS = {
    consent.GPC: f"the browser sends 'Sec-GPC: 1'; {_TO_TRY}",
    consent.DNT: f"the browser sends 'DNT: 1'; {_TO_TRY}",
    consent.OPTED_OUT: "the visitor has opted out, as a cookie of the browser says",
    consent.REFUSED: "MENGPANEEL_CONSENT says no",
    reasons.NO_TOKEN: "there is no MENGPANEEL_TOKEN",
    OWN_PATH: "the request is for a file of the extension's own",
    NO_CONSENT_YET: "MENGPANEEL_CONSENT gives None, and the session can't keep it",
    WAITING: "MENGPANEEL_CONSENT gives None; it waits in the session",
    reasons.BOT: "the client is a robot, and MENGPANEEL_BOTS is 'drop'",
}

_NO_ALIAS = (
    "mengpaneel.alias has no effect under the simplified ID merge: 'identify' joins the"
    " device and the user; MENGPANEEL_ID_MERGE says that your project has another one"
)


class Reporter:
    """Reports calls that go nowhere."""

    def __init__(self, app: Flask, config: Config, ledger: Ledger) -> None:
        # Else an app would be freed by Python's garbage collector only.
        self._reference = weakref.ref(app)
        self._config = config
        self._ledger = ledger
        self._said = RecentlySeen(_MAX_SAID)

    def skip(self, manager: Manager, call: Call) -> None:
        """Report a call that isn't recorded."""
        # What only says who it is isn't missed.
        if call.is_record:
            visitor = manager.visitor
            reason = self._reason(visitor)
            self._ledger.skip(reason)

            if (app := self._listening_app()) is not None:
                one = _unrecorded(call, reason, place_of_call(), manager.during)
                self._tell(app, one, visitor.client)

    def _reason(self, visitor: Visitor) -> str:
        if reason := reasons.why_inactive(self._config):
            return reason

        if visitor.client.path.startswith(self._config.own_paths):
            return OWN_PATH

        return visitor.consent.refusal

    def report(self, calls: CallLog, reason: str, client: Client) -> None:
        """Report calls that wait for consent, or don't get it."""
        app = self._listening_app()

        for call in calls if app is not None else ():
            if call.is_record:
                self._tell(app, _unrecorded(call, reason), client)

    def drop(self, envelope: Envelope, reason: str) -> None:
        """Report that the server sends nothing of an envelope.

        :param reason: as the ledger has it, or several with commas between them.
        """
        app = self._listening_app()

        for call in envelope.calls if app is not None else ():
            if call.is_record:
                self._tell(app, _unrecorded(call, reason), envelope)

    def refuse(self, refusal: Refusal, during: str) -> None:
        """Report what can't be recorded of a call."""
        logger.error("%s", refusal.text(during), exc_info=refusal.error)

        if refusal.wire is None:
            self._ledger.record_dropped("refused when recorded")
        else:
            self._ledger.leave_out()

        if signals.unrecorded.receivers and (app := self._reference()) is not None:
            self._send(app, refusal.unrecorded(during))

    def note_alias(self, manager: Manager) -> None:
        """Say to developers, for each place once, that an alias has no effect: not
        where a project merges ids in the simplified way
        (https://docs.mixpanel.com/reference/identity-create-alias)."""
        app = self._reference()

        if (
            self._config.id_merge == "original"
            or app is None
            or not self._is_in_development(app)
        ):
            return

        where = place_of_call()

        if not self._said.count(where):
            _make_visible()
            logger.info("%s (%s, %s)", _NO_ALIAS, where, manager.during or "a job")

    def _listening_app(self) -> Flask | None:
        """Return the app, if anybody wants to know."""
        app = self._reference()
        is_listening = app is not None and (
            signals.unrecorded.receivers or self._is_in_development(app)
        )
        return app if is_listening else None

    def _is_in_development(self, app: Flask) -> bool:
        return app.debug or self._config.inspector

    def _tell(
        self, app: Flask | None, unrecorded: Unrecorded, who: Client | Envelope
    ) -> None:
        assert app is not None, "it is listening"
        said = unrecorded.reason, who.ip, who.user_agent

        if self._is_in_development(app) and not self._said.count(said):
            _make_visible()
            logger.info("%s", unrecorded)

        self._send(app, unrecorded)

    def _send(self, app: Flask, unrecorded: Unrecorded) -> None:
        try:
            # What robots cause a background thread finds out.
            with contextlib.nullcontext() if current_app else app.app_context():
                signals.unrecorded.send(app, unrecorded=unrecorded)
        except Exception as error:
            handle_error(app, "a receiver of the signal 'unrecorded' failed", error)


def _unrecorded(
    call: Call, reason: str, where: str = "", during: str = ""
) -> Unrecorded:
    id = str(call.insert_id or "")
    event = call.event if call.tracks else ""
    words = _WORDS.get(reason, reason)
    return Unrecorded(call.name, event, words, where, during, (), id)


def _make_visible() -> None:
    """Show what developers are told, unless the app says itself what is logged: as
    Flask does it with its own logger."""
    if not logger.level and not logger.isEnabledFor(logging.INFO):
        logger.setLevel(logging.INFO)

    if not has_level_handler(logger):
        logger.addHandler(default_handler)
