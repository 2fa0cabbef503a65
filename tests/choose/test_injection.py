from __future__ import annotations

import collections.abc as c
import hashlib
import json
import re
import typing as t
import xml.etree.ElementTree as ET

import pytest
from flask import Flask, Response, request
from hypothesis import given, settings
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from flask_mengpaneel import Mengpaneel
from flask_mengpaneel.choose import injection
from flask_mengpaneel.values import plain
from sites import CHROME, PAGE, Site, block, names, page_calls, scripts, tags

OURS = re.compile(
    rb'<script type="application/json" id="mengpaneel"[^<>]*>[^<>]*</script>'
    rb'<script src="[^"<>]*"(?: nonce="[^"<>]*")?></script>'
)


def make_site(
    page: str | bytes | c.Callable[[], t.Any] = PAGE, **settings: t.Any
) -> Site:
    """``/`` tracks, ``/quiet`` doesn't."""
    site = Site(**settings)

    def respond() -> t.Any:
        return page() if callable(page) else Response(page)

    site.view("/", lambda: (site.mengpaneel.track("View"), respond())[1])
    site.view("/quiet", respond)
    return site


def without_ours(body: bytes) -> bytes:
    rest, count = OURS.subn(b"", body)
    assert count == 1
    return rest


# -- where it goes


PLACED = [
    "<html><head><title>x</title>|</head><body></body></html>",
    "<HTML><HEAD><TITLE>x</TITLE>|</HEAD><BODY></BODY></HTML>",
    "<html><head>|</head ><body></body></html>",
    "<html><head>|</head\n><body></body></html>",
    "<html><head>|</HeAd><body></body></html>",
    # Not the element that begins with the same letters.
    "<html><header>x</header><head>|</head><body></body></html>",
    "<html><body><header>x</header><p>y</p>|</body></html>",
    "<html><body><header></header>|</BODY\t></html>",
    "<p>A body alone|</body>",
    # What only looks like a tag.
    "<html><head><!-- </head> -->|</head><body></body></html>",
    "<html><head><!-- <script> </head> -->|</head><body></body></html>",
    "<html><head><!--> -->|</head><body></body></html>",
    "<html><head><!-- --!>|</head><!-- --><body></body></html>",
    "<html><head><script>s = '</head>'</script>|</head><body></body></html>",
    "<html><head><script>s = '<!--'</script>|</head><body></body></html>",
    "<html><head><script>s = '-->'; r = '</head>'</script>|</head></html>",
    "<html><head><SCRIPT>s = '</head>'</SCRIPT>|</head><body></body></html>",
    "<html><head><Script>s = '</head>'</Script>|</head><body></body></html>",
    "<html><head><sCrIpT>s = '</head>'</ScRiPt>|</head><body></body></html>",
    "<html><head><script src=a.js></script>|</head><body></body></html>",
    "<html><head><style>a::after { content: '</head>' }</style>|</head></html>",
    "<html><head><title>What </head> means</title>|</head><body></body></html>",
    "<html><head><TITLE>What </head> means</TITLE>|</head><body></body></html>",
    "<html><head><noscript></head></noscript>|</head><body></body></html>",
    '<html><head><meta content="a </head> b">|</head><body></body></html>',
    "<html><head><meta content='a </head> b'>|</head><body></body></html>",
    '<html><head><meta content="<!--">|</head><body></body></html>',
    '<html><head><meta content="<script>">|</head><body></body></html>',
    "<html><body><script>s = '</body>'</script><p>x</p>|</body></html>",
    "<html><body><textarea></body></textarea><p>x</p>|</body></html>",
    "<html><body><p>x</p>|</body><!-- </body> --></html>",
    "<html><body><p>x</p>|</body><script>s = '</body>'</script></html>",
    "<html><body><iframe srcdoc='<body></body>'></iframe>|</body></html>",
    "<html><body><template><body></body></template>|</body></html>",
    "<html><body><svg><title></body></title></svg>|</body></html>",
    "<html><head><script><!-- <script> </script> </head> --></script>|</head></html>",
    "<html><head><script><!-- <script> --> </script>|</head></html>",
    "<html><head><script><!-- <scripts> </script>|</head> --></html>",
    "<html><head><script><!--><script> </script>|</head></html>",
    "<html><head><script><!---><script> </script>|</head></html>",
    "<html><head><script><!-- <SCRIPT/></script </head></script>|</head></html>",
    "<html><head><script>/*<![CDATA[*/ a </head> /*]]>*/</script>|</head></html>",
    "<html><head><!x </head> y>|</head><body></body></html>",
    "<html><head><?x </head> ?>|</head><body></body></html>",
    "<html><head><![CDATA[ </head> ]]>|</head><body></body></html>",
    "<html><head><![CDATA[ > <!-- ]]> </head> -->|</head><body></body></html>",
    "<html><head></ </head>|</head><body></body></html>",
    "<html><head></></ >|</head><body></body></html>",
    "<!DOCTYPE html PUBLIC '</head>'>|</head><body></body></html>",
    "<html><head>|</head ><body></body></html>",
    "<html><head>|</head a='>'><body></body></html>",
    "<html><head>|</head/><body></body></html>",
    # Comments as Vue, Lit and Svelte write them.
    "<html><head>|</head><!-- x --><body>" + "<!---->" * 100 + "</body></html>",
    "<html><head>|</head>" + "<!---->" * 100 + "<body></body></html>",
    "<html><head>|</head>" + "<!-- -->\n" * 100 + "<!-- <frameset> --></html>",
    "<html><head>|</head><!-- <frameset> --!><body></body></html>",
    # A page within a page, as text.
    "<html><head>|</head><body><pre>&lt;/head&gt;</pre></body></html>",
    "<html><head>|</head><body><textarea></head></body></textarea></body></html>",
    "<html><head>|</head><body><script>f('<frameset>')</script></body></html>",
    "<html><head><script>f('<frameset >')</script>|</head><body></body></html>",
]


@pytest.mark.parametrize("marked", PLACED, ids=range(len(PLACED)))
def test_the_script_goes_to_the_end_of_the_head_or_else_of_the_body(
    marked: str,
) -> None:
    page = marked.replace("|", "")
    site = make_site(page)
    body = site.client().get("/").data
    found = OURS.search(body)

    assert found is not None
    assert without_ours(body) == page.encode()
    assert body[: found.start()].decode() == marked.partition("|")[0]


@pytest.mark.parametrize(
    "page",
    [
        "<html><head></head><frameset cols='*'></frameset></html>",
        "<html><head></head>\n<!-- x --><FRAMESET></FRAMESET></html>",
        "<html><head></head><!----><!-- x --!><!--> <frameset/></html>",
        "<frameset><noframes><body></body></noframes></frameset>",
        "<p>A fragment</p>",
        "<li></header></li>",
        "<!-- <head></head> <body></body> -->",
        "<script>'</head></body>'</script>",
        "</headed></bodyguard>",
    ],
)
def test_a_page_without_a_place_stays_as_it_is(page: str) -> None:
    site = make_site(page)
    client = site.client()

    assert client.get("/").text == page
    assert client.get("/quiet").text == page
    assert [call.event for call in site.kept.calls] == ["View"]


FRAGMENTS = [
    "<!-- ",
    " -->",
    "<script>",
    "</script>",
    "<style>",
    "</style>",
    "</head>",
    "</HEAD>",
    "</body>",
    "<p class='x'>",
    '<p title="',
    '">',
    "</header>",
    "text",
    "<br/>",
]


# Browsers know, and html.parser doesn't, that such a script isn't at its end yet.
BEGINS_AGAIN = re.compile("<script>.*<!-- .*<script>", re.DOTALL)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=12))
def test_wherever_it_goes_a_browser_finds_it(parts: list[str]) -> None:
    # html.parser knows comments, scripts, styles and attributes as browsers do.
    page = "".join(["<html><head>", *parts, "</head><body></body></html>"])
    site = _every_page
    _every_page.text = page
    body = site.client().get("/").text

    if 'id="mengpaneel"' not in body or BEGINS_AGAIN.search(page):
        return

    found = [data for attributes, data in scripts(body) if "id" in attributes]
    assert len(found) == 1
    assert names(json.loads(found[0])["calls"][0][1]) == ["track View"]


class EveryPage(Site):
    text = ""

    def __init__(self) -> None:
        super().__init__()
        self.view("/", lambda: (self.mengpaneel.track("View"), self.text)[1])


_every_page = EveryPage()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=12))
def test_what_hides_nothing_is_always_a_page(parts: list[str]) -> None:
    closed = "".join(part for part in parts if part in ("text", "<br/>", "</header>"))
    _every_page.text = f"<html><head>{closed}</head><body>{closed}</body></html>"
    response = _every_page.client().get("/")

    assert names(page_calls(response)) == ["track View"]


# -- XHTML


XHTML = (
    '<?xml version="1.0" encoding="utf-8"?>\n'
    '<html xmlns="http://www.w3.org/1999/xhtml"><head><title>x</title>{head}</head>'
    "<body><p>é</p></body></html>"
)


@pytest.mark.parametrize(
    "head",
    [
        "",
        "<script src='a.js'></script>",
        "<script src='a.js'/>",
        "<title/>",
        "<script>//<![CDATA[\nif (1 < 2) s = '</head>'\n//]]></script>",
        "<style><![CDATA[ p::after { content: '</head>' } ]]></style>",
        "<script>//<![CDATA[\ns = '</script></head>'\n//]]></script>",
        "<script><!-- </script></head> --></script>",
        "<?php </head> ?>",
    ],
)
def test_what_is_put_into_xhtml_is_well_formed(head: str) -> None:
    page = XHTML.format(head=head)

    def view() -> Response:
        site.mengpaneel.track("a < b && c ]]> <!-- -->", {"x": "</script>&amp;\u2028"})
        return Response(page, mimetype="application/xhtml+xml")

    site = Site(client_config={"api_host": "https://a.example/?a=1&b=2"})
    site.view("/", view)
    response = site.client().get("/")
    tree = ET.fromstring(response.data)
    found = tree.findall(".//{*}head/{*}script")
    ours = [element for element in found if element.get("id") == "mengpaneel"]

    assert len(ours) == 1
    data = json.loads(ours[0].text or "")
    assert data["calls"][0][1][0][1][0] == "a < b && c ]]> <!-- -->"
    assert data["calls"][0][1][0][1][1]["x"] == "</script>&amp;\u2028"
    assert without_ours(response.data) == page.encode()


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

    assert without_ours(body) == page
    assert json.loads(text)["calls"][0][1][0][1][0] == "Привет 😀 é"


@pytest.mark.parametrize("content_type", ["Text/HTML", "TEXT/HTML; charset=utf-8"])
def test_content_types_compare_without_case(content_type: str) -> None:
    site = make_site(lambda: Response(PAGE, content_type=content_type))
    client = site.client()

    assert names(page_calls(client.get("/"))) == ["track View"]
    assert block(client.get("/quiet")) is not None


def test_a_body_in_parts_is_a_page_too() -> None:
    half = len(PAGE) // 2
    site = make_site(lambda: Response([PAGE[:half], PAGE[half:].encode()]))
    client = site.client()

    assert without_ours(client.get("/").data) == PAGE.encode()
    assert without_ours(client.get("/quiet").data) == PAGE.encode()


# -- what is in it


def parsed_event(body: str) -> list[t.Any]:
    found = [data for attributes, data in scripts(body) if "id" in attributes]
    assert len(found) == 1
    (call,) = json.loads(found[0])["calls"][0][1]
    return t.cast("list[t.Any]", call)


TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=40) | (
    st.lists(
        st.sampled_from(
            [
                "</script>",
                "<script>",
                "<!--",
                "-->",
                "]]>",
                "\u2028",
                "\u2029",
                "\\",
                '"',
                "'",
                "&quot;",
                "\n",
                "\r",
                "\0",
                "\x7f",
                "😀",
                "\ud83d",
                "\ude00",
                "\\u003c",
                "</SCRIPT\t>",
                "`${alert(1)}`",
            ]
        ),
        max_size=8,
    ).map("".join)
)


@settings(max_examples=150, deadline=None)
@given(TEXT, st.dictionaries(TEXT, TEXT | st.lists(TEXT, max_size=2), max_size=3))
def test_text_of_any_kind_is_inert_in_the_page_and_comes_back(
    name: str, properties: dict[str, t.Any]
) -> None:
    properties = {
        key: value
        for key, value in properties.items()
        if key not in ("time", "$insert_id")
    }
    _telling.name, _telling.properties = name or "x", properties

    if not (name or "x").strip() or not str(plain(name or "x")).strip():
        return

    body = _telling.client().get("/").text
    call = parsed_event(body)

    assert tags(body) == [
        *("html", "head", "title", "/title", "script", "/script", "script", "/script"),
        *("/head", "body", "p", "/p", "/body", "/html"),
    ]
    assert OURS.search(body.encode()) is not None
    assert body.isascii()
    assert call[1][0] == plain(name or "x")
    del call[1][1]["time"], call[1][1]["$insert_id"]
    assert call[1][1] == plain(properties)


class Telling(Site):
    name = ""
    properties: dict[str, t.Any] = {}

    def __init__(self) -> None:
        super().__init__()
        self.view("/", self.tell)

    def tell(self) -> str:
        self.mengpaneel.track(self.name, self.properties)
        return PAGE


_telling = Telling()


def test_settings_and_ids_of_any_kind_are_inert_too() -> None:
    hostile = "</script><img src=x onerror=alert(1)>\u2028'\""
    site = Site(client_config={"x": hostile}, library_url=hostile)

    def view() -> str:
        with site.mengpaneel.setup():
            site.mengpaneel.identify(hostile)
            site.mengpaneel.people.set({hostile: hostile})

        return PAGE

    site.view("/", view)
    response = site.client().get("/")
    data = block(response)

    assert "img" not in tags(response.text)
    assert data is not None
    assert data["library"] == data["config"]["x"] == hostile
    assert data["calls"][0][1][0] == [["identify"], [hostile]]


def test_a_hostile_cookie_gets_nothing_into_the_page() -> None:
    hostile = '</script><script>alert(1)</script>"'
    site = make_site()
    client = site.client()
    client.set_cookie("mp_token_mixpanel", json.dumps({"distinct_id": hostile}))
    response = client.get("/", headers={"User-Agent": f"{CHROME} {hostile}"})

    assert "alert" not in response.text


YEAR = "max-age=31536000"


def test_the_script_is_kept_for_ever_under_its_own_hash_only() -> None:
    site = make_site()
    client = site.client()
    (url,) = re.findall(r'src="([^"]*)"', client.get("/quiet").text)
    folder = injection.static_folder()
    files = [path.name for path in folder.iterdir() if path.is_file()]
    assert {"mengpaneel.js", "mengpaneel.js.map"} <= set(files)

    with client.get(url) as response:
        assert YEAR in response.headers["Cache-Control"]

    for name in files:
        place = f"/_mengpaneel/static/{name}"
        own = injection.version(name)
        others = [injection.version(other) for other in files if other != name]
        wrong = ["0" * 12, "", own[:-1], own.upper() + "x", *others]

        for query in [f"?v={value}" for value in wrong] + ["", "?w=" + own]:
            with client.get(place + query) as response:
                assert response.status_code == 200
                assert YEAR not in response.headers["Cache-Control"]
                assert "no-cache" in response.headers["Cache-Control"]

        with client.get(f"{place}?v={own}") as response:
            assert YEAR in response.headers["Cache-Control"]


def test_a_stale_hash_is_not_kept_though_the_app_keeps_its_files() -> None:
    site = make_site()
    site.app.config["SEND_FILE_MAX_AGE_DEFAULT"] = 31_536_000
    place = "/_mengpaneel/static/mengpaneel.js?v=000000000000"

    with site.client().get(place) as response:
        assert response.cache_control.max_age == 0


def test_in_debug_the_script_is_asked_for_again() -> None:
    site = make_site()
    site.app.debug = True
    place = "/_mengpaneel/static/mengpaneel.js"

    with site.client().get(f"{place}?v={injection.version('mengpaneel.js')}") as answer:
        assert answer.headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize(
    "name", ["none.js", "../pyproject.toml", "%2e%2e/pyproject.toml", "a%00b", "/etc/x"]
)
def test_there_are_no_other_files(name: str) -> None:
    response = make_site().client().get(f"/_mengpaneel/static/{name}?v=1")
    assert response.status_code in (404, 308)


def test_the_data_names_the_token_the_options_and_the_library() -> None:
    site = make_site(
        client_config={"api_host": "https://api-eu.mixpanel.com"},
        library_url="/static/mixpanel.js",
    )
    data = block(site.client().get("/quiet"))

    assert data is not None
    assert data["token"] == "token"
    assert data["config"]["api_host"] == "https://api-eu.mixpanel.com"
    assert data["library"] == "/static/mixpanel.js"
    assert not data.get("calls")


def test_there_is_no_inline_code() -> None:
    for attributes, text in scripts(make_site().client().get("/").text):
        assert attributes.get("type") == "application/json" or not text
        assert attributes.get("src") or attributes.get("type") == "application/json"


def test_the_script_is_served() -> None:
    site = make_site()
    client = site.client()
    (source,) = [
        attributes["src"]
        for attributes, _ in scripts(client.get("/").text)
        if "src" in attributes
    ]
    assert source is not None

    with client.get(source) as response:
        assert response.status_code == 200
        assert "javascript" in response.headers["Content-Type"]
        assert "Set-Cookie" not in response.headers
        assert "Vary" not in response.headers


def test_under_a_script_root_the_script_is_served_there() -> None:
    site = make_site()
    client = site.client()

    for root in ("", "/shop", "/shop", "/other"):
        page = client.get("/quiet", environ_overrides={"SCRIPT_NAME": root}).text
        assert f'src="{root}/_mengpaneel/static/mengpaneel.js' in page


def test_a_hostile_script_root_gets_nothing_into_the_page() -> None:
    site = make_site()
    page = site.client().get(
        "/quiet", environ_overrides={"SCRIPT_NAME": '/"><img src=x>'}
    )

    assert "img" not in tags(page.text)


def test_on_a_subdomain_the_script_is_served_where_the_page_can_load_it() -> None:
    app = Flask(__name__, subdomain_matching=True)
    app.config.update(
        SERVER_NAME="shop.example",
        MENGPANEEL_TOKEN="token",
        MENGPANEEL_SPOOL=None,
        SECRET_KEY="secret",
        TESTING=True,
    )
    Mengpaneel(app)
    app.add_url_rule("/", "main", lambda: PAGE)
    app.add_url_rule("/", "sub", lambda name: PAGE, subdomain="<name>")
    client = app.test_client()

    for base in ("http://shop.example", "http://blog.shop.example"):
        page = client.get("/", base_url=base)
        (source,) = [a["src"] for a, _ in scripts(page.text) if "src" in a]
        data = block(page)
        assert data is not None and source is not None
        # Only a page's own host is `'self'` for its policy.
        assert source.startswith("/_mengpaneel/static/")

        with client.get(source, base_url=base) as response:
            assert response.status_code == 200, base

        assert client.post(data["fallback"], base_url=base).status_code == 413


def test_the_script_is_below_the_path_at_which_an_app_is_mounted() -> None:
    site = make_site()
    page = site.client().get("/quiet", base_url="http://localhost/my shop/")
    data = block(page)

    assert data is not None
    assert data["fallback"] == "/my%20shop/_mengpaneel/calls"
    assert 'src="/my%20shop/_mengpaneel/static/mengpaneel.js?v=' in page.text


def test_a_large_head_is_searched_and_forgotten() -> None:
    before = injection._head_end.cache_info().currsize
    page = b"<html><head><style>" + b"x" * 100_000 + b"</style></head><body>"

    assert injection.position(page) == page.index(b"</head>")
    assert injection._head_end.cache_info().currsize == before


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS"])
def test_what_no_browser_shows_gets_no_script(method: str) -> None:
    site = make_site()
    site.view("/any", lambda: (site.mengpaneel.track("A"), PAGE)[1], methods=[method])
    response = site.client().open("/any", method=method)

    assert response.text == PAGE
    assert site.outcome.declined["ClientSide"] == f"a {method} request"
    assert [call.event for call in site.kept.calls] == ["A"]


# -- nonce


def test_the_nonce_of_this_response_is_on_the_script() -> None:
    site = make_site(csp_nonce=lambda: request.headers["X-Nonce"])
    client = site.client()

    for path in ("/", "/quiet"):
        for nonce in ("abc", 'q"><b>'):
            page = client.get(path, headers={"X-Nonce": nonce}).text
            assert [a["nonce"] for a, _ in scripts(page) if "src" in a] == [nonce]
            assert "b" not in tags(page)


@pytest.mark.parametrize("nonce", [None, ""])
def test_no_nonce_is_no_attribute(nonce: str | None) -> None:
    site = make_site(csp_nonce=lambda: nonce)

    assert "nonce" not in site.client().get("/").text


# -- headers


def final_length(response: TestResponse) -> None:
    assert response.headers["Content-Length"] == str(len(response.data))


@pytest.mark.parametrize("path", ["/", "/quiet"])
def test_the_content_length_is_right(path: str) -> None:
    final_length(make_site().client().get(path))


def test_a_head_request_has_the_headers_of_the_page() -> None:
    site = make_site()
    response = site.client().head("/quiet")

    assert response.status_code == 200
    assert response.data == b""


def validated() -> Response:
    response = Response(PAGE)
    response.set_etag(hashlib.sha256(PAGE.encode()).hexdigest())
    response.headers["Last-Modified"] = "Sat, 01 Nov 2025 09:00:00 GMT"
    return response


def test_a_page_with_calls_has_no_validator_of_the_page_without() -> None:
    response = make_site(validated).client().get("/")

    assert "ETag" not in response.headers
    assert "Last-Modified" not in response.headers


def test_a_page_that_is_asked_for_again_makes_its_calls_some_way() -> None:
    def conditional() -> Response:
        return validated().make_conditional(request)

    site = make_site(conditional)
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

    response = make_site(view).client().get("/")

    assert set(response.headers["Cache-Control"].split(", ")) == expected


def test_an_expiry_date_is_how_long_the_app_says() -> None:
    def view() -> Response:
        return Response(PAGE, headers={"Expires": "Sat, 01 Nov 2036 09:00:00 GMT"})

    response = make_site(view).client().get("/")

    assert response.headers["Cache-Control"] == "private"


@pytest.mark.parametrize("control", ["public", "public, max-age=60", "s-maxage=5"])
def test_the_boot_alone_may_be_kept_by_shared_caches(control: str) -> None:
    def view() -> Response:
        response = validated()
        response.headers["Cache-Control"] = control
        return response

    site = make_site(view, respect_dnt=False)
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
    response = make_site(validated).client().get("/quiet")

    assert "Cache-Control" not in response.headers
    assert "Vary" not in response.headers
    assert "Set-Cookie" not in response.headers


def test_calls_go_another_way_than_a_page_that_shared_caches_may_keep() -> None:
    site = make_site(lambda: Response(PAGE, headers={"Cache-Control": "public"}))
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
    site = make_site(strategies=strategies)

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
        ({"DNT": "1"}, False),
        ({"Sec-GPC": "1"}, False),
    ],
)
def test_who_gets_the_boot(headers: dict[str, str], booted: bool) -> None:
    response = make_site().client().get("/quiet", headers=headers)

    assert (block(response) is not None) is booted
    assert booted or response.text == PAGE


def test_without_a_token_no_page_changes() -> None:
    with pytest.warns(UserWarning, match="MENGPANEEL_TOKEN"):
        site = make_site(token=None)

    client = site.client()
    assert client.get("/").text == client.get("/quiet").text == PAGE


def test_in_debug_the_page_says_who_declined_and_why() -> None:
    site = make_site()
    site.app.debug = True
    data = block(site.client().get("/"))

    assert data is not None
    assert data["debug"]["strategy"] == "ClientSide"
    assert data["debug"]["declined"]["Delayed"] == "not a redirect"


def test_outside_debug_it_does_not() -> None:
    assert "debug" not in (block(make_site().client().get("/")) or {})


@pytest.mark.parametrize("size", [2_000, 50_000, 1_000_000])
def test_large_pages_stay_the_same_around_it(size: int) -> None:
    page = PAGE.replace("Hi", "é<b>x</b>" * (size // 10))
    response = make_site(page).client().get("/")

    assert without_ours(response.data) == page.encode()
    final_length(response)


@pytest.mark.parametrize("size", [262_000, 262_400, 1_000_000])
def test_a_large_page_is_sent_in_parts_that_are_bytes(size: int) -> None:
    page = f"<html><head></head><body>{'é' * (size // 2)}</body></html>"
    site = make_site(page)

    with site.app.test_request_context("/quiet", headers={"User-Agent": "Mozilla/5.0"}):
        response = site.app.full_dispatch_request()
        parts = list(response.response)

    assert {type(part) for part in parts} == {bytes}
    assert max(map(len, parts)) < 262_144 + 1_000
    sent = b"".join(parts)
    assert len(OURS.findall(sent)) == 1
    assert response.headers["Content-Length"] == str(len(sent))
    assert OURS.sub(b"", sent).decode() == page
    assert response.get_data() == sent
