"""``MENGPANEEL_URL_PREFIX``: the extension's files and endpoints under another path."""

from __future__ import annotations

import json
import re
from urllib.parse import urljoin

import pytest
from flask import Flask

from flask_mengpaneel import Mengpaneel
from flask_mengpaneel.choose.script import static_folder
from sites import DEVICE, Site, block, page_site, scripts

PREFIX = "/shop-data"
GIVES_AWAY = re.compile("mengpaneel|mixpanel", re.I)


def urls(site: Site) -> list[str]:
    """What a page of a site asks the app for."""
    page = site.visitor(**DEVICE).get("/")
    data = block(page)
    assert data is not None
    sources = [
        one for attributes, _ in scripts(page.text) if (one := attributes.get("src"))
    ]
    return [*sources, data["fallback"], data["acks"]]


def test_what_a_page_asks_the_app_for_is_below_the_prefix() -> None:
    site = page_site(url_prefix=PREFIX)
    script, fallback, acks = urls(site)

    assert re.fullmatch(r"/shop-data/app\.js\?v=[0-9a-f]{12}", script)
    assert (fallback, acks) == ("/shop-data/calls", "/shop-data/acks")
    assert not any(map(GIVES_AWAY.search, (script, fallback, acks)))


def test_what_a_page_asks_for_is_there() -> None:
    site = page_site(url_prefix=PREFIX)
    script, fallback, acks = urls(site)
    client = site.client()

    with client.get(script) as response:
        assert response.data == (static_folder() / "mengpaneel.js").read_bytes()
        assert "javascript" in response.content_type
        assert response.cache_control.max_age == 31_536_000
        source_map = urljoin(f"http://localhost{script}", response.headers["SourceMap"])

    with client.get(source_map) as response:
        assert json.loads(response.data)["version"] == 3

    # They are there, and see that nothing was signed.
    assert client.post(fallback, json={}).status_code == 400
    assert client.post(acks, data="x").status_code not in (404, 405)


def test_the_module_imports_the_script_by_its_neutral_name() -> None:
    response = page_site(url_prefix=PREFIX).client().get(f"{PREFIX}/app.mjs")

    assert response.status_code == 200
    assert "javascript" in response.content_type
    assert 'import"./app.js"' in response.text
    assert "mengpaneel.js" not in response.text


@pytest.mark.parametrize(
    "path", ["/static/mengpaneel.js", "/calls", "/acks", "/inspector/"]
)
def test_nothing_is_left_at_the_default(path: str) -> None:
    site = page_site(url_prefix=PREFIX, inspector=True)

    assert site.client().get(f"/_mengpaneel{path}").status_code == 404


def test_an_app_that_says_nothing_has_no_neutral_names() -> None:
    client = page_site().client()

    assert client.get("/_mengpaneel/app.js").status_code == 404
    assert client.get("/_mengpaneel/app.mjs").status_code == 404
    client.get("/_mengpaneel/static/mengpaneel.js").close()


def test_the_inspector_moves_too_and_browsers_send_there() -> None:
    site = page_site(url_prefix=PREFIX, inspector=True)
    page = site.visitor(**DEVICE).get("/")
    data = block(page)

    assert data is not None
    assert data["config"]["api_host"] == f"{PREFIX}/inspector"

    with site.client().get(f"{PREFIX}/inspector/") as inspector:
        assert inspector.status_code == 200
        assert f'href="{PREFIX}/static/inspector.css"' in inspector.text
        assert block(inspector) is None


@pytest.mark.parametrize("mounted", ["", "/my shop"])
def test_it_is_below_the_path_where_the_app_is(mounted: str) -> None:
    site = page_site(url_prefix=PREFIX, inspector=True)
    page = site.visitor(**DEVICE).get("/", environ_overrides={"SCRIPT_NAME": mounted})
    data, base = block(page), f"{mounted.replace(' ', '%20')}{PREFIX}"

    assert data is not None
    assert data["fallback"] == f"{base}/calls"
    assert data["config"]["api_host"] == f"{base}/inspector"


def track_all(app: Flask, mengpaneel: Mengpaneel) -> None:
    app.before_request(lambda: mengpaneel.track("Request"))


def test_the_extension_s_own_requests_are_not_tracked() -> None:
    site = page_site(url_prefix=PREFIX)
    track_all(site.app, site.mengpaneel)
    client = site.client()

    client.get(f"{PREFIX}/app.js").close()
    client.post(f"{PREFIX}/calls", json={})

    assert site.kept.calls == []


@pytest.mark.parametrize(
    "path", [f"{PREFIX}s", f"{PREFIX}-more/page", PREFIX, "/_mengpaneel/page"]
)
def test_paths_that_only_begin_alike_are_the_app_s(path: str) -> None:
    site = Site(url_prefix=PREFIX)
    site.view(path, lambda: (site.mengpaneel.track("View"), {})[1])

    site.visitor(**DEVICE).get(path)

    assert [call.event for call in site.kept.calls] == ["View"]


@pytest.mark.parametrize("rule", [f"{PREFIX}/cart", f"{PREFIX}/<name>", PREFIX])
def test_a_path_that_the_app_has_is_an_error(rule: str) -> None:
    def prepare(app: Flask) -> None:
        app.add_url_rule(rule, "cart", lambda name="": name)

    with pytest.raises(ValueError) as raised:
        Site(url_prefix=PREFIX, prepare=prepare)

    for part in ("MENGPANEEL_URL_PREFIX", repr(PREFIX), repr(rule)):
        assert part in str(raised.value)


def test_the_app_s_static_files_are_no_place_for_it() -> None:
    with pytest.raises(ValueError, match="/static/<path:filename>"):
        Site(url_prefix="/static")
