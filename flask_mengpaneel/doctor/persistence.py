"""Where a page's own code lets the browser library keep the visitor."""

from __future__ import annotations

import collections.abc as c
import re
import typing as t

from ..mistakes import Finding, Level, unseen_visitors

if t.TYPE_CHECKING:
    from ..config import Config

# Options of the library as pages write them.
_OPTION = re.compile(
    r"""\b(persistence|persistence_name|disable_persistence)["']?\s{0,20}:\s{0,20}"""
    r"""(?:["']([\w.-]{1,64})["']|(?:true|!0)\b)"""
)


def check_persistence(name: str, config: Config, body: bytes) -> c.Iterator[Finding]:
    """Find what the app doesn't know of where the library keeps the visitor.

    The extension's own part of the page has what the app knows.
    """
    for option, text in _OPTION.findall(body.decode("utf-8", "replace")):
        value = text or True

        if value != config.client_config.get(option, "cookie"):
            if option != "persistence_name":
                yield from unseen_visitors(config)

            told = f"{name}: its own code gives Mixpanel's library the option {option},"
            remedy = f'MENGPANEEL_CLIENT_CONFIG = {{"{option}": {value!r}}}'
            yield Finding(
                Level.WARNING,
                f"{told} and the app doesn't know that: one visitor may be several",
                remedy.replace("'", '"'),
            )
            return
