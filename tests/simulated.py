"""A simulated browser with Mixpanel's library, and the world that it is in."""

from __future__ import annotations

import abc
import itertools
import json
import typing as t
from urllib.parse import quote

from sites import COOKIE, PAGE, Site, library_cookie


class SimulatedBrowser:
    """A browser, and what the library keeps in its cookie."""

    def __init__(self, site: Site) -> None:
        self.client = site.client()
        self._devices = itertools.count()

    @property
    def is_known(self) -> bool:
        """Whether it has ids of the visitor; a response that can't set a cookie
        can't give it any."""
        return self.client.get_cookie(COOKIE) is not None

    def _cookie(self) -> dict[str, t.Any]:
        """What the library knows, which begins with a device of its own."""
        return library_cookie(self.client) or self._new_visitor()

    def _new_visitor(self) -> dict[str, t.Any]:
        device = f"browser-{id(self)}-{next(self._devices)}"
        return self._keep({"distinct_id": f"$device:{device}", "$device_id": device})

    def _keep(self, cookie: dict[str, t.Any]) -> dict[str, t.Any]:
        self.client.set_cookie(COOKIE, quote(json.dumps(cookie)))
        return cookie

    def _be(self, user: str) -> None:
        """What ``identify`` leaves in the cookie."""
        self._keep({**self._cookie(), "distinct_id": user, "$user_id": user})


class World(abc.ABC):
    """A site, its visitors one after the other, and what the views recorded."""

    def __init__(self, **settings: t.Any) -> None:
        self.site = Site(**settings)
        #: Of calls and of users, so that each has a name of its own.
        self._numbers = itertools.count()
        self._users = itertools.count()
        #: Counts the visitors: each sign-out ends one.
        self._epoch = 0
        self.site.app.before_request(self._set_up)
        self.site.view("/quiet", lambda: PAGE)

    @abc.abstractmethod
    def _set_up(self) -> None:
        """What the site says before each request of who is signed in."""

    def check_ledger(self) -> None:
        """Each call is delivered or waits."""
        balance = self.site.mengpaneel.ledger().snapshot()
        assert balance.balanced, balance
        assert balance.dropped == {}
        assert min(balance.recorded, balance.delivered, balance.waiting) >= 0, balance
