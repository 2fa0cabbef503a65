"""What the doctor says of a policy, and what becomes of calls under it."""

from __future__ import annotations

import collections.abc as c
import secrets
import typing as t
from pathlib import Path

import pytest
from flask import Flask, g, request
from journey import OpenShop, Shop
from playwright.sync_api import Page as Tab

from flask_mengpaneel.doctor.command import examine
from waiting import wait_until

pytestmark = pytest.mark.browsers(
    "chromium",
    why="what the doctor says is the same; that it is true, one browser shows",
)


@pytest.fixture
def open_shop(tmp_path: Path) -> c.Iterator[OpenShop]:
    """Opens a shop all of whose pages are under a policy.

    The extension sees the policy if it is set early: Flask runs first what was
    registered last.
    """
    shops: list[Shop] = []

    def open_(policy: str, early: bool = False, **settings: t.Any) -> Shop:
        settings["finish" if early else "prepare"] = _under(policy)
        shop = Shop(tmp_path / "shop", **settings)
        shop.bare = True
        shops.append(shop)
        return shop

    yield open_

    for shop in shops:
        shop.close()


def _under(policy: str) -> c.Callable[[Flask], None]:
    def prepare(app: Flask) -> None:
        @app.after_request
        def after(response: t.Any) -> t.Any:
            value = policy.replace("NONCE", _nonce()).replace("HOST", request.host)
            response.headers["Content-Security-Policy"] = value
            return response

    return prepare


def _nonce() -> str:
    return t.cast(str, g.setdefault("nonce", secrets.token_urlsafe(16)))


def _said(shop: Shop) -> set[str]:
    """What the doctor says of a page, which nobody has opened so far."""
    # Else the inspector is a finding as well.
    shop.app.debug = True
    found = {one.level.value for one in examine(shop.app, [f"{shop.url}/products/1"])}
    shop.app.debug = False
    shop.book.clear()
    shop.ways.clear()
    assert shop.inspector.arrivals() == []
    return found


@pytest.mark.parametrize(
    "policy",
    [
        "default-src 'self'",
        "script-src 'self'; connect-src http://HOST",
        "script-src HOST/_mengpaneel/ http://HOST/npm/; connect-src HOST/_mengpaneel/",
        "default-src http:",
        "script-src 'nonce-NONCE'",
        "script-src 'nonce-NONCE' 'strict-dynamic'; connect-src *",
        "script-src 'none'; script-src-elem 'self'",
        "require-trusted-types-for 'script'; trusted-types mengpaneel",
        "sandbox allow-scripts allow-same-origin",
    ],
)
def test_what_it_calls_fine_works(open_shop: OpenShop, page: Tab, policy: str) -> None:
    shop = open_shop(policy, csp_nonce=_nonce if "NONCE" in policy else None)
    assert _said(shop) == set()

    page.goto(f"{shop.url}/products/1")
    assert wait_until(lambda: shop.names == ["View Product 1"])
    assert list(shop.ways.values()) == [["ClientSide"]]


@pytest.mark.parametrize(
    "policy",
    [
        "script-src HOST/_mengpaneel/",
        "connect-src HOST/_mengpaneel/calls",
        "default-src HOST/_mengpaneel/static/; connect-src 'self'",
        "require-trusted-types-for 'script'; trusted-types other",
        "require-trusted-types-for 'script'; trusted-types 'none'",
    ],
)
def test_what_it_warns_of_goes_another_way(
    open_shop: OpenShop, page: Tab, policy: str
) -> None:
    shop = open_shop(policy)
    assert _said(shop) == {"warning"}

    page.goto(f"{shop.url}/products/1")
    assert wait_until(lambda: shop.names == ["View Product 1"])
    assert list(shop.ways.values()) == [["ClientSide", "AsyncServerSide"]]


@pytest.mark.parametrize("policy", ["script-src 'none'", "default-src", "sandbox"])
def test_what_may_not_run_is_left_to_the_server(
    open_shop: OpenShop, page: Tab, policy: str
) -> None:
    shop = open_shop(policy, early=True)
    assert _said(shop) == {"warning"}

    page.goto(f"{shop.url}/products/1")
    assert wait_until(lambda: shop.names == ["View Product 1"])
    assert list(shop.ways.values()) == [["AsyncServerSide"]]


@pytest.mark.parametrize(
    "policy",
    [
        "script-src 'none'",
        "script-src 'nonce-other'",
        "script-src 'strict-dynamic' 'self'",
        "script-src http://127.0.0.1:1",
        "script-src 'self', script-src https:",
        "img-src 'self'; default-src https: 'unsafe-inline'",
        "sandbox",
        "connect-src 'none'",
        "connect-src HOST/_mengpaneel/other",
    ],
)
def test_what_it_calls_broken_is_broken(
    open_shop: OpenShop, page: Tab, policy: str
) -> None:
    shop = open_shop(policy)
    assert "error" in _said(shop)

    page.goto(f"{shop.url}/products/1")
    page.wait_for_load_state("networkidle")
    page.goto("about:blank")

    with shop.app.app_context():
        assert shop.mengpaneel.drain(60)

    assert shop.names == []
