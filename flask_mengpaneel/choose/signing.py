"""Signatures of what the app gives to browsers, so that it knows that again."""

from __future__ import annotations

import base64
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

        if app is None or not app.secret_key:
            return []

        secrets = [app.secret_key, *(app.config.get("SECRET_KEY_FALLBACKS") or [])]
        return [_derive(secret, f"{purpose} {self._project}") for secret in secrets]

    # -- texts

    def sign(self, text: str, browser_identity: Identity = NOBODY) -> str | None:
        """Return the signature of a text; ``None`` if the app has no secret key.

        :param browser_identity: whom the browser takes the visitor for that gets it.
        """
        keys = self._keys("calls")

        if not keys:
            return None

        ids = dumps(browser_identity.to_json()).encode()
        # The same calls, made again within a second, are other calls.
        signed = f"{_text_of(ids)}.{hex_id()[:12]}.{time.time():.0f}"
        return f"{signed}.{_code(f'{text}.{signed}', keys[0])}"

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
        return f"{id}.{_code(id, self._token_keys[0])}"

    def id_of(self, token: str) -> str | None:
        """Return the id in a token; ``None`` if it isn't this app's."""
        id, _, code = token.partition(".")
        return id if _matches(id, code, self._token_keys) else None

    @property
    def _token_keys(self) -> list[bytes]:
        return self._keys("hand-over") or [_PROCESS_KEY]


@functools.lru_cache(maxsize=64)
def _derive(secret: str | bytes, purpose: str) -> bytes:
    key = secret.encode() if isinstance(secret, str) else secret
    return hmac.digest(key, f"mengpaneel {purpose}".encode(), "sha256")


def _code(text: str, key: bytes) -> str:
    """Return the code by which one who has the key knows a text again.

    A fifth of the time that an HMAC takes: https://www.rfc-editor.org/rfc/rfc7693
    """
    data = text.encode("utf-8", "surrogatepass")
    return _text_of(hashlib.blake2b(data, key=key, digest_size=15).digest())


def _matches(text: str, code: str, keys: list[bytes]) -> bool:
    given = code.encode("utf-8", "surrogatepass")
    return any(hmac.compare_digest(_code(text, key).encode(), given) for key in keys)


def _text_of(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode()
