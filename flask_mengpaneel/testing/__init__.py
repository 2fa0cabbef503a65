"""For the tests of apps that use Mengpaneel: what was called, and what became of it.

With pytest, the fixture ``mengpaneel_calls`` has the calls of all apps of a test.
Elsewhere ``record_calls`` has them::

    with record_calls() as calls:
        client.post("/orders", follow_redirects=True)

    calls.assert_tracked("Place Order", Total=44)

With ``TESTING`` an app sends nothing to Mixpanel. What its server would send, as
envelopes, is in a transport that keeps them::

    client.post("/webhook", headers={"User-Agent": "Stripe/1.0"})
    assert [call.event for call in recording_transport(app).calls] == ["Payment"]
"""

from __future__ import annotations

import collections.abc as c
import contextlib
import typing as t

from ..deliver.recording import RecordingTransport as RecordingTransport
from .recorded import RecordedCalls as RecordedCalls
from .recorded_call import RecordedCall as RecordedCall

if t.TYPE_CHECKING:
    from flask import Flask

    from ..outcome import Outcome

__all__ = [
    "RecordedCall",
    "RecordedCalls",
    "RecordingTransport",
    "record_calls",
    "record_flushes",
    "recording_transport",
]


def recording_transport(app: Flask) -> RecordingTransport:
    """Return what keeps what the server of an app in testing would send.

    :raises LookupError: the app sends it. It isn't in testing, or wasn't when it was
        first used, or it has an inspector or a ``MENGPANEEL_TRANSPORT`` of its own.
    """
    state = app.extensions["mengpaneel"]

    with app.app_context():
        if not state.is_in_use:
            state.begin_use()

    if not isinstance(state.background, RecordingTransport):
        raise LookupError(
            "This app doesn't record what it would send: set TESTING before it is first"
            " used, and neither MENGPANEEL_TRANSPORT nor MENGPANEEL_INSPECTOR."
        )

    return state.background


@contextlib.contextmanager
def record_calls(app: Flask | None = None) -> c.Iterator[RecordedCalls]:
    """Collect the calls that are recorded within the block.

    :param app: only the calls of this app.
    """
    calls = RecordedCalls()

    with calls.connected_to(app):
        yield calls


@contextlib.contextmanager
def record_flushes(app: Flask) -> c.Iterator[list[Outcome]]:
    """Collect what becomes of the calls of an app.

    Gives the ``outcomes`` of :func:`record_calls`: a list, to which each flush within
    the block adds its :class:`~flask_mengpaneel.Outcome`.
    """
    with record_calls(app) as calls:
        yield calls.outcomes
