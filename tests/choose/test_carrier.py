"""Responses that carry something, and what the app does with them."""

from __future__ import annotations

import collections.abc as c
import concurrent.futures
import copy
import functools
import json
import pickle
import typing as t
from urllib.parse import unquote

import pytest
from flask import Response, redirect, request, session
from werkzeug.datastructures import Headers
from werkzeug.wrappers import Response as WerkzeugResponse

from sites import (
    CAPABLE,
    COOKIE,
    DEVICE,
    PAGE,
    Consent,
    Site,
    header_calls,
    names,
    page_calls,
    run_later,
)


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
    run_later(site, "/", remember)
    assert names(page_calls(site.client().get("/"))) == ["track First"]
    consent.answer = consents

    for _ in range(2):
        response = site.client().get("/")
        made = names(page_calls(response))
        assert made == (["track Again"] if tracks and consents else [])
        assert "First" not in response.text
        # Who has refused gets the script too, so that the page's own calls do no harm.
        assert response.text.count('id="mengpaneel"') == 1
        assert ('"refused":true' in response.text) is not consents
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
    run_later(site, "/", lambda response: kept or kept.append(response))
    first = site.client().get("/", headers=CAPABLE)
    assert names(header_calls(first)) == ["track First"]

    for _ in range(2):
        client = site.client()

        if cookie:
            client.set_cookie(COOKIE, json.dumps(DEVICE))

        response = client.get("/", headers=CAPABLE)
        assert names(header_calls(response)) == (["track Again"] if tracks else [])
        assert response.json == {"a": 1}
        theirs = first.headers["X-Mengpaneel-Signature"]
        assert theirs not in str(response.headers)


@pytest.mark.parametrize("how", ["object", "pickle", "parts"])
@pytest.mark.parametrize("answer", ["json", "redirect"])
def test_an_answer_that_the_app_has_kept_signs_nobody_in(answer: str, how: str) -> None:
    site = Site()
    kept: list[Response] = []

    def keep(response: Response) -> None:
        if kept:
            return

        if how == "pickle":
            response = pickle.loads(pickle.dumps(response))
        elif how == "parts":
            response = Response(response.data, response.status, response.headers)

        kept.append(response)

    def into() -> dict[str, str]:
        session["user"] = "ann"
        return {}

    def view() -> t.Any:
        with site.mengpaneel.setup():
            site.mengpaneel.identify("ann@example.com")

        site.mengpaneel.track("First")
        return redirect("/next") if answer == "redirect" else {}

    site.app.before_request(lambda: kept[0] if kept and request.path == "/" else None)
    site.view("/", view)
    site.view("/in", into)
    site.view("/who", lambda: {"user": session.get("user")})
    run_later(site, "/", keep)
    first = site.client()
    first.get("/in")
    first.get("/")
    other = site.client()
    response = other.get("/")

    assert "ann" not in unquote(str(response.headers))
    assert other.get("/who").json == {"user": None}


@pytest.mark.parametrize(
    "text",
    [
        '<div id="mengpaneel"></div>',
        '<div id="mengpaneel" data-mark="^"></div>',
        '<script>"mengpaneel" ^ 1</script>',
    ],
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

    run_later(site, "/", keep)
    response = site.client().get("/")

    assert [type(one) for one in kept] == [Response, Response]
    assert [one.get_data() for one in kept] == [response.data] * 2


class Stamped(Response):
    """What an app may have instead: it says more when it leaves."""

    def get_wsgi_headers(self, environ: t.Any) -> Headers:
        headers = super().get_wsgi_headers(environ)
        headers["X-Stamp"] = "1"
        return headers


class Spelled(Headers):
    """Headers that are written as HTTP's authors do, when they leave."""

    def to_wsgi_list(self) -> list[tuple[str, str]]:
        return [(name.title(), value) for name, value in self]


class Spelling(Response):
    """Werkzeug lets them leave as they are: it makes headers of its own of them."""

    def __init__(self, *args: t.Any, **options: t.Any) -> None:
        super().__init__(*args, **options)
        self.headers = Spelled(self.headers)


@pytest.mark.parametrize(
    ("status", "changes"),
    [
        (200, {}),
        (200, {"x-a": "1", "X-SOURCE": "b"}),
        (200, {"Vary": "Cookie"}),
        (200, {"Content-Length": None}),
        (200, {"Location": "/caf\xe9?a=\xfc"}),
        (200, {"content-location": "/caf\xe9"}),
        (204, {}),
        (404, {"Location": "/caf\xe9"}),
        (304, {"ETag": '"1"'}),
    ],
)
@pytest.mark.parametrize("kind", [Response, Stamped, Spelling])
@pytest.mark.parametrize("tracks", [True, False])
def test_a_page_leaves_with_its_headers_as_they_leave_without_the_extension(
    tracks: bool, kind: type[Response], status: int, changes: dict[str, str | None]
) -> None:
    site = Site()
    site.app.response_class = kind
    expected: list[list[tuple[str, str]]] = []

    def view() -> str:
        if tracks:
            site.mengpaneel.track("View")

        return PAGE

    def change(response: Response) -> None:
        response.status_code = status

        for name, value in changes.items():
            if value is None:
                del response.headers[name]
            else:
                response.headers[name] = value

        plain = kind(response.response, status=status, headers=response.headers)
        expected.append(plain.get_wsgi_headers(request.environ).to_wsgi_list())

    site.view("/", view)
    run_later(site, "/", change)
    response = site.client().get("/")

    # As they came: those of the client are of the same kind.
    assert [*response.headers] == expected[0]
    assert ("X-Stamp" in response.headers) is (kind is Stamped)


class Proxy:
    """In the place of a function, as libraries that measure put one there: it looks the
    same."""

    def __init__(self, wrapped: t.Any, function: c.Callable[..., t.Any]) -> None:
        self._wrapped = wrapped
        self._function = function

    def __get__(self, instance: object, kind: t.Any) -> Proxy:
        bound = self._wrapped.__get__(instance, kind)
        return Proxy(bound, functools.partial(self._function, instance))

    def __getattr__(self, name: str) -> t.Any:
        return getattr(self._wrapped, name)

    def __call__(self, *args: t.Any) -> t.Any:
        return self._function(*args)


@pytest.mark.parametrize("is_proxy", [True, False])
@pytest.mark.parametrize("has_served", [True, False])
def test_what_replaces_werkzeug_s_own_has_the_last_word_on_headers(
    monkeypatch: pytest.MonkeyPatch, has_served: bool, is_proxy: bool
) -> None:
    class Own(Response):
        """Of which none was a carrier before."""

    site = Site()
    site.app.response_class = Own
    site.view("/", lambda: PAGE)
    usual = WerkzeugResponse.get_wsgi_headers

    @functools.wraps(usual)
    def stamped(self: Response, environ: t.Any) -> Headers:
        headers = usual(self, environ)
        headers["X-Stamp"] = "1"
        return headers

    if has_served:
        assert "X-Stamp" not in site.client().get("/").headers

    patch = Proxy(usual, stamped) if is_proxy else stamped
    monkeypatch.setattr(WerkzeugResponse, "get_wsgi_headers", patch)
    assert site.client().get("/").headers["X-Stamp"] == "1"


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
