"""Small apps, with the extension, with a peer and plain, and requests to them."""

from __future__ import annotations

import collections.abc as c
import json
import typing as t
from urllib.parse import quote

from flask import Flask, Response, redirect, session
from werkzeug.test import create_environ

from flask_mengpaneel import Mengpaneel

from .pairs import Action

TOKEN = "benchmark"
EVENT = ("Place Order", {"Items": 3, "Plan": "pro", "Total": 12.5})
SIZES = {"2 KB": 2_000, "50 KB": 50_000, "1 MB": 1_000_000}

CHROME = {
    "User-Agent": (
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like"
        " Gecko) Chrome/143.0.0.0 Safari/537.36"
    ),
    "Accept-Language": "en",
    "Accept-Encoding": "gzip, deflate, br",
}
#: Somebody looks at a page.
PAGE_VIEW = {
    **CHROME,
    "Accept": "text/html,application/xhtml+xml,*/*;q=0.8",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Site": "same-origin",
}
#: A script on a page asks for something.
FETCH = {
    **CHROME,
    "Accept": "*/*",
    "Sec-Fetch-Dest": "empty",
    "Sec-Fetch-Mode": "cors",
    "Sec-Fetch-Site": "same-origin",
    "Referer": "http://localhost/shop?page=2",
}
#: Another server tells of something.
WEBHOOK = {"User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)"}


def library_cookie(**ids: str) -> str:
    """The cookie of Mixpanel's browser library, of some 350 bytes."""
    kept = {
        **ids,
        "$device_id": _DEVICE,
        "$initial_referrer": "$direct",
        "$initial_referring_domain": "$direct",
        "__mps": {},
        "__mpso": {},
        "__mpus": {},
        "__mpa": {},
        "__mpu": {},
        "__mpr": [],
        "__mpap": [],
    }
    text = quote(json.dumps(kept, separators=(",", ":")))
    return f"mp_{TOKEN}_mixpanel={text}"


_DEVICE = "18f5e4c6-0a1b-4c2d-9e3f-5a6b7c8d9e0f"
_USER = "42"

#: Somebody who was here before.
RETURNING = {"Cookie": library_cookie(distinct_id=f"$device:{_DEVICE}")}


def signed_in() -> dict[str, str]:
    """The cookies of somebody who has signed in."""
    app = site()
    serializer = t.cast(t.Any, app.session_interface).get_signing_serializer(app)
    library = library_cookie(distinct_id=_USER, **{"$user_id": _USER})
    return {"Cookie": f"session={serializer.dumps({'user_id': _USER})}; {library}"}


#: Called by the views that track.
Track = c.Callable[[], object]


def page(size: int) -> str:
    """An HTML page of about this many bytes."""
    head = (
        "<!doctype html><html lang=en><head><meta charset=utf-8><title>A shop</title>"
        "<script src=/shop.js></script><link rel=stylesheet href=/shop.css></head>"
    )
    item = '<li class="item"><a href="/items/42">An item</a> <b>12.50</b></li>\n'
    return f"{head}<body><ul>{item * (size // len(item))}</ul></body></html>"


def site(
    track: Track | None = None, identify: c.Callable[[str], object] | None = None
) -> Flask:
    """An app whose ``.../tracked`` views track.

    :param identify: is told before each request of who has signed in, if anybody has.
    """
    app = Flask("site")
    app.secret_key = "secret"

    if identify is not None:

        @app.before_request
        def load_user() -> None:
            user = session.get("user_id")

            if user is not None:
                identify(user)

    tracking = {"": lambda: None, "/tracked": track or (lambda: None)}

    for suffix, told in tracking.items():
        _add_views(app, suffix, told)

    return app


def _add_views(app: Flask, suffix: str, track: Track) -> None:
    def add(path: str, body: c.Callable[[], t.Any]) -> None:
        def view() -> t.Any:
            track()
            return body()

        app.add_url_rule(f"/{path}{suffix}", f"{path}{suffix}", view)

    add("text", lambda: "ok")
    add("json", lambda: {"status": "ok"})
    add("redirect", lambda: redirect("/page"))
    add("remembered", _remembered)
    add("fragment", lambda: "<li><a href=/items/42>An item</a></li>\n")

    for name, size in SIZES.items():
        html = page(size)
        add(name.replace(" ", ""), lambda html=html: html)


def _remembered() -> t.Any:
    session["seen"] = 1
    return redirect("/page")


def shop(
    url: str, events: int = 1, *, signs_in: bool = False, **settings: t.Any
) -> tuple[Flask, Mengpaneel]:
    """The app with the extension, which delivers in the background.

    :param url: where events go.
    :param events: how many a tracking view records.
    :param signs_in: whether each request sets up who has signed in.
    """
    mengpaneel = Mengpaneel(
        token=TOKEN,
        api_host=url,
        spool=None,
        transport="thread",
        # Nobody acknowledges; what the server would send then is measured elsewhere.
        ack_timeout=600,
        **settings,
    )

    def track() -> None:
        for _ in range(events):
            mengpaneel.track(*EVENT)

    def identify(user: str) -> None:
        with mengpaneel.setup():
            mengpaneel.identify(user)

    app = site(track, identify if signs_in else None)
    mengpaneel.init_app(app)
    return app, mengpaneel


def get(app: Flask, path: str, headers: c.Mapping[str, str]) -> Action:
    """A request to the app, as a WSGI server makes it."""
    environ = create_environ(path, headers=dict(headers))

    def request() -> None:
        body = app(dict(environ), _start_response)

        for _ in body:
            pass

        body.close()  # type: ignore[attr-defined]

    return request


def _start_response(
    status: str, headers: list[tuple[str, str]], exc_info: t.Any = None
) -> t.Any:
    return None


def response(app: Flask, path: str, headers: c.Mapping[str, str]) -> Response:
    """What the app answers."""
    return t.cast(
        Response, app.test_client(use_cookies=False).get(path, headers=headers)
    )
