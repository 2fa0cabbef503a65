from __future__ import annotations

import collections.abc as c
import hashlib
import itertools
import json
import typing as t

import pytest
from flask import Response, abort, request
from werkzeug.exceptions import HTTPException
from werkzeug.test import TestResponse
from werkzeug.wrappers import Response as WerkzeugResponse

from sites import (
    PAGE,
    SCRIPT_TAGS,
    Site,
    block,
    names,
    page_calls,
    page_site,
    scripts,
    without_script,
)

# -- encodings


@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "iso-8859-1", "windows-1252", "shift_jis", "gb18030", "koi8-r", "big5"],
)
def test_a_page_in_any_encoding_stays_in_it(encoding: str) -> None:
    texts = {
        "shift_jis": "表示ソ",
        "gb18030": "中文",
        "koi8-r": "Привет",
        "big5": "功許",
    }
    page = PAGE.replace("Hi", texts.get(encoding, "Grüße")).encode(encoding)

    def view() -> Response:
        site.mengpaneel.track("Привет 😀 é")
        return Response(page, content_type=f"text/html; charset={encoding}")

    site = Site()
    site.view("/", view)
    body = site.client().get("/").data
    (text,) = [
        data
        for attributes, data in scripts(body.decode(encoding))
        if "id" in attributes
    ]

    assert without_script(body) == page
    assert json.loads(text)["calls"][0][1][0][1][0] == "Привет 😀 é"


@pytest.mark.parametrize("content_type", ["Text/HTML", "TEXT/HTML; charset=utf-8"])
def test_content_types_compare_without_case(content_type: str) -> None:
    site = page_site(lambda: Response(PAGE, content_type=content_type))
    client = site.client()

    assert names(page_calls(client.get("/"))) == ["track View"]
    assert block(client.get("/quiet")) is not None


def test_a_body_in_parts_is_a_page_too() -> None:
    half = len(PAGE) // 2
    site = page_site(lambda: Response([PAGE[:half], PAGE[half:].encode()]))
    client = site.client()

    assert without_script(client.get("/").data) == PAGE.encode()
    assert without_script(client.get("/quiet").data) == PAGE.encode()


# -- what is in it


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS"])
def test_what_no_browser_shows_gets_no_script(method: str) -> None:
    site = page_site()
    site.view("/any", lambda: (site.mengpaneel.track("A"), PAGE)[1], methods=[method])
    response = site.client().open("/any", method=method)

    assert response.text == PAGE
    assert site.outcome.declined["ClientSide"] == f"a {method} request"
    assert [call.event for call in site.kept.calls] == ["A"]


# -- headers


def final_length(response: TestResponse) -> None:
    assert response.headers["Content-Length"] == str(len(response.data))


@pytest.mark.parametrize("path", ["/", "/quiet"])
def test_the_content_length_is_right(path: str) -> None:
    final_length(page_site().client().get(path))


def test_a_head_request_has_the_headers_of_the_page() -> None:
    site = page_site()
    response = site.client().head("/quiet")

    assert response.status_code == 200
    assert response.data == b""


def validated() -> Response:
    response = Response(PAGE)
    response.set_etag(hashlib.sha256(PAGE.encode()).hexdigest())
    response.headers["Last-Modified"] = "Sat, 01 Nov 2025 09:00:00 GMT"
    return response


def test_a_page_with_calls_has_no_validator_of_the_page_without() -> None:
    response = page_site(validated).client().get("/")

    assert "ETag" not in response.headers
    assert "Last-Modified" not in response.headers


@pytest.mark.parametrize(
    "name", ["Content-Digest", "Repr-Digest", "Digest", "Content-MD5"]
)
@pytest.mark.parametrize("path", ["/", "/quiet"])
def test_a_digest_of_the_body_stays_right(path: str, name: str) -> None:
    site = page_site(lambda: Response(PAGE, headers={name: "of the page"}))
    response = site.client().get(path)

    assert response.text == PAGE
    assert response.headers[name] == "of the page"


def test_a_page_that_is_asked_for_again_makes_its_calls_some_way() -> None:
    def conditional() -> Response:
        return validated().make_conditional(request)

    site = page_site(conditional)
    client = site.client()
    etag = client.get("/quiet").headers.get("ETag", "")
    again = client.get("/", headers={"If-None-Match": etag or "x"})

    made = names(page_calls(again)) or [call.event for call in site.kept.calls]
    assert len(made) == 1


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, {"private", "no-cache"}),
        ("no-store", {"no-store", "private"}),
        ("max-age=60", {"max-age=60", "private"}),
        ("no-cache", {"no-cache", "private"}),
        ("private, max-age=0", {"max-age=0", "private"}),
        (
            "must-revalidate, max-age=5, stale-while-revalidate=9",
            {"must-revalidate", "max-age=5", "stale-while-revalidate=9", "private"},
        ),
    ],
)
def test_a_page_with_calls_is_private_and_else_as_the_app_says(
    given: str | None, expected: set[str]
) -> None:
    def view() -> Response:
        return Response(PAGE, headers={"Cache-Control": given} if given else {})

    response = page_site(view).client().get("/")

    assert set(response.headers["Cache-Control"].split(", ")) == expected


def test_an_expiry_date_is_how_long_the_app_says() -> None:
    def view() -> Response:
        return Response(PAGE, headers={"Expires": "Sat, 01 Nov 2036 09:00:00 GMT"})

    response = page_site(view).client().get("/")

    assert response.headers["Cache-Control"] == "private"


@pytest.mark.parametrize("control", ["public", "public, max-age=60", "s-maxage=5"])
def test_the_boot_alone_may_be_kept_by_shared_caches(control: str) -> None:
    def view() -> Response:
        response = validated()
        response.headers["Cache-Control"] = control
        return response

    site = page_site(view, respect_dnt=False)
    one, other = (
        site.client().get("/quiet"),
        site.visitor(distinct_id="ann").get("/quiet"),
    )

    assert one.headers["Cache-Control"] == control
    assert block(one) is not None
    assert "calls" not in (block(one) or {})
    assert one.data == other.data
    assert "ann" not in other.text
    assert "Set-Cookie" not in other.headers
    assert "Vary" not in other.headers


def test_a_page_without_calls_keeps_its_headers() -> None:
    response = page_site(validated).client().get("/quiet")

    assert "Cache-Control" not in response.headers
    assert "Vary" not in response.headers
    assert "Set-Cookie" not in response.headers


def test_calls_go_another_way_than_a_page_that_shared_caches_may_keep() -> None:
    site = page_site(lambda: Response(PAGE, headers={"Cache-Control": "public"}))
    response = site.client().get("/")

    assert page_calls(response) == []
    assert response.headers["Cache-Control"] == "public"
    assert "Set-Cookie" not in response.headers
    assert [call.event for call in site.kept.calls] == ["View"]


# -- to whom


@pytest.mark.parametrize(
    "strategies",
    [["AsyncServerSide", "ServerSide"], ["ServerSide"], ["CapableClientSide"]],
)
def test_without_the_page_among_the_strategies_no_page_changes(
    strategies: list[str],
) -> None:
    site = page_site(strategies=strategies)

    assert site.client().get("/quiet").text == PAGE


@pytest.mark.parametrize(
    ("headers", "booted"),
    [
        ({}, True),
        ({"Sec-Fetch-Dest": "document"}, True),
        ({"Sec-Fetch-Dest": "iframe"}, True),
        ({"Sec-Purpose": "prefetch"}, True),
        ({"Sec-Fetch-Dest": "empty"}, False),
        ({"HX-Request": "true"}, False),
        ({"User-Agent": "curl/8.5.0"}, False),
    ],
)
def test_who_gets_the_boot(headers: dict[str, str], booted: bool) -> None:
    response = page_site().client().get("/quiet", headers=headers)

    assert (block(response) is not None) is booted
    assert booted or response.text == PAGE


@pytest.mark.parametrize("header", ["DNT", "Sec-GPC"])
def test_who_has_refused_gets_what_lets_the_page_s_own_calls_do_nothing(
    header: str,
) -> None:
    data = block(page_site().client().get("/quiet", headers={header: "1"}))

    assert data is not None
    assert data["refused"] is True
    assert "calls" not in data


def test_without_a_token_no_page_changes() -> None:
    with pytest.warns(UserWarning, match="MENGPANEEL_TOKEN"):
        site = page_site(token=None)

    client = site.client()
    assert client.get("/").text == client.get("/quiet").text == PAGE


@pytest.mark.parametrize("size", [2_000, 50_000, 1_000_000])
def test_large_pages_stay_the_same_around_it(size: int) -> None:
    page = PAGE.replace("Hi", "é<b>x</b>" * (size // 10))
    response = page_site(page).client().get("/")

    assert without_script(response.data) == page.encode()
    final_length(response)


@pytest.mark.parametrize("size", [262_000, 262_400, 1_000_000])
def test_a_large_page_is_sent_in_parts_that_are_bytes(size: int) -> None:
    page = f"<html><head></head><body>{'é' * (size // 2)}</body></html>"
    site = page_site(page)

    with site.app.test_request_context("/quiet", headers={"User-Agent": "Mozilla/5.0"}):
        response = site.app.full_dispatch_request()
        parts = list(response.response)

    assert {type(part) for part in parts} == {bytes}
    assert max(map(len, parts)) < 262_144 + 1_000
    sent = b"".join(parts)
    assert len(SCRIPT_TAGS.findall(sent)) == 1
    assert response.headers["Content-Length"] == str(len(sent))
    assert SCRIPT_TAGS.sub(b"", sent).decode() == page
    assert response.get_data() == sent


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

    def run_later(response: Response) -> Response:
        seen["encoded"] = b"".join(response.iter_encoded())
        seen["data"] = response.get_data()
        seen["length"] = response.calculate_content_length()
        response.stream.write(b"<!-- end -->")
        response.freeze()
        return response.make_conditional(request)

    # Flask calls first what was registered last.
    site.app.after_request_funcs[None].insert(0, run_later)
    response = site.client().get("/")

    assert seen["encoded"] == seen["data"]
    assert seen["length"] == len(seen["data"])
    assert response.data == seen["data"] + b"<!-- end -->"
    assert response.content_length == len(response.data)
