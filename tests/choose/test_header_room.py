"""How much the headers have room for."""

from __future__ import annotations

import base64
import json

import pytest
from flask import Response, redirect, session
from werkzeug.test import TestResponse

from sites import (
    CAPABLE,
    PAGE,
    Site,
    header_calls,
    names,
    page_calls,
)


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
