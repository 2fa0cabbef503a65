"""Signals: what became of the calls."""

from __future__ import annotations

from blinker import Namespace

_signals = Namespace()

#: Sent when a call has been recorded. The sender is the app; ``call`` is the
#: :class:`~.calls.Call`, ``unit`` the manager that keeps it.
recorded = _signals.signal("recorded")

#: Sent when recorded calls are dropped that no strategy was asked to take. The sender
#: is the app; ``calls`` is a list of them, ``reason`` says why. It comes from any
#: thread, whatever locks that has.
dropped = _signals.signal("dropped")

#: Sent when the calls of a request or a job have been flushed. The sender is the
#: app; ``outcome`` is an :class:`~flask_mengpaneel.Outcome`.
flushed = _signals.signal("flushed")

#: Sent when a call, or a part of one, isn't recorded or goes nowhere. The sender is the
#: app; ``unrecorded`` is an :class:`~flask_mengpaneel.Unrecorded`.
unrecorded = _signals.signal("unrecorded")

#: Sent when something could not be delivered. The sender is the app; ``records`` is
#: a list of the messages as dicts, ``reason`` says why, in Mixpanel's words or ours.
failed = _signals.signal("failed")
