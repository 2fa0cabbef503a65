"""Checks of settings' values: each returns the value that is used.

They raise :exc:`InvalidSetting`, whose message says what is allowed.
"""

from __future__ import annotations

import collections.abc as c
import difflib
import importlib.util
import json
import os
import re
import typing as t
from pathlib import Path
from urllib.parse import urlsplit

from werkzeug.utils import import_string

from . import hosts
from .login import Login
from .values import plain

if t.TYPE_CHECKING:
    from .calls import Json


class InvalidSetting(Exception):
    """A value is not allowed; the message says what is.

    :param meant: the value that was probably meant.
    """

    def __init__(self, allowed: str, meant: object = None) -> None:
        super().__init__(allowed)
        self.meant = meant


class WrongSetting(ValueError):
    """There is no such key, or its value isn't allowed; the message says what is.

    :param remedy: what to write instead.
    """

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy

    @classmethod
    def of(cls, key: str, value: object, error: InvalidSetting) -> WrongSetting:
        """Say of a key's value what is wrong with it."""
        said = f"{key} is {value!r}; it must be {error}."

        if error.meant is None:
            return cls(said, f"{key} = ...  # {error}")

        hint = f"{said} Did you mean {error.meant!r}?"
        return cls(hint, f"{key} = {json.dumps(error.meant)}")

    @classmethod
    def unknown(cls, key: str, field: str, fields: c.Iterable[str]) -> WrongSetting:
        """Say of a key that there is none, and which one was probably meant.

        :param field: the key without the prefix, with which each is like each other.
        :param fields: those that there are.
        """
        said = f"{key} is not a setting of Flask-Mengpaneel."
        close = difflib.get_close_matches(field, fields, 1)

        if not close:
            return cls(said, f"del app.config[{key!r}]")

        meant = f"MENGPANEEL_{close[0].upper()}"
        return cls(f"{said} Did you mean {meant}?", f"{meant} = ...")


def is_ours(key: str) -> bool:
    """Whether a key is, or was meant to be, a setting of this extension."""
    prefix = key.partition("_")[0]
    return bool(difflib.get_close_matches(prefix, ["MENGPANEEL"], 1, 0.8))


Check = c.Callable[[t.Any], t.Any]


def boolean(value: t.Any) -> bool:
    """Take ``True`` or ``False``, and nothing that is like them."""
    if not isinstance(value, bool):
        raise InvalidSetting("True or False")

    return value


def number(least: float, unit: str) -> Check:
    """Take a finite number.

    :param unit: what it counts, for the message.
    """

    def check(value: t.Any) -> float:
        # `not >=` and not `<`: NaN is refused as well.
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not value >= least
            or value == float("inf")
        ):
            raise InvalidSetting(f"a number of {unit}, {least} or more")

        return value

    return check


def choice(*allowed: str) -> Check:
    """Take one of some texts."""

    def check(value: t.Any) -> str:
        if value not in allowed:
            raise InvalidSetting(" or ".join(map(repr, allowed)))

        return t.cast(str, value)

    return check


def callable_or_path(meaning: str) -> Check:
    """Take a callable, its dotted path or ``None``.

    :param meaning: what the callable is, for the message.
    """

    def check(value: t.Any) -> t.Any:
        if isinstance(value, str):
            value = imported(value, f"{meaning}, its dotted path or None")

        if value is not None and not callable(value):
            raise InvalidSetting(f"{meaning}, its dotted path or None")

        return value

    return check


def imported(path: str, meaning: str) -> t.Any:
    """Import what a dotted path leads to."""
    try:
        return import_string(path)
    except ImportError as error:
        # Werkzeug's own words are a page.
        reason = getattr(error, "exception", error)
        raise InvalidSetting(f"{meaning} (importing it failed: {reason})") from None


def token(value: t.Any) -> str | None:
    """Take a project's token; an empty one is none."""
    if value is not None and not isinstance(value, str):
        raise InvalidSetting("your project's token as text, or None")

    token = (value or "").strip()

    # It becomes a part of a cookie's name.
    if not re.fullmatch(r"[A-Za-z0-9._-]*", token):
        raise InvalidSetting("your project's token: letters, digits, '-', '_' and '.'")

    return token or None


def host(value: t.Any) -> str:
    """Take the URL of a host, without the slash at its end."""
    allowed = "a URL with its scheme, such as 'https://api-eu.mixpanel.com'"

    # `urlsplit` overlooks line ends.
    if not isinstance(value, str) or re.search(r"[\s\x00-\x20\\]", value):
        raise InvalidSetting(allowed)

    try:
        parts = urlsplit(value)
        # Raises for a port that isn't a number.
        _ = parts.port
    except ValueError:
        raise InvalidSetting(allowed) from None

    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise InvalidSetting(allowed, hosts.meant(f"https://{value}"))

    if parts.query or parts.fragment:
        raise InvalidSetting(f"{allowed}, without a query")

    return _checked_host(value.rstrip("/")) or value.rstrip("/")


def _checked_host(url: str) -> str | None:
    """Take one of Mixpanel's hosts; ``None`` if a URL leads somewhere else.

    :raises InvalidSetting: it is in Mixpanel's domain, where nothing takes records.
    """
    meant = hosts.meant(url)

    if meant is None or url.lower() in (meant, f"{meant}:443"):
        return meant and url.lower()

    allowed = ", ".join(f"https://{name}" for name in hosts.REGIONS)
    raise InvalidSetting(f"one of Mixpanel's hosts and no more: {allowed}", meant)


def client_config(value: t.Any) -> c.Mapping[str, Json]:
    """Take a dict that JSON can hold."""
    if not isinstance(value, c.Mapping):
        raise InvalidSetting("a dict of the browser library's init options")

    try:
        options = t.cast("dict[str, Json]", plain(value))
    except (TypeError, ValueError) as error:
        raise InvalidSetting(f"a dict that JSON can hold ({error})") from None

    if "api_host" in options:
        _check_client_hosts(options, options, "api_host")

    if isinstance(by_kind := options.get("api_hosts"), dict):
        for kind in by_kind:
            _check_client_hosts(options, by_kind, kind)

    return options


def _check_client_hosts(
    options: dict[str, Json], within: dict[str, Json], name: str
) -> None:
    """Check where browsers send.

    :param within: the dict of the options that has the host, by its name.
    """
    given = within[name]

    if not isinstance(given, str):
        return

    try:
        within[name] = _client_host(given)
    except InvalidSetting as error:
        if error.meant is None:
            raise InvalidSetting(f"a dict whose {name!r} is {error}") from None

        within[name] = t.cast("Json", error.meant)
        raise InvalidSetting(f"a dict whose {name!r} is {error}", options) from None


def _client_host(value: str) -> str:
    """Take the URL of a host for browsers, or a path on the app's own."""
    # As browsers read it, it is a path below that of the page, or no server's.
    if value and not re.match(r"(https?:)?//[^/]|/(?!/)", value, re.IGNORECASE):
        meant = None

        if re.match(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+(:[0-9]+)?(/|$)", value):
            meant = hosts.meant(f"https://{value}") or f"https://{value}"

        raise InvalidSetting(
            "a URL with its scheme, or a path that begins with '/'", meant
        )

    try:
        return _checked_host(value.rstrip("/")) or value
    except ValueError:
        raise InvalidSetting("a URL, or a path that begins with '/'") from None


def url_prefix(value: t.Any) -> str:
    """Take a path below which nothing else is."""
    if (
        not isinstance(value, str)
        or not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", value)
        or {".", ".."}.intersection(value.split("/"))
    ):
        raise InvalidSetting(
            "a path that begins with '/' and doesn't end with it, such as '/shop-data',"
            " of letters, digits, '-', '_', '.' and '~'"
        )

    return value


def library_url(value: t.Any) -> str | None:
    """Take a URL of whatever form, as a page may have it."""
    if value is not None and (not isinstance(value, str) or not value.strip()):
        raise InvalidSetting(
            "the URL of the browser library, or None if the page has its own"
        )

    return value


def spool(value: t.Any) -> Path | None:
    """Take the path of a file."""
    if value is None:
        return None

    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise InvalidSetting("the path of a file, or None")

    return Path(value)


def acks(value: t.Any) -> str | None:
    """Take the URL of a Redis server."""
    allowed = "the URL of a Redis server, such as 'redis://10.0.0.5:6379/0', or None"

    if value is None:
        return None

    if not isinstance(value, str):
        raise InvalidSetting(allowed)

    try:
        parts = urlsplit(value)
        # Raises for a port that isn't a number.
        _ = parts.port
    except ValueError:
        raise InvalidSetting(allowed) from None

    places = {"redis": parts.hostname, "rediss": parts.hostname, "unix": parts.path}

    if not places.get(parts.scheme):
        raise InvalidSetting(allowed)

    if importlib.util.find_spec("redis") is None:
        raise InvalidSetting(
            "None as long as the package 'redis' isn't installed:"
            " pip install 'flask-mengpaneel[redis]'"
        )

    return value


def login(value: t.Any) -> Login | None:
    """Take how the app signs visitors in, or the name of an extension for it."""
    allowed = "'flask-login', a Login, its dotted path or None"

    if value == "flask-login":
        if importlib.util.find_spec("flask_login") is None:
            raise InvalidSetting(
                "None, or a Login of your own, as long as the package 'flask-login'"
                " isn't installed: pip install flask-login"
            )

        return Login.flask_login()

    if isinstance(value, str) and "." in value:
        value = imported(value, allowed)

    if value is not None and not isinstance(value, Login):
        raise InvalidSetting(allowed)

    return value


def default_properties(value: t.Any) -> t.Any:
    """Take a dict that JSON can hold, or a callable that returns one."""
    allowed = "a dict, a callable that returns one, its dotted path or None"

    if isinstance(value, str):
        value = imported(value, allowed)

    if value is None or callable(value):
        return value

    if not isinstance(value, c.Mapping):
        raise InvalidSetting(allowed)

    try:
        return plain(value)
    except (TypeError, ValueError) as error:
        raise InvalidSetting(f"{allowed} ({error})") from None


def byte_count(value: t.Any) -> int:
    """Take a number of bytes."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidSetting("a whole number of bytes, 0 or more")

    return value
