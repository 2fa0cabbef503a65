"""The panel of Flask-DebugToolbar."""

from __future__ import annotations

import html
import re
import typing as t
from concurrent.futures import ThreadPoolExecutor

import pytest
from flask import Flask, redirect
from flask_debugtoolbar import DebugToolbarExtension

# They add views to the toolbar's blueprint, which no app may have by then.
from flask_debugtoolbar.panels import sqlalchemy, template  # noqa: F401
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from flask_mengpaneel import Manager, Mengpaneel
from session_interfaces import Broken
from sites import PAGE, Site

PANEL = "flask_mengpaneel.debug_toolbar.MengpaneelPanel"


def make_site(
    order: str = "before",
    intercepts: bool = True,
    panel: str = PANEL,
    **settings: t.Any,
) -> Site:
    """Make an app with the toolbar, which is initialised before the extension or
    after it."""
    mengpaneel = Mengpaneel()

    def add_toolbar(app: Flask) -> None:
        app.debug = True
        app.config.update(
            DEBUG_TB_PANELS=[panel], DEBUG_TB_INTERCEPT_REDIRECTS=intercepts
        )
        DebugToolbarExtension(app)

    prepare = add_toolbar if order == "before" else lambda app: None
    site = Site(mengpaneel=mengpaneel, prepare=prepare, **settings)

    if order == "after":
        add_toolbar(site.app)

    @site.app.get("/page")
    def page() -> str:
        mengpaneel.track("View", {"Text": "</script><b>"})
        return PAGE

    @site.app.post("/orders")
    def order_() -> t.Any:
        mengpaneel.track("Order")
        return redirect("/page")

    @site.app.get("/quiet")
    def quiet() -> str:
        return PAGE

    @site.app.get("/sold-out")
    def sold_out() -> str:
        with Session(create_engine("sqlite://")) as database:
            mengpaneel.on_commit(database).track("Order")

        return PAGE

    @site.app.get("/plan")
    def plan() -> str:
        mengpaneel.people.set("Plan", "pro")
        return PAGE

    @site.app.get("/job")
    def job() -> str:
        with Manager(identify=7) as manager:
            manager.track("Work")

        mengpaneel.identify("9")
        return PAGE

    return site


def panel_of(text: str) -> str:
    """What a reader sees of the panel."""
    panels = re.findall(r"<!--content (\w+)-->(.*?)<!--content \1-->", text, re.S)
    ((_, panel),) = panels
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", panel)).split())


def subtitle_of(text: str) -> str:
    ((_, found),) = re.findall(
        r"<!--subtitle (\w+)-->(.*?)<!--subtitle \1-->", text, re.S
    )
    return str(found)


@pytest.mark.parametrize("order", ["before", "after"])
def test_the_panel_shows_calls_their_way_and_why(order: str) -> None:
    text = make_site(order).client().get("/page").text
    panel = panel_of(text)

    assert "track('View', {'Text': '</script><b>'}) by ClientSide" in panel
    assert "</script><b>" not in text
    assert "ClientSide took 1 call" in panel
    assert "Delayed not a redirect" in panel
    assert "calls in the page yes" in panel
    assert "consent: given" in panel
    assert re.search(r"took \d+\.\d\d ms", panel)
    assert subtitle_of(text) == "1 call: ClientSide"


def test_the_panel_shows_what_is_rolled_back() -> None:
    panel = panel_of(make_site().client().get("/sold-out").text)

    assert "track('Order', {}) dropped: rolled back" in panel


def test_what_waits_for_its_person_has_no_way_so_far() -> None:
    panel = panel_of(make_site().client().get("/plan").text)

    assert "people.set({'Plan': 'pro'}) no way so far" in panel


@pytest.mark.parametrize(
    ("order", "way", "status"),
    [("before", "Delayed", "302 FOUND"), ("after", "ClientSide", "200 OK")],
)
def test_an_intercepted_redirect_shows_what_was_chosen(
    order: str, way: str, status: str
) -> None:
    site = make_site(order)
    client = site.client()
    first = client.post("/orders")
    second = client.get("/page")

    assert f"track('Order', {{}}) by {way}" in panel_of(first.text)
    assert f"The response was {status}" in panel_of(first.text)
    assert ("before Mengpaneel was asked" in first.text) is (order == "after")
    assert subtitle_of(first.text) == f"1 call: {way}"
    # What waited is shown where it is made.
    assert ("'Order'" in panel_of(second.text)) is (order == "before")
    assert "'View'" in panel_of(second.text)
    assert int(first.headers["Content-Length"]) == len(first.data)


@pytest.mark.parametrize("order", ["before", "after"])
def test_a_followed_redirect_shows_all_on_the_page(order: str) -> None:
    client = make_site(order, intercepts=False).client()
    page = client.post("/orders", follow_redirects=True)

    assert "2 calls: ClientSide" in subtitle_of(page.text)


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize(
    ("path", "settings", "headers", "expected"),
    [
        ("/quiet", {}, {}, ["No calls were recorded", "the browser library yes"]),
        ("/page", {}, {"Sec-GPC": "1"}, ["No calls were recorded", "consent: refused"]),
        (
            "/page",
            {"consent": lambda: None},
            {},
            ["no way so far", "consent: not asked yet"],
        ),
        ("/page", {"enabled": False}, {}, ["MENGPANEEL_ENABLED is False"]),
        (
            "/job",
            {},
            {},
            ["identify('7') by AsyncServerSide", "ClientSide no response is to come"],
        ),
        (
            "/page",
            {},
            {"User-Agent": "curl/8"},
            ["calls in the page no: the client is not a browser"],
        ),
    ],
)
def test_the_panel_says_why_nothing_is_there(
    order: str,
    path: str,
    settings: dict[str, t.Any],
    headers: dict[str, str],
    expected: list[str],
) -> None:
    client = make_site(order, **settings).client()
    panel = panel_of(client.get(path, headers=headers).text)

    for text in expected:
        assert text in panel


def test_where_the_panel_can_t_look_the_calls_go_all_the_same() -> None:
    site = make_site(testing=False)
    site.app.session_interface = Broken()
    response = site.client().get("/page")

    assert response.status_code == 200
    assert "ClientSide took 1 call" in panel_of(response.text)


def test_an_app_without_the_extension_is_told() -> None:
    app = Flask("shop")
    app.debug = True
    app.secret_key = "secret"
    app.config["DEBUG_TB_PANELS"] = [PANEL]
    DebugToolbarExtension(app)
    app.add_url_rule("/", view_func=lambda: PAGE)

    assert "This app has no Mengpaneel" in panel_of(app.test_client().get("/").text)


def test_requests_at_once_have_panels_of_their_own() -> None:
    """While one is answered, another is; the toolbar hides from a third."""
    site = make_site()
    inner: list[str] = []

    @site.app.get("/outer")
    def outer() -> str:
        site.mengpaneel.track("Before")

        with ThreadPoolExecutor() as pool:
            inner.append(pool.submit(site.client().get, "/page").result().text)

        site.mengpaneel.track("After")
        return PAGE

    text = site.client().get("/outer").text

    assert "'View'" not in panel_of(text)
    assert "'Before'" in panel_of(text) and "'After'" in panel_of(text)
    assert "'Before'" not in panel_of(inner[0])

    site.app.config["DEBUG_TB_HOSTS"] = ["192.0.2.1"]
    assert "flDebug" not in site.client().get("/page").text


def test_without_the_panel_nothing_is_different() -> None:
    site = make_site(panel="flask_debugtoolbar.panels.g.GDebugPanel")
    site.client().get("/page")

    modules = {function.__module__ for function in site.app.after_request_funcs[None]}
    assert "flask_mengpaneel.debug_toolbar.panel" not in modules
