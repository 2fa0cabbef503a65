from __future__ import annotations

import collections.abc as c
import io
import random
import typing as t

import pytest
from flask import (
    Response,
    abort,
    redirect,
    send_file,
    session,
    stream_with_context,
)

from flask_mengpaneel import Envelope, Manager, Transport
from flask_mengpaneel.config import STRATEGIES
from sink import Sink
from sites import (
    CAPABLE,
    PAGE,
    Site,
    block,
    header_calls,
    names,
    page_calls,
    set_library_cookie,
)

# The browser's own ids, so that the server has none to tell it.
KNOWN = {"distinct_id": "$device:d1", "$device_id": "d1"}


def page(**headers: str) -> Response:
    return Response(PAGE, headers={k.replace("_", "-"): v for k, v in headers.items()})


def with_header(name: str, value: str, body: str = PAGE) -> c.Callable[[], Response]:
    def respond() -> Response:
        return Response(body, mimetype="text/html", headers={name: value})

    return respond


def typed(mimetype: str, body: str | bytes = PAGE) -> c.Callable[[], Response]:
    return lambda: Response(body, content_type=mimetype)


def status(code: int) -> c.Callable[[], Response]:
    return lambda: Response(PAGE if code != 204 else "", status=code)


def located(code: int, location: str) -> c.Callable[[], Response]:
    return lambda: Response("", code, {"Location": location})


def streamed() -> Response:
    return Response(iter([PAGE]))


def passed_through() -> Response:
    return Response(io.BytesIO(PAGE.encode()), direct_passthrough=True)


def sent_file() -> Response:
    return send_file(io.BytesIO(PAGE.encode()), mimetype="text/html")


def json_with_etag() -> Response:
    response = Response("{}", mimetype="application/json")
    response.set_etag("e")
    return response


def noise(length: int) -> str:
    """A text that can't be compressed."""
    return "".join(map(chr, random.Random(0).choices(range(40, 127), k=length)))


def crowded_session() -> Response:
    session["basket"] = noise(3600)
    return redirect("/next")


@pytest.fixture
def sink() -> c.Iterator[Sink]:
    with Sink() as sink:
        yield sink


class Row(t.NamedTuple):
    """A response that a strategy doesn't take, and why."""

    strategy: str
    reason: str
    respond: c.Callable[[], t.Any]
    headers: dict[str, str] = {}
    method: str = "GET"
    user_agent: str | None = None
    settings: dict[str, t.Any] = {}
    properties: dict[str, t.Any] = {}


HEAD = "a HEAD request"
SCRIPTED = "fetched by a script, not shown as a page"
NOT_BROWSER = "the client is not a browser"
NO_PLACE = "no </head> or </body>, or a frameset"
KEEPS = "the client may keep the response, and make its calls again"
OTHER_SITE = "a redirect to another site"
SHARED_PAGE = "shared caches may keep the page"
SHARED = "shared caches may keep the response"
STREAMED = "the body is streamed"
NO_RETURN = "the client won't come back with the session"
ELSEWHERE = "a proxy answers with something else"
CLEARS = "the browser clears the site's data"
PASSWORD = "the browser asks for a password instead"

NO_SESSION = [
    (SHARED, "Cache-Control", "public"),
    (SHARED, "X-Accel-Expires", "60"),
    (CLEARS, "Clear-Site-Data", '"*"'),
    (ELSEWHERE, "X-Accel-Redirect", "/there"),
    ("the app writes the session's cookie itself", "Set-Cookie", "session=; Max-Age=0"),
    ("the session can't hold so much", "X-Much", "x" * 3500),
]


def moved(headers: dict[str, str]) -> Response:
    return Response("", 302, {"Location": "/next", **headers})


def challenge() -> Response:
    return Response(PAGE, 401, {"WWW-Authenticate": 'Basic realm="shop"'})


def delayed(reason: str, respond: c.Callable[[], t.Any], **options: t.Any) -> Row:
    return Row("Delayed", reason, respond, **options)


def client_side(reason: str, respond: c.Callable[[], t.Any], **options: t.Any) -> Row:
    return Row("ClientSide", reason, respond, **options)


def capable(reason: str, respond: c.Callable[[], t.Any], **options: t.Any) -> Row:
    options.setdefault("headers", CAPABLE)
    return Row("CapableClientSide", reason, respond, **options)


def some_json() -> Response:
    return Response("{}", mimetype="application/json")


DECLINED = [
    *(delayed("not a redirect", status(code)) for code in (200, 201, 204, 404, 500)),
    *(delayed("not a redirect", status(code)) for code in (302, 304)),
    delayed("not a redirect", located(300, "/next")),
    delayed("not a redirect", located(305, "/next")),
    delayed("not a redirect", located(201, "/next")),
    delayed(OTHER_SITE, located(302, "https://pay.example/checkout")),
    delayed(OTHER_SITE, located(302, "//pay.example/")),
    delayed(NO_RETURN, located(302, "/next"), user_agent="curl/8.5.0"),
    delayed(NO_RETURN, located(302, "/next"), user_agent="Stripe/1.0"),
    delayed(NO_RETURN, located(302, "/next"), user_agent="python-requests/2.32"),
    delayed(NO_RETURN, located(302, "/next"), user_agent=""),
    delayed(
        "there is no session: SECRET_KEY is not set",
        located(302, "/next"),
        settings={"SECRET_KEY": None},
    ),
    delayed(
        "the session can't hold so much",
        located(302, "/next"),
        properties={"Text": noise(5000)},
    ),
    delayed("the session can't hold so much", crowded_session),
    delayed(
        "no other strategy would take the calls up again",
        located(302, "/next"),
        settings={"MENGPANEEL_STRATEGIES": ["Delayed", "AsyncServerSide"]},
    ),
    *(
        delayed(reason, lambda name=name, value=value: moved({name: value}))
        for reason, name, value in NO_SESSION
    ),
    client_side("not HTML", some_json),
    client_side("not HTML", typed("text/plain")),
    client_side("not HTML", typed("text/html-sandboxed")),
    client_side("the body is encoded", with_header("Content-Encoding", "gzip")),
    *(
        client_side("an attachment", with_header("Content-Disposition", value))
        for value in (
            "attachment",
            "attachment; filename=a.html",
            "ATTACHMENT;x=y",
            "download",
        )
    ),
    client_side(STREAMED, streamed),
    client_side(STREAMED, passed_through),
    client_side(STREAMED, sent_file),
    *(
        client_side(f"browsers don't show what comes with {code}", status(code))
        for code in (204, 205, 206, 304)
    ),
    client_side(
        "browsers don't show what comes with 302",
        lambda: redirect("https://pay.example/"),
    ),
    client_side(NO_PLACE, typed("text/html", "<li>A fragment of a page</li>")),
    client_side(NO_PLACE, typed("text/html", "<header></header ><p>Hi there")),
    client_side(NO_PLACE, typed("text/html", "")),
    client_side(
        NO_PLACE,
        typed("text/html", "<html><head></head><frameset cols='*'></frameset></html>"),
    ),
    client_side(NO_PLACE, typed("text/html; charset=cp037", PAGE.encode("cp037"))),
    client_side(
        "the body isn't in an encoding that has ASCII in it",
        typed("text/html; charset=utf-16", PAGE.encode("utf-16")),
    ),
    *(
        client_side(SHARED_PAGE, with_header(name, value))
        for name, value in (
            ("Cache-Control", "public"),
            ("Cache-Control", "public, max-age=60"),
            ("Cache-Control", "max-age=0, s-maxage=60"),
            ("CDN-Cache-Control", "max-age=60"),
            ("Surrogate-Control", "max-age=60"),
            ("Cloudflare-CDN-Cache-Control", "max-age=60"),
            ("X-Accel-Expires", "60"),
            ("Edge-Control", "max-age=60"),
            ("X-LiteSpeed-Cache-Control", "max-age=60"),
            ("Akamai-Cache-Control", "max-age=60"),
        )
    ),
    client_side(ELSEWHERE, with_header("X-Accel-Redirect", "/there")),
    client_side(CLEARS, with_header("Clear-Site-Data", '"cache"')),
    client_side(
        "the browser leaves the page at once", with_header("Refresh", "0; url=/next")
    ),
    client_side(PASSWORD, challenge),
    client_side(
        "the page's policy forbids the frame",
        with_header("X-Frame-Options", "DENY"),
        headers={"Sec-Fetch-Dest": "iframe", "Sec-Fetch-Site": "cross-site"},
    ),
    client_side(
        "an AMP page, which may have no scripts of its own",
        typed("text/html", PAGE.replace("<html>", "<html amp>")),
    ),
    client_side(HEAD, page, method="HEAD"),
    client_side(NOT_BROWSER, page, user_agent="curl/8.5.0"),
    client_side(NOT_BROWSER, page, user_agent=""),
    client_side(NOT_BROWSER, page, user_agent="ShopApp/3 CFNetwork/1410 Darwin/22.6"),
    *(
        client_side(SCRIPTED, page, headers=headers)
        for headers in (
            {"Sec-Fetch-Dest": "empty", "Accept": "text/html"},
            {"Sec-Fetch-Dest": "image"},
            {"Sec-Fetch-Dest": "script"},
            {"Sec-Fetch-Mode": "cors"},
            {"X-Requested-With": "XMLHttpRequest", "Accept": "text/html"},
            {"HX-Request": "true", "Accept": "text/html"},
            {"Turbo-Frame": "basket", "Accept": "text/html"},
            {"Accept": "*/*"},
            {"Accept": "application/json"},
        )
    ),
    *(
        capable("the client doesn't say that it can", some_json, headers=headers)
        for headers in (
            {},
            {"X-Mengpaneel-Flush-Capable": ""},
            {"X-Mengpaneel-Flush-Capable": "false"},
            {"X-Mengpaneel-Flush-Capable": "0"},
            {"X-Mengpaneel-Flush-Capable": "yes"},
        )
    ),
    capable(
        "clients don't see the headers of 302",
        lambda: redirect("https://pay.example/"),
    ),
    capable("clients don't see the headers of 304", status(304)),
    capable(SHARED, with_header("Cache-Control", "public", "{}")),
    capable(SHARED, with_header("Cache-Control", "s-maxage=9", "{}"), method="POST"),
    capable(SHARED, with_header("X-Accel-Expires", "60", "{}")),
    capable(ELSEWHERE, with_header("X-Sendfile", "/there", "{}")),
    capable(CLEARS, with_header("Clear-Site-Data", '"cache"', "{}")),
    capable(PASSWORD, challenge),
    capable(
        "the other headers leave no room for it",
        with_header("Content-Security-Policy", "img-src " + "x" * 3750, "{}"),
    ),
    capable(KEEPS, json_with_etag),
    capable(KEEPS, with_header("Cache-Control", "max-age=0, stale-while-revalidate=9")),
    capable(KEEPS, with_header("Last-Modified", "Sat, 01 Nov 2025 09:00:00 GMT")),
    capable(KEEPS, with_header("Expires", "Sat, 01 Nov 2036 09:00:00 GMT")),
    capable(KEEPS, with_header("Cache-Control", "private, max-age=60")),
    capable(
        "more than 2048 bytes of header", some_json, properties={"Text": "x" * 2000}
    ),
    capable(
        "more than 0 bytes of header", some_json, settings={"MENGPANEEL_MAX_HEADER": 0}
    ),
]


def ask(row: Row, *, track: bool) -> tuple[Site, t.Any, str | None]:
    # The last is never asked; without it, nobody could take up what is delayed.
    others = ["AsyncServerSide", "ClientSide"][: 1 + (row.strategy == "Delayed")]
    ours = {"strategies": [row.strategy, *others], **_ours(row.settings)}
    site = Site(**ours)
    site.app.config.update(
        {k: v for k, v in row.settings.items() if not k.startswith("MENGPANEEL_")}
    )
    site.app.secret_key = site.app.config["SECRET_KEY"]

    def view() -> t.Any:
        if track:
            site.mengpaneel.track("Order", row.properties)

        return row.respond()

    site.view("/", view, methods=["GET", "POST"])
    client = site.client() if row.user_agent is None else site.client(row.user_agent)
    set_library_cookie(client, **KNOWN)
    response = client.open("/", method=row.method, headers=row.headers)
    stored = client.get_cookie("session")
    return site, response, stored.value if stored else None


def _ours(settings: dict[str, t.Any]) -> dict[str, t.Any]:
    return {
        key.removeprefix("MENGPANEEL_").lower(): value
        for key, value in settings.items()
        if key.startswith("MENGPANEEL_")
    }


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id=f"{number} {row.strategy}: {row.reason}")
        for number, row in enumerate(DECLINED)
    ],
)
def test_a_strategy_that_declines_says_why_and_changes_nothing(row: Row) -> None:
    site, response, stored = ask(row, track=True)
    _, untracked, stored_untracked = ask(row, track=False)

    assert site.outcome.strategy == "AsyncServerSide"
    assert site.outcome.declined == {row.strategy: row.reason}
    assert [call.event for call in site.kept.calls] == ["Order"]
    assert response.data == untracked.data
    assert list(response.headers) == list(untracked.headers)
    assert response.status == untracked.status
    assert _content(site, stored) == _content(site, stored_untracked)


def _content(site: Site, stored: str | None) -> t.Any:
    if stored is None:
        return None

    serializer = site.app.session_interface.get_signing_serializer(site.app)
    return serializer.loads(stored)


@pytest.mark.parametrize(
    ("strategy", "declined"),
    [
        ("Delayed", "not in a request"),
        ("ClientSide", "not in a request"),
        ("CapableClientSide", "not in a request"),
    ],
)
def test_a_job_has_no_response_that_could_carry_calls(
    strategy: str, declined: str
) -> None:
    site = Site()

    with site.app.app_context(), Manager() as manager:
        manager.track("Renew")

    assert site.outcome.declined[strategy] == declined
    assert site.outcome.strategy == "AsyncServerSide"


def test_a_redirect_with_nothing_but_set_up_calls_writes_no_session() -> None:
    site = Site()

    def view() -> Response:
        with site.mengpaneel.setup():
            site.mengpaneel.identify("ann")

        return redirect("/next")

    site.view("/", view)
    response = site.visitor(**KNOWN).get("/")

    assert "Set-Cookie" not in response.headers
    assert "Vary" not in response.headers
    assert site.outcomes == []
    assert site.kept.envelopes == []


def test_a_capable_client_gets_no_header_for_nothing_but_set_up_calls() -> None:
    site = Site()

    def view() -> dict[str, str]:
        with site.mengpaneel.setup():
            site.mengpaneel.identify("ann")

        return {}

    site.view("/", view)
    client = site.visitor(**{"distinct_id": "ann", "$user_id": "ann"})
    response = client.get("/", headers=CAPABLE)

    assert "X-Mengpaneel-Calls" not in response.headers
    assert site.outcomes == []
    assert site.kept.envelopes == []


def test_the_server_sends_now_what_the_background_has_no_room_for(
    sink: Sink,
) -> None:
    site = Site(api_host=sink.url)
    site.kept.has_room = False
    site.view("/", lambda: (site.mengpaneel.track("Order"), {})[1])
    site.client().get("/", headers={"Accept": "application/json"})

    assert site.outcome.strategy == "ServerSide"
    assert (
        site.outcome.declined["AsyncServerSide"]
        == "the background transport has no room"
    )
    assert [event["event"] for event in sink.events] == ["Order"]
    assert site.mengpaneel.ledger().recorded == 1


def test_the_background_declines_where_there_is_none(sink: Sink) -> None:
    site = Site(api_host=sink.url, transport="inline")
    site.view("/", lambda: (site.mengpaneel.track("Order"), {})[1])
    site.client().get("/", headers={"Accept": "application/json"})

    assert site.outcome.strategy == "ServerSide"
    assert "AsyncServerSide" in site.outcome.declined
    assert len(sink.events) == 1


def test_a_transport_that_fails_leaves_the_calls_to_the_next_strategy(
    sink: Sink,
) -> None:
    class Failing(Transport):
        def send(self, envelope: Envelope) -> bool:
            raise OSError("no queue")

    site = Site(testing=False, api_host=sink.url, transport=Failing())
    site.view("/", lambda: (site.mengpaneel.track("Order"), {})[1])
    response = site.client().get("/", headers={"Accept": "application/json"})

    assert response.status_code == 200
    assert site.outcome.strategy == "ServerSide"
    assert "no queue" in site.outcome.declined["AsyncServerSide"]
    assert len(sink.events) == 1
    assert site.mengpaneel.ledger().recorded == 1
    assert site.mengpaneel.ledger().snapshot().balanced


# -- the order of the chain


def tracking_site(respond: c.Callable[[], t.Any], **settings: t.Any) -> Site:
    site = Site(**settings)
    site.view("/", lambda: (site.mengpaneel.track("Order"), respond())[1])
    return site


def test_the_strategies_are_asked_in_their_order() -> None:
    site = tracking_site(lambda: {})
    site.client().get("/", headers={"Accept": "*/*"})

    assert list(site.outcome.declined) == ["Delayed", "ClientSide", "CapableClientSide"]
    assert site.outcome.strategy == "AsyncServerSide"


@pytest.mark.parametrize(
    ("strategies", "taker"),
    [
        (["CapableClientSide", "ClientSide", "ServerSide"], "CapableClientSide"),
        (["ClientSide", "CapableClientSide", "ServerSide"], "ClientSide"),
        (["AsyncServerSide", "ClientSide"], "AsyncServerSide"),
    ],
)
def test_the_setting_says_which_strategies_and_in_which_order(
    strategies: list[str], taker: str
) -> None:
    site = tracking_site(lambda: PAGE, strategies=strategies)
    headers = {"X-Mengpaneel-Flush-Capable": "1", "Sec-Fetch-Dest": "document"}
    site.client().get("/", headers=headers)

    assert site.outcome.strategy == taker
    assert site.outcome.declined == {}


def test_the_first_that_takes_the_calls_has_them_all_and_nobody_else_any() -> None:
    site = tracking_site(lambda: PAGE)
    headers = {"X-Mengpaneel-Flush-Capable": "true", "Sec-Fetch-Dest": "document"}
    response = site.client().get("/", headers=headers)

    assert names(page_calls(response)) == ["track Order"]
    assert header_calls(response) == []
    assert site.kept.envelopes == []


def test_without_the_client_strategies_there_is_no_javascript_at_all() -> None:
    site = tracking_site(lambda: PAGE, strategies=["AsyncServerSide", "ServerSide"])
    site.view("/quiet", lambda: PAGE)
    client = site.client()

    assert client.get("/").text == PAGE
    assert client.get("/quiet").text == PAGE
    assert [call.event for call in site.kept.calls] == ["Order"]


@pytest.mark.parametrize(
    "strategies",
    [
        ["ClientSide"],
        ["Delayed", "ClientSide", "CapableClientSide"],
        ["CapableClientSide"],
    ],
)
def test_calls_that_no_strategy_takes_are_in_the_books_as_dropped(
    strategies: list[str],
) -> None:
    site = tracking_site(lambda: {}, strategies=strategies)
    site.client().get("/", headers={"Accept": "*/*"})
    books = site.mengpaneel.ledger().snapshot()

    assert books.recorded == 1
    assert sum(books.dropped.values()) == 1
    assert books.balanced


def test_what_is_delayed_where_no_page_can_replay_it_goes_from_the_server() -> None:
    site = Site(strategies=["Delayed", "AsyncServerSide", "ServerSide"])
    site.view("/", lambda: (site.mengpaneel.track("Order"), redirect("/next"))[1])
    site.view("/next", lambda: PAGE)
    site.client().get("/", follow_redirects=True)

    assert [call.event for call in site.kept.calls] == ["Order"]


# -- a strategy for this request only


def insisting_site(strategy: str, respond: c.Callable[[], t.Any]) -> Site:
    site = Site()

    def view() -> t.Any:
        site.mengpaneel.strategy = strategy
        site.mengpaneel.track("Order")
        return respond()

    site.view("/", view)
    site.view("/plain", lambda: (site.mengpaneel.track("View"), PAGE)[1])
    return site


def test_a_request_may_insist_on_a_strategy() -> None:
    site = insisting_site("AsyncServerSide", lambda: PAGE)
    response = site.client().get("/")

    assert site.outcome.strategy == "AsyncServerSide"
    assert site.outcome.declined == {}
    assert page_calls(response) == []


def test_the_next_request_insists_on_nothing() -> None:
    site = insisting_site("AsyncServerSide", lambda: PAGE)
    client = site.client()
    client.get("/")
    client.get("/plain")

    assert site.outcomes[1].strategy == "ClientSide"


@pytest.mark.parametrize("strategy", ["Delayed", "ClientSide", "CapableClientSide"])
def test_if_the_insisted_one_declines_the_server_follows(strategy: str) -> None:
    site = insisting_site(strategy, lambda: {})
    site.client().get("/")

    assert site.outcome.strategy == "AsyncServerSide"
    assert list(site.outcome.declined) == [strategy]


def test_insisting_on_the_server_goes_past_a_page_that_could(sink: Sink) -> None:
    site = Site(api_host=sink.url)

    def view() -> str:
        site.mengpaneel.strategy = "ServerSide"
        site.mengpaneel.track("Order")
        return PAGE

    site.view("/", view)
    site.client().get("/")

    assert site.outcome.strategy == "ServerSide"
    assert [event["event"] for event in sink.events] == ["Order"]


@pytest.mark.parametrize("testing", [True, False])
def test_a_strategy_that_does_not_exist_is_an_error_always(testing: bool) -> None:
    site = Site(testing=testing)

    with site.app.test_request_context():
        with pytest.raises(ValueError, match="ServerSid'.*Delayed, ClientSide"):
            site.mengpaneel.strategy = "ServerSid"

        assert site.mengpaneel.strategy is None


def test_a_job_may_insist_on_a_strategy(sink: Sink) -> None:
    site = Site(api_host=sink.url)

    with site.app.app_context(), Manager(strategy="ServerSide") as manager:
        manager.track("Renew")

    assert site.outcome.strategy == "ServerSide"
    assert len(sink.events) == 1


# -- outcomes, and what comes when the response has gone


def test_an_outcome_has_the_calls_in_the_order_of_the_stages() -> None:
    site = Site()

    def view() -> str:
        site.mengpaneel.track("Order")

        with site.mengpaneel.setup():
            site.mengpaneel.identify("ann")

        with site.mengpaneel.before_setup():
            site.mengpaneel.alias("ann")

        return PAGE

    site.view("/", view)
    response = site.client().get("/")

    assert [call.name for call in site.outcome.calls] == ["alias", "identify", "track"]
    assert names(page_calls(response)) == ["alias ann", "identify ann", "track Order"]


def test_a_server_side_flush_with_nothing_but_set_up_calls_does_nothing() -> None:
    site = Site()

    def view() -> dict[str, str]:
        with site.mengpaneel.setup():
            site.mengpaneel.identify("ann")
            site.mengpaneel.people.set({"Plan": "pro"})

        return {}

    site.view("/", view)
    response = site.client("curl/8.5.0").get("/")

    assert site.kept.envelopes == []
    assert "Set-Cookie" not in response.headers
    assert site.mengpaneel.ledger().recorded == 0


def test_an_alias_goes_from_the_server_even_if_nothing_was_tracked() -> None:
    site = Site()

    def view() -> dict[str, str]:
        with site.mengpaneel.before_setup():
            site.mengpaneel.alias("ann")

        return {}

    site.view("/", view)
    site.visitor(**KNOWN).get("/", headers={"Accept": "*/*"})
    (message,) = site.messages

    assert message["event"] == "$create_alias"
    assert message["properties"]["alias"] == "ann"
    assert message["properties"]["distinct_id"] == "$device:d1"


def test_what_a_view_recorded_before_it_raised_goes_from_the_server() -> None:
    site = Site()

    def view() -> str:
        site.mengpaneel.track("Order")
        raise ZeroDivisionError

    site.view("/", view)

    with pytest.raises(ZeroDivisionError):
        site.client().get("/")

    assert [call.event for call in site.kept.calls] == ["Order"]


def test_an_error_page_is_a_page() -> None:
    site = Site(testing=False)
    site.app.register_error_handler(500, lambda error: (PAGE, 500))

    def view() -> str:
        site.mengpaneel.track("Order")
        raise ZeroDivisionError

    site.view("/", view)
    response = site.client().get("/")

    assert response.status_code == 500
    assert names(page_calls(response)) == ["track Order"]


def test_an_error_handlers_redirect_is_a_redirect() -> None:
    site = Site()
    site.app.register_error_handler(401, lambda error: redirect("/sign-in"))
    site.view("/", lambda: (site.mengpaneel.track("Refused"), abort(401))[1])
    site.view("/sign-in", lambda: PAGE)
    response = site.client().get("/", follow_redirects=True)

    assert names(page_calls(response)) == ["track Refused"]


def test_what_a_body_tracks_while_it_streams_goes_from_the_server() -> None:
    site = Site()

    def view() -> Response:
        site.mengpaneel.track("Export")

        def rows() -> c.Iterator[str]:
            yield "<html><head></head>"
            site.mengpaneel.track("Exported")
            yield "</html>"

        return Response(stream_with_context(rows()))

    site.view("/", view)
    response = site.client().get("/")

    assert response.text == "<html><head></head></html>"
    assert [call.event for call in site.kept.calls] == ["Export", "Exported"]


def test_what_another_after_request_function_tracks_is_not_lost() -> None:
    site = Site()
    site.view("/", lambda: (site.mengpaneel.track("Order"), PAGE)[1])

    # Those of before `init_app` run after the extension's.
    def late(response: Response) -> Response:
        site.mengpaneel.track("Late")
        return response

    def early(response: Response) -> Response:
        site.mengpaneel.track("Early")
        return response

    site.app.after_request_funcs[None].insert(0, late)
    site.app.after_request(early)
    response = site.client().get("/")

    assert names(page_calls(response)) == ["track Order", "track Early"]
    assert [call.event for call in site.kept.calls] == ["Late"]


def test_a_manager_within_a_request_is_a_unit_of_its_own() -> None:
    site = Site()

    def view() -> str:
        site.mengpaneel.track("Before")

        with Manager() as manager:
            manager.track("Inside")
            site.mengpaneel.track("Inside too")

        site.mengpaneel.track("After")
        return PAGE

    site.view("/", view)
    response = site.client().get("/")

    assert names(page_calls(response)) == ["track Before", "track After"]
    assert [call.event for call in site.kept.calls] == ["Inside", "Inside too"]


def test_a_job_that_fails_still_sends_what_it_recorded() -> None:
    site = Site()

    with site.app.app_context():
        with pytest.raises(ZeroDivisionError), Manager() as manager:
            manager.track("Renew")
            raise ZeroDivisionError

    assert [call.event for call in site.kept.calls] == ["Renew"]


def test_a_response_of_a_quiet_request_is_untouched() -> None:
    site = Site()
    site.view("/json", lambda: {"a": 1})
    site.view("/go", lambda: redirect("/json"))
    client = site.client()
    client.set_cookie("session", "broken")

    for path in ("/json", "/go"):
        response = client.get(path)
        assert "Vary" not in response.headers
        assert "Set-Cookie" not in response.headers
        assert "Cache-Control" not in response.headers

    assert site.outcomes == []


def test_trouble_of_ours_leaves_the_response_as_it_was() -> None:
    def nonce() -> str:
        raise LookupError("no nonce")

    site = Site(testing=False, csp_nonce=nonce)
    site.view("/", lambda: (site.mengpaneel.track("Order"), PAGE)[1])
    response = site.client().get("/")

    assert response.status_code == 200
    assert response.text == PAGE
    assert "no nonce" in site.outcome.declined["ClientSide"]
    assert [call.event for call in site.kept.calls] == ["Order"]


def test_trouble_of_ours_is_raised_in_tests() -> None:
    def nonce() -> str:
        raise LookupError("no nonce")

    site = Site(csp_nonce=nonce)
    site.view("/", lambda: (site.mengpaneel.track("Order"), PAGE)[1])

    with pytest.raises(LookupError, match="no nonce"):
        site.client().get("/")


def test_a_receiver_that_fails_breaks_nothing() -> None:
    from flask_mengpaneel import flushed

    site = Site(testing=False)
    site.view("/", lambda: (site.mengpaneel.track("Order"), PAGE)[1])

    def failing(app: t.Any, **_: t.Any) -> None:
        raise ZeroDivisionError

    with flushed.connected_to(failing, site.app):
        response = site.client().get("/")

    assert names(page_calls(response)) == ["track Order"]
    assert block(response) is not None


def test_the_books_balance_with_a_transport_of_ones_own() -> None:
    site = tracking_site(lambda: {})
    site.client().get("/", headers={"Accept": "*/*"})
    books = site.mengpaneel.ledger().snapshot()

    assert (books.recorded, books.delivered) == (1, 1)
    assert books.balanced


@pytest.mark.parametrize("path", ["/page", "/json", "/go"])
def test_calls_that_a_response_carries_count_as_delivered(path: str) -> None:
    site = Site()

    def view(respond: c.Callable[[], t.Any]) -> c.Callable[[], t.Any]:
        def tracked() -> t.Any:
            with site.mengpaneel.setup():
                site.mengpaneel.identify("ann")

            site.mengpaneel.track("Order")
            site.mengpaneel.people.increment("Orders")
            return respond()

        return tracked

    site.view("/page", view(lambda: PAGE))
    site.view("/json", view(lambda: {}))
    site.view("/go", view(lambda: redirect("/quiet")))
    site.client().get(path, headers={"X-Mengpaneel-Flush-Capable": "true"})
    books = site.mengpaneel.ledger().snapshot()

    assert site.outcome.strategy in STRATEGIES[:3]
    assert (books.recorded, books.delivered, books.waiting) == (2, 2, 0)
