"""Signatures of what the app gives to browsers, so that it knows that again."""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import json
import os
import typing as t
import weakref

from itsdangerous import BadSignature, TimestampSigner

from ..calls import dumps
from ..identity import NOBODY, Identity

if t.TYPE_CHECKING:
    from flask import Flask

# Seconds for which a signature counts: a tab may sleep for long.
_MAX_AGE = 7 * 86400

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
        self._salt = f"mengpaneel {token}"

    @property
    def _keys(self) -> list[t.Any]:
        """The app's secret keys; the last one signs, as in Flask's own session."""
        app = self._app()

        if app is None or not app.secret_key:
            return []

        former = app.config.get("SECRET_KEY_FALLBACKS") or []
        return [*former, app.secret_key]

    @property
    def _signer(self) -> TimestampSigner | None:
        keys = self._keys
        return TimestampSigner(keys, salt=self._salt) if keys else None

    def sign(self, text: str, browser_identity: Identity = NOBODY) -> str | None:
        """Return the signature of a text; ``None`` if the app has no secret key.

        :param browser_identity: whom the browser takes the visitor for that gets it.
        """
        signer = self._signer

        if signer is None:
            return None

        visitor = base64.urlsafe_b64encode(
            dumps(browser_identity.to_json()).encode()
        ).decode()
        # The same calls, made again within a second, are other calls.
        unique = f"{text}.{visitor}.{os.urandom(6).hex()}"
        return signer.sign(unique).decode()[len(text) + 1 :]

    def verify(self, text: t.Any, signature: t.Any) -> Signed | None:
        """Read a signature, if this app signed the text with it not too long ago.

        :raises ValueError: the text isn't the whole of what was signed.
        """
        signer = self._signer

        if signer is None or type(text) is not str or type(signature) is not str:
            return None

        try:
            signer.unsign(f"{text}.{signature}", max_age=_MAX_AGE)
        except BadSignature:
            return None

        # The last part has several spellings.
        visitor, unique, at, _ = signature.split(".")
        browser_identity = json.loads(base64.urlsafe_b64decode(visitor))
        return Signed(f"{unique}.{at}", Identity.from_json(browser_identity))

    # -- the ids of hand-overs

    def token(self, id: str) -> str:
        """Return with what a client acknowledges the hand-over of an id.

        Of an app without a secret key only this process will know it again.
        """
        return f"{id}.{self._code(id, (self._keys or [_PROCESS_KEY])[-1])}"

    def id_of(self, token: str) -> str | None:
        """Return the id in a token; ``None`` if it isn't this app's."""
        id, _, code = token.partition(".")

        for key in self._keys or [_PROCESS_KEY]:
            if hmac.compare_digest(self._code(id, key).encode(), _bytes(code)):
                return id

        return None

    def _code(self, id: str, key: str | bytes) -> str:
        # A tenth of the time that a signature takes which says when it was made.
        code = hashlib.blake2b(_bytes(id), key=_derive(key, self._salt), digest_size=9)
        return base64.urlsafe_b64encode(code.digest()).decode()


def _bytes(text: str) -> bytes:
    # JSON may have half a character.
    return text.encode("utf-8", "surrogatepass")


@functools.lru_cache(maxsize=16)
def _derive(key: str | bytes, salt: str) -> bytes:
    secret = key.encode() if isinstance(key, str) else key
    return hmac.digest(secret, f"{salt} hand-over".encode(), "sha256")
