"""The panel in the real Flask-DebugToolbar, as a developer sees it."""

from __future__ import annotations

import typing as t

import pytest
from flask import Flask, redirect
from flask_debugtoolbar import DebugToolbarExtension
from playwright.sync_api import Page, expect

from flask_mengpaneel import Mengpaneel
from servers import Server
from sites import PAGE, Site

pytestmark = pytest.mark.browsers(
    "chromium", why="a page for developers; the toolbar's own script shows it"
)


def add_toolbar(app: Flask) -> None:
    app.debug = True
    app.config["DEBUG_TB_PANELS"] = [
        "flask_debugtoolbar.panels.timer.TimerDebugPanel",
        "flask_mengpaneel.debug_toolbar.MengpaneelPanel",
    ]
    DebugToolbarExtension(app)


def test_the_panel_opens_over_a_redirect_and_over_its_page(page: Page) -> None:
    mengpaneel = Mengpaneel()
    site = Site(mengpaneel=mengpaneel, prepare=add_toolbar, library_url=None)

    @site.app.get("/page")
    def view() -> str:
        mengpaneel.track("View", {"Items": 3, "Text": "<b>"})
        return PAGE

    @site.app.get("/orders")
    def order() -> t.Any:
        mengpaneel.track("Order")
        return redirect("/page")

    button = page.locator("#flDebugMengpaneelPanel a")
    panel = page.locator("#flDebugMengpaneelPanel-content")

    with Server(site.app) as server:
        page.goto(f"{server.url}/orders")
        expect(button).to_contain_text("1 call: Delayed")
        expect(panel).to_be_hidden()
        button.click()
        row = panel.get_by_role("row", name="track('Order', {})")
        expect(row).to_contain_text("by Delayed")

        panel.get_by_role("link", name="Close").click()
        expect(panel).to_be_hidden()
        page.get_by_role("link", name="/page").click()
        expect(button).to_contain_text("2 calls: ClientSide")
        button.click()
        row = panel.get_by_role(
            "row", name="track('View', {'Items': 3, 'Text': '<b>'})"
        )
        expect(row).to_contain_text("by ClientSide")
        row = panel.get_by_role("row", name="track('Order'")
        expect(row).to_contain_text("waited in the session, by ClientSide")
