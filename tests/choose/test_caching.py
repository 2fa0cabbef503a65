"""What headers say to caches."""

from __future__ import annotations

import pytest
from flask import Response

from flask_mengpaneel.choose.caching import directives
from flask_mengpaneel.choose.carrier import mark_private


@pytest.mark.parametrize(
    ("told", "options", "expected"),
    [
        ([], {}, "private"),
        (["no-store"], {}, "no-store, private"),
        (["max-age=9", "must-revalidate"], {}, "max-age=9, must-revalidate, private"),
        (["private"], {}, "private"),
        (["PRIVATE, Max-Age=3"], {"page": True}, "PRIVATE, Max-Age=3"),
        ([], {"page": True}, "private, no-cache"),
        ([], {"header": True}, "no-store"),
        (["no-cache"], {"header": True}, "no-cache, no-store"),
        (["no-store"], {"header": True}, "no-store"),
    ],
)
def test_what_the_app_says_of_caches_stays(
    told: list[str], options: dict[str, bool], expected: str
) -> None:
    response = Response()

    for line in told:
        response.headers.add("Cache-Control", line)

    mark_private(response, **options)

    assert response.headers.getlist("Cache-Control") == [expected]


@pytest.mark.parametrize("size", [1_000, 10_000, 100_000])
@pytest.mark.parametrize("text", ['"', '\\"', '"\\', '",', "a=", ", ", '="'])
def test_any_directives_are_read(text: str, size: int) -> None:
    assert isinstance(directives(text * size), dict)
