"""A visitor who can be taken elsewhere: into a job, a webhook, next month."""

from __future__ import annotations

import collections.abc as c
import dataclasses
import typing as t

from ..identity import Identity
from ..limits import MAX_METADATA
from ..values import plain
from .client import parse_address, sent_address
from .visitor import Visitor

if t.TYPE_CHECKING:
    from ..calls import Call, CallLog
    from ..config import Config
    from ..envelope import Envelope

_REFUSED = "no"


@dataclasses.dataclass(frozen=True, slots=True)
class PortableVisitor:
    """Who a visitor is, with which device, and on which page.

    For ``Manager(visitor=...)``, in this process or in another, now or weeks later.
    """

    device_id: str | None = None
    user_id: str | None = None
    ip: str | None = None
    user_agent: str = ""
    url: str = ""
    referrer: str = ""
    #: Whether the visitor may be tracked.
    consents: bool = True

    def to_json(self) -> dict[str, str]:
        """Return what is known as texts of at most 500 characters, by name.

        Who may not be tracked has neither ids nor anything else.
        """
        if not self.consents:
            return {"consent": _REFUSED}

        values = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name != "consents"
        }
        return {name: value[:MAX_METADATA] for name, value in values.items() if value}

    @classmethod
    def from_json(cls, value: c.Mapping[str, t.Any]) -> PortableVisitor:
        """Return a visitor from what :meth:`to_json` returned, perhaps among others.

        Ids that Mixpanel wouldn't take are left out: it may have been in strange hands.

        :raises TypeError: it isn't a mapping.
        """
        if not isinstance(value, c.Mapping):
            raise TypeError(f"{value!r} is not a visitor")

        if value.get("consent") == _REFUSED:
            return cls(consents=False)

        ids = Identity.from_ids(value.get("device_id"), value.get("user_id"))
        user_agent, url, referrer = (
            str(plain(text))[:MAX_METADATA] if isinstance(text, str) else ""
            for text in map(value.get, ("user_agent", "url", "referrer"))
        )
        ip = parse_address(value.get("ip"))
        return cls(ids.device_id, ids.user_id, ip, user_agent, url, referrer)

    @classmethod
    def of(cls, visitor: Visitor, calls: c.Iterable[Call]) -> PortableVisitor:
        """Return the visitor of a request, as far as it has come.

        :param calls: those that were made for this visitor until now.
        """
        # A visitor who hasn't been asked yet hasn't said yes.
        if visitor.consent.given is not True:
            return cls(consents=False)

        identity, client = visitor.identity_after(calls), visitor.client
        user_id = identity.user_id or identity.other_id

        if isinstance(visitor, RememberedVisitor):
            return dataclasses.replace(
                visitor.remembered, device_id=identity.device_id, user_id=user_id
            )

        return cls(
            identity.device_id,
            user_id,
            client.ip,
            client.user_agent,
            client.page_url,
            client.page[1],
        )


class RememberedVisitor(Visitor):
    """A visitor who isn't there any more."""

    def __init__(self, config: Config, remembered: PortableVisitor) -> None:
        super().__init__(config, None)
        #: With the address as it is sent from here.
        self.remembered = dataclasses.replace(
            remembered, ip=sent_address(remembered.ip, config)
        )
        identity = Identity.from_ids(remembered.device_id, remembered.user_id)
        self.identity = self.browser_identity = identity

        if not remembered.consents:
            self.consent.given = False

    def envelope(self, log: CallLog, identity: Identity | None = None) -> Envelope:
        """Put calls into an envelope of this visitor's, device and page included."""
        envelope, remembered = super().envelope(log, identity), self.remembered
        envelope.ip = remembered.ip
        envelope.user_agent = remembered.user_agent
        envelope.url = [remembered.url] if remembered.url else []
        envelope.referrer = remembered.referrer
        return envelope


def recall(visitor: PortableVisitor | c.Mapping[str, t.Any], config: Config) -> Visitor:
    """Return the visitor that somebody has kept.

    :raises TypeError: that is none.
    """
    if not isinstance(visitor, PortableVisitor):
        visitor = PortableVisitor.from_json(visitor)

    return RememberedVisitor(config, visitor)
