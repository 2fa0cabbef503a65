from __future__ import annotations

import collections.abc as c
import io
import random
import typing as t

import pytest
from flask import (
    Response,
    redirect,
    send_file,
    session,
)

from flask_mengpaneel import Strategy
from flask_mengpaneel.choose import strategies
from flask_mengpaneel.config import STRATEGIES, Config, StrategyName
from sink import Sink
from sites import CAPABLE, DEVICE, PAGE, Site, set_library_cookie


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_settings_know_which_strategies_give_calls_to_browsers(
    name: StrategyName,
) -> None:
    kind: type[Strategy] = getattr(strategies, name)

    assert Config(strategies=(name,)).gives_to_browsers is kind.is_client_side


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
    client_side("a digest of the body goes with it", with_header("Digest", "MD5=x")),
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
    set_library_cookie(client, **DEVICE)
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
    assert _headers(response, stored) == _headers(untracked, stored_untracked)
    assert response.status == untracked.status
    assert _content(site, stored) == _content(site, stored_untracked)


def _headers(response: t.Any, stored: str | None) -> list[tuple[str, str]]:
    # The session's cookie has the second in it in which it was signed, and `Date` the
    # response's own.
    return [
        (name, value.replace(stored, "...") if stored else value)
        for name, value in response.headers
        if name != "Date"
    ]


def _content(site: Site, stored: str | None) -> t.Any:
    if stored is None:
        return None

    serializer = site.app.session_interface.get_signing_serializer(site.app)
    return serializer.loads(stored)


def test_a_redirect_with_nothing_but_set_up_calls_writes_no_session() -> None:
    site = Site()

    def view() -> Response:
        with site.mengpaneel.setup():
            site.mengpaneel.identify("ann")

        return redirect("/next")

    site.view("/", view)
    response = site.visitor(**DEVICE).get("/")

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


def test_what_is_delayed_where_no_page_can_replay_it_goes_from_the_server() -> None:
    site = Site(strategies=["Delayed", "AsyncServerSide", "ServerSide"])
    site.view("/", lambda: (site.mengpaneel.track("Order"), redirect("/next"))[1])
    site.view("/next", lambda: PAGE)
    site.client().get("/", follow_redirects=True)

    assert [call.event for call in site.kept.calls] == ["Order"]
