"""One HTTP request to Mixpanel, and its answer."""

from __future__ import annotations

import base64
import collections.abc as c
import importlib
import typing as t

try:
    # Six times as fast.
    zlib = importlib.import_module("isal.isal_zlib")
except ImportError:
    zlib = importlib.import_module("zlib")

#: Where the messages of each endpoint are posted.
PATHS = {
    "events": "/import?strict=1",
    "people": "/engage?ip=0&verbose=1",
    "groups": "/groups?ip=0&verbose=1",
}


class Reply(t.NamedTuple):
    """An HTTP response, as far as it matters here."""

    status: int
    headers: c.Mapping[str, str]
    body: bytes


class RequestFailed(Exception):
    """A request got no answer.

    :param ambiguous: whether it may have been taken all the same.
    """

    def __init__(self, reason: str, *, ambiguous: bool) -> None:
        super().__init__(reason)
        self.ambiguous = ambiguous


class HttpClient(t.Protocol):
    """Sends one HTTP request to Mixpanel."""

    def __call__(
        self,
        path: str,
        body: bytes,
        headers: c.Mapping[str, str],
        timeout: float,
    ) -> Reply:
        """Post, and wait for the answer.

        :param timeout: the seconds that all of it may take.
        :raises RequestFailed: there was no answer.
        """
        ...


def authorized(token: str) -> dict[str, str]:
    """Return the headers of each request for a project."""
    credentials = base64.b64encode(f"{token}:".encode()).decode()
    return {
        "Authorization": f"Basic {credentials}",
        "Content-Type": "application/json",
        "Accept": "application/json",
    }


def compressed(body: bytes) -> bytes:
    """Return a body as gzip."""
    # Level 1 takes a fifth of the time of the default.
    compressor = zlib.compressobj(1, wbits=31)
    whole: bytes = compressor.compress(body) + compressor.flush()
    return whole
