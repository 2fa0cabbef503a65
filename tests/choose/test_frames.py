"""Pages inside of other pages."""

from __future__ import annotations

import pytest

from sites import (
    PAGE,
    Site,
    block,
    page_calls,
)


@pytest.mark.parametrize("destination", ["iframe", "frame", "embed", "object"])
@pytest.mark.parametrize(
    ("headers", "where", "shown"),
    [
        ({}, "cross-site", True),
        ({"X-Frame-Options": "DENY"}, "same-origin", False),
        ({"X-Frame-Options": "deny"}, "cross-site", False),
        ({"X-Frame-Options": "SAMEORIGIN"}, "same-origin", True),
        ({"X-Frame-Options": "SAMEORIGIN"}, "same-site", False),
        ({"X-Frame-Options": "SAMEORIGIN"}, "cross-site", False),
        ({"X-Frame-Options": "DENY, SAMEORIGIN"}, "same-origin", False),
        ({"X-Frame-Options": "ALLOW-FROM https://a.example"}, "cross-site", True),
        ({"CSP": "frame-ancestors 'none'"}, "same-origin", False),
        ({"CSP": "frame-ancestors"}, "same-origin", False),
        ({"CSP": "frame-ancestors 'self'"}, "same-origin", True),
        ({"CSP": "frame-ancestors 'self'"}, "cross-site", False),
        ({"CSP": "frame-ancestors *"}, "cross-site", True),
        ({"CSP": "frame-ancestors https:"}, "cross-site", True),
        ({"CSP": "frame-ancestors https://partner.example"}, "cross-site", True),
        ({"CSP": "frame-ancestors *.example:443"}, "cross-site", True),
        ({"CSP": "frame-ancestors https://other.example"}, "cross-site", False),
        ({"CSP": "frame-ancestors *, frame-ancestors 'none'"}, "cross-site", False),
        ({"CSP": "frame-ancestors *", "X-Frame-Options": "DENY"}, "cross-site", True),
    ],
)
def test_a_page_that_no_frame_may_show_carries_nothing(
    headers: dict[str, str], where: str, shown: bool, destination: str
) -> None:
    site = Site()
    given = dict(headers)

    if "CSP" in given:
        given["Content-Security-Policy"] = given.pop("CSP")

    site.view("/", lambda: (site.mengpaneel.track("Now"), (PAGE, given))[1])
    site.view("/quiet", lambda: (PAGE, given))
    fetched = {
        "Sec-Fetch-Dest": destination,
        "Sec-Fetch-Site": where,
        "Sec-Fetch-Mode": "navigate",
        "Referer": "https://partner.example/",
    }
    client = site.client()

    assert bool(page_calls(client.get("/", headers=fetched))) == shown
    assert (block(client.get("/quiet", headers=fetched)) is not None) == shown
    assert len(site.kept.calls) == (not shown)
    # As the page of a tab it is shown all the same.
    assert page_calls(client.get("/", headers={"Sec-Fetch-Dest": "document"}))
