"""From settings to the parts that deliver."""

from __future__ import annotations

import collections.abc as c
import typing as t
import warnings
import weakref
from pathlib import Path

from .. import guard, process, server
from ..config import MAX_OPERATION_AGE, TRANSPORTS, Config
from ..setting_checks import InvalidSetting, WrongSetting
from ..transport import Transport
from .delivery import Delivery
from .failures import FailureReporter
from .http import HttpClient, Reply, RequestFailed
from .own_transport import close_at_exit
from .spooling import SpoolingTransport
from .thread import ThreadTransport
from .translation import Translator

if t.TYPE_CHECKING:
    from celery import Celery
    from flask import Flask

    from .acknowledgements import SharedAcknowledgements
    from .connections import HttpConnections
    from .hand_overs.keeper import HandOvers
    from .ledger import Ledger
    from .spool import Spool

#: Seconds for which an acknowledgement is remembered after nobody waits for it.
ACKNOWLEDGED_FOR = 600.0


def make_delivery(
    app: Flask, config: Config, ledger: Ledger, *, post: HttpClient | None = None
) -> Delivery:
    """Make what delivers for an app.

    :param post: sends the requests; over HTTP by default.
    :raises ValueError: ``MENGPANEEL_SPOOL`` can't be used.
    """
    spool = None

    if guard.keeps_calls(config):
        # What waits in the spool is another's.
        post = post or _refuse
    elif config.active:
        spool = open_spool(config, app.instance_path)

    return Delivery(
        config,
        Translator(config),
        ledger,
        FailureReporter(app, config),
        post=post or LazyHttpClient(config.api_host),
        spool=spool,
    )


def _refuse(
    path: str, body: bytes, headers: c.Mapping[str, str], timeout: float
) -> t.NoReturn:
    """Post nothing, in a test run.

    :raises RequestFailed: always.
    """
    raise RequestFailed("this is a test run", ambiguous=False)


def make_transport(
    config: Config, delivery: Delivery, celery: c.Callable[[], Celery] | None = None
) -> Transport | None:
    """Make the background transport of an app; ``None`` if it delivers in the request.

    :param celery: gives the Celery app when it is needed, which is not yet now.
    """
    kind = config.transport

    if isinstance(kind, Transport):
        close_at_exit(kind)
        return kind

    if kind not in TRANSPORTS:
        kind = "inline" if config.serverless else "thread"

    if kind == "thread" and not server.threads_allowed():
        warnings.warn(
            "uWSGI runs without threads, so that events are delivered in the request."
            " Set 'enable-threads = true' in its configuration.",
            stacklevel=2,
        )
        return None

    if kind == "thread":
        return ThreadTransport(delivery)

    if kind == "celery" and celery is not None:
        from .celery import CeleryTransport

        return CeleryTransport(delivery, celery)

    return None


def make_hand_overs(
    config: Config, delivery: Delivery, transport: Transport | None
) -> HandOvers | None:
    """Make what keeps the hand-overs of an app; ``None`` if they count as delivered.

    :param transport: sends in the background.
    """
    if (
        transport is None
        or not config.active
        or not config.ack_timeout
        or not config.gives_to_browsers
    ):
        return None

    from .acknowledgements import AckAges
    from .hand_overs.keeper import HandOvers
    from .hand_overs.spooled import SpooledHandOvers

    # A clock may be wrong.
    events = max(config.ack_timeout, config.delayed_max_age) + ACKNOWLEDGED_FOR
    ages = AckAges(events, max(events, MAX_OPERATION_AGE + ACKNOWLEDGED_FOR))
    shared: list[SharedAcknowledgements] = []
    spooled = None

    if delivery.spool is not None:
        spooled = SpooledHandOvers(delivery.spool, ages, delivery.news)
        shared.append(spooled)

    if config.acks is not None:
        from .redis_acknowledgements import RedisAcknowledgements

        shared.append(RedisAcknowledgements(config.acks, config.token or "", ages))

    # A transport of the app's own sends nothing out of the spool.
    if not isinstance(transport, SpoolingTransport):
        spooled = None

    return HandOvers(delivery, transport, shared, spooled)


def celery_of(app: Flask) -> c.Callable[[], Celery]:
    """Return what gives the Celery app of an app, as the Flask docs put it there."""
    reference = weakref.ref(app)

    def celery() -> Celery:
        app = reference()

        if app is None or "celery" not in app.extensions:
            raise RuntimeError(
                "MENGPANEEL_TRANSPORT is 'celery', but app.extensions has no 'celery':"
                " see https://flask.palletsprojects.com/patterns/celery/."
            )

        return t.cast("Celery", app.extensions["celery"])

    return celery


def open_spool(config: Config, folder: str) -> Spool | None:
    """Return the spool of an app; its file isn't made before it is needed.

    :param folder: the app's instance folder, where it is by default.
    :raises ValueError: ``MENGPANEEL_SPOOL`` can't be used.
    """
    if config.spool is None:
        return None

    from .spool import Spool, SpoolError

    project = config.token or ""

    if config.inspector:
        # What waited for the inspector isn't sent to Mixpanel when it is taken out.
        project = f"inspector {project}"

    if isinstance(config.spool, Path):
        spool = Spool(config.spool, project)

        try:
            spool.check()
        except SpoolError as error:
            allowed = f"a file that can be written, or None ({error})"
            wrong = InvalidSetting(allowed)
            raise WrongSetting.of(
                "MENGPANEEL_SPOOL", str(config.spool), wrong
            ) from None

        return spool

    # What such a platform has on disk is gone before anybody could send it.
    if config.serverless:
        return None

    spool = Spool(Path(folder) / "mengpaneel-spool.sqlite3", project)

    try:
        spool.check()
    except SpoolError as error:
        warnings.warn(
            f"Events that can't be delivered won't survive this process: {error}. Set"
            " MENGPANEEL_SPOOL to a file, or to None.",
            stacklevel=2,
        )
        return None

    return spool


class LazyHttpClient:
    """Posts to one host over HTTP; loads what that takes when it is needed."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._client: HttpConnections | None = None
        process.on_fork(self)

    def after_fork(self) -> None:
        """Leave the connections to the process that opened them."""
        self._client = None

    def __call__(
        self, path: str, body: bytes, headers: c.Mapping[str, str], timeout: float
    ) -> Reply:
        """Post, and wait for the answer."""
        client = self._client = self._client or self._connect()
        return client.post(path, body, headers, timeout)

    def _connect(self) -> HttpConnections:
        with process.importing:
            from .connections import HttpConnections

            # Looking a name up imports this.
            "mixpanel".encode("idna")

        return HttpConnections(self._host)
