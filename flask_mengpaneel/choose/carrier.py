"""Responses with something of their visitor's: made, marked, and looked at last."""

from __future__ import annotations

import collections.abc as c
import functools
import types
import typing as t
import zlib

from werkzeug.datastructures import Headers
from werkzeug.wrappers import response as werkzeug_response

from . import injection
from .caching import TO_CACHES, directives, is_open, lets_share, tells_caches

if t.TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment
    from flask import Request, Response

    _AnyResponse = Response
else:
    # Whatever kind of response an app has.
    _AnyResponse = object

CALLS_HEADER = "X-Mengpaneel-Calls"
PROJECT_HEADER = "X-Mengpaneel-Project"
SIGNATURE_HEADER = "X-Mengpaneel-Signature"
HAND_OVER_HEADER = "X-Mengpaneel-Hand-Over"

_VALIDATORS = frozenset({"etag", "last-modified"})

# What Werkzeug's own functions of responses know: others put theirs in their place.
_WERKZEUG = vars(werkzeug_response)

# What Werkzeug corrects of headers, beside the length that it adds.
_CORRECTED = frozenset({"location", "content-location"})

#: Those that a client is given calls with.
OWN_HEADERS = (CALLS_HEADER, PROJECT_HEADER, SIGNATURE_HEADER, HAND_OVER_HEADER)


class _CacheRules(t.NamedTuple):
    """What caches were told of a response, to be repeated if need be.

    :param page: whether there are calls in its body.
    :param header: whether there are calls in a header.
    :param is_private: whether it is its visitor's alone; else it mustn't be given to
        others by what the app says of it later.
    :param headers: those that it had then.
    """

    page: bool
    header: bool
    is_private: bool
    headers: list[tuple[str, str]]


class Carrier(_AnyResponse):
    """A response that has something of its visitor's, and says so when it leaves:
    what runs after the extension may have said something else by then."""

    __slots__ = ()

    # What caches were told of it.
    _mengpaneel_rules: _CacheRules | None = None
    #: The session's cookie, if it is written for the extension alone.
    _mengpaneel_cookie: str | None = None
    #: Whether it was left out, since the app writes one itself after all.
    _mengpaneel_is_overruled = False

    def get_wsgi_headers(self, environ: WSGIEnvironment) -> Headers:
        if self._mengpaneel_cookie is not None and _drop_own_cookie(
            self.headers, self._mengpaneel_cookie
        ):
            self._mengpaneel_is_overruled = True

        headers = self._corrected_headers(environ)
        rules = self._mengpaneel_rules

        # What comes after is mostly the session's cookie, and `Vary`.
        if (
            rules is not None
            and (told := headers.to_wsgi_list()) != rules.headers
            and tells_caches(set(told) ^ set(rules.headers))
        ):
            was_shared = _remove_sharing(headers)

            names = _in_lower_case(headers)

            if was_shared or rules.is_private or is_open(names):
                _write_private(headers, names, page=rules.page, header=rules.header)

        return headers

    def _corrected_headers(self, environ: WSGIEnvironment) -> Headers:
        # Where there is nothing to correct, Werkzeug looks at each header anew all the
        # same, in 40 steps: a third of those that a page without calls takes.
        correct, headers = super().get_wsgi_headers, self.headers

        if (
            type(correct) is types.MethodType
            and getattr(correct, "__globals__", None) is _WERKZEUG
            and type(headers) is Headers
            and self.status_code == 200
        ):
            names = _names_of(headers)

            if "content-length" in names and _CORRECTED.isdisjoint(names):
                return _copy_headers(headers)

        return correct(environ)

    def iter_encoded(self) -> c.Iterator[bytes]:
        body: t.Any = self.response
        return iter(body) if type(body) is injection.Parts else super().iter_encoded()

    def __reduce_ex__(self, protocol: t.SupportsIndex) -> t.Any:
        # Some keep responses, and write down of which class they are.
        reduced: t.Any = super().__reduce_ex__(protocol)
        return _anew, (type(self).__mro__[2],), *reduced[2:]


def _anew(kind: type[Response]) -> Response:
    return kind.__new__(kind)


@functools.lru_cache(maxsize=32)
def carrier_class(kind: t.Any) -> t.Any:
    """Return the class of responses of a kind that carry something."""
    if issubclass(kind, Carrier):
        return kind

    names = {"__slots__": (), "__module__": kind.__module__, "__doc__": kind.__doc__}
    return type(kind)(kind.__name__, (Carrier, kind), names)


def copy_response(response: Response) -> Carrier:
    """Return a copy that can be changed without changing the response itself."""
    # 2 us; `copy.copy` takes 7, of 27, a page without calls.
    kind: t.Any = type(response)
    copied: Carrier = kind.__new__(carrier_class(kind))
    copied.__dict__.update(response.__dict__)

    for name in _slots(kind):
        if hasattr(response, name):
            setattr(copied, name, getattr(response, name))

    copied.headers = _copy_headers(response.headers)
    # It runs what is to run when this one is closed, which it is in its place.
    copied._on_close = list(response._on_close)

    # It writes to the response that it was made for.
    if "stream" in copied.__dict__:
        del copied.__dict__["stream"]

    if type(response.response) is list:
        copied.response = response.response[:]

    return copied


def _copy_headers(headers: Headers) -> Headers:
    """Return headers that can be changed apart from these."""
    # 0.5 us; their own `copy` looks at each header anew, and takes 5, of 27, a page
    # without calls.
    copied = type(headers).__new__(type(headers))

    for name, value in headers.__dict__.items():
        copied.__dict__[name] = value[:] if type(value) is list else value

    return copied


@functools.lru_cache(maxsize=32)
def _slots(kind: t.Any) -> list[str]:
    named = [vars(one).get("__slots__", ()) for one in kind.__mro__]
    slots = [(one,) if isinstance(one, str) else one for one in named]
    return [
        name
        for names in slots
        for name in names
        if name not in ("__dict__", "__weakref__")
    ]


def forget_rules(response: Carrier) -> None:
    """Let a response be as one of which caches were told nothing yet."""
    response._mengpaneel_rules = response._mengpaneel_cookie = None


def leave_out_own_cookie(response: Carrier, name: str | None) -> None:
    """Let the session's cookie be left out, if the app writes one itself after all.

    :param name: that of the cookie, if it is written for the extension alone.
    """
    response._mengpaneel_cookie = name


def is_overruled(response: Response) -> bool:
    """Whether the session's cookie was left out, since the app has written one itself
    after all."""
    return isinstance(response, Carrier) and response._mengpaneel_is_overruled


def mark_private(
    response: Response, *, page: bool = False, header: bool = False
) -> None:
    """Say that a response is its visitor's alone, beside what the app has said of it.

    :param page: whether there are calls in its body.
    :param header: whether there are calls in a header, which no cache may have, the
        browser's own included.
    """
    headers = response.headers
    rules = response._mengpaneel_rules if isinstance(response, Carrier) else None

    if rules is not None:
        page, header = page or rules.page, header or rules.header

    # One pass; each question to the headers themselves would be one more.
    names = _names_of(headers)
    _write_private(headers, names, page=page, header=header)

    if page:
        # They are of the page without the calls: a browser that asks again with them
        # would be told to show somebody else's.
        for name in names & _VALIDATORS:
            del headers[name]

    if isinstance(response, Carrier):
        rules = _CacheRules(page, header, True, headers.to_wsgi_list())
        response._mengpaneel_rules = rules


def give_own_validators(
    response: Carrier,
    request: Request,
    app_headers: c.Mapping[str, str],
    snippet: bytes,
    *,
    is_all: bool,
) -> None:
    """Give a page with the library other validators than the page without it has.

    A browser that has kept it asks with its validators whether it is right still, and
    the app would say so to one who has refused since: it knows those of the page
    without the library.

    :param app_headers: the response's as the app has set them; names in lower case.
    :param is_all: whether nothing else comes with it, so that a browser that has the
        same page may be told so.
    """
    if "last-modified" in app_headers:
        del response.headers["Last-Modified"]

    tag, is_weak = response.get_etag() if "etag" in app_headers else (None, None)

    if tag is not None:
        tag = f"{tag}-{zlib.crc32(snippet):08x}"
        response.set_etag(tag, bool(is_weak))
        is_fresh = is_all and response.status_code == 200

        if is_fresh and request.if_none_match.contains_weak(tag):
            response.make_conditional(request.environ)

    if response._mengpaneel_rules is None:
        told = response.headers.to_wsgi_list()
        response._mengpaneel_rules = _CacheRules(False, False, False, told)


def _write_private(
    headers: Headers, names: c.Container[str], *, page: bool, header: bool
) -> None:
    """Say that a response is its visitor's alone.

    :param names: those of its headers, in lower case.
    """
    is_told = "cache-control" in names
    told = headers.getlist("Cache-Control") if is_told else []
    control = directives(", ".join(told)) if told else {}
    ours = ["no-store"] if header else ["private"]
    lasts = "max-age" in control or "expires" in names

    if page and not lasts and "no-store" not in control:
        ours = [*ours, "no-cache"]

    missing = [one for one in ours if one not in control]

    # An `add` takes half as many steps as what looks for one to replace.
    if missing and not is_told:
        headers.add("Cache-Control", ", ".join(missing))
    elif missing:
        headers["Cache-Control"] = ", ".join([*filter(None, told), *missing])


def _remove_sharing(headers: Headers) -> bool:
    """Take back what lets a cache give a response to others, if anything does."""
    sharing = {}

    for name, value in headers:
        key = name.lower()

        if key.endswith(TO_CACHES) and lets_share(key, value):
            sharing[name] = key

    if not sharing:
        return False

    told = ", ".join(headers.getlist("Cache-Control"))

    for name in sharing:
        del headers[name]

    if "cache-control" in sharing.values():
        kept = directives(told)

        for name in ("public", "s-maxage", "must-understand"):
            kept.pop(name, None)

        for name in ("private", "no-cache"):
            # Of the whole response, not of some headers.
            if name in kept:
                kept[name] = ""

        headers["Cache-Control"] = ", ".join(
            f"{name}={value}" if value else name for name, value in kept.items() if name
        )

    return True


def _drop_own_cookie(headers: Headers, name: str) -> bool:
    """Drop the last line for a cookie if there is one before, by the app."""
    lines = headers.getlist("Set-Cookie")
    found = [at for at, line in enumerate(lines) if name_of_cookie(line) == name]

    if len(found) < 2:
        return False

    del lines[found[-1]]
    headers.setlist("Set-Cookie", lines)
    return True


def set_cookies(response: Response) -> set[str]:
    """Return the names of the cookies that a response sets or deletes."""
    return set(map(name_of_cookie, response.headers.getlist("Set-Cookie")))


def lines_of_cookie(response: Response, name: str) -> list[str]:
    """Return the values of ``Set-Cookie`` that set or delete one cookie, in order."""
    lines = response.headers.getlist("Set-Cookie")
    return [line for line in lines if name_of_cookie(line) == name]


def name_of_cookie(line: str) -> str:
    """Return the name of the cookie that a value of ``Set-Cookie`` is about."""
    return line.partition("=")[0].strip()


def _names_of(headers: Headers) -> set[str]:
    return {name.lower() for name, _value in headers}


def _in_lower_case(headers: Headers) -> dict[str, str]:
    return {name.lower(): value for name, value in headers}
