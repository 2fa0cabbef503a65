from __future__ import annotations

import collections.abc as c
import datetime
import json
import typing as t
from urllib.parse import quote, unquote

import pytest
from flask import Flask, Request, Response, redirect, request, session
from flask.sessions import SecureCookieSessionInterface, SessionInterface
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from flask_mengpaneel.choose.caching import directives
from session_interfaces import Derived, OwnCookie, Store
from sites import (
    CAPABLE,
    COOKIE,
    DEVICE,
    PAGE,
    Consent,
    Site,
    block,
    header_calls,
    loads_library,
    names,
    page_calls,
    run_later,
)

CARRIERS = ("page", "header", "redirect", "unasked", "late", "refused", "ids", "choice")


class Answers(t.NamedTuple):
    """What a response looks like, and which carriers it may have."""

    headers: dict[str, str]
    carriers: frozenset[str]
    status: int = 200
    request_headers: dict[str, str] = {}


ALL = frozenset(CARRIERS)
COOKIES = frozenset({"ids", "choice"})
SESSION = frozenset({"redirect", "unasked", "late", "refused"})


def row(
    carriers: c.Iterable[str], status: int = 200, **headers: str
) -> t.Any:  # a pytest.param
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    text = " ".join(f"{name}: {value}" for name, value in named.items())
    return pytest.param(
        Answers(named, frozenset(carriers), status), id=f"{status} {text}"
    )


SHARED = [
    row((), Cache_Control="public"),
    row((), Cache_Control="Public, Max-Age=60"),
    row((), Cache_Control="max-age=0, S-MAXAGE=60"),
    row((), Cache_Control='s-maxage="60"'),
    row((), Cache_Control="s-maxage=soon"),
    row((), Cache_Control='private="Set-Cookie", max-age=60'),
    row((), Cache_Control='no-cache="Set-Cookie, X-Mengpaneel-Calls"'),
    row((), Cache_Control="no-store, public"),
    row((), Cache_Control="must-understand, no-store"),
    row((), Cache_Control="Must-Understand, max-age=60, no-store"),
    row((), CDN_Cache_Control="max-age=60"),
    row((), CDN_Cache_Control="no-store, public"),
    row((), Cloudflare_CDN_Cache_Control="max-age=60"),
    row((), Netlify_CDN_Cache_Control="public, durable, max-age=60"),
    row((), Vercel_CDN_Cache_Control="max-age=60"),
    row((), Akamai_CDN_Cache_Control="max-age=60"),
    row((), Akamai_Cache_Control="max-age=60"),
    row((), Surrogate_Control="max-age=60"),
    row((), Surrogate_Control="max-age=0"),
    row((), Edge_Control="cache-maxage=60s"),
    row((), X_LiteSpeed_Cache_Control="public,max-age=60"),
    row((), X_LiteSpeed_Cache_Control="private,max-age=60"),
    row((), X_LSADC_Cache_Control="public,max-age=60"),
    row((), X_Accel_Expires="60"),
    row((), X_Accel_Expires="@1900000000"),
    row((), X_Accel_Expires="off"),
    row((), Cache_Control="private", X_Accel_Expires="60"),
    row((), Cache_Control="no-store", CDN_Cache_Control="max-age=60"),
]

TABLE = [
    row(ALL),
    *SHARED,
    # Each of these tells its cache to keep nothing.
    row(ALL, X_Accel_Expires="0"),
    row(ALL, CDN_Cache_Control="no-store"),
    row(ALL, Cloudflare_CDN_Cache_Control="private"),
    row(ALL, Surrogate_Control="no-store"),
    row((), Surrogate_Control="no-store, max-age=60;cdn"),
    row((), Surrogate_Control="no-store;cdn"),
    row(ALL, X_LiteSpeed_Cache_Control="no-store"),
    row(ALL, Cache_Control="private"),
    row(ALL, Cache_Control="no-cache, must-revalidate"),
    row(ALL, Cache_Control="must-understand, no-store, private"),
    row(ALL, Cache_Control='ext="public, s-maxage=9"'),
    row(ALL, X_DNS_Prefetch_Control="off"),
    row(ALL, X_Accel_Buffering="no"),
    # What the app lets the browser itself keep has no calls in a header.
    row(ALL - {"header"}, Cache_Control="max-age=60"),
    row(ALL - {"header"}, Cache_Control="max-age=0, stale-while-revalidate=60"),
    row(ALL - {"header"}, ETag='"e"'),
    row(ALL - {"header"}, Expires="Sat, 01 Nov 2036 09:00:00 GMT"),
    # The session's cookie is the app's.
    row(ALL - SESSION, Set_Cookie="session=other; Path=/"),
    row(ALL - SESSION, Set_Cookie="session=; Max-Age=0; Path=/"),
    row(ALL - SESSION, Set_Cookie="session=; Max-Age=0; Path=/x; Domain=y.example"),
    row(ALL - {"ids"}, Set_Cookie=f"{COOKIE}=; Max-Age=0"),
    row(ALL - {"choice"}, Set_Cookie="__mp_opt_in_out_token=1"),
    row(ALL, Set_Cookie="session2=session; Path=/session="),
    *(
        row({"ids", "choice"}, Clear_Site_Data=value)
        for value in ('"cache"', '"storage"', '"executionContexts"', '"clientHints"')
    ),
    *(
        row({"choice"}, Clear_Site_Data=value)
        for value in ('"cookies"', '"*"', '"cache", "cookies", "storage"')
    ),
    # Somebody else answers.
    *(
        row(COOKIES, **{name: "/there"})
        for name in (
            "X_Accel_Redirect",
            "X_Sendfile",
            "X_Sendfile_Temporary",
            "X_Lighttpd_Send_File",
            "X_LiteSpeed_Location",
            "X_Reproxy_URL",
        )
    ),
    row(ALL - {"page", "header"}, 401, WWW_Authenticate='Basic realm="shop"'),
    row(ALL - {"page", "header"}, 407, Proxy_Authenticate="Basic"),
    row(ALL, 401),
    row(ALL, WWW_Authenticate="Basic"),
    *(
        row(ALL - {"page"}, Content_Disposition=value)
        for value in ("attachment", "download", "ATTACHMENT; filename=a", "x-y", ";a=b")
    ),
    *(
        row(ALL, Content_Disposition=value)
        for value in ("inline", "Inline; filename=a")
    ),
    *(
        row(ALL - {"page"}, **{name: "sha-256=:abcd:"})
        for name in ("Content_Digest", "Repr_Digest", "Digest", "Content_MD5")
    ),
    row(ALL - {"page"}, Refresh="0; url=/next"),
    row(ALL - {"page"}, Refresh=".5, url=/next"),
    row(ALL - {"page"}, Refresh=" 4.9;/next"),
    row(ALL, Refresh=";url=/next"),
    row(ALL, Refresh="60"),
    row(SESSION - SESSION, 304),
]


class Case:
    """A site whose last answer has these headers, in the state that a carrier needs."""

    def __init__(self, carrier: str, answers: Answers) -> None:
        self.carrier = carrier
        self.answers = answers
        self.consent = Consent()
        settings: dict[str, t.Any] = {"consent": self.consent}

        if carrier in COOKIES:
            settings["strategies"] = ["AsyncServerSide"]

        if carrier == "late":
            settings |= {"delayed_max_age": 0.0, "ack_timeout": 0}

        self.site = site = Site(**settings)
        site.view("/go", lambda: (site.mengpaneel.track("Earlier"), redirect("/"))[1])
        site.view("/", self.view, methods=["GET", "POST"])
        site.view("/after", lambda: PAGE)
        self.client = client = site.client()

        if carrier in COOKIES:
            client.set_cookie("other", "1")
        else:
            client.set_cookie(COOKIE, json.dumps(DEVICE))

    def view(self) -> Response:
        if self.carrier in ("page", "header", "redirect", "unasked", "ids"):
            self.site.mengpaneel.track("Now")
        elif self.carrier == "choice":
            self.site.mengpaneel.opt_out_tracking()

        status, headers = self.answers.status, dict(self.answers.headers)

        if self.carrier == "redirect" and status != 304:
            status, headers["Location"] = 302, "/after"

        kind = "application/json" if self.carrier == "header" else "text/html"
        return Response(PAGE, status, headers, content_type=kind)

    def respond(self) -> TestResponse:
        if self.carrier in ("late", "refused"):
            self.client.get("/go")
            assert waits(self.client)

        if self.carrier == "refused":
            self.consent.answer = False

        if self.carrier == "unasked":
            self.consent.answer = None

        headers = dict(self.answers.request_headers)

        if self.carrier == "header":
            headers |= CAPABLE

        return self.client.get("/", headers=headers)

    def carried(self, response: TestResponse) -> bool:
        """Whether the response has what it might."""
        if self.carrier == "page":
            return bool(page_calls(response))

        if self.carrier == "header":
            return bool(header_calls(response))

        own = self.answers.headers.get("Set-Cookie")
        cookies = [one for one in response.headers.getlist("Set-Cookie") if one != own]

        if self.carrier == "ids":
            return any(one.startswith(f"{COOKIE}=") for one in cookies)

        if self.carrier == "choice":
            return any(one.startswith("__mp_opt") for one in cookies)

        return any(one.startswith("session=") for one in cookies)


def waits(client: FlaskClient) -> bool:
    return client.get_cookie("session") is not None


@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("answers", TABLE)
def test_a_response_is_given_what_it_may_have(answers: Answers, carrier: str) -> None:
    case = Case(carrier, answers)
    response = case.respond()

    assert case.carried(response) == (carrier in answers.carriers)

    if carrier in answers.carriers:
        told = directives(response.headers["Cache-Control"])
        assert "no-store" in told if carrier == "header" else "private" in told
    else:
        # "Vary" is for what the app itself has done with the session.
        own = {"Content-Type", "Content-Length", "Location"}
        found = [pair for pair in response.headers if pair[0] not in own]
        assert found == list(answers.headers.items())


@pytest.mark.parametrize("carrier", ["page", "header", "redirect", "late", "ids"])
@pytest.mark.parametrize("answers", TABLE)
def test_every_call_is_made_once_whatever_the_response(
    answers: Answers, carrier: str
) -> None:
    case = Case(carrier, answers)
    response = case.respond()
    after = case.client.get("/after")
    made = [
        *names(page_calls(response)),
        *names(header_calls(response)),
        *names(page_calls(after)),
        *(f"track {call.event}" for call in case.site.kept.calls),
    ]

    assert made == ["track Earlier" if carrier == "late" else "track Now"]


@pytest.mark.parametrize("answers", TABLE)
def test_refused_calls_are_never_made(answers: Answers) -> None:
    case = Case("refused", answers)
    case.respond()
    case.consent.answer = False
    after = case.client.get("/after")

    assert page_calls(after) == []
    assert case.site.kept.calls == []


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize("status", [200, 301, 404, 500])
def test_shared_caches_get_nothing_with_any_status(status: int, method: str) -> None:
    site = Site(delayed_max_age=0.0, ack_timeout=0)
    site.view("/go", lambda: (site.mengpaneel.track("Earlier"), redirect("/"))[1])

    def view() -> Response:
        site.mengpaneel.track("Now")
        headers = {"Cache-Control": "public, max-age=60"}

        if status == 301:
            headers["Location"] = "/after"

        return Response(PAGE, status, headers)

    site.view("/", view, methods=["GET", "POST"])
    client = site.client()
    client.get("/go")
    session_cookie = client.get_cookie("session")
    response = client.open("/", method=method)

    assert "Set-Cookie" not in response.headers
    assert "Vary" not in response.headers
    assert response.headers["Cache-Control"] == "public, max-age=60"
    assert client.get_cookie("session") == session_cookie
    assert [call.event for call in site.kept.calls] == ["Now"]


def test_a_static_file_gives_late_calls_to_the_next_response() -> None:
    site = Site(delayed_max_age=0.0, ack_timeout=0)
    site.app.config["SEND_FILE_MAX_AGE_DEFAULT"] = 3600
    site.view("/go", lambda: (site.mengpaneel.track("Earlier"), redirect("/"))[1])
    site.view("/logo", lambda: site.app.send_static_file("x"))
    site.app.static_folder = str(__file__).rpartition("/")[0]
    site.view("/json", lambda: {})
    client = site.client()
    client.get("/go")
    response = client.get("/static/test_response_policy.py")

    assert response.cache_control.public
    assert "Set-Cookie" not in response.headers
    assert site.kept.calls == []
    response.close()
    client.get("/json")
    assert [call.event for call in site.kept.calls] == ["Earlier"]


# -- the boot script


@pytest.mark.parametrize("answers", SHARED)
def test_the_library_is_loaded_by_a_shared_page_if_all_visitors_are_alike(
    answers: Answers,
) -> None:
    def booted(**settings: t.Any) -> bool:
        site = Site(**settings)
        site.view("/", lambda: (PAGE, answers.headers))
        response = site.client().get("/")
        assert response.headers.get("Cache-Control") == answers.headers.get(
            "Cache-Control"
        )
        return block(response) is not None

    assert booted(respect_dnt=False)
    assert not booted()
    assert not booted(respect_dnt=False, consent=lambda: True)


def tagged(etag: str) -> Response:
    response = Response(PAGE, headers={"ETag": etag, "Cache-Control": "no-cache"})
    response.last_modified = datetime.datetime(2025, 11, 1, tzinfo=datetime.UTC)
    return response


Refusal = tuple[dict[str, t.Any], dict[str, str]]


@pytest.mark.parametrize("is_late", [False, True], ids=["in the view", "run_later"])
@pytest.mark.parametrize("etag", ['"1"', 'W/"1"'])
@pytest.mark.parametrize(
    "refusal",
    [
        ({}, {"DNT": "1"}),
        ({}, {"Sec-GPC": "1"}),
        ({"consent": lambda: "No" not in request.headers}, {"No": "1"}),
        ({"consent": lambda: None if "No" in request.headers else True}, {"No": "1"}),
    ],
    ids=["DNT", "GPC", "refused", "not asked"],
)
def test_a_kept_page_is_right_only_for_those_who_consent_as_before(
    refusal: Refusal, etag: str, is_late: bool
) -> None:
    settings, refuses = refusal
    site = Site(**settings)

    if is_late:
        site.view("/", lambda: tagged(etag))
        run_later(site, "/", lambda response: response.make_conditional(request))
    else:
        site.view("/", lambda: tagged(etag).make_conditional(request))

    client = site.client()

    def ask(kept: TestResponse | None = None, **headers: str) -> TestResponse:
        given = {}

        if kept is not None:
            given = {"If-None-Match": kept.headers["ETag"]}

            if "Last-Modified" in kept.headers:
                given["If-Modified-Since"] = kept.headers["Last-Modified"]

        return client.get("/", headers={**given, **headers})

    agreed = ask()
    refused = ask(**refuses)
    assert loads_library(agreed)
    assert not loads_library(refused)

    # Nobody is told that a page with the library is right who has refused since.
    withdrawn = ask(agreed, **refuses)
    assert (withdrawn.status_code, withdrawn.text) == (200, refused.text)

    for kept, headers in ((agreed, {}), (refused, refuses)):
        again = ask(kept, **headers)
        assert (again.status_code, again.data) == (304, b"")
        assert again.headers["ETag"] == kept.headers["ETag"]


def test_a_page_is_tagged_as_by_the_app_if_all_visitors_are_alike() -> None:
    site = Site(respect_dnt=False)
    site.view("/", lambda: tagged('"1"'))
    response = site.client().get("/")

    assert block(response) is not None
    assert response.headers["ETag"] == '"1"'
    assert "Last-Modified" in response.headers


@pytest.mark.parametrize(
    ("headers", "boots"),
    [
        ({}, True),
        ({"Cache-Control": "max-age=0"}, True),
        ({"Cache-Control": "max-age=60, private"}, True),
        ({"Cache-Control": "max-age=60, no-cache"}, True),
        ({"Cache-Control": "no-store, max-age=60"}, True),
        ({"Cache-Control": "max-age=60"}, False),
        ({"Cache-Control": 'max-age="60"'}, False),
        ({"Cache-Control": "Max-Age=60, must-revalidate"}, False),
        ({"Expires": "Fri, 01 Jan 2100 00:00:00 GMT"}, False),
        ({"Expires": "Fri, 01 Jan 2010 00:00:00 GMT"}, True),
        ({"Expires": "0"}, True),
        ({"Expires": "Fri, 99 Jan 99999 00:00:00 GMT"}, True),
        (
            {"Expires": "Fri, 01 Jan 2100 00:00:00 GMT", "Cache-Control": "private"},
            True,
        ),
        (
            {
                "Expires": "Fri, 01 Jan 2100 00:00:00 GMT",
                "Cache-Control": "max-age=0",
            },
            True,
        ),
    ],
)
@pytest.mark.parametrize("is_late", [False, True], ids=["in the view", "run_later"])
def test_a_page_with_the_library_is_not_for_all_where_consent_differs(
    headers: dict[str, str], boots: bool, is_late: bool
) -> None:
    def answer(**settings: t.Any) -> TestResponse:
        site = Site(**settings)
        site.view("/", lambda: Response(PAGE, headers={} if is_late else headers))

        if is_late:
            run_later(site, "/", lambda response: response.headers.update(headers))

        return site.client().get("/")

    response = answer()
    assert (block(response) is not None) == (boots or is_late)

    if is_late and not boots:
        assert "private" in directives(response.headers["Cache-Control"])
    else:
        told = response.headers.get("Cache-Control")
        assert told == headers.get("Cache-Control")

    assert block(answer(respect_dnt=False)) is not None
    assert answer(respect_dnt=False).headers.get("Cache-Control") == headers.get(
        "Cache-Control"
    )


# -- signing out


#: Those that make a session's interface for an app.
INTERFACES: dict[str, c.Callable[[Flask], SessionInterface]] = {
    "Flask's": lambda _: SecureCookieSessionInterface(),
    "own": lambda _: OwnCookie(),
    "derived": lambda _: Derived(),
    "store": Store,
}


def signed_out(interface: str = "Flask's", **config: t.Any) -> Site:
    """A site whose visitors sign in and out."""
    site = Site(strategies=["Delayed", "ClientSide", "AsyncServerSide"])
    site.app.config.update(config)
    site.app.session_interface = INTERFACES[interface](site.app)

    def sign_in() -> Response:
        session["user"] = "ann"
        session.permanent = config.get("PERMANENT", False)
        site.mengpaneel.track("Sign In")
        return redirect("/")

    site.view("/in", sign_in)
    site.view("/who", lambda: {"user": session.get("user")})
    site.view("/", lambda: PAGE)
    return site


def deleted(response: Response) -> Response:
    response.delete_cookie("session")
    return response


def cleared(response: Response) -> Response:
    response.headers["Clear-Site-Data"] = '"cookies"'
    response.delete_cookie("session")
    return response


def cleared_in_two_lines(response: Response) -> Response:
    response.headers.add("Clear-Site-Data", '"cache"')
    response.headers.add("Clear-Site-Data", '"cookies"')
    return response


def emptied(response: Response) -> Response:
    session.clear()
    return response


WAYS_OUT = [deleted, cleared, cleared_in_two_lines, emptied]


@pytest.mark.parametrize("interface", INTERFACES)
@pytest.mark.parametrize("is_late", [False, True], ids=["in the view", "run_later"])
@pytest.mark.parametrize("permanent", [False, True])
@pytest.mark.parametrize("refresh", [False, True])
@pytest.mark.parametrize("tracks", [False, True])
@pytest.mark.parametrize("answer", [PAGE, "redirect", "{}"], ids=["page", "to", "json"])
@pytest.mark.parametrize("way", WAYS_OUT)
def test_who_signs_out_is_signed_out(
    way: c.Callable[[Response], Response],
    answer: str,
    tracks: bool,
    refresh: bool,
    permanent: bool,
    is_late: bool,
    interface: str,
) -> None:
    site = signed_out(
        interface, SESSION_REFRESH_EACH_REQUEST=refresh, PERMANENT=permanent
    )

    def out() -> Response:
        if tracks:
            site.mengpaneel.track("Sign Out")

        kind = "application/json" if answer == "{}" else "text/html"
        response = (
            redirect("/")
            if answer == "redirect"
            else Response(answer, content_type=kind)
        )
        return response if is_late else way(response)

    site.view("/out", out)

    if is_late:
        run_later(site, "/out", way)

    client = site.client()
    client.set_cookie(COOKIE, json.dumps(DEVICE))
    client.get("/in")
    # The calls of signing in wait still: nothing has taken them.
    response = client.get("/out")

    if "Clear-Site-Data" in response.headers:
        # As a browser does.
        client.delete_cookie("session")

    made = [*names(page_calls(response)), *names(page_calls(client.get("/")))]
    made += [f"track {call.event}" for call in site.kept.calls]

    # Flask itself writes such a session again, and so does Flask-Session.
    again = way is deleted and refresh and permanent
    again = again and interface in ("Flask's", "store")
    assert client.get("/who").json == {"user": "ann" if again else None}
    assert sorted(made) == ["track Sign In", "track Sign Out"][: 1 + tracks]


@pytest.mark.parametrize("resets", [False, True])
@pytest.mark.parametrize("answer", ["redirect", "json"])
@pytest.mark.parametrize("waits", ["nothing", "an event", "an operation"])
def test_a_session_on_a_server_goes_on_under_no_id_of_who_has_signed_out(
    waits: str, answer: str, resets: bool
) -> None:
    site = Site()
    store = site.app.session_interface = Store(site.app)

    def into() -> dict[str, t.Any]:
        session["user"] = "ann"
        return {}

    def wait() -> t.Any:
        if waits == "an event":
            site.mengpaneel.track("Waiting")
        elif waits == "an operation":
            site.mengpaneel.people.set({"Plan": "pro"})

        return redirect("/") if waits == "an event" else {}

    def out() -> t.Any:
        site.mengpaneel.track("Sign Out")
        session.clear()

        if resets:
            site.mengpaneel.reset()

        return redirect("/") if answer == "redirect" else {}

    site.view("/in", into)
    site.view("/wait", wait)
    site.view("/out", out)
    client = site.client()
    client.set_cookie(COOKIE, json.dumps(DEVICE))
    client.get("/in")
    client.get("/wait")
    assert len(store.kept) == 1
    client.get("/out")

    assert store.kept == {}
    assert client.get_cookie("session") is None
    events = [call.event for call in site.kept.calls if call.tracks]
    assert sorted(events) == ["Sign Out", "Waiting"][: 1 + (waits == "an event")]


def test_what_waits_in_a_session_on_a_server_has_a_limit() -> None:
    site = Site()
    store = site.app.session_interface = Store(site.app)
    numbers = iter(range(100))

    def go() -> Response:
        site.mengpaneel.track("Go", {"Number": next(numbers), "Text": "x" * 500})
        return redirect("/")

    site.view("/go", go)
    site.view("/", lambda: PAGE)
    client = site.client()
    client.set_cookie(COOKIE, json.dumps(DEVICE))

    for _ in range(100):
        client.get("/go")

    (data,) = store.kept.values()
    assert 10_000 < len(data) < 20_000
    made = len(page_calls(client.get("/")))
    assert made > 10
    assert made + len(site.kept.calls) == 100


@pytest.mark.parametrize("way", WAYS_OUT)
def test_a_reset_where_the_library_has_no_cookie_undoes_no_sign_out(
    way: c.Callable[[Response], Response],
) -> None:
    site = Site(client_config={"persistence": "localStorage"})

    def into() -> str:
        session["user"] = "ann"
        return PAGE

    def out() -> Response:
        site.mengpaneel.track("Sign Out")
        site.mengpaneel.reset()
        return way(redirect("/"))

    site.view("/in", into)
    site.view("/out", out)
    site.view("/", lambda: PAGE)
    site.view("/who", lambda: {"user": session.get("user")})
    client = site.client()
    client.get("/in")

    if "Clear-Site-Data" in client.get("/out").headers:
        # As a browser does.
        client.delete_cookie("session")

    made = names(page_calls(client.get("/")))
    made += names(call.wire for call in site.kept.calls)

    assert client.get("/who").json == {"user": None}
    assert made[0] == "track Sign Out"
    assert made.count("track Sign Out") == 1


def test_what_waited_in_a_deleted_session_is_sent_once_for_all_its_requests() -> None:
    site = signed_out()
    site.view("/out", lambda: deleted(Response("bye", content_type="text/plain")))
    client = site.client()
    client.set_cookie(COOKIE, json.dumps(DEVICE))
    client.get("/in")
    kept = client.get_cookie("session")
    assert kept is not None
    client.get("/out")
    # A request that was under way has the session still.
    client.set_cookie("session", kept.value)
    client.get("/out")

    assert [call.event for call in site.kept.calls] == ["Sign In"]


def test_a_session_cleared_on_a_shared_page_loses_no_call() -> None:
    site = signed_out()

    def out() -> Response:
        session.clear()
        return Response(PAGE, headers={"Cache-Control": "public"})

    site.view("/out", out)
    client = site.client()
    client.get("/in")
    client.get("/out")

    assert client.get_cookie("session") is None
    assert [call.event for call in site.kept.calls] == ["Sign In"]


@pytest.mark.parametrize("headers", [CAPABLE, {}])
def test_a_strategy_that_fails_in_a_test_hides_nothing(headers: dict[str, str]) -> None:
    site = Site()
    site.app.config["SESSION_COOKIE_SAMESITE"] = "invalid"

    def view() -> dict[str, str]:
        session["basket"] = "full"
        site.mengpaneel.track("View")
        return {}

    site.view("/", view)

    with pytest.raises(ValueError, match="SameSite"):
        site.client().get("/", headers=headers)

    balance = site.mengpaneel.ledger().snapshot()
    assert balance.balanced
    assert (balance.recorded, balance.waiting) == (1, 0)


# -- what is said and done after the extension


#: A carrier, and what each is told at least.
LATE = ["page", "header", "redirect", "unasked", "late", "refused", "ids", "choice"]


@pytest.mark.parametrize("carrier", LATE)
@pytest.mark.parametrize("answers", SHARED)
def test_what_comes_later_makes_nobody_s_response_everybody_s(
    answers: Answers, carrier: str
) -> None:
    case = Case(carrier, Answers({}, ALL))
    run_later(case.site, "/", lambda response: response.headers.update(answers.headers))
    response = case.respond()
    told = directives(response.headers["Cache-Control"])

    assert case.carried(response)
    assert ("no-store" if carrier == "header" else "private") in told
    assert "public" not in told
    assert "s-maxage" not in told
    assert "must-understand" not in told or "private" in told
    assert not told.get("private") and not told.get("no-cache")
    assert set(response.headers.keys()).isdisjoint(
        set(answers.headers) - {"Cache-Control"}
    )


@pytest.mark.parametrize("answers", SHARED)
def test_what_carries_nothing_is_kept_as_the_app_says(answers: Answers) -> None:
    site = Site(respect_dnt=False)
    site.view("/", lambda: PAGE)
    run_later(site, "/", lambda response: response.headers.update(answers.headers))
    response = site.client().get("/")

    assert block(response) is not None
    assert [(n, v) for n, v in response.headers if n in answers.headers] == list(
        answers.headers.items()
    )


def test_who_is_signed_in_later_stays_it() -> None:
    site = Site()
    site.view("/", lambda: (site.mengpaneel.track("Go"), redirect("/there"))[1])
    run_later(site, "/", lambda response: response.set_cookie("session", "other"))
    client = site.client()
    client.get("/")
    kept = client.get_cookie("session")

    assert kept is not None and kept.value == "other"
    assert [call.event for call in site.kept.calls] == ["Go"]


# -- sessions of other kinds


@pytest.mark.parametrize(
    "stored",
    ["", "{", "[" * 3_000, "3", None, 7, {"a": 1}, [2, 1]],
    ids=lambda stored: repr(stored)[:9],
)
def test_what_else_lies_in_the_session_breaks_nothing(stored: t.Any) -> None:
    site = Site()
    site.view("/go", lambda: (site.mengpaneel.track("Earlier"), redirect("/"))[1])
    site.view("/", lambda: PAGE)
    client = site.client()
    client.get("/go")

    with client.session_transaction() as kept:
        (key,) = kept
        kept[key] = stored

    assert client.get("/").status_code == 200


# -- hosts


@pytest.mark.parametrize("answer", [PAGE, "redirect", "json"])
def test_a_host_that_is_not_trusted_is_a_quiet_error(
    answer: str, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site()
    # As the setting TRUSTED_HOSTS does, which Flask 3.0 hasn't.
    site.app.request_class = type(
        "Request", (Request,), {"trusted_hosts": ["shop.example"]}
    )

    @site.app.errorhandler(400)
    def refuse(_: t.Any) -> t.Any:
        site.mengpaneel.track("Refused")

        if answer == "redirect":
            return redirect("/x")

        return ({} if answer == "json" else PAGE), 400

    site.view("/", lambda: request.host)
    headers = {"Host": "evil.example", **(CAPABLE if answer == "json" else {})}
    response = site.client().get("/", headers=headers)

    assert response.status_code == (302 if answer == "redirect" else 400)
    assert "Set-Cookie" not in response.headers
    assert [call.event for call in site.kept.calls] == ["Refused"]
    assert caplog.records == []


# -- cookies


def test_a_cookie_is_written_only_if_its_value_changes() -> None:
    site = Site(strategies=["AsyncServerSide"])

    def view() -> dict[str, str]:
        with site.mengpaneel.setup():
            site.mengpaneel.identify("ann")
            site.mengpaneel.register({"Plan": "pro"})

        site.mengpaneel.track("Visit")
        return {}

    site.view("/", view)
    client = site.client()
    headers = {"Accept": "application/json", "Sec-Fetch-Dest": "empty"}
    first = client.get("/", headers=headers)
    second = client.get("/", headers=headers)

    assert "Set-Cookie" in first.headers
    assert first.headers["Cache-Control"] == "private"
    assert "Set-Cookie" not in second.headers
    assert "Cache-Control" not in second.headers
    kept = client.get_cookie(COOKIE)
    assert kept is not None
    # In other words, the same.
    value = dict(reversed(json.loads(unquote(kept.value)).items()))
    client.set_cookie(COOKIE, quote(json.dumps(value, indent=1)))
    assert "Set-Cookie" not in client.get("/", headers=headers).headers


@pytest.mark.parametrize(
    ("before", "now", "is_written"),
    [
        ("1", True, True),
        ("true", 1, True),
        ('"1"', 1, True),
        ("null", 0, True),
        # As JavaScript writes them.
        ("20", 20.0, False),
        ('[{"a": -3}]', [{"a": -3.0}], False),
        ("1e20", 1e20, False),
        ("20.5", 20.5, False),
    ],
)
def test_a_value_is_written_if_it_is_another_one_to_javascript(
    before: str, now: t.Any, is_written: bool
) -> None:
    site = Site(strategies=["AsyncServerSide"])

    def view() -> dict[str, str]:
        site.mengpaneel.register({"x": now})
        site.mengpaneel.track("Visit")
        return {}

    site.view("/", view)
    client = site.client()
    client.set_cookie(COOKIE, f'{json.dumps(DEVICE)[:-1]}, "x": {before}}}')
    headers = client.get("/", headers={"Accept": "*/*"}).headers

    assert ("Set-Cookie" in headers) is is_written


@pytest.mark.parametrize("choice", ["opt_out_tracking", "opt_in_tracking"])
def test_a_choice_that_is_kept_already_is_not_written(choice: str) -> None:
    site = Site()
    site.view("/", lambda: (getattr(site.mengpaneel, choice)(), {})[1])
    client = site.client()
    first = client.get("/", headers={"Accept": "*/*"})
    second = client.get("/", headers={"Accept": "*/*"})

    assert "__mp_opt_in_out_token" in first.headers["Set-Cookie"]
    assert "Set-Cookie" not in second.headers
