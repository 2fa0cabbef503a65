"""Why a way isn't taken: the words that more than one place says, and what helps.

A reason that only its condition says stands beside that condition.
"""

from __future__ import annotations

import typing as t

if t.TYPE_CHECKING:
    from .config import Config

DISABLED = "MENGPANEEL_ENABLED is False"
NO_TOKEN = "no MENGPANEEL_TOKEN"
BOT = "bot"

SHARED_PAGE = "shared caches may keep the page"
SHARED_RESPONSE = "shared caches may keep the response"
NO_SCRIPTS = "the page's policy allows no scripts"
ENCODED = "the body is encoded"
STREAMED = "the body is streamed"
NOT_HTML = "not HTML"
NO_PLACE = "no </head> or </body>, or a frameset"
AMP = "an AMP page, which may have no scripts of its own"
DISTRUSTED = "the host that was asked is not trusted"
NOT_CONSENTED = "this visitor hasn't consented"
NOT_ASKED = "nobody has asked whether this visitor may be tracked"
NO_SESSION = "there is no session: SECRET_KEY is not set"
NO_ROOM_IN_SESSION = "the session can't hold so much"

ANOTHER_SITE = "a redirect to another site"
ANOTHER_APP = "a redirect to where the session's cookie doesn't go"
UNKNOWN_HOST = (
    "a redirect to the host that a proxy was asked for, of which the app doesn't know"
)
ANOTHER_DOMAIN = "browsers don't take the session's cookie from this host"
INSECURE = "the session's cookie is secure, and doesn't go along over http:"
INSECURE_BY_PROXY = (
    "the session's cookie is secure, and the app takes the request for one over http:,"
    " as it doesn't know of the proxy in front of it"
)

_PROXY_FIX = "app.wsgi_app = ProxyFix(app.wsgi_app, x_host=1)"

#: What to write, by reason.
REMEDIES = {
    SHARED_PAGE: "Cache-Control: private",
    SHARED_RESPONSE: "Cache-Control: private",
    ENCODED: "initialise what compresses before Mengpaneel: Flask runs last what was"
    " registered first",
    STREAMED: "render the page whole, or leave it to the server",
    NOT_HTML: "if it is a page, say so: Content-Type: text/html",
    NO_PLACE: "close the head of the page with </head>",
    AMP: "<amp-analytics>, or leave it to the server",
    DISTRUSTED: "TRUSTED_HOSTS = the hosts of the app (or name a page of one of them)",
    NO_SESSION: 'SECRET_KEY = "..."',
    UNKNOWN_HOST: _PROXY_FIX,
    ANOTHER_DOMAIN: "SESSION_COOKIE_DOMAIN = None, or the domain of all hosts",
    INSECURE: "SESSION_COOKIE_SECURE = False, or redirect to https:",
    INSECURE_BY_PROXY: _PROXY_FIX,
}


def why_inactive(config: Config) -> str:
    """Return why no call goes anywhere; empty if calls do."""
    if not config.enabled:
        return DISABLED

    return "" if config.active else NO_TOKEN
