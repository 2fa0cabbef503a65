from __future__ import annotations

import base64
import collections.abc as c
import concurrent.futures
import copy
import datetime
import itertools
import json
import pickle
import typing as t
from urllib.parse import quote, unquote

import pytest
from flask import Flask, Response, abort, redirect, request, session
from flask.sessions import (
    SecureCookieSession,
    SecureCookieSessionInterface,
    SessionInterface,
    SessionMixin,
)
from flask.testing import FlaskClient
from flask_session.base import ServerSideSessionInterface
from werkzeug.exceptions import HTTPException
from werkzeug.test import TestResponse
from werkzeug.wrappers import Response as WerkzeugResponse

from flask_mengpaneel.choose.caching import directives
from flask_mengpaneel.choose.carrier import mark_private
from sites import (
    CAPABLE,
    COOKIE,
    PAGE,
    Site,
    block,
    header_calls,
    names,
    page_calls,
)

KNOWN = {"distinct_id": "$device:d1", "$device_id": "d1"}
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
    row(ALL, X_LiteSpeed_Cache_Control="no-store"),
    row(ALL, Cache_Control="private"),
    row(ALL, Cache_Control="no-cache, must-revalidate"),
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
    row(ALL - {"page"}, Refresh="0; url=/next"),
    row(ALL, Refresh="60"),
    row(SESSION - SESSION, 304),
]


class Consent:
    """A visitor's answer, which may change."""

    answer: bool | None = True

    def __call__(self) -> bool | None:
        return self.answer


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
            settings["delayed_max_age"] = 0.0

        self.site = site = Site(**settings)
        site.view("/go", lambda: (site.mengpaneel.track("Earlier"), redirect("/"))[1])
        site.view("/", self.view, methods=["GET", "POST"])
        site.view("/after", lambda: PAGE)
        self.client = client = site.client()

        if carrier in COOKIES:
            client.set_cookie("other", "1")
        else:
            client.set_cookie(COOKIE, json.dumps(KNOWN))

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
    site = Site(delayed_max_age=0.0)
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
    site = Site(delayed_max_age=0.0)
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


# -- frames


@pytest.mark.parametrize("destination", ["iframe", "frame", "embed", "object"])
@pytest.mark.parametrize(
    ("headers", "where", "shown"),
    [
        ({}, "cross-site", True),
        ({"X-Frame-Options": "DENY"}, "same-origin", False),
        ({"X-Frame-Options": "deny"}, "cross-site", False),
        ({"X-Frame-Options": "SAMEORIGIN"}, "same-origin", True),
        ({"X-Frame-Options": "SAMEORIGIN"}, "same-site", False),
        ({"X-Frame-Options": "SAMEORIGIN"}, "cross-site", False),
        ({"X-Frame-Options": "DENY, SAMEORIGIN"}, "same-origin", False),
        ({"X-Frame-Options": "ALLOW-FROM https://a.example"}, "cross-site", True),
        ({"CSP": "frame-ancestors 'none'"}, "same-origin", False),
        ({"CSP": "frame-ancestors"}, "same-origin", False),
        ({"CSP": "frame-ancestors 'self'"}, "same-origin", True),
        ({"CSP": "frame-ancestors 'self'"}, "cross-site", False),
        ({"CSP": "frame-ancestors *"}, "cross-site", True),
        ({"CSP": "frame-ancestors https:"}, "cross-site", True),
        ({"CSP": "frame-ancestors https://partner.example"}, "cross-site", True),
        ({"CSP": "frame-ancestors *.example:443"}, "cross-site", True),
        ({"CSP": "frame-ancestors https://other.example"}, "cross-site", False),
        ({"CSP": "frame-ancestors *, frame-ancestors 'none'"}, "cross-site", False),
        ({"CSP": "frame-ancestors *", "X-Frame-Options": "DENY"}, "cross-site", True),
    ],
)
def test_a_page_that_no_frame_may_show_carries_nothing(
    headers: dict[str, str], where: str, shown: bool, destination: str
) -> None:
    site = Site()
    given = dict(headers)

    if "CSP" in given:
        given["Content-Security-Policy"] = given.pop("CSP")

    site.view("/", lambda: (site.mengpaneel.track("Now"), (PAGE, given))[1])
    site.view("/quiet", lambda: (PAGE, given))
    fetched = {
        "Sec-Fetch-Dest": destination,
        "Sec-Fetch-Site": where,
        "Sec-Fetch-Mode": "navigate",
        "Referer": "https://partner.example/",
    }
    client = site.client()

    assert bool(page_calls(client.get("/", headers=fetched))) == shown
    assert (block(client.get("/quiet", headers=fetched)) is not None) == shown
    assert len(site.kept.calls) == (not shown)
    # As the page of a tab it is shown all the same.
    assert page_calls(client.get("/", headers={"Sec-Fetch-Dest": "document"}))


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


@pytest.mark.parametrize("is_late", [False, True], ids=["in the view", "later"])
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
        later(site, "/", lambda response: response.make_conditional(request))
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
    assert block(agreed) is not None
    assert refused.text == PAGE
    assert refused.headers["ETag"] == etag

    # Nobody is told that a page with the library is right who has refused since.
    withdrawn = ask(agreed, **refuses)
    assert (withdrawn.status_code, withdrawn.text) == (200, PAGE)

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
@pytest.mark.parametrize("is_late", [False, True], ids=["in the view", "later"])
def test_a_page_with_the_library_is_not_for_all_where_consent_differs(
    headers: dict[str, str], boots: bool, is_late: bool
) -> None:
    def answer(**settings: t.Any) -> TestResponse:
        site = Site(**settings)
        site.view("/", lambda: Response(PAGE, headers={} if is_late else headers))

        if is_late:
            later(site, "/", lambda response: response.headers.update(headers))

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


def signed_out(interface: SessionInterface | None = None, **config: t.Any) -> Site:
    """A site whose visitors sign in and out."""
    site = Site(strategies=["Delayed", "ClientSide", "AsyncServerSide"])
    site.app.config.update(config)

    if interface is not None:
        site.app.session_interface = interface

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


def emptied(response: Response) -> Response:
    session.clear()
    return response


WAYS_OUT = [deleted, cleared, emptied]


def later(site: Site, path: str, hook: c.Callable[[Response], t.Any]) -> None:
    """Let a function run after the extension's."""

    def run(response: Response) -> Response:
        if request.path == path:
            hook(response)

        return response

    # Flask calls first what was registered last.
    site.app.after_request_funcs[None].insert(0, run)


@pytest.mark.parametrize("is_late", [False, True], ids=["in the view", "later"])
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
) -> None:
    site = signed_out(SESSION_REFRESH_EACH_REQUEST=refresh, PERMANENT=permanent)

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
        later(site, "/out", way)

    client = site.client()
    client.set_cookie(COOKIE, json.dumps(KNOWN))
    client.get("/in")
    # The calls of signing in wait still: nothing has taken them.
    response = client.get("/out")

    if "Clear-Site-Data" in response.headers:
        # As a browser does.
        client.delete_cookie("session")

    made = [*names(page_calls(response)), *names(page_calls(client.get("/")))]
    made += [f"track {call.event}" for call in site.kept.calls]

    # Flask itself writes such a session again.
    again = way is deleted and refresh and permanent
    assert client.get("/who").json == {"user": "ann" if again else None}
    assert sorted(made) == ["track Sign In", "track Sign Out"][: 1 + tracks]


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
    client.get("/out")
    made = names(page_calls(client.get("/")))
    made += names(call.wire for call in site.kept.calls)

    assert client.get("/who").json == {"user": None}
    assert made[0] == "track Sign Out"
    assert made.count("track Sign Out") == 1


def test_what_waited_in_a_deleted_session_is_sent_once_for_all_its_requests() -> None:
    site = signed_out()
    site.view("/out", lambda: deleted(Response("bye", content_type="text/plain")))
    client = site.client()
    client.set_cookie(COOKIE, json.dumps(KNOWN))
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

    books = site.mengpaneel.ledger().snapshot()
    assert books.balanced
    assert books.recorded == 1 or len(site.kept.calls) == 1


# -- what is said and done after the extension


#: A carrier, and what each is told at least.
LATE = ["page", "header", "redirect", "unasked", "late", "refused", "ids", "choice"]


@pytest.mark.parametrize("carrier", LATE)
@pytest.mark.parametrize("answers", SHARED)
def test_what_comes_later_makes_nobody_s_response_everybody_s(
    answers: Answers, carrier: str
) -> None:
    case = Case(carrier, Answers({}, ALL))
    later(case.site, "/", lambda response: response.headers.update(answers.headers))
    response = case.respond()
    told = directives(response.headers["Cache-Control"])

    assert case.carried(response)
    assert ("no-store" if carrier == "header" else "private") in told
    assert "public" not in told
    assert "s-maxage" not in told
    assert not told.get("private") and not told.get("no-cache")
    assert set(response.headers.keys()).isdisjoint(
        set(answers.headers) - {"Cache-Control"}
    )


@pytest.mark.parametrize("answers", SHARED)
def test_what_carries_nothing_is_kept_as_the_app_says(answers: Answers) -> None:
    site = Site(respect_dnt=False)
    site.view("/", lambda: PAGE)
    later(site, "/", lambda response: response.headers.update(answers.headers))
    response = site.client().get("/")

    assert block(response) is not None
    assert [(n, v) for n, v in response.headers if n in answers.headers] == list(
        answers.headers.items()
    )


def test_who_is_signed_in_later_stays_it() -> None:
    site = Site()
    site.view("/", lambda: (site.mengpaneel.track("Go"), redirect("/there"))[1])
    later(site, "/", lambda response: response.set_cookie("session", "other"))
    client = site.client()
    client.get("/")
    kept = client.get_cookie("session")

    assert kept is not None and kept.value == "other"
    assert [call.event for call in site.kept.calls] == ["Go"]


@pytest.mark.parametrize("size", [10, 1_000_000])
@pytest.mark.parametrize("consents", [True, False])
@pytest.mark.parametrize("tracks", [True, False])
@pytest.mark.parametrize("whole", [True, False], ids=["response", "body"])
def test_a_page_that_the_app_has_kept_of_somebody_has_nothing_of_theirs(
    whole: bool, tracks: bool, consents: bool, size: int
) -> None:
    page = PAGE.replace("Hi", "Hi" * size)
    consent = Consent()
    site = Site(consent=consent)
    kept: list[Response] = []

    def remember(response: Response) -> None:
        if not kept:
            kept.append(
                Response(response.get_data(), headers=response.headers)
                if whole
                else Response(response.get_data())
            )

    def recall() -> Response | None:
        if kept and tracks:
            site.mengpaneel.track("Again")

        return kept[0] if kept else None

    site.app.before_request(recall)
    site.view("/", lambda: (site.mengpaneel.track("First"), page)[1])
    later(site, "/", remember)
    assert names(page_calls(site.client().get("/"))) == ["track First"]
    consent.answer = consents

    for _ in range(2):
        response = site.client().get("/")
        made = names(page_calls(response))
        assert made == (["track Again"] if tracks and consents else [])
        assert "First" not in response.text
        assert response.text.count('id="mengpaneel"') == consents
        assert response.content_length == len(response.data)
        assert response.text.endswith(page[-2 * size :])


@pytest.mark.parametrize("cookie", [True, False])
@pytest.mark.parametrize("tracks", [True, False])
def test_an_answer_that_the_app_has_kept_of_somebody_has_nothing_of_theirs(
    tracks: bool, cookie: bool
) -> None:
    site = Site()
    kept: list[Response] = []

    def recall() -> Response | None:
        if kept and tracks:
            site.mengpaneel.track("Again")

        return kept[0] if kept else None

    site.app.before_request(recall)
    site.view("/", lambda: (site.mengpaneel.track("First"), {"a": 1})[1])
    later(site, "/", lambda response: kept or kept.append(response))
    first = site.client().get("/", headers=CAPABLE)
    assert names(header_calls(first)) == ["track First"]

    for _ in range(2):
        client = site.client()

        if cookie:
            client.set_cookie(COOKIE, json.dumps(KNOWN))

        response = client.get("/", headers=CAPABLE)
        assert names(header_calls(response)) == (["track Again"] if tracks else [])
        assert response.json == {"a": 1}
        theirs = first.headers["X-Mengpaneel-Signature"]
        assert theirs not in str(response.headers)


@pytest.mark.parametrize(
    "text", ['<div id="mengpaneel"></div>', '<script>"mengpaneel"</script>']
)
def test_what_only_has_the_name_stays(text: str) -> None:
    site = Site(consent=lambda: False)
    site.view("/", lambda: PAGE.replace("Hi", text))

    assert text in site.client().get("/").text


@pytest.mark.parametrize("size", [10, 1_000_000])
def test_what_is_kept_of_a_response_can_be_given_again(size: int) -> None:
    page = PAGE.replace("Hi", "Hi" * size)
    site = Site()
    site.view("/", lambda: (site.mengpaneel.track("View"), page)[1])
    kept: list[Response] = []

    def keep(response: Response) -> None:
        kept.extend([pickle.loads(pickle.dumps(response)), copy.copy(response)])

    later(site, "/", keep)
    response = site.client().get("/")

    assert [type(one) for one in kept] == [Response, Response]
    assert [one.get_data() for one in kept] == [response.data] * 2


# -- sessions of other kinds


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
def test_what_is_held_for_consent_is_in_the_books(
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
    assert books.recorded == 1
    # What waits for consent is handed over to the session.
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


def test_a_session_of_an_earlier_version_is_read() -> None:
    site = Site()
    site.view("/go", lambda: (site.mengpaneel.track("Earlier"), redirect("/"))[1])
    site.view("/", lambda: PAGE)
    client = site.client()
    client.get("/go")

    with client.session_transaction() as kept:
        (key,) = kept
        _, *entries = json.loads(kept[key])
        kept[key] = [1, *entries]

    assert names(page_calls(client.get("/"))) == ["track Earlier"]


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


# -- one response for many requests


def test_one_response_object_gives_each_visitor_only_their_own() -> None:
    closed: list[int] = []
    shared = Response(PAGE)
    shared.call_on_close(lambda: closed.append(1))
    gone = Response("", 302, {"Location": "/"})
    data = Response("{}", content_type="application/json")
    before = [(list(one.headers), one.get_data()) for one in (shared, gone, data)]
    site = Site()

    def view(response: Response) -> c.Callable[[], Response]:
        def tracked() -> Response:
            with site.mengpaneel.setup():
                site.mengpaneel.identify(request.args["user"])

            site.mengpaneel.track("View", {"who": request.args["user"]})
            return response

        return tracked

    site.view("/", view(shared))
    site.view("/go", view(gone))
    site.view("/data", view(data))
    site.view("/quiet", lambda: shared)

    def visit(user: str) -> None:
        client = site.client()

        for path in ("/", "/data", "/go"):
            headers = CAPABLE if path == "/data" else {}
            response = client.get(f"{path}?user={user}", headers=headers)
            text = json.dumps([*page_calls(response), *header_calls(response)])
            assert path == "/go" or f'"{user}"' in text
            assert all(f'"u{n}"' not in text for n in range(20) if f"u{n}" != user)
            response.close()

        quiet = client.get("/quiet")
        assert quiet.text.count('id="mengpaneel"') == 1
        quiet.close()

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(visit, [f"u{number}" for number in range(20)]))

    after = [(list(one.headers), one.get_data()) for one in (shared, gone, data)]
    assert after == before
    assert len(closed) == 40


def test_a_response_of_a_class_with_slots_and_a_stream_is_copied_whole() -> None:
    class Slotted(Response):
        __slots__ = ("extra",)

    site = Site()

    def view() -> Response:
        site.mengpaneel.track("View")
        response = Slotted()
        response.extra = 1
        response.content_type = "text/html"
        response.stream.write(PAGE.encode())
        return response

    @site.app.after_request
    def check(response: Response) -> Response:
        return response

    site.view("/", view)
    response = site.client().get("/")

    assert names(page_calls(response)) == ["track View"]


# -- bodies


PARTS = [PAGE[:30], PAGE[30:]]


class Sold(HTTPException):
    code = 410

    def get_body(self, *_: t.Any) -> str:
        return PAGE


def raising(error: t.Any) -> c.Callable[[], t.Any]:
    def view() -> t.Any:
        abort(error) if not isinstance(error, Exception) else None
        raise error

    return view


@pytest.mark.parametrize(
    "view",
    [
        raising(Sold()),
        raising(Response(PAGE, 404)),
        raising(WerkzeugResponse(PAGE, 404, content_type="text/html")),
        raising(WerkzeugResponse(PARTS, 404, content_type="text/html")),
        lambda: WerkzeugResponse(PAGE, 404, content_type="text/html"),
        lambda: Response((PAGE[:30], PAGE[30:].encode()), 404),
    ],
    ids=["own", "aborted", "Werkzeug's", "in parts", "returned", "tuple"],
)
def test_an_error_with_a_page_of_its_own_is_a_page(view: c.Callable[[], t.Any]) -> None:
    site = Site()
    site.view("/", lambda: (site.mengpaneel.track("Miss"), view())[1])
    site.view("/quiet", view)
    client = site.client()

    for path in ("/", "/quiet"):
        response = client.get(path)
        assert response.status_code in (404, 410)
        assert names(page_calls(response)) == ["track Miss"] * (path == "/")
        assert block(response) is not None
        assert response.content_length == len(response.data)

    assert site.kept.calls == []


def test_no_stream_is_read_ahead() -> None:
    read: list[int] = []

    def parts() -> c.Iterator[bytes]:
        for number in itertools.count():
            read.append(number)
            yield PAGE.encode()

    site = Site()
    site.view(
        "/",
        lambda: (
            site.mengpaneel.track("View"),
            WerkzeugResponse(parts(), content_type="text/html"),
        )[1],
    )

    def application(environ: t.Any, start_response: t.Any) -> t.Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/html")])
        return parts()

    site.view("/app", lambda: (site.mengpaneel.track("View"), application)[1])

    def aborted() -> None:
        site.mengpaneel.track("View")
        abort(Response(parts()))

    site.view("/abort", aborted)

    for path in ("/", "/app", "/abort"):
        read.clear()
        site.client().get(path).close()
        # Werkzeug's client, and Flask for an application, read the first.
        assert len(read) <= 2

    assert [call.event for call in site.kept.calls] == ["View"] * 3


@pytest.mark.parametrize("size", [10, 200_000, 1_000_000])
@pytest.mark.parametrize("tracks", [True, False])
def test_a_response_that_is_closed_before_it_is_read_is_whole(
    tracks: bool, size: int
) -> None:
    page = PAGE.replace("Hi", "Hi" * size)
    site = Site()
    site.view("/", lambda: (tracks and site.mengpaneel.track("View"), page)[1])
    response = site.client().get("/")
    response.close()

    assert response.text.endswith("</html>")
    assert response.get_data() == response.get_data()
    assert (block(response) is not None) and len(page_calls(response)) == tracks


@pytest.mark.parametrize("size", [10, 1_000_000])
def test_what_runs_later_can_work_with_the_page(size: int) -> None:
    page = PAGE.replace("Hi", "Hi" * size)
    site = Site()
    site.view("/", lambda: (site.mengpaneel.track("View"), page)[1])
    seen: dict[str, t.Any] = {}

    def later(response: Response) -> Response:
        seen["encoded"] = b"".join(response.iter_encoded())
        seen["data"] = response.get_data()
        seen["length"] = response.calculate_content_length()
        response.stream.write(b"<!-- end -->")
        response.freeze()
        return response.make_conditional(request)

    # Flask calls first what was registered last.
    site.app.after_request_funcs[None].insert(0, later)
    response = site.client().get("/")

    assert seen["encoded"] == seen["data"]
    assert seen["length"] == len(seen["data"])
    assert response.data == seen["data"] + b"<!-- end -->"
    assert response.content_length == len(response.data)


@pytest.mark.parametrize(
    "element",
    [
        "<html amp>",
        "<html ⚡>",
        "<HTML lang=en AMP>",
        "<html ⚡4ads>",
        "<html amp4email data-css-strict>",
        '<html ⚡="" lang="en">',
        "<html class='a > b' amp>",
        "<html ⚡\ufe0f>",
    ],
)
def test_an_amp_page_is_left_alone(element: str) -> None:
    page = PAGE.replace("<html>", element)
    site = Site()
    site.view("/", lambda: (site.mengpaneel.track("View"), page)[1])
    site.view("/quiet", lambda: page)

    assert site.client().get("/").text == page
    assert site.client().get("/quiet").text == page
    assert [call.event for call in site.kept.calls] == ["View"]


@pytest.mark.parametrize(
    "element",
    [
        "<html class=amp>",
        '<html class="no amp js">',
        "<html data-amp>",
        "<html a=amp >",
    ],
)
def test_a_page_that_only_names_amp_is_a_page(element: str) -> None:
    page = PAGE.replace("<html>", element).replace("Hi", "<html amp>")
    site = Site()
    site.view("/", lambda: (site.mengpaneel.track("View"), page)[1])

    assert names(page_calls(site.client().get("/"))) == ["track View"]


# -- how much fits


def size_of(response: TestResponse) -> int:
    """Bytes of what nginx holds in one buffer: all that is before the body."""
    lines = [f"HTTP/1.1 {response.status}", "Server: gunicorn", "Connection: close"]
    lines.append("Date: Sat, 01 Nov 2025 09:00:00 GMT")
    lines += [f"{name}: {value}" for name, value in response.headers]
    return sum(len(line) + 2 for line in lines) + 2


@pytest.mark.parametrize("events", [1, 5, 10, 22, 40])
@pytest.mark.parametrize("crowd", [0, 500, 1500, 2500])
@pytest.mark.parametrize("policy", ["", "default-src https://a.example/" + "a" * 700])
@pytest.mark.parametrize("leads", [True, False], ids=["redirect", "fetch"])
@pytest.mark.parametrize("ids", [0, 36, 255])
def test_headers_fit_the_buffer_of_a_proxy(
    events: int, crowd: int, policy: str, leads: bool, ids: int
) -> None:
    site = Site(token="t" * 32)
    noise = base64.b85encode(bytes(n * n % 251 for n in range(crowd))).decode()

    def view() -> Response:
        session["noise"] = noise

        for number in range(events):
            site.mengpaneel.track(f"E{number}", {"n": str(number)})

        response = redirect("/") if leads else Response("{}", mimetype="text/x")

        if policy:
            response.headers["Content-Security-Policy"] = policy

        return response

    site.view("/go", view)
    site.view("/", lambda: PAGE)
    client = site.client()

    if ids:
        device, user = "d" * ids, "u" * ids
        known = {"distinct_id": user, "$device_id": device, "$user_id": user}
        client.set_cookie(f"mp_{'t' * 32}_mixpanel", json.dumps(known))

    response = client.get("/go", headers={} if leads else CAPABLE)
    server_sent = bool(site.kept.calls)

    if not server_sent:
        assert size_of(response) <= 4096

    made = names(header_calls(response))
    made += names(page_calls(client.get("/"))) if leads else []
    made += [f"track {call.event}" for call in site.kept.calls]
    assert made == [f"track E{number}" for number in range(events)]


# -- hosts


@pytest.mark.parametrize("answer", [PAGE, "redirect", "json"])
def test_a_host_that_is_not_trusted_is_a_quiet_error(
    answer: str, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site()
    site.app.config["TRUSTED_HOSTS"] = ["shop.example"]

    @site.app.errorhandler(400)
    def refuse(_: t.Any) -> t.Any:
        site.mengpaneel.track("Refused")

        if answer == "redirect":
            return redirect("/x")

        return ({} if answer == "json" else PAGE), 400

    site.view("/", lambda: "hi")
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


@pytest.mark.parametrize(("before", "now"), [(1, True), (True, 1), ("1", 1), (None, 0)])
def test_a_value_of_another_type_is_another_value(before: t.Any, now: t.Any) -> None:
    site = Site(strategies=["AsyncServerSide"])

    def view() -> dict[str, str]:
        site.mengpaneel.register({"x": now})
        site.mengpaneel.track("Visit")
        return {}

    site.view("/", view)
    client = site.client()
    client.set_cookie(COOKIE, json.dumps({**KNOWN, "x": before}))
    assert "Set-Cookie" in client.get("/", headers={"Accept": "*/*"}).headers


@pytest.mark.parametrize("choice", ["opt_out_tracking", "opt_in_tracking"])
def test_a_choice_that_is_kept_already_is_not_written(choice: str) -> None:
    site = Site()
    site.view("/", lambda: (getattr(site.mengpaneel, choice)(), {})[1])
    client = site.client()
    first = client.get("/", headers={"Accept": "*/*"})
    second = client.get("/", headers={"Accept": "*/*"})

    assert "__mp_opt_in_out_token" in first.headers["Set-Cookie"]
    assert "Set-Cookie" not in second.headers


# -- what is said


@pytest.mark.parametrize(
    ("told", "options", "expected"),
    [
        ([], {}, "private"),
        (["no-store"], {}, "no-store, private"),
        (["max-age=9", "must-revalidate"], {}, "max-age=9, must-revalidate, private"),
        (["private"], {}, "private"),
        (["PRIVATE, Max-Age=3"], {"page": True}, "PRIVATE, Max-Age=3"),
        ([], {"page": True}, "private, no-cache"),
        ([], {"header": True}, "no-store"),
        (["no-cache"], {"header": True}, "no-cache, no-store"),
        (["no-store"], {"header": True}, "no-store"),
    ],
)
def test_what_the_app_says_of_caches_stays(
    told: list[str], options: dict[str, bool], expected: str
) -> None:
    response = Response()

    for line in told:
        response.headers.add("Cache-Control", line)

    mark_private(response, **options)

    assert response.headers.getlist("Cache-Control") == [expected]


@pytest.mark.parametrize("size", [1_000, 10_000, 100_000])
@pytest.mark.parametrize("text", ['"', '\\"', '"\\', '",', "a=", ", ", '="'])
def test_any_directives_are_read(text: str, size: int) -> None:
    assert isinstance(directives(text * size), dict)
