"""Signals: what became of the calls."""

from __future__ import annotations

from blinker import Namespace

_signals = Namespace()

#: Sent when the calls of a request or a job have been flushed. The sender is the
#: app; ``outcome`` is an :class:`~flask_mengpaneel.Outcome`.
flushed = _signals.signal("flushed")

#: Sent when something could not be delivered. The sender is the app; ``records`` is
#: a list of the messages as dicts, ``reason`` says why, in Mixpanel's words or ours.
failed = _signals.signal("failed")
