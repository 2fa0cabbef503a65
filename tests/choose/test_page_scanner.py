"""The place in a page where the script goes."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET

import pytest
from flask import Response
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_mengpaneel.choose import page_scanner
from sites import (
    PAGE,
    SCRIPT_TAGS,
    Site,
    names,
    page_calls,
    page_site,
    scripts,
    without_script,
)

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
    # An address that nobody can read.
    f'<html><head><base href="&#{"9" * 5_000};">|</head><body></body></html>',
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
    # An address that is read before a <base> is the page's own.
    '<html><head>|<base href="https://cdn.test/"><title>x</title></head></html>',
    "<html><head><title>x</title>|<BASE\nHREF = //cdn.test/></head></html>",
    "<html><head>|<base target=a href=' HTTPS://cdn.test'></head></html>",
    "<html><head>|<base href='\\\\cdn.test/'></head></html>",
    '<html><head>|<base href="&#47;/cdn.test/"></head></html>',
    '<html><head><base target="_blank">|<base href="//cdn.test/"></head></html>',
    "<!doctype html>|<base href=//cdn.test/><title>x</title><body></body>",
    '<html><body><p>x</p>|<base href="//cdn.test/"></body></html>',
    # One that stays on the site changes nothing, and the first one counts.
    '<html><head><base href="/app/">|</head><body></body></html>',
    '<html><head><base href="">|</head><body></body></html>',
    '<html><head><base href="a/"><base href="//cdn.test/">|</head></html>',
    '<html><head><base data-href="//cdn.test/">|</head><body></body></html>',
    "<html><head><!-- <base href=//cdn.test/> -->|</head><body></body></html>",
    "<html><head><template><base href=//a.test/></template>|</head></html>",
    "<html><head>|</head><body><base href=//cdn.test/></body></html>",
]


@pytest.mark.parametrize("marked", PLACED, ids=range(len(PLACED)))
def test_the_script_goes_to_the_end_of_the_head_or_else_of_the_body(
    marked: str,
) -> None:
    page = marked.replace("|", "")
    site = page_site(page)
    body = site.client().get("/").data
    found = SCRIPT_TAGS.search(body)

    assert found is not None
    assert without_script(body) == page.encode()
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
    site = page_site(page)
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
    assert without_script(response.data) == page.encode()


def test_a_large_head_is_searched_and_forgotten() -> None:
    before = page_scanner._read_head.cache_info().currsize
    page = b"<html><head><style>" + b"x" * 100_000 + b"</style></head><body>"

    assert page_scanner.find_place(page).at == page.index(b"</head>")
    assert page_scanner._read_head.cache_info().currsize == before


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
        "\n<!-- a > b --><!--><!x> <html ⚡>",
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
        "<!-- not <html amp> --><html>",
        "<!--[if IE]><html amp><![endif]--><html>",
        # It needs no element of its own.
        "<script>'<html amp>'</script>",
    ],
)
def test_a_page_that_only_names_amp_is_a_page(element: str) -> None:
    page = PAGE.replace("<html>", element).replace("Hi", "<html amp>")
    site = Site()
    site.view("/", lambda: (site.mengpaneel.track("View"), page)[1])

    assert names(page_calls(site.client().get("/"))) == ["track View"]
