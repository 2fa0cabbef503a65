"""What a page gets to load the browser library: data, and a script that reads it."""

from __future__ import annotations

import collections.abc as c
import functools
import hashlib
import os
import typing as t
from pathlib import Path
from urllib.parse import quote

from markupsafe import escape
from werkzeug.security import safe_join

from .. import guard
from ..calls import dumps
from ..identity import NOBODY, Identity
from ..proxies import current_flask
from .injection import OPENING

if t.TYPE_CHECKING:
    from flask import Request

    from ..config import Config
    from .signing import Signer

#: The file of the script.
SCRIPT = "mengpaneel.js"
#: The file of the second script, for a library that keeps what it knows in no cookie.
MEMORY = "memory.js"

_SCRIPT_SAFE = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026"}


class _Fixed(t.NamedTuple):
    """What all pages share, of an app that is mounted at a path."""

    #: The URLs of the scripts, as attributes.
    urls: tuple[str, ...]
    #: The elements of the scripts, where a page's policy wants no nonce.
    scripts: str
    #: The data of a page without calls, as it is in the page, by the visitor's consent.
    data: dict[bool | None, str]
    #: What such a page gets, where its policy wants no nonce.
    snippets: dict[bool | None, bytes]


#: What a page says to the script of its visitor's consent.
_CONSENT: dict[bool | None, dict[str, t.Any]] = {
    True: {},
    None: {"unasked": True},
    False: {"refused": True},
}


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
        self._fixed: dict[str, _Fixed] = {}

    def snippet(
        self,
        request: Request,
        calls: list[t.Any] | None = None,
        token: str | None = None,
        declined: c.Mapping[str, str] | None = None,
        browser_identity: Identity = NOBODY,
        consent: bool | None = True,
        ids: c.Mapping[str, t.Any] | None = None,
    ) -> bytes:
        """Return what is inserted into a page.

        :param calls: hand-overs, for a page that has calls.
        :param token: with what the page acknowledges them.
        :param browser_identity: whom the browser takes the visitor for.
        :param consent: whether the visitor may be tracked; ``None``: not asked yet.
        :param ids: of a new visitor, in case that the browser takes no cookie.
        """
        nonce = self._nonce() if self._config.csp_nonce else None
        root = request.environ.get("SCRIPT_NAME", "")
        fixed = self._fixed.get(root) or self._make_fixed(root)

        if calls is None and nonce is None:
            return fixed.snippets[consent]

        scripts = fixed.scripts if nonce is None else _scripts(fixed.urls, nonce)

        if calls is None:
            return _elements(fixed.data[consent], scripts)

        own: dict[str, t.Any] = {"calls": calls}

        if ids:
            own["ids"] = ids

        if token is not None:
            own["handover"] = token

        if current_flask().debug:
            own["debug"] = {"strategy": "ClientSide", "declined": dict(declined or {})}

        # 4 us less than to write all of it each time, of 106, a page with a call.
        data = f"{fixed.data[consent][:-1]},{_block(own)[1:]}"
        signer = self._signer
        signature = signer.sign(data, browser_identity) if signer else None
        return _elements(data, scripts, signature)

    def _make_fixed(self, root: str) -> _Fixed:
        # It may be a header that says where that is, and so anybody.
        if len(self._fixed) >= 16:
            self._fixed.clear()

        # Not by `url_for`, which knows of hosts: each of the app's serves the script,
        # and a page asks the one that it is from.
        base = quote(root.encode("latin-1", "replace")).rstrip("/")
        base += self._config.url_prefix
        urls = [f"{base}/{self._config.script_path}?v={version(SCRIPT)}"]
        memory = f"{base}/static/{MEMORY}?v={version(MEMORY)}"
        data = self._data(base)

        if self._config.cookie_persistence:
            # The page may have a library of its own, with other options.
            data["memory"] = memory
            data["cookie"] = f"{self._config.cookie_name}="
        else:
            # Before the library looks for what it knows.
            urls.insert(0, memory)

        escaped = tuple(map(escape, urls))
        scripts = _scripts(escaped)
        texts = {given: _block(data | more) for given, more in _CONSENT.items()}
        snippets = {given: _elements(text, scripts) for given, text in texts.items()}
        fixed = self._fixed[root] = _Fixed(escaped, scripts, texts, snippets)
        return fixed

    def _data(self, base: str) -> dict[str, t.Any]:
        config = self._config
        options = guard.guarded(config.init_options, base)

        if config.inspector:
            # The settings don't know of the path at which the app is mounted.
            options["api_host"] = f"{base}/inspector"

        data = {
            "token": config.token,
            "config": options,
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


def _block(data: c.Mapping[str, t.Any]) -> str:
    """Return data as JSON that can't end the element that it is in."""
    block = dumps(data)

    # Most have none of these: three searches take 0.3 us, and the other 3 of 106, a
    # page with a call.
    if "<" in block or ">" in block or "&" in block:
        return block.translate(_SCRIPT_SAFE)

    return block


def _scripts(urls: c.Iterable[str], nonce: str | None = None) -> str:
    """Return the elements of scripts.

    :param urls: of the scripts, as attributes.
    :param nonce: of this response, where its policy wants one.
    """
    nonce_attribute = f' nonce="{escape(nonce)}"' if nonce else ""
    return "".join(f'<script src="{url}"{nonce_attribute}></script>' for url in urls)


def _elements(data: str, scripts: str, signature: str | None = None) -> bytes:
    """Return the elements: a block of data and the scripts that read it.

    The script's own text is in a file of the app, so that the strictest policy lets
    both through.

    :param signature: with which the app will know the data again.
    """
    signed = f' data-signature="{signature}"' if signature else ""
    return f"{OPENING}{signed}>{data}</script>{scripts}".encode(
        "ascii", "xmlcharrefreplace"
    )


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
