"""Sources of a policy, and the URLs that they allow."""

from __future__ import annotations

import pytest

from flask_mengpaneel.doctor.csp import parse


@pytest.mark.parametrize(
    ("source", "page", "url", "matches"),
    [
        ("*", "https://a.test/", "http://b.test/", True),
        ("*", "https://a.test/", "data:x", False),
        ("'self'", "https://a.test/x", "https://a.test:443/y", True),
        ("'self'", "http://a.test/", "https://a.test/", True),
        ("'self'", "https://a.test/", "http://a.test/", False),
        ("'self'", "http://a.test:81/", "http://a.test/", False),
        ("'self'", "https://a.test/", "https://b.a.test/", False),
        ("http:", "https://a.test/", "https://b.test/", True),
        ("https:", "https://a.test/", "http://b.test/", False),
        ("b.test", "https://a.test/", "https://b.test/", True),
        ("b.test", "https://a.test/", "http://b.test/", False),
        ("b.test", "http://a.test/", "https://b.test/", True),
        ("B.TEST", "https://a.test/", "https://b.test/", True),
        ("*.b.test", "https://a.test/", "https://c.b.test/", True),
        ("*.b.test", "https://a.test/", "https://b.test/", False),
        ("b.test:*", "https://a.test/", "https://b.test:8443/", True),
        ("b.test:8443", "https://a.test/", "https://b.test:8443/", True),
        ("b.test", "https://a.test/", "https://b.test:8443/", False),
        ("b.test/x/", "https://a.test/", "https://b.test/x/y.js", True),
        ("b.test/x", "https://a.test/", "https://b.test/x/y.js", False),
        ("b.test/%78", "https://a.test/", "https://b.test/x", True),
        ("127.0.0.1:5001", "http://127.0.0.1:5000/", "http://127.0.0.1:5001/", True),
        ("'none'", "https://a.test/", "https://a.test/", False),
        ("b.test/?x", "https://a.test/", "https://b.test/", False),
        ("b.test:99999", "https://a.test/", "https://b.test/", False),
    ],
)
def test_a_source_matches_a_url(
    source: str, page: str, url: str, matches: bool
) -> None:
    (policy,) = parse(f"connect-src {source}", page)

    assert policy.allows_connection(url) is matches
