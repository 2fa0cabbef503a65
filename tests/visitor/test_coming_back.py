"""Whether a visitor comes back to this app, and brings what is given to them."""

from __future__ import annotations

import typing as t

import pytest
from flask import Flask, redirect, session
from flask.sessions import (
    SecureCookieSession,
    SecureCookieSessionInterface,
    SessionInterface,
    SessionMixin,
)
from werkzeug import Response
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from flask_mengpaneel import reasons
from session_interfaces import SECURING
from sites import ANN, COOKIE, PAGE, Site, hand_overs, names, page_calls

FROM_ELSEWHERE = {
    "Sec-Fetch-Site": "cross-site",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Dest": "document",
}
IN_A_FRAME = {
    "Sec-Fetch-Site": "same-origin",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Dest": "iframe",
    "Sec-Fetch-Storage-Access": "none",
}


def make_site(**settings: t.Any) -> Site:
    site = Site(**settings)

    def paid() -> str:
        site.mengpaneel.track("Paid")
        return "ok"

    def returned() -> Response:
        site.mengpaneel.track("Paid")
        return redirect("/thanks")

    site.view("/paid", paid, methods=["GET", "POST"])
    site.view("/return", returned, methods=["GET", "POST"])
    site.view("/thanks", lambda: PAGE)
    return site


# -- cookies that stayed at home


@pytest.mark.parametrize("path", ["/paid", "/return"])
@pytest.mark.parametrize(
    ("method", "headers"),
    [("POST", FROM_ELSEWHERE), ("GET", IN_A_FRAME)],
    ids=["a post from another site", "a frame without storage"],
)
def test_what_came_without_cookies_replaces_none(
    method: str, headers: dict[str, str], path: str
) -> None:
    site = make_site()
    response = site.client().open(path, method=method, headers=headers)

    assert "Set-Cookie" not in response.headers
    assert [call.event for call in site.kept.calls] == ["Paid"]


def test_a_link_on_another_site_brings_the_session_along() -> None:
    site = make_site()
    client = site.client()
    client.get("/return", headers=FROM_ELSEWHERE)

    assert names(page_calls(client.get("/thanks"))) == ["track Paid"]


# Werkzeug takes it in any case.
@pytest.mark.parametrize("samesite", ["Strict", "strict"])
def test_a_link_on_another_site_brings_no_session_that_is_strict(samesite: str) -> None:
    site = make_site()
    site.app.config["SESSION_COOKIE_SAMESITE"] = samesite
    response = site.client().get("/return", headers=FROM_ELSEWHERE)

    assert "session=" not in str(response.headers)
    assert [call.event for call in site.kept.calls] == ["Paid"]


def test_a_session_that_came_along_takes_the_calls() -> None:
    site = make_site()
    client = site.visitor(**ANN)

    with client.session_transaction() as kept:
        kept["user"] = "ann"

    client.post("/return", headers=FROM_ELSEWHERE)

    assert names(page_calls(client.get("/thanks"))) == ["track Paid"]

    with client.session_transaction() as kept:
        assert kept["user"] == "ann"


# -- redirects that lead away


def test_who_is_sent_on_to_another_site_leaves_no_calls_behind() -> None:
    site = Site()

    def checkout() -> Response:
        site.mengpaneel.track("Start Checkout")
        return redirect("/pay")

    site.view("/checkout", checkout)
    site.view("/pay", lambda: redirect("https://pay.example/"))
    client = site.visitor(**ANN)
    client.get("/checkout")
    client.get("/pay")

    (message,) = site.messages
    assert message["event"] == "Start Checkout"
    assert message["properties"]["distinct_id"] == "ann"

    # Nor does a later page find any.
    with client.session_transaction() as kept:
        assert dict(kept) == {}


def test_a_redirect_beside_the_path_at_which_an_app_is_mounted_leaves_it() -> None:
    site = Site()

    def leave() -> Response:
        site.mengpaneel.track("Left")
        return redirect("/other/page")

    site.view("/leave", leave)
    site.app.wsgi_app = DispatcherMiddleware(  # type: ignore[method-assign]
        Flask("other"), {"/shop": site.app.wsgi_app}
    )
    site.client().get("/shop/leave")

    assert site.outcomes[0].declined["Delayed"] == reasons.ANOTHER_APP
    assert [call.event for call in site.kept.calls] == ["Left"]


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("http://localhost/", "https://localhost/page"),
        ("https://localhost/", "http://localhost/page"),
        ("http://localhost/", "/page"),
    ],
)
@pytest.mark.parametrize("setting", SECURING)
def test_over_plain_http_no_session_is_kept_that_is_secure(
    setting: str, url: str, location: str
) -> None:
    site = Site()
    site.app.config[setting] = True

    def go() -> Response:
        site.mengpaneel.track("Order")
        return redirect(location)

    site.view("/", go)
    response = site.client().get("/", base_url=url)

    assert "session=" not in str(response.headers)
    assert [call.event for call in site.kept.calls] == ["Order"]


# -- sessions


@pytest.mark.parametrize("user", [None, "ann"])
def test_a_view_that_clears_the_session_loses_no_calls(user: str | None) -> None:
    site = Site()

    def delete() -> Response:
        site.mengpaneel.track("Delete Account")
        return redirect("/next")

    def clear() -> Response:
        session.clear()

        if user:
            session["user"] = user

        return redirect("/")

    site.view("/delete", delete)
    site.view("/next", clear)
    site.view("/", lambda: PAGE)
    client = site.client()
    client.get("/delete")
    client.get("/next")
    page = client.get("/")

    assert names(page_calls(page)) == ["track Delete Account"]

    with client.session_transaction() as kept:
        assert dict(kept) == ({"user": user} if user else {})


def test_apps_that_share_a_session_get_their_own_calls_only() -> None:
    first, second = make_site(), make_site(token="another-project")
    second.app.secret_key = first.app.secret_key
    first.app.wsgi_app = DispatcherMiddleware(  # type: ignore[method-assign]
        first.app.wsgi_app, {"/second": second.app.wsgi_app}
    )
    client = first.client()
    client.get("/return")

    assert hand_overs(client.get("/second/thanks")) == []
    assert names(page_calls(client.get("/thanks"))) == ["track Paid"]


class OnServer(SessionInterface):
    """Keeps sessions in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, t.Any]] = {}

    def open_session(self, app: Flask, request: t.Any) -> SecureCookieSession:
        return SecureCookieSession(self.kept.get(request.cookies.get("session"), {}))

    def save_session(self, app: Flask, stored: SessionMixin, response: t.Any) -> None:
        if stored.modified:
            key = f"session-{len(self.kept)}"
            self.kept[key] = dict(stored)
            response.set_cookie("session", key)


@pytest.mark.parametrize("interface", [SecureCookieSessionInterface, OnServer])
@pytest.mark.parametrize("consent", [True, None])
def test_a_session_of_another_app_is_left_alone(
    consent: bool | None, interface: type[SessionInterface]
) -> None:
    first, second = make_site(), make_site(consent=lambda: consent)
    # Both have the same name for it, and each a key of its own.
    second.app.secret_key = "another"
    second.app.session_interface = interface()
    first.app.wsgi_app = DispatcherMiddleware(  # type: ignore[method-assign]
        first.app.wsgi_app, {"/second": second.app.wsgi_app}
    )

    def sign_in() -> str:
        session["user"] = "ann"
        return "ok"

    def go() -> Response:
        second.mengpaneel.track("Paid")
        return redirect("/second/thanks")

    first.view("/sign-in", sign_in)
    second.view("/go", go)
    client = first.client()
    client.get("/sign-in")
    before = client.get_cookie("session")
    assert client.get("/second/go").status_code == 302
    assert client.get("/second/thanks").status_code == 200

    assert client.get_cookie("session") == before
    assert [call.event for call in second.kept.calls] == ["Paid"] * bool(consent)


# -- clients that keep no cookies


def test_a_webhook_that_says_who_it_is_about_adds_no_device() -> None:
    site = Site()

    def pay() -> str:
        with site.mengpaneel.setup():
            site.mengpaneel.identify("ann")

        site.mengpaneel.track("Pay")
        site.mengpaneel.people.increment("Payments")
        return "ok"

    site.view("/pay", pay)
    site.client("Stripe/1.0").get("/pay")
    event, update = site.messages

    assert event["properties"]["distinct_id"] == "ann"
    assert "$device_id" not in event["properties"]
    assert update["$distinct_id"] == "ann"
    assert "$device_id" not in update


def test_a_browser_that_says_who_it_is_keeps_its_device() -> None:
    site = Site()

    def sign_in() -> str:
        with site.mengpaneel.setup():
            site.mengpaneel.identify("ann")

        site.mengpaneel.track("Sign In")
        return "ok"

    site.view("/sign-in", sign_in)
    client = site.client()
    client.get("/sign-in")
    client.get("/sign-in")
    first, second = (message["properties"] for message in site.messages)

    assert first["$device_id"] == second["$device_id"]
    assert client.get_cookie(COOKIE) is not None
