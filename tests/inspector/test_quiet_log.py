"""The inspector's own requests stay out of the development server's log."""

from __future__ import annotations

import collections.abc as c
import logging
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from flask import Flask, abort
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.serving import make_server

from flask_mengpaneel import Mengpaneel


@pytest.fixture
def url(tmp_path: Path) -> c.Iterator[str]:
    """A development server, with an app that is mounted below a path."""
    app = Flask(__name__, instance_path=str(tmp_path))
    Mengpaneel(app, token="token", inspector=True, url_prefix="/_own")

    @app.get("/<path:path>")
    def view(path: str) -> str:
        return path if "nowhere" not in path else abort(404)

    mounted = DispatcherMiddleware(Flask("root"), {"/shop": app})
    server = make_server("127.0.0.1", 0, mounted, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/shop"
    server.shutdown()
    thread.join()
    server.server_close()


def test_what_goes_well_is_not_logged_and_all_else_is(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "werkzeug")
    own = [
        "/_own/inspector",
        "/_own/inspector/",
        "/_own/inspector/arrivals?after=3&wait=1",
        "/_own/inspector/track?data=e30%3D",
        "/_own/static/inspector.js",
        "/_own/static/inspector.css",
        "/_own/static/inspector.svg",
    ]
    others = [
        "/",
        "/page?next=/_own/inspector/",
        "/_own/inspectors",
        "/_own/static/mengpaneel.js",
        # The developer wants to see what goes wrong.
        "/_own/inspector/nowhere",
    ]

    for path in [*own, *others]:
        try:
            urllib.request.urlopen(f"{url}{path}", timeout=60).read()
        except urllib.error.HTTPError as error:
            error.read()

    lines = [one.getMessage() for one in caplog.records if one.name == "werkzeug"]
    assert len(lines) == len(others)

    for line, path in zip(lines, others, strict=True):
        assert f" /shop{path} " in line
