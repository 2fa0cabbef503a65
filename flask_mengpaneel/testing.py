"""For the tests of apps that use Mengpaneel: what was sent, and by which way.

Give the app a transport that keeps what it gets, and look at it::

    transport = RecordingTransport()
    app.config.update(
        TESTING=True, MENGPANEEL_TOKEN="test", MENGPANEEL_TRANSPORT=transport
    )
    mengpaneel.init_app(app)

    def test_webhook(client):
        client.post("/webhook", headers={"User-Agent": "Stripe/1.0"})
        assert [call.event for call in transport.calls] == ["Payment"]

Events that go with a page or a header don't come to a transport, unless nobody
acknowledges them. Which way they went, and all others, is in the outcomes::

    def test_order(app, client):
        with record_flushes(app) as outcomes:
            client.get("/thanks")

        assert outcomes[0].strategy == "ClientSide"
        assert outcomes[0].calls[0].event == "Place Order"
"""

from __future__ import annotations

import collections.abc as c
import contextlib
import typing as t

from .signals import flushed
from .transport import Transport

if t.TYPE_CHECKING:
    from flask import Flask

    from .calls import Call
    from .envelope import Envelope
    from .outcome import Outcome

__all__ = ["RecordingTransport", "record_flushes"]


class RecordingTransport(Transport):
    """Keeps the envelopes that it is given, and sends nothing.

    For ``MENGPANEEL_TRANSPORT``.
    """

    def __init__(self) -> None:
        #: What was given, in order.
        self.envelopes: list[Envelope] = []

    def send(self, envelope: Envelope) -> bool:
        """Take an envelope; there is always room."""
        self.envelopes.append(envelope)
        return True

    @property
    def calls(self) -> list[Call]:
        """The calls of all envelopes, in the order in which they are made."""
        return [call for envelope in self.envelopes for call in envelope.calls]


@contextlib.contextmanager
def record_flushes(app: Flask) -> c.Iterator[list[Outcome]]:
    """Collect what becomes of the calls of an app.

    Gives a list, to which each flush within the block adds its
    :class:`~flask_mengpaneel.Outcome`.
    """
    outcomes: list[Outcome] = []

    def receive(_app: Flask, outcome: Outcome) -> None:
        outcomes.append(outcome)

    with flushed.connected_to(receive, app):
        yield outcomes
