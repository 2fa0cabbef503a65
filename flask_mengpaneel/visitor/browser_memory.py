"""What the browser library knows of a visitor: in which cookie the server sees it."""

from __future__ import annotations

import collections.abc as c
import typing as t

from ..calls import Json
from . import mixpanel_cookie

if t.TYPE_CHECKING:
    from flask import Request, Response

    from ..config import Config
    from .client import Client

# What our cookie begins with, if the server has decided what is in it, and the library
# doesn't know that yet.
_DECIDED = "!"

# In our cookie: whether the library forgets all of it with the page.
_PASSING = "passing"


class BrowserMemory:
    """What the browser library knows of a visitor, as far as the server sees it.

    By default that is in the library's own cookie. Where the library keeps it
    elsewhere, or with the page only, the script shows it in a cookie of ours, and
    brings into the library what the server writes there. A library that knows nothing
    yet takes up its own cookie, wherever it keeps what it knows from then on: so a new
    visitor's ids are written there.

    :param client: that made the request.
    """

    __slots__ = ("_config", "_is_passing", "content", "is_shown")

    def __init__(self, config: Config, request: Request, client: Client) -> None:
        self._config = config
        self._is_passing = config.forgets_with_page
        #: Whether it is the script that shows it.
        self.is_shown = False
        #: What the library knows; empty if that is nothing.
        self.content: c.Mapping[str, Json] = self._read(request, config.cookie_name)

        if not self.content or config.persistence == "localStorage":
            self._read_shown(request, begins_page=client.is_page_view)

        if not self.content and "HTTP_COOKIE" not in client.environ:
            self.content = mixpanel_cookie.read(client.said_visitor)

    @staticmethod
    def _read(request: Request, name: str) -> dict[str, Json]:
        if name not in request.environ.get("HTTP_COOKIE", ""):
            return {}

        value = request.cookies.get(name, "")
        return mixpanel_cookie.read(value.removeprefix(_DECIDED))

    def _read_shown(self, request: Request, *, begins_page: bool) -> None:
        content = self._read(request, self._config.shown_cookie_name)
        is_passing = content.pop(_PASSING, None) is True

        # What passed with the page before doesn't count, nor what is older than what
        # the next page begins with.
        if content and not (is_passing and (begins_page or self.content)):
            self.content = content
            self.is_shown = True
            self._is_passing = is_passing

    def write(
        self, response: Response, request: Request, content: c.Mapping[str, Json]
    ) -> None:
        """Let the library know this, and nothing else."""
        config = self._config
        name = mark = ""

        if self.is_shown:
            name, mark = config.shown_cookie_name, _DECIDED

            if self._is_passing:
                content = {**content, _PASSING: True}

        mixpanel_cookie.write(
            response,
            request,
            config,
            content,
            name=name,
            mark=mark,
            is_passing=self._is_passing,
        )


def forget(
    response: Response, request: Request, config: Config, *, is_seen: bool
) -> bool:
    """Delete what the server sees of it, if it may be there.

    :param is_seen: whether it came with the request, if it is there.
    :return: whether there was anything to delete.
    """
    names = [
        name
        for name in (config.cookie_name, config.shown_cookie_name)
        if name in request.cookies or not is_seen
    ]

    for name in names:
        mixpanel_cookie.forget(response, request, config, name)

    return bool(names)


def hide(response: Response, request: Request, config: Config) -> None:
    """Delete what the script shows of a visitor who has refused since."""
    name = config.shown_cookie_name

    if name in request.environ.get("HTTP_COOKIE", ""):
        mixpanel_cookie.forget(response, request, config, name)
