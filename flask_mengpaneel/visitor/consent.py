"""The visitor's consent: whether they may be tracked, and what they choose."""

from __future__ import annotations

import functools
import logging
import typing as t

if t.TYPE_CHECKING:
    from flask import Request

    from ..config import Config

logger = logging.getLogger("flask_mengpaneel")


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

    @functools.cached_property
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
        return self._config.respect_dnt and (
            environ.get("HTTP_DNT") == "1" or environ.get("HTTP_SEC_GPC") == "1"
        )

    def _asked(self) -> bool | None:
        """Return the answer of the app; ``None``: not asked yet."""
        if self._config.consent is None:
            return None

        try:
            answer = self._config.consent()
        except Exception:
            logger.exception("MENGPANEEL_CONSENT failed, which counts as no")
            return False

        return None if answer is None else bool(answer)

    def _has_opted_out(self) -> bool:
        """Return whether the library's own cookies say so (gdpr-utils.js)."""
        assert self._request is not None
        cookies = self._request.cookies
        return cookies.get(self._config.opt_cookie_name) == "0" or bool(
            cookies.get("mp_optout")
        )
