"""What the headers of a response say, read once for all that have the same."""

from __future__ import annotations

import typing as t

import pytest
from flask import Response

from flask_mengpaneel.choose import response_headers
from flask_mengpaneel.choose.response_headers import headers_of


@pytest.fixture(autouse=True)
def recent(monkeypatch: pytest.MonkeyPatch) -> dict[t.Any, t.Any]:
    kept: dict[t.Any, t.Any] = {}
    monkeypatch.setattr(response_headers, "_recent", kept)
    return kept


def page(**headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response("<p>", content_type="text/html", headers=named)


def test_responses_with_the_same_headers_share_what_they_say() -> None:
    one, other = page(Cache_Control="public"), page(Cache_Control="public")
    assert headers_of(one) is headers_of(other)
    assert headers_of(one).is_shared


def test_another_value_says_something_else() -> None:
    assert headers_of(page(Cache_Control="public")).is_shared
    assert not headers_of(page(Cache_Control="private")).is_shared


def test_what_a_response_has_of_its_own_is_known_by_name_only(
    recent: dict[t.Any, t.Any],
) -> None:
    one, other = page(ETag='"1"'), page(ETag='"2"')
    one.set_cookie("who", "ada")
    other.set_cookie("who", "bob")
    other.content_length = 12
    assert headers_of(one) is headers_of(other)
    assert {"etag", "set-cookie", "content-length"} <= headers_of(one).keys()
    assert "ada" not in repr(recent)


def test_a_header_that_comes_twice_has_both_values() -> None:
    response = page(Cache_Control="max-age=3")
    response.headers.add("cache-control", "public")
    assert headers_of(response)["cache-control"] == "max-age=3, public"


class Unhashable(str):
    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]


def test_a_value_of_an_odd_kind_of_text_is_read(recent: dict[t.Any, t.Any]) -> None:
    def shared() -> Response:
        return page(Cache_Control=Unhashable("public"))

    assert headers_of(shared()).is_shared
    assert headers_of(shared()) is headers_of(page(Cache_Control="public"))
    assert all(type(value) is str for lines in recent for _, value in lines)


def test_few_are_kept_and_none_that_is_large(recent: dict[t.Any, t.Any]) -> None:
    headers_of(page(X_Notes="a" * 5_000))
    assert not recent

    for number in range(300):
        headers_of(page(X_Number=str(number)))

    assert len(recent) <= 128
