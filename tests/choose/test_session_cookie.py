"""Sessions of Flask's and of other extensions: their limits, and what they hold."""

from __future__ import annotations

import base64
import collections.abc as c
import importlib.metadata
import json
import random
import typing as t

import pytest
from flask import Flask, Response, redirect, session
from flask.sessions import (
    SecureCookieSession,
    SecureCookieSessionInterface,
    SessionInterface,
    SessionMixin,
)
from flask_session.base import ServerSideSessionInterface

from sites import (
    COOKIE,
    KNOWN,
    PAGE,
    Site,
    names,
    page_calls,
)


class Plain(SecureCookieSession):
    pass


class OwnCookie(SessionInterface):
    """Keeps the data in a cookie, in a way of its own."""

    session_class = Plain

    def open_session(self, app: Flask, request: t.Any) -> Plain:
        value = request.cookies.get("session")
        return Plain(json.loads(base64.b64decode(value)) if value else {})

    def save_session(self, app: Flask, kept: SessionMixin, response: t.Any) -> None:
        if kept.modified:
            value = base64.b64encode(json.dumps(dict(kept)).encode()).decode()
            response.set_cookie("session", value)


class Never(SecureCookieSessionInterface):
    """As Flask-Login's documentation has it for APIs."""

    def save_session(self, *args: t.Any, **kwargs: t.Any) -> None:
        return None


class Unwilling(SecureCookieSessionInterface):
    def should_set_cookie(self, *args: t.Any, **kwargs: t.Any) -> bool:
        return False


class Store(ServerSideSessionInterface):
    """Flask-Session's, which packs the data with msgpack, and a dict."""

    def __init__(self, app: Flask) -> None:
        self.kept: dict[str, bytes] = {}
        super().__init__(app, "s:", False, False, 32, "msgpack")

    def _retrieve_session_data(self, store_id: str) -> dict[str, t.Any] | None:
        data = self.kept.get(store_id)
        return None if data is None else self.serializer.decode(data)

    def _delete_session(self, store_id: str) -> None:
        self.kept.pop(store_id, None)

    def _upsert_session(self, _: t.Any, kept: t.Any, store_id: str) -> None:
        self.kept[store_id] = self.serializer.encode(kept)


def journey(
    interface: c.Callable[[Flask], SessionInterface], calls: int, **properties: t.Any
) -> tuple[Site, list[str]]:
    """A redirect with calls, from one who has a basket, and what became of them."""
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
    client.set_cookie(COOKIE, json.dumps(KNOWN))
    client.get("/fill")
    assert client.get("/go").status_code == 302
    kept = client.get_cookie("session")
    assert kept is None or len(kept.value) < 4096
    made = names(page_calls(client.get("/")))
    made += [f"track {call.event}" for call in site.kept.calls]

    if not isinstance(site.app.session_interface, Never | Unwilling):
        assert client.get("/basket").json == {"basket": "full"}

    return site, made


each_interface = pytest.mark.parametrize(
    "interface",
    [
        lambda _: OwnCookie(),
        lambda _: Never(),
        lambda _: Unwilling(),
        lambda _: SecureCookieSessionInterface(),
        Store,
    ],
    ids=["own cookie", "never", "unwilling", "flask", "server"],
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
    books = site.mengpaneel.ledger().snapshot()

    assert books.balanced
    # Without consent nothing is delivered, to the session neither.
    assert books.delivered == 0
    assert books.dropped == (
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
