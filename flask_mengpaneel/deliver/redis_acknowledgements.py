"""Acknowledgements that machines share by Redis."""

from __future__ import annotations

import collections.abc as c
import contextlib
import logging
import time
import typing as t

from .. import process
from .acknowledgements import DELIVERED, AckAges, AckKind

logger = logging.getLogger("flask_mengpaneel")

#: Seconds that Redis may take; the thread has other things to do.
TIMEOUT = 1.0
#: Seconds for which it is left alone after it has failed.
PAUSE = 10.0


class RedisAcknowledgements:
    """Acknowledgements in a Redis database, as keys that expire.

    :param project: the token. Apps of several projects may share the database.
    :param ages: how long acknowledgements are there.
    """

    def __init__(self, url: str, project: str, ages: AckAges) -> None:
        self._url = url
        self._prefix = f"mengpaneel:{project}:acknowledged:"
        self._ages = ages
        self._reset()
        process.on_fork(self)

    def _reset(self) -> None:
        self._client: t.Any = None
        #: Of those that the client was made for.
        self._threads = process.ThreadKind()
        self._pause_until = 0.0

    def after_fork(self) -> None:
        """Leave the connections to the process that opened them."""
        self._reset()

    def add(self, ids: c.Collection[str], kind: AckKind = DELIVERED) -> None:
        """Leave acknowledgements for the processes that have these hand-overs."""
        seconds = max(int(self._ages.of(kind)), 1)

        with self._tried() as client:
            if client is not None:
                pipeline = client.pipeline(transaction=False)

                for id in ids:
                    pipeline.set(self._prefix + id, kind.dropped_for, ex=seconds)

                pipeline.execute()

    def found(self, ids: c.Collection[str]) -> dict[str, str]:
        """Return those of some hand-overs that others have left one of, each with the
        reason why it is dropped; empty if Mixpanel has it."""
        found: dict[str, str] = {}

        with self._tried() as client:
            if client is not None and ids:
                values = client.mget([self._prefix + id for id in ids])
                found = {
                    # The URL may have said already that values are texts.
                    id: value if isinstance(value, str) else value.decode()
                    for id, value in zip(ids, values, strict=True)
                    if value is not None
                }

        return found

    @contextlib.contextmanager
    def _tried(self) -> c.Iterator[t.Any]:
        if time.monotonic() < self._pause_until:
            yield None
            return

        try:
            yield self._connected()
        except Exception as error:
            # Whatever it is, this is no reason to send nothing.
            self._pause_until = time.monotonic() + PAUSE
            logger.warning(
                "Acknowledgements can't be shared by Redis (MENGPANEEL_ACKS): %s", error
            )

    def _connected(self) -> t.Any:
        if self._client is None or not self._threads.is_current:
            with process.importing:
                import redis
                from redis.backoff import NoBackoff
                from redis.retry import Retry

            self._threads = process.ThreadKind()
            self._client = redis.Redis.from_url(
                self._url,
                socket_timeout=TIMEOUT,
                socket_connect_timeout=TIMEOUT,
                # Once more on a new connection: the server may have closed this one.
                retry=Retry(NoBackoff(), 1),
            )

        return self._client
