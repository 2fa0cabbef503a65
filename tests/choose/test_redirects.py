"""Where a redirect leads."""

from __future__ import annotations

import sys

import pytest

from flask_mengpaneel import reasons
from sites import (
    redirect_site,
)

SAME = [
    "/page",
    "page",
    "?a=1",
    "#there",
    "../page",
    "http://localhost/page",
    "http://localhost:80/page",
    "http://LOCALHOST/page",
    "HTTP://localhost/page",
    "https://localhost/page",
    "https://localhost:443/page",
    "//localhost/page",
    "http://localhost",
    "/page?next=https://other.example/",
]


OTHER = [
    "https://other.example/",
    "//other.example/",
    "http://localhost:81/page",
    "https://localhost:8443/page",
    "http://localhost.other.example/",
    "http://localhost@other.example/",
    "http://sub.localhost/",
    "http://127.0.0.1/page",
    # Browsers read a backslash as a slash.
    "/\\other.example/",
    "\\\\other.example/",
    "http:\\\\other.example",
    "/\t/other.example/",
    # A scheme of its own, or any number of slashes, goes elsewhere too.
    "https:other.example",
    "https:/other.example",
    "https:///other.example",
    "///other.example/",
    "////other.example/",
    "mailto:ann@example.com",
    "shop://thanks",
    "javascript:alert(1)",
    "data:text/html,hi",
    "ftp://localhost/page",
    "http:////[x",
    # With an older Python, Werkzeug can't send it.
    *(["http://[::1]]/"] if sys.version_info >= (3, 11, 4) else []),
]


@pytest.mark.parametrize("location", SAME)
def test_this_site_is_the_requests_own_host_and_port(location: str) -> None:
    site = redirect_site(location)
    site.client().get("/go")

    assert site.outcome.strategy == "Delayed"


@pytest.mark.parametrize("location", OTHER)
def test_a_redirect_to_another_site_is_not_delayed(location: str) -> None:
    site = redirect_site(location)
    response = site.client().get("/go", headers={"Accept": "*/*"})

    assert site.outcome.declined["Delayed"] == "a redirect to another site"
    assert site.outcome.strategy == "AsyncServerSide"
    assert "_mengpaneel_token" not in str(response.headers)


@pytest.mark.parametrize(
    ("base", "location", "delayed"),
    [
        ("http://shop.example:5000/", "http://shop.example:5000/page", True),
        ("http://shop.example:5000/", "https://shop.example:5000/page", True),
        ("http://shop.example:5000/", "http://shop.example/page", False),
        ("https://shop.example/", "https://shop.example:443/page", True),
        ("https://shop.example/", "//shop.example/page", True),
        ("https://shop.example/", "//shop.example:80/page", False),
    ],
)
def test_the_port_belongs_to_the_site(base: str, location: str, delayed: bool) -> None:
    site = redirect_site(location)
    site.client().get("/go", base_url=base)

    assert (site.outcome.strategy == "Delayed") is delayed


@pytest.mark.parametrize(
    ("location", "delayed"),
    [
        ("/shop", True),
        ("/shop/page", True),
        ("/shop?a=1", True),
        ("/shopping", False),
        ("/elsewhere", False),
        ("http://localhost/elsewhere", False),
        ("http://localhost", False),
    ],
)
def test_a_redirect_to_where_the_cookie_does_not_go_is_not_delayed(
    location: str, delayed: bool
) -> None:
    site = redirect_site(location)
    site.app.config["SESSION_COOKIE_PATH"] = "/shop"
    site.client().get("/go")

    assert (site.outcome.strategy == "Delayed") is delayed


@pytest.mark.parametrize(
    ("location", "delayed"),
    [
        ("/shop", True),
        ("", True),
        ("?a=1", True),
        ("page", True),
        ("http://localhost/shop", True),
        ("/shop/a/%2e%2e/page", True),
        ("../page", False),
        ("/shop/../page", False),
        ("/shop/%2e%2E/page", False),
        ("/shop/.%2e", False),
        ("http://localhost/shop/%2E./page", False),
        ("/elsewhere", False),
        # Another app is at the root of the host.
        ("http://localhost", False),
        ("http://localhost?a=1", False),
        ("//localhost#there", False),
    ],
)
def test_a_redirect_to_an_app_beside_this_one_is_not_delayed(
    location: str, delayed: bool
) -> None:
    site = redirect_site(location)
    site.client().get("/go", environ_overrides={"SCRIPT_NAME": "/shop"})

    assert (site.outcome.strategy == "Delayed") is delayed


@pytest.mark.parametrize("location", ["/page", "http://{host}/page", "page"])
@pytest.mark.parametrize(
    ("host", "taken"),
    [
        ("shop.example", True),
        ("www.shop.example:8080", True),
        ("WWW.Shop.Example", True),
        ("another.example", False),
        ("myshop.example", False),
        ("[::1]:5000", False),
    ],
)
@pytest.mark.parametrize("domain", ["shop.example", ".Shop.example"])
def test_a_host_from_which_the_session_is_not_taken_delays_nothing(
    domain: str, host: str, taken: bool, location: str
) -> None:
    site = redirect_site(location.format(host=host))
    site.app.config["SESSION_COOKIE_DOMAIN"] = domain
    site.client().get("/go", base_url=f"http://{host}/")

    assert site.outcome.strategy == ("Delayed" if taken else "AsyncServerSide")
    assert taken or site.outcome.declined["Delayed"] == reasons.ANOTHER_DOMAIN


@pytest.mark.parametrize(
    ("domain", "host"),
    [
        ("shop.example:5000", "www.shop.example:5000"),
        ("büro.example", "xn--bro-hoa.example"),
        (".büro.example", "büro.example"),
    ],
)
def test_a_domain_is_as_werkzeug_writes_it(domain: str, host: str) -> None:
    site = redirect_site()
    site.app.config["SESSION_COOKIE_DOMAIN"] = domain
    site.client().get("/go", base_url=f"http://{host}/")

    assert site.outcome.strategy == "Delayed"


@pytest.mark.parametrize("domain", ["shop..example", f"{'x' * 64}.example"])
def test_a_domain_that_no_cookie_can_have_delays_nothing(domain: str) -> None:
    site = redirect_site()
    site.app.config["SESSION_COOKIE_DOMAIN"] = domain
    site.client().get("/go")

    assert site.outcome.strategy == "AsyncServerSide"
    assert site.outcome.declined["Delayed"] == reasons.ANOTHER_DOMAIN


def test_a_secure_cookie_does_not_go_along_to_http() -> None:
    site = redirect_site("http://localhost/page")
    site.app.config["SESSION_COOKIE_SECURE"] = True
    site.client().get("/go", base_url="https://localhost/")

    assert site.outcome.strategy == "AsyncServerSide"
