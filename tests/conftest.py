from __future__ import annotations

import collections.abc as c
import typing as t
import weakref

import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, settings

from flask_mengpaneel import Mengpaneel, process
from sink import Sink
from sites import CreateApp, Kept, Site

# How long an example takes says nothing on a machine that does other things as well.
settings.register_profile(
    "tests", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("tests")


@pytest.fixture(autouse=True)
def leave_nothing() -> c.Iterator[None]:
    """End what a test's apps still do, as at the end of a process.

    Else they would send, and log, while the next test looks at what is sent and logged.
    """
    others = process._handed_on, process._closed
    process._handed_on, process._closed = weakref.WeakSet(), weakref.WeakSet()
    yield
    givers, things = list(process._handed_on), list(process._closed)
    process._handed_on, process._closed = others

    for giver in givers:
        giver.hand_on()

    for thing in things:
        thing.begin_shutdown()

    for thing in things:
        thing.close()


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
def transport() -> Kept:
    """What the apps of a test send from the server comes to it."""
    return Kept()


@pytest.fixture
def create_app(mengpaneel: Mengpaneel, transport: Kept) -> CreateApp:
    """Makes the app of a site; settings as for `Site`."""

    def create(**settings: t.Any) -> Flask:
        options = {"transport": transport, **settings}
        return Site(mengpaneel=mengpaneel, **options).app

    return create


@pytest.fixture
def site(mengpaneel: Mengpaneel, transport: Kept) -> Site:
    """An app with the extension, in testing; the other fixtures are parts of it."""
    return Site(mengpaneel=mengpaneel, transport=transport)


@pytest.fixture
def app(site: Site) -> Flask:
    return site.app


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def api(site: Site) -> Flask:
    """The app with a view that tracks, and whose answer can carry nothing."""

    @site.app.post("/<name>")
    def view(name: str) -> dict[str, t.Any]:
        site.mengpaneel.track(name)
        return {"ok": True}

    return site.app
