"""Which way the calls of a request go, by the command and by the header."""

from __future__ import annotations

import typing as t

import pytest
from click.testing import CliRunner
from flask import Response, abort, redirect, request, stream_with_context
from flask.cli import ScriptInfo

from doctor_pages import PAGE
from flask_mengpaneel import Manager
from flask_mengpaneel.cli import mengpaneel as commands
from flask_mengpaneel.doctor.command import examine
from flask_mengpaneel.doctor.examiner import BROWSERS
from session_interfaces import Broken
from sites import ANN, CAPABLE, Site

HEADER = "X-Mengpaneel-Explain"


def shop(**settings: t.Any) -> Site:
    site = Site(**settings)
    mengpaneel = site.mengpaneel

    def order() -> t.Any:
        mengpaneel.track("Order", {"Item": request.form["item"]})
        mengpaneel.people.set({"Plan": "pro"})
        return redirect("/page")

    def signed_in() -> Response:
        return Response(PAGE) if request.cookies.get("session") == "ann" else abort(401)

    site.view("/page", lambda: PAGE)
    site.view("/order", order, methods=["POST"])
    site.view("/account", signed_in)
    site.view("/text", lambda: Response("<h1>Hello", mimetype="text/plain"))
    site.view("/public", lambda: Response(PAGE, headers={"Cache-Control": "public"}))
    site.view("/own", lambda: (setattr(mengpaneel, "strategy", "ServerSide"), PAGE)[1])
    return site


def explain(site: Site, *arguments: str) -> list[str]:
    result = site.app.test_cli_runner().invoke(commands, ["explain", *arguments])
    assert result.exit_code == 0, result.output
    return [" ".join(line.split()) for line in result.output.splitlines()]


def test_it_says_which_way_an_event_would_go() -> None:
    assert explain(shop(), "GET", "/page") == [
        "GET /page: 200 OK",
        "the view tracks nothing; an event goes by ClientSide:",
        "Delayed declines: not a redirect",
        "ClientSide takes them",
        "CapableClientSide isn't asked",
        "AsyncServerSide isn't asked",
        "ServerSide isn't asked",
        "",
        "The response may be given calls in:",
        "page yes",
        "header no: the client doesn't say that it can",
        "session yes",
        "library's cookie yes",
    ]


def test_it_says_which_way_the_calls_of_a_view_go() -> None:
    site = shop()
    lines = explain(site, "POST", "/order", "--data", "item=Dial")

    assert lines[0] == "POST /order: 302 FOUND, to /page"
    assert lines[1] == "track: they go by Delayed:"
    assert site.kept.envelopes == []
    assert site.outcomes == []


@pytest.mark.parametrize(
    ("headers", "sent"),
    [
        ([], "form {'item': 'Dial'}"),
        (["Content-Type: application/json"], "json {'item': 'Dial'}"),
        (["content-type: application/json; charset=utf-8"], "json {'item': 'Dial'}"),
        (["Content-Type: text/csv"], "text/csv 2"),
        (["Content-Type:"], " 2"),
    ],
)
def test_a_body_is_sent_as_what_its_header_says(headers: list[str], sent: str) -> None:
    site = shop()
    seen = []

    def receive() -> str:
        if request.is_json:
            seen.append(f"json {request.get_json()}")
        elif request.form:
            seen.append(f"form {request.form.to_dict()}")
        else:
            seen.append(f"{request.mimetype} {len(request.data)}")

        return PAGE

    site.view("/receive", receive, methods=["POST"])
    data = {"json": '{"item": "Dial"}', "form": "item=Dial"}
    body = data.get(sent.partition(" ")[0], "xy")
    options = [f"--header={header}" for header in headers]
    explain(site, "POST", "/receive", "--data", body, *options)

    assert seen == [sent]


@pytest.mark.parametrize(
    ("settings", "way", "declines"),
    [
        ({}, "AsyncServerSide", True),
        ({"strategy": "ServerSide"}, "ServerSide", False),
    ],
)
def test_it_names_what_a_manager_of_the_view_sends(
    settings: dict[str, t.Any], way: str, declines: bool
) -> None:
    site = shop()

    def refer() -> str:
        with Manager(identify="bob", **settings) as manager:
            manager.track("Be Referred")
            manager.people.set({"Plan": "pro"})

        site.mengpaneel.track("Refer")
        return PAGE

    site.view("/refer", refer)
    lines = explain(site, "GET", "/refer")
    at = lines.index(f"identify, track, people.set: they go by {way}:")

    assert lines[1] == "track: they go by ClientSide:"
    assert at > lines.index("ClientSide takes them")
    reason = "ClientSide declines: no response is to come"
    assert (reason in lines[at:]) == declines
    assert f"{way} takes them" in lines[at:]


def test_it_names_the_operations_that_the_server_makes_for_a_page() -> None:
    site = shop()

    def sign_in() -> str:
        site.mengpaneel.identify("ann")
        site.mengpaneel.people.set({"Plan": "pro"})
        site.mengpaneel.track("Sign In")
        return PAGE

    site.view("/sign-in", sign_in)
    lines = explain(site, "GET", "/sign-in")
    at = lines.index("identify, people.set: they go by AsyncServerSide:")

    assert lines[1] == "identify, track: they go by ClientSide:"
    assert lines[at + 1] == (
        "ClientSide declines: the server makes operations on profiles and groups"
    )


def test_it_names_what_is_tracked_after_the_response() -> None:
    site = shop()

    def numbers() -> t.Iterator[str]:
        yield "1"
        site.mengpaneel.track("Count")

    site.view("/numbers", lambda: Response(stream_with_context(numbers())))
    lines = explain(site, "GET", "/numbers")

    assert "track: they go by AsyncServerSide:" in lines


def test_an_event_is_tried_where_only_a_manager_tracks() -> None:
    site = shop()

    def renew() -> str:
        with Manager(identify="bob") as manager:
            manager.track("Renew")

        return PAGE

    site.view("/renew", renew)
    lines = explain(site, "GET", "/renew")

    assert "nothing else is tracked; an event goes by ClientSide:" in lines
    assert "identify, track: they go by AsyncServerSide:" in lines


@pytest.mark.parametrize(
    ("headers", "body", "mimetype"),
    [
        ({}, PAGE, "text/html"),
        ({}, "<p>part", "text/html"),
        ({}, "{}", "application/json"),
        ({"Cache-Control": "public"}, PAGE, "text/html"),
        ({"Location": "/page"}, "", "text/html"),
        ({"Location": "https://other.test/"}, "", "text/html"),
    ],
)
def test_it_says_of_a_request_what_the_inspector_shows_of_it(
    headers: dict[str, str], body: str, mimetype: str
) -> None:
    site = shop()
    status = 302 if "Location" in headers else 200

    def view() -> Response:
        site.mengpaneel.track("Look")
        return Response(body, status, headers, mimetype)

    site.view("/look", view)
    site.client().get("/look", base_url="https://localhost", headers=BROWSERS["chrome"])
    shown = site.outcome
    lines = explain(site, "GET", "/look")

    assert f"track: they go by {shown.strategy}:" in lines
    assert f"{shown.strategy} takes them" in lines
    declined = [line for line in lines if " declines: " in line]
    assert [line.partition(" -> ")[0] for line in declined] == [
        f"{name} declines: {reason}" for name, reason in shown.declined.items()
    ]


@pytest.mark.parametrize(
    ("arguments", "way", "reason"),
    [
        (["/text"], "AsyncServerSide", "declines: not HTML -> if it is a page, say so"),
        (["/public"], "AsyncServerSide", "shared caches may keep the page -> Cache-"),
        (["/own"], "ServerSide", "AsyncServerSide isn't asked"),
        (["/page", "--as-browser", "none"], "AsyncServerSide", "is not a browser"),
        (["/page", "--as-browser", "firefox"], "ClientSide", ""),
        (
            [
                "/page",
                *("--header", "X-Mengpaneel-Flush-Capable: true"),
                *("--header", "Sec-Fetch-Dest: empty"),
            ],
            "CapableClientSide",
            "fetched by a script",
        ),
        (
            ["/page", "--cookie", "mengpaneel_blocked=1"],
            "AsyncServerSide",
            "the browser library is blocked in this browser",
        ),
        (
            ["/page", "--header", "Cookie: mengpaneel_blocked=1"],
            "AsyncServerSide",
            "the browser library is blocked in this browser",
        ),
        (["/account", "--cookie", "session=ann"], "ClientSide", "200 OK"),
        (["/account"], "AsyncServerSide", "401 UNAUTHORIZED"),
    ],
)
def test_the_visitor_is_whoever_the_options_say(
    arguments: list[str], way: str, reason: str
) -> None:
    lines = explain(shop(), "get", *arguments)

    assert f"an event goes by {way}:" in "\n".join(lines)
    assert any(reason in line for line in lines)


@pytest.mark.parametrize(
    ("settings", "arguments", "why"),
    [
        ({}, ["--header", "Sec-GPC: 1"], "this visitor hasn't consented (Sec-GPC)."),
        ({}, ["--header", "DNT: 1"], "this visitor hasn't consented (DNT)."),
        (
            {},
            ["--cookie", "__mp_opt_in_out_token=0"],
            "this visitor hasn't consented (opted out).",
        ),
        (
            {"consent": lambda: False},
            ["--ask-consent"],
            "this visitor hasn't consented (MENGPANEEL_CONSENT).",
        ),
        ({"consent": lambda: None}, ["--ask-consent"], "nobody has asked whether this"),
    ],
)
def test_it_says_why_nothing_is_tracked(
    settings: dict[str, t.Any], arguments: list[str], why: str
) -> None:
    lines = explain(shop(**settings), "GET", "/page", *arguments)
    assert lines[1].startswith(f"Nothing is tracked: {why}")

    if settings:
        (line,) = explain(shop(**settings), "GET", "/page")[1:2]
        assert line.endswith("an event goes by ClientSide:")


@pytest.mark.parametrize(
    ("settings", "arguments", "waits"),
    [
        ({}, [], True),
        ({"SECRET_KEY": None}, [], False),
        ({}, ["--as-browser", "none"], False),
        ({"consent": lambda: False}, [], False),
    ],
)
def test_it_says_of_a_visitor_who_was_not_asked_what_becomes_of_the_calls(
    settings: dict[str, t.Any], arguments: list[str], waits: bool
) -> None:
    site = shop(**{"consent": lambda: None, **settings})
    site.app.secret_key = settings.get("SECRET_KEY", "secret")
    lines = explain(site, "GET", "/page", "--ask-consent", *arguments)

    assert ("What it calls waits in the session until then." in lines) == waits
    assert ("session yes" in lines) == (waits or "consent" in settings)


def test_it_says_what_the_request_shows_of_what_is_around_the_app() -> None:
    proxied = ["--header", "X-Forwarded-For: 203.0.113.7"]
    lines = explain(shop(), "GET", "/page", *proxied)

    assert lines[1].startswith("warning: a request came through a proxy")


def test_a_wrong_setting_is_said() -> None:
    def create() -> t.Any:
        return Site(api_host="https://api.eu.mixpanel.com").app

    info = ScriptInfo(create_app=create)
    result = CliRunner().invoke(commands, ["explain", "GET", "/"], obj=info)

    assert result.exit_code == 1
    assert "Did you mean 'https://api-eu.mixpanel.com'?" in result.output


def test_paths_of_the_extension_are_left_alone() -> None:
    lines = explain(shop(), "GET", "/_mengpaneel/static/mengpaneel.js")

    assert lines[-1].startswith("The extension leaves this response alone")


def test_without_a_token_there_is_nothing_to_explain() -> None:
    (line,) = explain(shop(enabled=False), "GET", "/page")

    assert line == "Nothing is tracked: MENGPANEEL_ENABLED is False."


@pytest.mark.parametrize("option", ["--cookie=session", "--header=X", "--header=: a"])
def test_options_that_say_nothing_are_refused(option: str) -> None:
    runner = shop().app.test_cli_runner()
    result = runner.invoke(commands, ["explain", "GET", "/", option])

    assert result.exit_code == 2
    assert "isn't" in result.output


@pytest.mark.parametrize("testing", [False, True])
def test_a_view_that_raises_is_said(testing: bool) -> None:
    site = shop(testing=testing)
    site.view("/broken", lambda: {}["nothing"])
    result = site.app.test_cli_runner().invoke(commands, ["explain", "GET", "/broken"])

    assert result.exit_code == 1
    assert "the view raises KeyError('nothing')" in result.output


@pytest.mark.parametrize("command", [["doctor"], ["explain", "GET"]], ids=str)
def test_what_is_no_address_is_refused(command: list[str]) -> None:
    runner = shop().app.test_cli_runner()
    result = runner.invoke(commands, [*command, "http://[::1"])

    assert result.exit_code == 2
    assert "'http://[::1' isn't a path or a URL" in result.output


def test_a_body_that_is_not_what_its_header_says_is_no_failure_of_the_view() -> None:
    site = shop()
    headers = {"Content-Encoding": "gzip"}
    site.view("/odd", lambda: Response(PAGE, mimetype="text/html", headers=headers))
    lines = explain(site, "GET", "/odd")

    assert any("ClientSide" in line and "the body is encoded" in line for line in lines)


def test_middleware_that_answers_is_said() -> None:
    site = shop()
    site.app.wsgi_app = Response("Later", 503)  # type: ignore[method-assign]
    result = site.app.test_cli_runner().invoke(commands, ["explain", "GET", "/page"])

    assert result.exit_code == 1
    assert "middleware answers in the app's place, with 503" in result.output


# -- the header


@pytest.mark.parametrize(
    ("path", "headers", "said"),
    [
        (
            "/track",
            {},
            "ClientSide took 1 call; Delayed declined: not a redirect; may be given"
            " calls in: page, session, library's cookie; not in the header: the client"
            " doesn't say that it can",
        ),
        ("/track", CAPABLE, "CapableClientSide took 1 call; Delayed declined: not a"),
        ("/page", {}, "no calls; may be given calls in: page, session"),
        ("/text", {}, "not in the page: not HTML"),
        ("/text", {"User-Agent": "Stripe/1.0"}, "not in the session: the client won't"),
        ("/track", {"Sec-GPC": "1"}, "no calls; this visitor hasn't consented (Sec"),
        ("/fragment", {}, "not in the page: no </head> or </body>, or a frameset"),
        ("/nowhere", {}, "no calls; may be given calls in: "),
    ],
)
def test_responses_say_while_debugging_what_has_become_of_their_calls(
    path: str, headers: dict[str, str], said: str
) -> None:
    site = shop(debug=True)
    site.view("/track", lambda: (site.mengpaneel.track("A"), PAGE)[1])
    site.view("/fragment", lambda: "<p>")
    response = site.client().get(path, headers=headers)

    assert said in response.headers[HEADER]


@pytest.mark.parametrize("tracks", [False, True])
def test_a_response_names_what_goes_beside_its_calls(tracks: bool) -> None:
    site = shop(debug=True)

    def refer() -> str:
        with Manager(identify="bob") as manager:
            manager.track("Be Referred")

        if tracks:
            site.mengpaneel.track("A")
            site.mengpaneel.people.set({"Plan": "pro"})

        return PAGE

    site.view("/refer", refer)
    said = site.visitor(**ANN).get("/refer").headers[HEADER]
    beside = ["beside that AsyncServerSide took 2 calls: identify, track"]

    if tracks:
        beside.append("beside that AsyncServerSide took 1 call: people.set")

    assert said.startswith("ClientSide took 1 call;" if tracks else "no calls;")
    assert said.split("; ")[-len(beside) :] == beside
    # The next request has none of it.
    assert "beside" not in site.client().get("/page").headers[HEADER]


def test_a_reason_with_whatever_text_makes_a_header() -> None:
    def nonce() -> t.Any:
        raise LookupError("nöthing\r\nSet-Cookie: a=b" + "x" * 9000)

    site = shop(debug=True, testing=False, csp_nonce=nonce)
    site.view("/track", lambda: (site.mengpaneel.track("A"), PAGE)[1])
    response = site.client().get("/track")

    assert (
        "ClientSide declined: failed: LookupError('n?thing" in response.headers[HEADER]
    )
    assert len(response.headers[HEADER]) == 1500


def test_what_can_not_be_explained_is_carried_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    site = shop(debug=True, testing=False)
    site.app.session_interface = Broken()
    site.view("/track", lambda: (site.mengpaneel.track("A"), PAGE)[1])
    response = site.client().get("/track")

    assert HEADER not in response.headers
    assert site.outcome.strategy == "ClientSide"
    assert '"A"' in response.text
    assert "a response could not be explained" in caplog.text


def test_one_response_for_all_keeps_nothing_of_it() -> None:
    kept = Response("same")
    site = shop(debug=True)
    site.view("/same", lambda: kept)
    assert HEADER in site.client().get("/same").headers

    assert HEADER not in kept.headers


@pytest.mark.parametrize("examined", [False, True])
def test_no_response_says_it_otherwise(examined: bool) -> None:
    site = shop()

    if examined:
        explain(site, "GET", "/page")

    for path in ("/page", "/text", "/order"):
        assert HEADER not in site.client().get(path).headers


def test_no_response_says_it_any_more_when_debugging_is_over() -> None:
    site = shop(debug=True)
    assert HEADER in site.client().get("/page").headers
    site.app.debug = False

    assert HEADER not in site.client().get("/page").headers


def test_responses_say_it_also_after_the_doctor_was_there() -> None:
    site = shop(debug=True)
    assert examine(site.app, ["/page"]) == []

    assert HEADER in site.client().get("/page").headers
