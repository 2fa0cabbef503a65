"""The peers: what else tracks an event from a server, or changes a page on its way."""

from __future__ import annotations

import collections.abc as c
import contextlib
import datetime as dt
import typing as t

from bs4 import BeautifulSoup
from flask import Flask, Response
from flask_debugtoolbar import DebugToolbarExtension
from mixpanel import Consumer, Mixpanel
from mixpanel_async import AsyncBufferedConsumer
from posthog import Posthog
from segment.analytics import Client

from .pairs import Action
from .sites import EVENT, TOKEN, Track

_PERSON = "18f5e4c6-0a1b-4c2d-9e3f-5a6b7c8d9e0f"


@contextlib.contextmanager
def mixpanel(url: str) -> c.Iterator[tuple[Track, Action]]:
    """Mixpanel's own library: each event is a request."""
    consumer = Consumer(events_url=f"{url}/track")
    tracker = Mixpanel(TOKEN, consumer)
    yield lambda: tracker.track(_PERSON, *EVENT), lambda: None


@contextlib.contextmanager
def mixpanel_async(url: str) -> c.Iterator[tuple[Track, Action]]:
    """Its consumer with a thread for each full buffer, as large as Mixpanel takes."""
    consumer = AsyncBufferedConsumer(
        flush_after=dt.timedelta(seconds=1),
        flush_first=False,
        max_size=2000,
        events_url=f"{url}/track",
    )
    tracker = Mixpanel(TOKEN, consumer)
    yield lambda: tracker.track(_PERSON, *EVENT), lambda: consumer.flush(async_=False)


@contextlib.contextmanager
def posthog(url: str) -> c.Iterator[tuple[Track, Action]]:
    """PostHog's library, with room for all events."""
    client = Posthog("key", host=url, max_queue_size=1_000_000)
    name, properties = EVENT
    yield (
        lambda: client.capture(name, distinct_id=_PERSON, properties=properties),
        client.flush,
    )
    client.shutdown()


@contextlib.contextmanager
def segment(url: str) -> c.Iterator[tuple[Track, Action]]:
    """Segment's library, with room for all events."""
    client = Client("key", host=url, max_queue_size=1_000_000)
    yield lambda: client.track(_PERSON, *EVENT), client.flush
    client.shutdown()


#: Each takes the URL of a sink and gives what tracks one event, and what waits until
#: it is delivered.
TRACKERS = {
    "mixpanel's Consumer": mixpanel,
    "mixpanel-py-async": mixpanel_async,
    "posthog": posthog,
    "segment": segment,
}


def debug_toolbar(app: Flask) -> Flask:
    """Flask-DebugToolbar without panels: nothing but its insertion."""
    app.config.update(DEBUG_TB_ENABLED=True, DEBUG_TB_PANELS=())
    DebugToolbarExtension(app)
    return app


def beautiful_soup(app: Flask) -> Flask:
    """A script element appended to the parsed head."""

    @app.after_request
    def insert(response: Response) -> Response:
        soup = BeautifulSoup(response.get_data(), "html.parser")
        t.cast(t.Any, soup.head).append(soup.new_tag("script", src="/boot.js"))
        response.set_data(str(soup))
        return response

    return app


INJECTORS = {"Flask-DebugToolbar": debug_toolbar, "BeautifulSoup": beautiful_soup}
