"""Send records to an inspector, and tell it of flushes."""

from __future__ import annotations

import json
import typing as t

from flask import Flask

from flask_mengpaneel.calls import Call
from flask_mengpaneel.inspector import Inspector
from flask_mengpaneel.outcome import Outcome
from flask_mengpaneel.signals import flushed
from mixpanel_records import BASIC


def send(inspector: Inspector, endpoint: str, *records: t.Any) -> int:
    """Send records as one request; return the status of the answer."""
    return inspector.post(f"/{endpoint}", json.dumps(records).encode(), BASIC).status


def flush(
    app: Flask,
    strategy: str,
    *calls: Call,
    hand_over: str | None = None,
    **declined: str,
) -> None:
    """Tell an app's inspector of a flush."""
    is_client_side = strategy in {"Delayed", "ClientSide", "CapableClientSide"}
    outcome = Outcome(strategy, declined, calls, hand_over, is_client_side)
    flushed.send(app, outcome=outcome)
