"""Sessions of Flask's and of other extensions: their limits, and what they hold."""

from __future__ import annotations

import base64
import collections.abc as c
import importlib.metadata
import json
import random
import typing as t

import pytest
from flask import Flask, Response, redirect, request, session
from flask.sessions import (
    SecureCookieSessionInterface,
    SessionInterface,
    SessionMixin,
    session_json_serializer,
)

from flask_mengpaneel.choose import session_cookie
from session_interfaces import Derived, OwnCookie, Plain, Store
from sites import COOKIE, DEVICE, PAGE, Site, names, page_calls


class LeavesOut(OwnCookie):
    """Writes no cookie that a browser would drop."""

    def save_session(self, app: Flask, kept: SessionMixin, response: t.Any) -> None:
        if len(json.dumps(dict(kept))) < 2800:
            super().save_session(app, kept, response)


class OfAnotherApp(OwnCookie):
    """Reads the session that another app writes."""

    def save_session(self, app: Flask, kept: SessionMixin, response: t.Any) -> None:
        return None


class WrittenOnce(SessionInterface):
    """Keeps the data on the server, and writes the cookie only to who has none."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, t.Any]] = {}

    def open_session(self, app: Flask, request: t.Any) -> Plain:
        return Plain(self.kept.get(request.cookies.get("session", ""), {}))

    def save_session(self, app: Flask, kept: SessionMixin, response: t.Any) -> None:
        key = request.cookies.get("session")

        if key is None:
            key = str(len(self.kept))
            response.set_cookie("session", key)

        self.kept[key] = dict(kept)


class Never(SecureCookieSessionInterface):
    """As Flask-Login's documentation has it for APIs."""

    def save_session(self, *args: t.Any, **kwargs: t.Any) -> None:
        return None


class Unwilling(SecureCookieSessionInterface):
    def should_set_cookie(self, *args: t.Any, **kwargs: t.Any) -> bool:
        return False


class Column(Store):
    """As in a database, whose columns end somewhere."""

    def _upsert_session(self, lifetime: t.Any, kept: t.Any, store_id: str) -> None:
        if len(self.serializer.encode(kept)) > 8000:
            raise ValueError("Data too long for column 'data'")

        super()._upsert_session(lifetime, kept, store_id)


def journey(
    interface: c.Callable[[Flask], SessionInterface],
    calls: int,
    times: int = 1,
    **properties: t.Any,
) -> tuple[Site, list[str]]:
    """Redirects with calls, from one who has a basket, and what became of them."""
    site = Site()
    site.app.session_interface = interface(site.app)

    def go() -> Response:
        for number in range(calls):
            site.mengpaneel.track(f"E{number}", properties)

        return redirect("/")

    def fill() -> dict[str, str]:
        session["basket"] = "full"
        return {}

    site.view("/fill", fill)
    site.view("/go", go)
    site.view("/", lambda: PAGE)
    site.view("/basket", lambda: {"basket": session.get("basket")})
    client = site.client()
    client.set_cookie(COOKIE, json.dumps(DEVICE))
    client.get("/fill")
    made: list[str] = []

    for _ in range(times):
        assert client.get("/go").status_code == 302
        kept = client.get_cookie("session")
        assert kept is None or len(kept.value) < 4096
        made += names(page_calls(client.get("/")))

    made += [f"track {call.event}" for call in site.kept.calls]

    if not isinstance(site.app.session_interface, Never | Unwilling | OfAnotherApp):
        assert client.get("/basket").json == {"basket": "full"}

    return site, made


each_interface = pytest.mark.parametrize(
    "interface",
    [
        lambda _: OwnCookie(),
        lambda _: Derived(),
        lambda _: Never(),
        lambda _: Unwilling(),
        lambda _: SecureCookieSessionInterface(),
        Store,
    ],
    ids=["own cookie", "derived", "never", "unwilling", "flask", "server"],
)


@each_interface
@pytest.mark.parametrize("answer", [PAGE, "redirect", "{}"])
def test_what_is_held_for_consent_counts_when_it_is_lost(
    interface: c.Callable[[Flask], SessionInterface], answer: str
) -> None:
    site = Site(consent=lambda: None)
    site.app.session_interface = interface(site.app)
    site.view(
        "/",
        lambda: (
            site.mengpaneel.track("View"),
            redirect("/") if answer == "redirect" else answer,
        )[1],
    )
    client = site.client()
    client.get("/")
    balance = site.mengpaneel.ledger().snapshot()

    assert balance.balanced
    # Without consent nothing is delivered, to the session neither.
    assert balance.delivered == 0
    assert balance.dropped == (
        {} if client.get_cookie("session") else {"no consent yet": 1}
    )
    assert site.kept.calls == []


@pytest.mark.parametrize("calls", [1, 3, 80])
@each_interface
def test_a_redirect_loses_neither_calls_nor_session(
    interface: c.Callable[[Flask], SessionInterface], calls: int
) -> None:
    _, made = journey(interface, calls)

    assert sorted(made) == sorted(f"track E{number}" for number in range(calls))


def test_a_session_on_the_server_never_gets_larger_than_that_takes() -> None:
    site = Site(testing=False)
    site.app.session_interface = Column(site.app)

    def go(calls: int) -> Response:
        for _ in range(calls):
            site.mengpaneel.track("Order", {"Text": "x" * 100})

        return redirect("/")

    site.view("/go/<int:calls>", go)
    client = site.visitor(**DEVICE)

    # Those of a chain of redirects add up.
    for calls in (3, 90, 9, 9, 9, 9):
        assert client.get(f"/go/{calls}").status_code == 302

    assert {outcome.strategy for outcome in site.outcomes} == {
        "Delayed",
        "AsyncServerSide",
    }


@pytest.mark.parametrize("calls", [1, 20])
@pytest.mark.parametrize(
    "interface", [LeavesOut, OfAnotherApp, WrittenOnce], ids=lambda kind: kind.__name__
)
def test_a_session_without_a_cookie_is_believed_only_if_it_is_kept(
    interface: type[SessionInterface], calls: int
) -> None:
    def prepared(_app: Flask) -> SessionInterface:
        return interface()

    site, made = journey(prepared, calls, times=3)

    assert sorted(made) == sorted(3 * [f"track E{number}" for number in range(calls)])

    if interface is WrittenOnce:
        assert {outcome.strategy for outcome in site.outcomes} == {
            "Delayed",
            "ClientSide",
        }


@pytest.mark.parametrize("number", [2**63, 20 * 10**18, 2**64, -(2**65)])
def test_a_number_too_large_for_a_session_is_no_error(number: int) -> None:
    for interface in (Store, lambda _: SecureCookieSessionInterface()):
        _, made = journey(interface, 1, Number=number)
        assert made == ["track E0"]


def test_what_is_tried_on_a_server_side_session_leaves_nothing_behind() -> None:
    stores: list[Store] = []

    def interface(app: Flask) -> Store:
        stores.append(Store(app))
        return stores[0]

    journey(interface, 2)
    (data,) = stores[0].kept.values()

    assert b"basket" in data
    assert b"E0" not in data


FLASK = tuple(map(int, importlib.metadata.version("flask").split(".")[:2]))


@pytest.mark.parametrize("length", [*range(2600, 3800, 60), *range(3170, 3200, 3)])
def test_a_cookie_never_gets_larger_than_browsers_take(length: int) -> None:
    # Else the other headers would be the limit.
    site = Site(max_header=8192)
    site.app.config.update(
        SESSION_COOKIE_SECURE=True,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_NAME="a-session-with-a-name",
        SESSION_COOKIE_DOMAIN="localhost",
        PERMANENT_SESSION_LIFETIME=31 * 86400,
    )

    if FLASK >= (3, 1):
        site.app.config["SESSION_COOKIE_PARTITIONED"] = True

    text = "".join(map(chr, random.Random(length).choices(range(40, 127), k=length)))

    def go() -> Response:
        session.permanent = True
        session["user"] = "ann"
        site.mengpaneel.track("Order", {"Text": text})
        return redirect("/page")

    site.view("/go", go)
    response = site.client().get("/go", base_url="https://localhost/")

    (cookie,) = [
        line
        for line in response.headers.getlist("Set-Cookie")
        if line.startswith("a-session")
    ]
    assert len(cookie) <= 4093
    assert site.outcome.strategy in ("Delayed", "AsyncServerSide")


def test_both_sides_of_the_sessions_limit_are_reached() -> None:
    strategies = set()

    for length in (100, 8000):
        site = Site()
        text = "".join(map(chr, random.Random(0).choices(range(40, 127), k=length)))
        site.view(
            "/go",
            lambda site=site, text=text: (
                site.mengpaneel.track("Order", {"Text": text}),
                redirect("/page"),
            )[1],
        )
        site.client().get("/go")
        strategies.add(site.outcome.strategy)

    assert strategies == {"Delayed", "AsyncServerSide"}


class Base64Serializer:
    """One that takes more room than JSON does."""

    def dumps(self, data: t.Any) -> str:
        return base64.b64encode(json.dumps(data).encode()).decode()


@pytest.mark.parametrize("stored", [{}, {"a": "a" * 800}, {"a": "\u00e9" * 200}])
@pytest.mark.parametrize("path", ["/", "/" + "p" * 300])
@pytest.mark.parametrize("letters", ['"', 'abcdefghijklmnop"\\'])
@pytest.mark.parametrize("serializer", [session_json_serializer, Base64Serializer()])
def test_what_is_surely_small_enough_is_so_when_it_is_signed(
    stored: dict[str, t.Any], path: str, letters: str, serializer: t.Any
) -> None:
    app = Flask("app")
    app.config.update(SECRET_KEY="s", SESSION_COOKIE_PATH=path)
    app.config.update(SESSION_COOKIE_DOMAIN="shop.example", SESSION_COOKIE_SECURE=True)
    # Flask's own is that of all apps.
    interface = app.session_interface = SecureCookieSessionInterface()
    interface.serializer = serializer
    # Random letters are compressed to hardly less.
    text = "".join(random.choices(letters, k=500))

    with app.test_request_context():
        size = session_cookie._signed_size(interface, {**stored, "calls": text})
        limits = range(0, 8192, 16)
        small = [
            one
            for one in limits
            if session_cookie._is_small(interface, stored, f"calls{text}", one)
        ]

    # Neither never nor too soon.
    assert small
    assert small[0] >= size
