"""What a page gets to load the browser library: data, and a script that reads it."""

from __future__ import annotations

import collections.abc as c
import functools
import hashlib
import os
import typing as t
from pathlib import Path
from urllib.parse import quote

from flask import current_app
from markupsafe import escape
from werkzeug.security import safe_join

from ..calls import dumps
from ..config import PREFIX
from ..identity import NOBODY, Identity

if t.TYPE_CHECKING:
    from flask import Request

    from ..config import Config
    from .signing import Signer

_SCRIPT_SAFE = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026"}

#: The URL of the script, the data of a page without calls, and its snippet.
_Boot: t.TypeAlias = "tuple[str, dict[str, t.Any], bytes]"


class Script:
    """The part of a page that loads the browser library.

    :param signer: of what browsers may hand back; ``None``: they may not.
    :param acknowledges: whether browsers are to say what has arrived.
    """

    def __init__(
        self, config: Config, signer: Signer | None, *, acknowledges: bool
    ) -> None:
        self._config = config
        self._signer = signer
        self._acknowledges = acknowledges
        #: Whether one visitor gets it where another doesn't.
        self.varies = config.consent_varies
        self._boots: dict[str, _Boot] = {}

    def snippet(
        self,
        request: Request,
        calls: list[t.Any] | None = None,
        token: str | None = None,
        declined: c.Mapping[str, str] | None = None,
        browser_identity: Identity = NOBODY,
    ) -> bytes:
        """Return what is inserted into a page.

        :param calls: hand-overs, for a page that has calls.
        :param token: with what the page acknowledges them.
        :param browser_identity: whom the browser takes the visitor for.
        """
        nonce = self._nonce() if self._config.csp_nonce else None
        root = request.environ.get("SCRIPT_NAME", "")
        url, data, boot = self._boots.get(root) or self._make_boot(root)

        if calls is None:
            return snippet(url, data, nonce) if nonce else boot

        data = {**data, "calls": calls}

        if token is not None:
            data["handover"] = token

        if current_app.debug:
            data["debug"] = {"strategy": "ClientSide", "declined": dict(declined or {})}

        signer = self._signer
        sign = (
            functools.partial(signer.sign, browser_identity=browser_identity)
            if signer
            else None
        )
        return snippet(url, data, nonce, sign)

    def _make_boot(self, root: str) -> _Boot:
        """Make what all pages share, of an app that is mounted at a path."""
        # It may be a header that says where that is, and so anybody.
        if len(self._boots) >= 16:
            self._boots.clear()

        # Not by `url_for`, which knows of hosts: each of the app's serves the script,
        # and a page asks the one that it is from.
        base = quote(root.encode("latin-1", "replace")).rstrip("/") + PREFIX
        url = f"{base}/static/mengpaneel.js?v={version('mengpaneel.js')}"
        data = self._data(base)
        fixed = self._boots[root] = url, data, snippet(url, data)
        return fixed

    def _data(self, base: str) -> dict[str, t.Any]:
        config = self._config
        data = {
            "token": config.token,
            "config": config.init_options,
            "library": config.library_url,
        }

        if self._signer:
            data["fallback"] = f"{base}/calls"

        if self._acknowledges:
            data["acks"] = f"{base}/acks"

        return data

    def _nonce(self) -> str | None:
        assert self._config.csp_nonce is not None
        nonce = self._config.csp_nonce()
        return str(nonce) if nonce else None


def snippet(
    url: str,
    data: c.Mapping[str, t.Any],
    nonce: str | None = None,
    sign: c.Callable[[str], str | None] | None = None,
) -> bytes:
    """Return the two elements: a block of data and the script that reads it.

    Nothing in the block can end it, and the script's own text is in a file of the
    app, so that the strictest policy lets both through.

    :param url: of the script.
    :param nonce: of this response, where its policy wants one.
    :param sign: gives the signature with which the app will know the data again.
    """
    block = dumps(data).translate(_SCRIPT_SAFE)
    nonce_attribute = f' nonce="{escape(nonce)}"' if nonce else ""
    signature = sign(block) if sign else None
    signed = f' data-signature="{signature}"' if signature else ""
    return (
        f'<script type="application/json" id="mengpaneel"{signed}>{block}</script>'
        f'<script src="{escape(url)}"{nonce_attribute}></script>'
    ).encode("ascii", "xmlcharrefreplace")


def static_folder() -> Path:
    """Return where the script is: in the package, but beside it in a checkout."""
    package = Path(__file__).parent.parent
    built = package / "static"
    return built if built.is_dir() else package.parent / "static"


def version(filename: str) -> str | None:
    """Return the hash of a file of the script's folder, under which browsers may keep
    it.

    :return: ``None`` if there is no such file.
    """
    path = safe_join(str(static_folder()), filename)

    try:
        # It may be another file after an upgrade, which a process doesn't notice.
        return None if path is None else _hash(path, os.stat(path).st_mtime_ns)
    except (OSError, ValueError):
        return None


@functools.lru_cache(maxsize=16)
def _hash(path: str, _modified: int) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]
