"""Calls that a browser couldn't make, handed back to the app that gave them to it."""

from __future__ import annotations

import collections
import json
import operator
import os
import threading
import time
import typing as t
import weakref

from flask import Response
from itsdangerous import BadSignature, TimestampSigner

from .calls import Call, CallLog
from .visitor import BLOCKED_COOKIE, Visitor

if t.TYPE_CHECKING:
    from flask import Flask, Request

    from .flusher import Flusher

SIGNATURE_HEADER = "X-Mengpaneel-Signature"

# Seconds after which the library gets another chance there.
_BLOCKED_FOR = 3600

# Seconds for which a page's calls are taken back: a tab may sleep for long.
_MAX_AGE = 7 * 86400

# A page of calls that Mixpanel takes is smaller.
_MAX_BYTES = 2_000_000

# Hand-backs that one address may send a minute; a page sends one or two.
_MAX_A_MINUTE = 120


class Signer:
    """Signs what the app gives to browsers, so that nothing else is taken back."""

    def __init__(self, app: Flask) -> None:
        # Else an app would be freed by Python's garbage collector only.
        self._app = weakref.ref(app)

    @property
    def _signer(self) -> TimestampSigner | None:
        app = self._app()
        key = app and app.secret_key

        if app is None or not key:
            return None

        # The last one signs, as in Flask's own session.
        former = app.config.get("SECRET_KEY_FALLBACKS") or []
        return TimestampSigner([*former, key], salt="mengpaneel")

    def sign(self, text: str) -> str | None:
        """The signature of a text; ``None`` if the app has no secret key."""
        signer = self._signer

        if signer is None:
            return None

        # The same calls, made again within a second, are other calls.
        unique = f"{text}.{os.urandom(6).hex()}"
        return signer.sign(unique).decode()[len(text) + 1 :]

    def is_ours(self, text: str, signature: str) -> bool:
        """Whether this app signed the text, and not too long ago."""
        signer = self._signer

        try:
            signer and signer.unsign(f"{text}.{signature}", max_age=_MAX_AGE)
        except BadSignature:
            return False

        return signer is not None


class Bounded:
    """What was seen lately, for as many things as a process can afford."""

    def __init__(self, most: int) -> None:
        self._seen: collections.OrderedDict[t.Any, int] = collections.OrderedDict()
        self._most = most
        self._lock = threading.Lock()

    def count(self, thing: t.Any) -> int:
        """See a thing, and say how often it was seen before."""
        with self._lock:
            before = self._seen.pop(thing, 0)
            self._seen[thing] = before + 1

            if len(self._seen) > self._most:
                self._seen.popitem(last=False)

            return before


class Fallback:
    """The endpoint that takes calls back, and delivers them from the server."""

    def __init__(self, flusher: Flusher, signer: Signer) -> None:
        self._flusher = flusher
        self._signer = signer
        self._taken = Bounded(20_000)
        self._senders = Bounded(10_000)

    def take(self, request: Request) -> Response:
        """Answer a hand-back: ``{"text": ..., "signature": ..., "calls": [...]}``.

        ``text`` is what the app gave to the browser, to the letter; ``calls`` are the
        positions of those of its calls that weren't made.
        """
        if (request.content_length or 0) > _MAX_BYTES or request.content_length is None:
            return Response(status=413)

        minute = int(time.time() // 60)

        if self._senders.count((request.remote_addr, minute)) >= _MAX_A_MINUTE:
            return Response(status=429)

        try:
            value = json.loads(request.get_data(cache=False))
            text, signature, positions = (
                value[name] for name in ("text", "signature", "calls")
            )

            if not self._signer.is_ours(text, signature):
                return Response(status=403)

            log = self._log(text, signature, positions)
        except (ValueError, TypeError, LookupError, RecursionError):
            return Response(status=400)

        response = Response(status=204)

        if value.get("blocked") and _consents(self._flusher, request):
            response.set_cookie(
                BLOCKED_COOKIE, "1", max_age=_BLOCKED_FOR, samesite="Lax"
            )

        self._flusher.take_back(log, request, response)
        return response

    def _log(self, text: str, signature: str, positions: t.Any) -> CallLog:
        """The calls at these positions, unless they came back before."""
        data = json.loads(text)
        hand_overs = data["calls"] if isinstance(data, dict) else [[None, data]]
        calls = [wire for _, wires in hand_overs for wire in wires]
        numbers = [operator.index(position) for position in positions]
        # What was signed: there are several spellings of a signature itself.
        which = signature.rpartition(".")[0]

        # Before any of them counts as taken. A negative one would be a second name.
        if not all(0 <= number < len(calls) for number in numbers):
            raise LookupError("no such call")

        return CallLog(
            tracking=[
                Call.from_json(calls[number])
                for number in numbers
                if not self._taken.count((which, number))
            ]
        )


def _consents(flusher: Flusher, request: Request) -> bool:
    return Visitor(flusher.config, request).consents is True
