"""What keeps the envelopes of an app in testing in the place of sending them."""

from __future__ import annotations

import typing as t

from ..transport import Transport

if t.TYPE_CHECKING:
    from ..calls import Call
    from ..envelope import Envelope


class RecordingTransport(Transport):
    """Keeps the envelopes that it is given, and sends nothing.

    For ``MENGPANEEL_TRANSPORT``; an app in testing without one has its own, which
    :func:`~flask_mengpaneel.testing.recording_transport` returns.
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
