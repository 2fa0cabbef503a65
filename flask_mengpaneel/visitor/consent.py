"""The visitor's consent: whether they may be tracked, and what they choose."""

from __future__ import annotations

import logging
import typing as t

from ..asking import Asking
from .lazy import lazy

if t.TYPE_CHECKING:
    from flask import Request

    from ..config import Config

logger = logging.getLogger("flask_mengpaneel")

_OLD_OPT_OUT = "mp_optout"

_asking = Asking("MENGPANEEL_CONSENT")

# In an environment: by which a browser says no.
_SIGNALS = ("HTTP_DNT", "HTTP_SEC_GPC")

#: Why a visitor may not be tracked, as the ledger says.
GPC = "no consent: Sec-GPC"
DNT = "no consent: DNT"
OPTED_OUT = "no consent: opted out"
REFUSED = "no consent: MENGPANEEL_CONSENT"


def no_answer(answer: object) -> str | None:
    """Return what is in the place of an answer to whether a visitor may be tracked,
    and would be a yes: to Python nearly everything is true."""
    # Of an `async def`, whose answer nobody waits for.
    if hasattr(answer, "__await__"):
        return "something to await"

    # As a cookie has it, or Redis: "no", "0", b"denied".
    return "a text" if isinstance(answer, str | bytes) else None


class Consent:
    """The visitor's consent: what the app, the browser and the library's cookies say.

    :param request: ``None`` for a job, which needs no consent.
    """

    #: What the visitor has chosen in this request: to be tracked, or not to be.
    choice: bool | None = None

    def __init__(self, config: Config, request: Request | None) -> None:
        self._config = config
        self._request = request

        # There is little to ask for a visitor without cookies.
        if (
            config.consent is None
            and request is not None
            and "HTTP_COOKIE" not in request.environ
        ):
            self.given = not self._is_signalled_no()

    @lazy
    def given(self) -> bool | None:
        """Whether the visitor may be tracked; ``None``: not asked yet."""
        if self._request is None:
            return True

        answer = self._asked() if self._config.consent else None

        if answer is not True and self._is_signalled_no():
            return False

        if "HTTP_COOKIE" in self._request.environ and self._has_opted_out():
            return False

        return answer if self._config.consent else True

    @property
    def refusal(self) -> str:
        """Why the visitor isn't tracked, if they aren't."""
        environ = {} if self._request is None else self._request.environ

        # It outweighs what the app says, which may outweigh the browser's headers.
        if self.choice is False or ("HTTP_COOKIE" in environ and self._has_opted_out()):
            return OPTED_OUT

        if self._is_signalled_no():
            return GPC if environ.get("HTTP_SEC_GPC") == "1" else DNT

        return REFUSED

    def opt_out(self) -> None:
        """Don't track this visitor any more."""
        self.choice = self.given = False

    def opt_in(self) -> bool:
        """Track this visitor from now on, unless the app or the browser says no.

        :return: whether calls may be recorded from now on.
        """
        answer = self._asked()

        if answer is True or (answer is None and not self._is_signalled_no()):
            self.choice = self.given = True

        return bool(self.choice)

    def _is_signalled_no(self) -> bool:
        """Return whether the browser says no, and the app listens to it.

        ``DNT`` is of https://www.w3.org/TR/tracking-dnt/, ``Sec-GPC`` of
        https://www.w3.org/TR/gpc/.
        """
        if self._request is None:
            return False

        environ = self._request.environ

        for name in _SIGNALS:
            # Most have neither.
            if name in environ and environ[name] == "1":
                return self._config.respect_dnt

        return False

    def _asked(self) -> bool | None:
        """Return the answer of the app; ``None``: not asked yet."""
        if self._config.consent is None:
            return None

        try:
            answer = _asking(self._config.consent)

            if found := no_answer(answer):
                raise TypeError(f"it gave {found}, and no answer")

            return None if answer is None else bool(answer)
        except Exception:
            logger.exception("MENGPANEEL_CONSENT failed, which counts as no")
            return False

    def _has_opted_out(self) -> bool:
        """Return whether the library's own cookies say so (gdpr-utils.js)."""
        assert self._request is not None
        name = self._config.opt_cookie_name
        header: str = self._request.environ["HTTP_COOKIE"]

        # Most have neither, which Werkzeug finds out by two exceptions: 5 us of 74, an
        # event by a returning visitor's fetch.
        if name not in header and _OLD_OPT_OUT not in header:
            return False

        cookies = self._request.cookies
        return cookies.get(name) == "0" or bool(cookies.get(_OLD_OPT_OUT))
