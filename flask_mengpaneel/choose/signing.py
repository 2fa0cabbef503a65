"""Signatures of what the app gives to browsers, so that it knows that again."""

from __future__ import annotations

import base64
import binascii
import collections.abc as c
import functools
import hashlib
import hmac
import json
import os
import time
import typing as t
import weakref

from ..calls import dumps
from ..identity import NOBODY, Identity, hex_id

if t.TYPE_CHECKING:
    from flask import Flask

# Seconds for which a signature counts: a tab may sleep for long.
_MAX_AGE = 7 * 86400

# Bytes of a code: one guess in 2**96 is right.
_CODE_BYTES = 12

_URL_SAFE = bytes.maketrans(b"+/", b"-_")

# For the tokens of an app that has no secret key.
_PROCESS_KEY = os.urandom(32)


class Signed(t.NamedTuple):
    """What a signature says."""

    #: No two signatures have the same.
    id: str
    #: Whom the browser took the visitor for when the text was given to it.
    browser_identity: Identity


class Signer:
    """Signs what the app gives to browsers, so that it takes nothing else back.

    :param token: of the project; an app of another project may have the same key.
    """

    def __init__(self, app: Flask, token: str | None) -> None:
        # Else an app would be freed by Python's garbage collector only.
        self._app = weakref.ref(app)
        self._project = token

    def _keys(self, purpose: str) -> list[bytes]:
        """Return the keys for a purpose; the first is the one to sign with.

        As in Flask's own session, former keys count as well.
        """
        app = self._app()
        key = self._key(purpose)

        if app is None or key is None:
            return []

        former = app.config.get("SECRET_KEY_FALLBACKS") or ()
        return [
            key,
            *[_derive(secret, f"{purpose} {self._project}") for secret in former],
        ]

    def _key(self, purpose: str) -> bytes | None:
        """Return the key to sign with for a purpose; ``None`` if there is none."""
        app = self._app()
        secret = app.secret_key if app is not None else None
        return _derive(secret, f"{purpose} {self._project}") if secret else None

    # -- texts

    def sign(self, text: str, browser_identity: Identity = NOBODY) -> str | None:
        """Return the signature of a text; ``None`` if the app has no secret key.

        :param browser_identity: whom the browser that gets it takes the visitor for.
        """
        key = self._key("calls")

        if key is None:
            return None

        ids = dumps(browser_identity.to_json()).encode()
        # The same calls, made again within a second, are other calls.
        signed = f"{_text_of(ids)}.{hex_id()[:12]}.{time.time():.0f}"
        return f"{signed}.{_code(f'{text}.{signed}', key)}"

    def verify(self, text: t.Any, signature: t.Any) -> Signed | None:
        """Read a signature, if this app signed the text with it not too long ago.

        :raises ValueError: the text isn't the whole of what was signed.
        """
        if type(text) is not str or type(signature) is not str:
            return None

        signed, _, code = signature.rpartition(".")

        if not _matches(f"{text}.{signed}", code, self._keys("calls")):
            return None

        # Else some of the text would pass for a part of the signature.
        ids, unique, at = signed.split(".")

        if not -60 <= time.time() - int(at) <= _MAX_AGE:
            return None

        browser_identity = json.loads(base64.urlsafe_b64decode(ids))
        return Signed(f"{unique}.{at}", Identity.from_json(browser_identity))

    # -- the ids of hand-overs

    def token(self, id: str) -> str:
        """Return with what a client acknowledges the hand-over of an id.

        Of an app without a secret key only this process will know it again.
        """
        return f"{id}.{_code(id, self._key('hand-over') or _PROCESS_KEY)}"

    def id_of(self, token: str) -> str | None:
        """Return the id in a token; ``None`` if it isn't this app's."""
        return next(iter(self.ids_of([token])), None)

    def ids_of(self, tokens: c.Iterable[str]) -> list[str]:
        """Return the ids in those tokens that are this app's."""
        keys, ids = self._keys("hand-over") or [_PROCESS_KEY], []

        for token in tokens:
            id, _, code = token.partition(".")

            if _matches(id, code, keys):
                ids.append(id)

        return ids


@functools.lru_cache(maxsize=64)
def _derive(secret: str | bytes, purpose: str) -> bytes:
    key = secret.encode() if isinstance(secret, str) else secret
    return hmac.digest(key, f"mengpaneel {purpose}".encode(), "sha256")


def _code(text: str, key: bytes) -> str:
    """Return the code by which one who has the key knows a text again.

    A fifth of the time that an HMAC takes: https://www.rfc-editor.org/rfc/rfc7693
    """
    data = text.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, key=key, digest_size=_CODE_BYTES).hexdigest()


def _matches(text: str, code: str, keys: list[bytes]) -> bool:
    given = code.encode("utf-8", "surrogatepass")

    for key in keys:
        if hmac.compare_digest(_code(text, key).encode(), given):
            return True

    return False


def _text_of(data: bytes) -> str:
    # As `base64.urlsafe_b64encode`, in fewer steps: 2 us of 106, a page with a call.
    return binascii.b2a_base64(data, newline=False).translate(_URL_SAFE).decode()
