"""What docs/moving.md says of the page's snippet: an app before it moves, and the same
app after, in a browser that keeps its cookies."""

from __future__ import annotations

import collections.abc as c
import json
import re
import typing as t
from urllib.parse import urlsplit

import pytest
from flask import (
    Flask,
    Response,
    redirect,
    render_template_string,
    send_from_directory,
    session,
)
from playwright.sync_api import BrowserContext
from script_pages import LIBRARY, ROOT, Api, without_errors

from flask_mengpaneel.testing import RecordingTransport
from needs import need_npm
from servers import Server
from waiting import eventually

PAGE = ROOT / "docs" / "moving.md"
POST = "() => document.querySelector('form').submit()"
PAGE_VIEW = "$mp_web_page_view"
FORM = '<form method="post" action="/sign-up"></form>'


def block(language: str) -> str:
    _, _, text = PAGE.read_text().partition("## From the page's snippet\n")
    found = re.search(rf"^```{language}\n(.*?)^```", text, re.M | re.S)
    assert found is not None
    return found[1]


def before(api: Api) -> Flask:
    """The app around the template that the page begins with.

    The snippet is that of the installed library; only addresses are a test's.
    """
    package = need_npm("mixpanel-browser")
    snippet = (package / "dist" / "mixpanel-jslib-snippet.min.js").read_text()
    snippet = f'MIXPANEL_CUSTOM_LIB_URL = "{LIBRARY}";\n{snippet}'
    options = json.dumps({"api_host": api.url})
    template = block("html").replace("/* Mixpanel's snippet */", snippet)
    template = template.replace('init("TOKEN")', f'init("TOKEN", {options})')
    app = Flask("before")
    app.secret_key = "secret"

    @app.post("/sign-up")
    def sign_up() -> t.Any:
        session.update(user={"id": "42", "plan": "pro"}, just_signed_up=True)
        return redirect("/welcome")

    @app.get("/welcome")
    def welcome() -> str:
        return render_template_string(
            f"<!doctype html><title>Welcome</title>{template}<h1>Welcome</h1>",
            user=session["user"],
            just_signed_up=session.pop("just_signed_up", False),
        )

    return app


def after(api: Api, **options: t.Any) -> Flask:
    code = block("python").replace(
        "\nmengpaneel =", "\napp.config.from_mapping(settings)\nmengpaneel =", 1
    )
    settings = {
        "MENGPANEEL_LIBRARY_URL": LIBRARY,
        "MENGPANEEL_CLIENT_CONFIG": {"api_host": api.url, **options},
        "MENGPANEEL_TRANSPORT": RecordingTransport(),
    }
    names: dict[str, t.Any] = {"__name__": "after", "settings": settings}
    exec(code, names)
    return t.cast(Flask, names["app"])


def serve_packages(app: Flask) -> None:
    packages = need_npm("mixpanel-browser").parent

    @app.get("/npm/<path:name>")
    def package(name: str) -> Response:
        return send_from_directory(packages, name)


def sign_up(app: Flask, api: Api, context: BrowserContext) -> dict[str, t.Any]:
    """Sign up, and return the properties of the event."""
    api.records.clear()
    serve_packages(app)

    @app.get("/")
    def home() -> str:
        return f"<!doctype html><title>Home</title>{FORM}"

    with Server(app) as server, without_errors(context.new_page()) as tab:
        tab.goto(server.url)
        tab.evaluate(POST)
        eventually(lambda: "Sign Up" in api.events)
        tab.close()

    assert api.events == ["Sign Up"]
    return api.named("Sign Up")


def test_a_visitor_before_and_after(api: Api, context: BrowserContext) -> None:
    old = sign_up(before(api), api, context)
    new = sign_up(after(api), api, context)

    # In what was queued it says which version has sent it.
    assert old.keys() - new.keys() == {"mp_sent_by_lib_version"}
    same = ["distinct_id", "$user_id", "$device_id", "Plan"]
    assert [old[name] for name in same] == [new[name] for name in same]
    assert old["distinct_id"] == "42"
    paths = [urlsplit(one["$current_url"]).path for one in (old, new)]
    assert paths == ["/welcome", "/sign-up"]


@pytest.mark.parametrize("make", [before, after])
def test_a_new_visitor_before_or_after(
    api: Api, context: BrowserContext, make: c.Callable[[Api], Flask]
) -> None:
    event = sign_up(make(api), api, context)
    eventually(lambda: [one for one in api.records if one.label == "$identify"])
    device = event["$device_id"]

    assert event["distinct_id"] == event["$user_id"] == "42"
    (joined,) = (one.message for one in api.records if one.label == "$identify")
    assert joined["properties"]["$user_id"] == "42"
    assert joined["properties"]["$anon_distinct_id"] == f"$device:{device}"


def test_the_page_s_own_calls_after(api: Api, context: BrowserContext) -> None:
    app = after(api, track_pageview=True)
    serve_packages(app)

    @app.get("/")
    def home() -> str:
        # Nothing of Mixpanel's is there before the end of the head.
        head = "<script>before = typeof mixpanel</script>"
        body = '<script>mixpanel.track("Show Offer")</script>'
        return f"<!doctype html><head>{head}</head><body>{body}</body>"

    with Server(app) as server, without_errors(context.new_page()) as tab:
        tab.goto(server.url)
        eventually(lambda: "Show Offer" in api.events)
        eventually(lambda: [one for one in api.records if one.label == PAGE_VIEW])
        assert tab.evaluate("before") == "undefined"
        tab.close()

    assert api.events == ["Show Offer"]
    assert [one.label for one in api.records].count(PAGE_VIEW) == 1
