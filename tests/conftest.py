from __future__ import annotations

import collections.abc as c
import json
import typing as t

import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, settings

from flask_mengpaneel import Mengpaneel
from flask_mengpaneel.deliver.translation import Translator
from flask_mengpaneel.testing import RecordingTransport
from sink import Sink

# How long an example takes says nothing on a machine that does other things as well.
settings.register_profile(
    "tests", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("tests")

CreateApp = c.Callable[..., Flask]


@pytest.fixture
def sink() -> c.Iterator[Sink]:
    """A stand-in for Mixpanel."""
    with Sink() as sink:
        yield sink


@pytest.fixture
def mengpaneel() -> Mengpaneel:
    """The extension, which is in every app of a test."""
    return Mengpaneel()


@pytest.fixture
def transport() -> RecordingTransport:
    """What the apps of a test send from the server comes to it."""
    return RecordingTransport()


@pytest.fixture
def create_app(mengpaneel: Mengpaneel, transport: RecordingTransport) -> CreateApp:
    """Makes an app with the extension; settings go without their prefix if they are
    the extension's."""

    def create(
        *, testing: bool = True, debug: bool = False, **settings: t.Any
    ) -> Flask:
        app = Flask("shop")
        app.testing = testing
        app.debug = debug
        app.secret_key = "secret"
        app.config.update(
            MENGPANEEL_TOKEN="token",
            MENGPANEEL_SPOOL=None,
            MENGPANEEL_TRANSPORT=transport,
        )
        app.config.update(
            (name if name.isupper() else f"MENGPANEEL_{name.upper()}", value)
            for name, value in settings.items()
        )
        mengpaneel.init_app(app)
        return app

    return create


@pytest.fixture
def app(create_app: CreateApp) -> Flask:
    """An app with the extension, in testing."""
    return create_app()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def sent(app: Flask, transport: RecordingTransport) -> list[dict[str, t.Any]]:
    """What Mixpanel would get of what was sent from the server, in order."""
    tracker = Translator(app.extensions["mengpaneel"].config)
    return [
        json.loads(message.json)
        for envelope in transport.envelopes
        for message in tracker.messages(envelope)[0]
    ]
