"""Pages for the doctor, and what it finds."""

from __future__ import annotations

import typing as t

from flask import Flask

from flask_mengpaneel.doctor.command import examine

PAGE = "<!doctype html><html><head><title>Shop</title></head><body></body></html>"
SCRIPT = "/_mengpaneel/static/mengpaneel.js"
HOST = "https://api-js.mixpanel.com"
CDN = "https://cdn.mxpnl.com"
#: As Mixpanel makes it.
TOKEN = "0123456789abcdef0123456789abcdef"


def under(*policies: str) -> dict[str, t.Any]:
    """The settings of ``serve`` for a page with policies."""
    return {"headers": [("Content-Security-Policy", text) for text in policies]}


def lines(app: Flask, *urls: str) -> list[str]:
    """What the doctor finds, as the command prints it."""
    return [str(finding) for finding in examine(app, urls or ("/",))]
