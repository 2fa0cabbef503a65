"""A stand-in for Mixpanel, for development and tests.

It answers Mixpanel's ingestion endpoints as :mod:`.ingestion` says, keeps what arrived
and what became of each recorded call in :mod:`.store`, and shows both on a page.
"""

from __future__ import annotations

import collections.abc as c
import logging
import sqlite3
import time
import typing as t
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from flask import Blueprint, Flask, has_request_context, redirect, request
from werkzeug.datastructures import Headers

from ..calls import Call
from ..choose.script import static_folder
from ..config import INSPECTOR_PREFIX, PREFIX, Config
from ..deliver.hand_overs.news import What
from ..deliver.http import Reply
from ..hosts import ENDPOINTS
from ..signals import failed, flushed, unrecorded
from .arrivals import Arrival
from .flushed_calls import FlushedCall
from .ingestion import ingest
from .rules import Record
from .store import Store
from .views import make_blueprint

if t.TYPE_CHECKING:
    from flask.sansio.app import App

    from ..outcome import Unrecorded
    from .unrecorded_calls import UnrecordedCall

logger = logging.getLogger("flask_mengpaneel")


class Inspector:
    """A stand-in for Mixpanel.

    :param config: the app's settings.
    :param path: the SQLite file that keeps what arrived.
    """

    def __init__(self, config: Config, path: Path) -> None:
        self.store = Store(path, merge=config.id_merge == "simplified")
        self.blueprint = make_blueprint(self.store, self._answer, config.url_prefix)
        self.blueprint.record_once(lambda state: self._listen(state.app))

    def _listen(self, app: App) -> None:
        app.extensions["mengpaneel_inspector"] = self
        flushed.connect(self._on_flushed, sender=app)
        failed.connect(self._on_failed, sender=app)
        unrecorded.connect(self._on_unrecorded, sender=app)

    def post(
        self,
        path: str,
        body: bytes,
        headers: c.Mapping[str, str],
        timeout: float = 0.0,
    ) -> Reply:
        """Answer a request from this process, without a network.

        :param path: the endpoint, with its query: ``/import?strict=1``.
        :param timeout: not used, as there is nothing to wait for.
        """
        parts = urlsplit(path)
        endpoint = parts.path.rstrip("/").rpartition("/")[2]

        if endpoint not in ENDPOINTS:
            return Reply(404, {"Content-Type": "text/plain"}, b"Not Found")

        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        return self._answer(endpoint, query, Headers(list(headers.items())), body)

    def _answer(
        self,
        endpoint: str,
        query: c.Mapping[str, str],
        headers: Headers,
        body: bytes,
    ) -> Reply:
        found = {name.title(): value for name, value in headers}
        answer = ingest(endpoint, query, found, body, time.time())
        records = answer.records

        if answer.problem:
            text = body[:200].decode(errors="replace")
            records = [Record({"request": text}, answer.problem)]

        try:
            self.store.add_arrivals(endpoint, records, found.get("User-Agent", ""))
        except sqlite3.Error as error:
            logger.warning("The inspector couldn't keep what arrived.", exc_info=True)
            return Reply(503, {"Content-Type": "text/plain"}, str(error).encode())

        return Reply(answer.status, {"Content-Type": answer.content_type}, answer.body)

    def _on_flushed(self, sender: t.Any, outcome: t.Any, **extra: t.Any) -> None:
        during = f"{request.method} {request.path}" if has_request_context() else ""

        try:
            self.store.add_flush(
                outcome.strategy,
                outcome.declined,
                outcome.calls,
                during,
                hand_over=outcome.hand_over,
                is_client_side=outcome.is_client_side,
            )
        except sqlite3.Error:
            logger.warning("The inspector couldn't keep a flush.", exc_info=True)

    def _on_failed(
        self, sender: t.Any, records: list[t.Any], reason: str, **extra: t.Any
    ) -> None:
        ids = [
            str(record["properties"]["$insert_id"])
            for record in records
            if isinstance(record, dict) and "$insert_id" in record.get("properties", ())
        ]

        try:
            self.store.add_failure(ids, str(reason))
        except sqlite3.Error:
            logger.warning("The inspector couldn't keep a failure.", exc_info=True)

    def _on_unrecorded(
        self, sender: t.Any, unrecorded: Unrecorded, **extra: t.Any
    ) -> None:
        try:
            self.store.add_unrecorded(unrecorded)
        except sqlite3.Error:
            logger.warning("The inspector couldn't keep a call.", exc_info=True)

    def on_hand_over(self, id: str, what: What, why: str) -> None:
        """Keep what became of a hand-over."""
        try:
            self.store.conclude_hand_over(id, what, why)
        except sqlite3.Error:
            logger.warning("The inspector couldn't keep an acknowledgement.")

    def on_dropped(self, app: Flask, calls: c.Sequence[Call], reason: str) -> None:
        """Keep calls that were dropped before any flush."""
        try:
            self.store.add_dropped(calls, reason)
        except sqlite3.Error:
            logger.warning("The inspector couldn't keep what was dropped.")

    def arrivals(self) -> list[Arrival]:
        """Return everything that arrived, in order: also what is refused or double."""
        return self.store.arrivals()

    def events(self, name: str | None = None) -> list[dict[str, t.Any]]:
        """Return the events that Mixpanel would have by now.

        Each is there once, and none that it would refuse.

        :param name: only events of this name.
        """
        return [
            t.cast("dict[str, t.Any]", arrival.value)
            for arrival in self._accepted()
            if arrival.is_event
            and name in {None, t.cast("dict[str, t.Any]", arrival.value)["event"]}
        ]

    def events_by_person(self) -> dict[str, list[dict[str, t.Any]]]:
        """Return the same events by person.

        What a device did before it was seen with a user belongs to that user, unless
        the app's ``MENGPANEEL_ID_MERGE`` is ``"original"``.
        """
        people: dict[str, list[dict[str, t.Any]]] = {}

        for arrival in self._accepted():
            if arrival.is_event:
                value = t.cast("dict[str, t.Any]", arrival.value)
                people.setdefault(arrival.person, []).append(value)

        return people

    def updates(self) -> list[dict[str, t.Any]]:
        """Return the profile and group updates that Mixpanel would have made by now."""
        return [
            t.cast("dict[str, t.Any]", arrival.value)
            for arrival in self._accepted()
            if not arrival.is_event
        ]

    def _accepted(self) -> list[Arrival]:
        return [
            arrival
            for arrival in self.arrivals()
            if not arrival.problem and arrival.duplicate_of is None
        ]

    def refused(self) -> list[Arrival]:
        """Return the arrivals that Mixpanel would refuse; ``problem`` says why."""
        return [arrival for arrival in self.arrivals() if arrival.problem]

    def duplicates(self) -> list[Arrival]:
        """Return the events that arrived again, which Mixpanel would count once."""
        return [arrival for arrival in self.arrivals() if arrival.duplicate_of]

    def not_arrived(self) -> list[FlushedCall]:
        """Return the recorded calls that have been flushed and have not arrived."""
        return [call for call in self.store.calls() if not call.arrived]

    def unrecorded(self) -> list[UnrecordedCall]:
        """Return the calls that weren't recorded, or not as a whole."""
        return self.store.unrecorded()

    def clear(self) -> None:
        """Forget everything."""
        self.store.clear()

    def wait_for(self, events: int = 0, updates: int = 0, timeout: float = 5.0) -> None:
        """Wait until Mixpanel would have at least so many events and updates.

        :param timeout: in seconds.
        :raises TimeoutError: it hasn't in time; the message says what has arrived.
        """
        deadline = time.monotonic() + timeout

        while True:
            found = self.events(), self.updates()

            if len(found[0]) >= events and len(found[1]) >= updates:
                return

            if time.monotonic() >= deadline:
                names = [event["event"] for event in found[0]]
                raise TimeoutError(
                    f"{events} events and {updates} updates were expected within"
                    f" {timeout} s; {len(names)} and {len(found[1])} arrived: {names}"
                )

            time.sleep(0.02)


def create_inspector_app(path: Path | None = None) -> Flask:
    """Return an app that is nothing but an inspector.

    It serves an app's tests, and front ends and apps that run elsewhere:

    ``flask --app "flask_mengpaneel.inspector:create_inspector_app()" run --port 5001``

    :param path: the SQLite file; by default one in the app's instance folder.
    """
    app = Flask(__name__)
    path = path or Path(app.instance_path) / "mengpaneel-inspector.sqlite3"
    inspector = Inspector(Config(), path)
    app.register_blueprint(inspector.blueprint)
    app.register_blueprint(
        Blueprint(
            "mengpaneel",
            __name__,
            static_folder=str(static_folder()),
            url_prefix=PREFIX,
        )
    )
    home = f"{INSPECTOR_PREFIX}/"
    app.add_url_rule("/", view_func=lambda: redirect(home), endpoint="home")
    return app
