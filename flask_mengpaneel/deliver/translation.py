"""Recorded calls turned into Mixpanel's messages, by the official library."""

from __future__ import annotations

import collections.abc as c
import logging
import typing as t

from mixpanel import Mixpanel

from ..calls import GROUP_CALLS, Call, Json, dumps, profile_change
from ..envelope import Envelope, Message
from ..identity import Identity, hex_id
from ..reasons import BOT
from ..record import profile_merging as profiles
from ..visitor.attribution import page_properties, pageview_properties
from ..visitor.client import is_page_url, join_url, parse_address
from ..visitor.devices import describe, is_bot
from ..visitor.persistence import CHANGING_CALLS, Persistence

if t.TYPE_CHECKING:
    from ..config import Config

logger = logging.getLogger("flask_mengpaneel")

try:
    import orjson
except ImportError:
    orjson = None  # type: ignore[assignment]


class Translator:
    """Turns envelopes into messages, as the browser library would have sent them."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def messages(self, envelope: Envelope) -> tuple[list[Message], dict[str, int]]:
        """The messages of an envelope, and how many records are not sent, by reason."""
        if self._config.bots == "drop" and is_bot(envelope.user_agent):
            return [], {BOT: envelope.records}

        translation = _Translation(self._config, envelope)

        for call, records in profiles.merge(envelope.calls):
            translation.make(call, records)

        return translation.written.messages, translation.dropped


class _Dropped(Exception):
    """A call makes no message; the message of the exception says why."""


class _Consumer:
    """Takes the messages of the official library: its documented seam."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        #: Of the call that is being made.
        self.records = 0
        self.repeatable = True

    def send(self, endpoint: str, json_message: str, api_key: object = None) -> None:
        """Keep a message."""
        message = Message(endpoint, json_message, self.records, self.repeatable)
        self.messages.append(message)


class _Translation:
    """The browser library, while it makes the calls of one envelope."""

    def __init__(self, config: Config, envelope: Envelope) -> None:
        self._config = config
        self._envelope = envelope
        self._persistence = Persistence(
            envelope.cookie,
            envelope.identity,
            envelope.referrer if is_page_url(envelope.url) else None,
            envelope.successors,
        )
        # Another version may have put it into the spool as it was.
        self._ip = parse_address(envelope.ip)
        self._origin = _origin(envelope)
        #: What every event has, until a call changes it.
        self._common: dict[str, Json] | None = None
        self._all_disabled = False
        self._disabled: set[str] = set()
        self.written = _Consumer()
        self._mixpanel = _Library(
            config.token,
            self.written,
            serializer=_encoder,  # pyright: ignore[reportArgumentType]
        )
        self.dropped: dict[str, int] = {}

    def make(self, call: Call, records: int) -> None:
        """Make a call, which stands for a number of records."""
        self.written.records = records
        names = call.wire[0]

        try:
            if len(names) == 1 and names[0] in _EVENTS and len(call.wire) == 2:
                started = None

                # Of two events with nothing in between, the second changes nothing.
                if self._common is None or self._persistence.timers:
                    started = self._prepare(call)

                _EVENTS[names[0]](self, started, *call.wire[1])
            else:
                self._make(call)
        except _Dropped as reason:
            logger.debug("mengpaneel.%s is not sent: %s", call.name, reason)
            self._drop(records, str(reason))
        except Exception:
            logger.exception("mengpaneel.%s can't be sent", call.name)
            self._drop(records, "error")

    def _drop(self, records: int, reason: str) -> None:
        if records:
            self.dropped[reason] = self.dropped.get(reason, 0) + records

    def _make(self, call: Call) -> None:
        name = call.name
        before = self._persistence.identity
        self._persistence.apply(call, self._envelope.at)

        if name in CHANGING_CALLS:
            self._common = None

        self.written.repeatable = call.is_repeatable

        try:
            self._change(name, call, before)
        finally:
            self.written.repeatable = True

    def _change(self, name: str, call: Call, before: Identity) -> None:
        if name in _PEOPLE:
            self._people(name, *call.arguments)
        elif name in _GROUP:
            self._group(call.wire[2][0], *call.wire[1], *call.arguments)
        elif name in GROUP_CALLS:
            method, properties = profile_change(name, *call.arguments)
            self._people(f"people.{method}", properties)
        elif name in _OTHERS:
            getattr(self, name)(*call.arguments)
        elif name == "identify":
            self._identified(before)
        elif name not in CHANGING_CALLS:
            raise _Dropped("only the browser library can make the call")

    # -- events

    def _prepare(self, call: Call) -> float | None:
        """Put together what an event has besides its own properties.

        :return: when its clock was started, if it was.
        """
        persistence = self._persistence
        started = persistence.timers.get(call.event)
        persistence.apply(call, self._envelope.at)
        self._common = {
            **self._origin,
            **persistence.super_properties,
            **persistence.identity.properties,
        }

        if self._ip:
            # Mixpanel has it from the request that a browser makes, whatever the
            # browser says in the properties that it keeps.
            self._common["ip"] = self._ip

        return started

    def track(
        self,
        started: float | None,
        event: str,
        properties: dict[str, Json],
        *_options: object,
    ) -> None:
        if self._all_disabled or event in self._disabled:
            raise _Dropped("disabled")

        if started is not None:
            seconds = t.cast(float, properties["time"]) - started
            properties = {"$duration": round(seconds, 3), **properties}

        assert self._common is not None
        whole = {
            **self._common,
            **properties,
            # As the browser library has it, nothing overrides the project.
            "token": self._config.token,
        }

        # It says whose it is, and that it happened before somebody was identified.
        if "distinct_id" in properties and "$user_id" not in properties:
            whole.pop("$user_id", None)

        self._track(event, whole)

    def track_pageview(
        self,
        started: float | None,
        properties: dict[str, Json],
        options: dict[str, Json] | None = None,
    ) -> None:
        self.track(
            started,
            str((options or {}).get("event_name", "$mp_web_page_view")),
            {**pageview_properties(join_url(self._envelope.url)), **properties},
        )

    def track_with_groups(
        self,
        started: float | None,
        event: str,
        properties: dict[str, Json],
        groups: dict[str, Json],
    ) -> None:
        self.track(started, event, {**properties, **groups})

    def _track(self, event: str, properties: dict[str, Json]) -> None:
        """Let the library write an event."""
        if "$insert_id" not in properties:
            properties["$insert_id"] = hex_id()

        self._mixpanel.track("", event, properties)

    # -- who it is

    def _identified(self, before: Identity) -> None:
        """Link two ids, where the project needs to be told.

        https://docs.mixpanel.com/reference/create-identity
        """
        now = self._persistence.identity

        if (
            self._config.id_merge == "original"
            and before.device_id
            and before.user_id != now.user_id
        ):
            self.written.records = 0
            self._track(
                "$identify",
                {
                    **now.properties,
                    "$identified_id": now.user_id,
                    "$anon_id": before.device_id,
                    "time": self._envelope.at,
                },
            )

    def alias(self, alias: str, original: str | None = None) -> None:
        original = original or self._persistence.identity.distinct_id

        if not original:
            raise _Dropped("there is no id that could get an alias")

        if original == alias:
            raise _Dropped("it is the id of the visitor already")

        # The library's own `alias` sends at once, and to the default host.
        self._track(
            "$create_alias",
            {"distinct_id": original, "alias": alias, "time": self._envelope.at},
        )

    # -- what is tracked at all

    def disable(self, events: list[str] | None = None) -> None:
        if events is None:
            self._all_disabled = True
        else:
            self._disabled.update(events)

    def enable(self, events: list[str] | None = None) -> None:
        if events is None:
            self._all_disabled = False
            self._disabled.clear()
        else:
            self._disabled.difference_update(events)

    # -- profiles

    def _people(self, name: str, *arguments: t.Any) -> None:
        person = self._persistence.identity.distinct_id

        if not person:
            raise _Dropped("there is nobody to update: nobody was identified")

        if name == "people.set":
            arguments = ({**self._device(), **arguments[0]},)

        method = getattr(self._mixpanel, _PEOPLE[name])
        method(person, *arguments, meta=self._meta())

    def _group(self, operation: str, key: str, id: str, *arguments: t.Any) -> None:
        method = getattr(self._mixpanel, f"group_{operation}")
        method(key, id, *arguments, meta={"$time": self._envelope.at})

    def _meta(self) -> dict[str, Json]:
        """What goes beside an operation; ``$ip`` tells where the person is."""
        meta = {**self._persistence.identity.properties, "$time": self._envelope.at}
        del meta["distinct_id"]

        if self._ip:
            meta["$ip"] = self._ip

        return meta

    def _device(self) -> dict[str, Json]:
        """What the browser library adds when it sets properties of a profile."""
        names = ("$browser", "$browser_version", "$os")
        return {name: self._origin[name] for name in names if name in self._origin}


class _Library(Mixpanel):  # type: ignore[misc]
    """The official library, which is always told the id of an event."""

    def _make_insert_id(self) -> str:
        # A random one takes as long as the rest of the message.
        return ""


class _Encoder:
    """Writes plain JSON values; faster where orjson is installed."""

    def encode(self, o: t.Any) -> str:
        if orjson is not None:
            try:
                return orjson.dumps(o).decode()
            except TypeError:
                # A number of more than 64 bits.
                pass

        return dumps(o)


_ENCODER = _Encoder()


def _encoder(**_options: object) -> _Encoder:
    """What the library takes for a class, of which it makes one for each message."""
    return _ENCODER


def _origin(envelope: Envelope) -> dict[str, Json]:
    """What the browser library knows of the page and the device."""
    origin: dict[str, Json] = {}

    if envelope.user_agent:
        origin.update(describe(envelope.user_agent))

    if envelope.url:
        origin.update(page_properties(join_url(envelope.url), envelope.referrer))

    return origin


_EVENTS: dict[str, c.Callable[..., None]] = {
    "track": _Translation.track,
    "track_pageview": _Translation.track_pageview,
    "track_with_groups": _Translation.track_with_groups,
}

_OTHERS = frozenset({"alias", "disable", "enable"})

# The methods of the official library.
_PEOPLE = {
    "people.set": "people_set",
    "people.set_once": "people_set_once",
    "people.unset": "people_unset",
    "people.increment": "people_increment",
    "people.append": "people_append",
    "people.union": "people_union",
    "people.remove": "people_remove",
    "people.track_charge": "people_track_charge",
    "people.clear_charges": "people_clear_charges",
    "people.delete_user": "people_delete",
}

_GROUP = frozenset(
    f"get_group.{operation}"
    for operation in ("set", "set_once", "unset", "union", "remove", "delete")
)
