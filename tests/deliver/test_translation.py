from __future__ import annotations

import json
import typing as t
from urllib.parse import quote

import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import given, settings
from hypothesis import strategies as st

from agents import CHROME, GOOGLEBOT
from flask_mengpaneel import Envelope, Manager, Mengpaneel
from flask_mengpaneel.calls import Call, dumps
from flask_mengpaneel.config import Config
from flask_mengpaneel.deliver.translation import Translator
from flask_mengpaneel.envelope import Message
from flask_mengpaneel.identity import Identity
from flask_mengpaneel.testing import RecordingTransport
from sink import Sink
from sites import CreateApp, sent

ANN = Identity(device_id="d1", user_id="ann")
VISITOR = Identity(device_id="d1")
STAMP = {"time": 1_700_000_000.5, "$insert_id": "id-1"}
AT = 1_700_000_001.0


def track(name: str = "A", **properties: t.Any) -> Call:
    return Call([["track"], [name, {**STAMP, **properties}]])


def call(name: str, *arguments: t.Any, at: float | None = None) -> Call:
    started = () if at is None else (at,)
    return Call([name.split("."), [*arguments, *started]])


def group(operation: str, *arguments: t.Any) -> Call:
    return Call([["get_group"], ["company", "acme"], [operation], list(arguments)])


def envelope(*calls: Call, identity: Identity = ANN, **fields: t.Any) -> Envelope:
    return Envelope(
        list(calls),
        identity,
        fields.pop("successors", [Identity(device_id="d2")]),
        AT,
        records=sum(call.is_record for call in calls),
        **fields,
    )


def translate(
    one: Envelope, **config: t.Any
) -> tuple[list[dict[str, t.Any]], dict[str, int]]:
    messages, dropped = Translator(Config(token="token", **config)).messages(one)
    assert sum(m.records for m in messages) + sum(dropped.values()) == one.records
    return [json.loads(message.json) for message in messages], dropped


def messages_of_envelope(one: Envelope) -> list[Message]:
    messages, dropped = Translator(Config(token="token")).messages(one)
    assert dropped == {}
    return messages


def messages_of(*calls: Call, **fields: t.Any) -> list[Message]:
    return messages_of_envelope(envelope(*calls, **fields))


# -- envelopes


def test_an_envelope_is_the_same_after_it_has_waited_as_bytes() -> None:
    one = envelope(
        track(x=[1, {"y": None}]),
        call("people.set", {"Plan": "pro", "n": 10**30}),
        group("remove", {"a": 1}),
        ip="192.0.2.7",
        user_agent=CHROME,
        url=["https", "shop.example", "", "/", "a=b"],
        referrer="https://www.google.com/",
        cookie={"$device_id": "d1", "__timers": {"A": 1}},
    )

    assert Envelope.from_bytes(one.to_bytes()) == one


def test_an_envelope_with_a_text_of_another_class_waits_all_the_same() -> None:
    class Text(str):
        pass

    one = envelope(track(), user_agent=Text(CHROME))

    assert Envelope.from_bytes(one.to_bytes()) == one


# -- events


def test_an_event_is_the_official_library_s_message() -> None:
    (message,) = messages_of(track(x=1))

    assert message.endpoint == "events"
    assert message.records == 1
    assert message.repeatable
    event = json.loads(message.json)
    assert event.pop("event") == "A"
    properties = event.pop("properties")
    assert event == {}
    assert properties.pop("mp_lib") == "python"
    assert properties.pop("$lib_version")
    assert properties == {
        "token": "token",
        "distinct_id": "ann",
        "$device_id": "d1",
        "$user_id": "ann",
        "x": 1,
        **STAMP,
    }


@pytest.mark.parametrize(
    ("identity", "expected"),
    [
        (ANN, {"distinct_id": "ann", "$device_id": "d1", "$user_id": "ann"}),
        (VISITOR, {"distinct_id": "$device:d1", "$device_id": "d1"}),
        (Identity(user_id="ann"), {"distinct_id": "ann", "$user_id": "ann"}),
        (Identity(other_id="old"), {"distinct_id": "old"}),
        (
            Identity(device_id="d1", other_id="old"),
            {"distinct_id": "old", "$device_id": "d1"},
        ),
        (Identity(), {"distinct_id": ""}),
    ],
    ids=["known", "anonymous", "job", "old", "old device", "nobody"],
)
def test_an_event_says_whom_it_is_of(
    identity: Identity, expected: dict[str, str]
) -> None:
    ((event,), _) = translate(envelope(track(), identity=identity))
    names = {"distinct_id", "$device_id", "$user_id"}

    assert {k: v for k, v in event["properties"].items() if k in names} == expected


def test_what_the_call_says_wins_over_everything() -> None:
    own = {
        "distinct_id": "bob",
        "$device_id": "d9",
        "$user_id": "bob",
        "ip": "192.0.2.9",
        "$browser": "Mine",
        "$current_url": "app://screen",
        "Plan": "own",
        "mp_lib": "mine",
    }
    one = envelope(
        track(**own),
        cookie={"Plan": "cookie"},
        ip="192.0.2.1",
        user_agent=CHROME,
        url=["https://shop.test/"],
    )
    ((event,), _) = translate(one)

    assert {name: event["properties"][name] for name in own} == own


def test_the_address_is_that_of_the_request_whatever_the_cookie_says() -> None:
    cookie: dict[str, t.Any] = {"ip": "192.0.2.9", "$browser": "Mine", "mp_lib": "mine"}
    one = envelope(track(), cookie=cookie, ip="192.0.2.1", user_agent=CHROME)
    ((event,), _) = translate(one)
    assert event["properties"]["ip"] == "192.0.2.1"
    # As the browser library has it: what is kept wins over what it finds out itself.
    assert event["properties"]["$browser"] == "Mine"
    assert event["properties"]["mp_lib"] == "mine"

    one = envelope(track(ip="192.0.2.8"), cookie=cookie, ip="192.0.2.1")
    ((event,), _) = translate(one)
    assert event["properties"]["ip"] == "192.0.2.8"

    # A job has no address but the one that it was told.
    one = envelope(call("register", {"ip": "192.0.2.7"}), track())
    ((event,), _) = translate(one)
    assert event["properties"]["ip"] == "192.0.2.7"


KEPT_FOR_ITSELF = {
    "distinct_id": "bob",
    "$device_id": "d9",
    "$user_id": "bob",
    "token": "other",
    "time": 1,
    "$insert_id": "same",
    "__timers": {"A": 1},
    "__mps": {"a": 1},
    "__alias": "x",
}


@pytest.mark.parametrize("name", ["cookie", "register", "register_once"])
@pytest.mark.parametrize("identity", [ANN, VISITOR, Identity()], ids=range(3))
def test_no_property_of_every_event_says_whose_it_is_or_when(
    identity: Identity, name: str
) -> None:
    calls = [track()] if name == "cookie" else [call(name, KEPT_FOR_ITSELF), track()]
    cookie = KEPT_FOR_ITSELF if name == "cookie" else {}
    ((event,), _) = translate(envelope(*calls, identity=identity, cookie=cookie))
    properties = event["properties"]

    assert properties["token"] == "token"
    assert {name: properties[name] for name in STAMP} == STAMP
    assert properties.get("distinct_id", "") == identity.distinct_id
    assert properties.get("$device_id") == identity.device_id
    assert properties.get("$user_id") == identity.user_id
    assert not [name for name in properties if name.startswith("__")]


@pytest.mark.parametrize(
    ("ip", "expected"),
    [
        ("[2001:db8::7]:443", "2001:db8::7"),
        ("192.0.2.7:51234", "192.0.2.7"),
        ("unknown", None),
        ("", None),
        (None, None),
    ],
)
def test_an_address_that_another_version_has_spooled_is_one_or_none(
    ip: str | None, expected: str | None
) -> None:
    one = envelope(track(), call("people.set", {"a": 1}), ip=ip)
    one = Envelope.from_json(json.loads(json.dumps(one.to_json())))
    event, update = (json.loads(message.json) for message in messages_of_envelope(one))

    assert event["properties"].get("ip") == expected
    assert update.get("$ip") == expected


def test_only_the_token_is_always_the_configured_one() -> None:
    ((event,), _) = translate(envelope(track(token="other"), cookie={"token": "third"}))
    assert event["properties"]["token"] == "token"


def test_an_event_says_where_and_with_what() -> None:
    one = envelope(
        track(),
        ip="192.0.2.1",
        user_agent=CHROME,
        url=["https", "shop.test", "", "/cart", "utm_source=news"],
        referrer="https://www.google.com/search?q=shoes",
    )
    ((event,), _) = translate(one)
    properties = event["properties"]

    assert properties["ip"] == "192.0.2.1"
    assert properties["$browser"] == "Chrome"
    assert properties["$browser_version"] == 143
    assert properties["$os"] == "Linux"
    assert properties["$current_url"] == "https://shop.test/cart?utm_source=news"
    assert properties["$referrer"] == "https://www.google.com/search?q=shoes"
    assert properties["$referring_domain"] == "www.google.com"
    assert properties["utm_source"] == "news"


def test_a_page_view_has_what_the_library_adds() -> None:
    pageview = Call([["track_pageview"], [{**STAMP, "x": 1}]])
    one = envelope(pageview, url=["https", "shop.test", "", "/cart", "a=1"])
    ((event,), _) = translate(one)

    assert event["event"] == "$mp_web_page_view"
    properties = event["properties"]
    assert properties["x"] == 1
    assert properties["current_domain"] == "shop.test"
    assert properties["current_url_path"] == "/cart"
    assert properties["current_url_protocol"] == "https:"
    assert properties["current_url_search"] == "?a=1"


def test_a_page_view_may_have_another_name() -> None:
    pageview = Call([["track_pageview"], [dict(STAMP), {"event_name": "Page"}]])
    ((event,), _) = translate(envelope(pageview))
    assert event["event"] == "Page"


def test_an_event_with_groups_has_them_as_properties() -> None:
    one = Call([["track_with_groups"], ["A", {**STAMP, "x": 1}, {"company": ["a"]}]])
    ((event,), _) = translate(envelope(one))

    assert event["event"] == "A"
    assert event["properties"]["company"] == ["a"]
    assert event["properties"]["x"] == 1


def test_a_clock_that_was_started_earlier_gives_a_duration() -> None:
    cookie = {"__timers": {"A": 1_699_999_990_500}}
    one = envelope(track(), track(), track("B"), cookie=cookie)
    (events, _) = translate(one)

    assert [event["properties"].get("$duration") for event in events] == [
        10,
        None,
        None,
    ]


def test_a_clock_that_the_envelope_starts_gives_a_duration() -> None:
    one = envelope(call("time_event", "A", 1_699_999_999.0), track())
    ((event,), _) = translate(one)
    assert event["properties"]["$duration"] == 1.5


# -- who it is


def test_identify_makes_no_message_and_says_whom_the_rest_is_of() -> None:
    one = envelope(
        track("Before"), call("identify", "ann"), track("After"), identity=VISITOR
    )
    (events, dropped) = translate(one)

    assert [e["properties"]["distinct_id"] for e in events] == ["$device:d1", "ann"]
    assert [e["properties"]["$device_id"] for e in events] == ["d1", "d1"]
    assert dropped == {}


def test_after_reset_somebody_else_sits_there() -> None:
    one = envelope(
        call("register", {"Plan": "pro"}),
        track("Signed out"),
        call("reset"),
        track("After"),
        cookie={"Theme": "dark"},
    )
    (events, _) = translate(one)
    before, after = (event["properties"] for event in events)

    assert before["distinct_id"] == "ann"
    assert (before["Plan"], before["Theme"]) == ("pro", "dark")
    assert after["distinct_id"] == "$device:d2"
    assert after["$device_id"] == "d2"
    assert not {"$user_id", "Plan", "Theme"} & after.keys()


@pytest.mark.parametrize("merge", ["simplified", "original"])
def test_alias_goes_the_way_of_all_events(merge: str) -> None:
    one = envelope(call("alias", "ann"), identity=VISITOR)
    ((event,), _) = translate(one, id_merge=merge)

    assert event["event"] == "$create_alias"
    properties = event["properties"]
    assert properties["distinct_id"] == "$device:d1"
    assert properties["alias"] == "ann"
    assert properties["token"] == "token"
    assert properties["time"] == AT
    assert properties["$insert_id"]


def test_alias_has_an_original_of_its_own() -> None:
    ((event,), _) = translate(envelope(call("alias", "ann", "old")))
    assert event["properties"]["distinct_id"] == "old"


def test_an_alias_of_nobody_is_dropped() -> None:
    (messages, dropped) = translate(envelope(call("alias", "ann"), identity=Identity()))

    assert messages == []
    assert list(dropped.values()) == [1]


def test_an_alias_for_oneself_is_skipped_as_in_the_library() -> None:
    # mixpanel-core.js: "alias matches current distinct_id - skipping api call."
    (messages, dropped) = translate(envelope(call("alias", "ann"), track()))

    assert [message["event"] for message in messages] == ["A"]
    assert list(dropped.values()) == [1]


def test_the_original_merge_is_told_once_that_a_visitor_is_a_person() -> None:
    one = envelope(
        call("identify", "ann"), call("identify", "ann"), track(), identity=VISITOR
    )
    (events, _) = translate(one, id_merge="original")
    identify, event = events

    assert identify["event"] == "$identify"
    assert identify["properties"]["$identified_id"] == "ann"
    assert identify["properties"]["$anon_id"] == "d1"
    assert identify["properties"]["distinct_id"] == "ann"
    assert event["properties"]["distinct_id"] == "ann"


def test_the_original_merge_is_not_told_again_of_a_known_person() -> None:
    one = envelope(call("identify", "ann"), track(), identity=ANN)
    (events, _) = translate(one, id_merge="original")
    assert [event["event"] for event in events] == ["A"]


# -- what is tracked


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        ([call("disable"), track("A")], []),
        ([call("disable", ["A"]), track("A"), track("B")], ["B"]),
        ([call("disable"), call("enable"), track("A")], ["A"]),
        ([call("disable", ["A", "B"]), call("enable", ["A"]), track("A")], ["A"]),
        ([call("disable", ["A"]), call("enable"), track("A")], ["A"]),
        ([track("A"), call("disable"), track("B")], ["A"]),
        (
            [call("disable", ["P"]), Call([["track_pageview"],
             [dict(STAMP), {"event_name": "P"}]])],
            [],
        ),
    ],
    ids=range(7),
)  # fmt: skip
def test_disabled_events_are_dropped_with_the_reason(
    calls: list[Call], expected: list[str]
) -> None:
    one = envelope(*calls)
    (events, dropped) = translate(one)

    assert [event["event"] for event in events] == expected
    assert dropped == (
        {"disabled": one.records - len(expected)} if one.records > len(expected) else {}
    )


def test_disabled_are_events_and_not_profiles() -> None:
    (messages, _) = translate(envelope(call("disable"), call("people.set", {"a": 1})))
    assert messages[0]["$set"] == {"a": 1}


@pytest.mark.parametrize(
    "one",
    [
        call("people.brand_new", {"a": 1}),
        Call([["get_group"], ["company", "acme"], ["brand_new"], []]),
    ],
    ids=["people", "group"],
)
def test_what_only_a_browser_can_do_is_dropped_with_that_reason(
    one: Call, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("DEBUG", "flask_mengpaneel"):
        (messages, dropped) = translate(envelope(one, track()))

    assert [message["event"] for message in messages] == ["A"]
    ((reason, records),) = dropped.items()
    assert "browser" in reason
    assert records == 1
    assert "brand_new" in caplog.text


@pytest.mark.parametrize(
    "one",
    [
        call("set_config", {"debug": True}),
        call("brand_new", 1),
        call("opt_in_tracking"),
        call("opt_out_tracking"),
        call("start_session_recording"),
    ],
    ids=lambda one: one.name,
)
def test_what_is_no_record_is_left_out_silently(one: Call) -> None:
    (messages, dropped) = translate(envelope(one, track()))

    assert [message["event"] for message in messages] == ["A"]
    assert dropped == {}


def test_robots_are_dropped_if_so_configured() -> None:
    one = envelope(track(), call("people.set", {"a": 1}), user_agent=GOOGLEBOT)

    assert len(translate(one)[0]) == 2
    assert translate(one, bots="drop") == ([], {"bot": 2})
    assert len(translate(envelope(track(), user_agent=CHROME), bots="drop")[0]) == 1
    assert len(translate(envelope(track()), bots="drop")[0]) == 1


# -- super properties


@pytest.mark.parametrize(
    ("calls", "cookie", "expected"),
    [
        ([call("register", {"a": 1})], {}, {"a": 1}),
        ([call("register", {"a": 1}), call("register", {"a": 2})], {}, {"a": 2}),
        ([call("register", {"b": 1})], {"a": 2}, {"a": 2, "b": 1}),
        ([call("register", {"a": 1}, 7)], {}, {"a": 1}),
        ([call("register", {"a": 1}, {"persistent": False})], {}, {"a": 1}),
        ([call("register_once", {"a": 1})], {}, {"a": 1}),
        ([call("register_once", {"a": 1})], {"a": 2}, {"a": 2}),
        ([call("register_once", {"a": 1}, 2)], {"a": 2}, {"a": 1}),
        ([call("register_once", {"a": 1})], {"a": "None"}, {"a": 1}),
        ([call("unregister", "a")], {"a": 2, "b": 1}, {"b": 1}),
        ([call("unregister", "missing")], {"b": 1}, {"b": 1}),
        ([call("set_group", "c", ["x"])], {"c": ["y"]}, {"c": ["x"]}),
        ([call("add_group", "c", "x")], {"c": ["y"]}, {"c": ["y", "x"]}),
        ([call("add_group", "c", "x")], {"c": ["x"]}, {"c": ["x"]}),
        ([call("add_group", "c", "x")], {}, {"c": ["x"]}),
        ([call("remove_group", "c", "x")], {"c": ["x", "y"]}, {"c": ["y"]}),
        ([call("remove_group", "c", "x")], {"c": ["x"]}, {}),
    ],
    ids=range(17),
)
def test_super_properties_go_with_the_events_that_follow(
    calls: list[Call], cookie: dict[str, t.Any], expected: dict[str, t.Any]
) -> None:
    one = envelope(track("Before"), *calls, track("After"), cookie=cookie)
    events = [m["properties"] for m in translate(one)[0] if m.get("event")]
    names = {"a", "b", "c"}

    assert {k: v for k, v in events[0].items() if k in names} == cookie
    assert {k: v for k, v in events[1].items() if k in names} == expected


def test_what_the_library_keeps_for_itself_is_not_sent() -> None:
    cookie: dict[str, t.Any] = {
        "distinct_id": "forged",
        "__mps": {"a": 1},
        "__mpso": {},
        "__alias": "x",
        "__timers": {},
        "$people_distinct_id": "x",
        "time": 1,
        "$insert_id": "same",
        "token": "other",
        "utm_source": "news",
        "$initial_referrer": "$direct",
    }
    ((event,), _) = translate(envelope(track(), cookie=cookie))
    properties = event["properties"]

    assert properties["utm_source"] == "news"
    assert properties["$initial_referrer"] == "$direct"
    assert properties["distinct_id"] == "ann"
    assert properties["time"] == STAMP["time"]
    assert properties["$insert_id"] == "id-1"
    assert properties["token"] == "token"
    assert not {name for name in properties if name.startswith("__")}
    assert "$people_distinct_id" not in properties


# -- profiles

PEOPLE: list[tuple[Call, str, t.Any, bool]] = [
    (call("people.set", {"a": 1}), "$set", {"a": 1}, True),
    (call("people.set_once", {"a": 1}), "$set_once", {"a": 1}, True),
    (call("people.unset", ["a"]), "$unset", ["a"], True),
    (call("people.increment", {"a": 2}), "$add", {"a": 2}, False),
    (call("people.append", {"a": 1}), "$append", {"a": 1}, False),
    (call("people.union", {"a": [1]}), "$union", {"a": [1]}, False),
    (call("people.remove", {"a": 1}), "$remove", {"a": 1}, False),
    (
        call("people.track_charge", 5, {"sku": 1}),
        "$append",
        {"$transactions": {"$amount": 5, "sku": 1}},
        False,
    ),
    (call("people.delete_user"), "$delete", "", True),
    (call("set_group", "c", ["x"]), "$set", {"c": ["x"]}, True),
    (call("add_group", "c", "x"), "$union", {"c": ["x"]}, False),
    (call("remove_group", "c", "x"), "$remove", {"c": "x"}, False),
]


@pytest.mark.parametrize(
    ("one", "operation", "value", "repeatable"),
    PEOPLE,
    ids=[one.name for one, *_ in PEOPLE],
)
def test_profile_operations(
    one: Call, operation: str, value: t.Any, repeatable: bool
) -> None:
    (message,) = messages_of(one, ip="192.0.2.1")

    assert message.endpoint == "people"
    assert message.records == 1
    assert message.repeatable is repeatable
    assert json.loads(message.json) == {
        "$token": "token",
        "$time": AT,
        "$distinct_id": "ann",
        "$device_id": "d1",
        "$user_id": "ann",
        "$ip": "192.0.2.1",
        operation: value,
    }


def test_clearing_charges() -> None:
    (message,) = messages_of(call("people.clear_charges"))
    update = json.loads(message.json)
    assert update.get("$unset") == ["$transactions"] or update.get("$set") == {
        "$transactions": []
    }


def test_setting_properties_adds_the_device_below_the_caller_s_own() -> None:
    one = envelope(call("people.set", {"$os": "Mine"}), user_agent=CHROME)
    ((update,), _) = translate(one)
    assert update["$set"] == {
        "$browser": "Chrome",
        "$browser_version": 143,
        "$os": "Mine",
    }


def test_only_set_adds_the_device() -> None:
    one = envelope(call("people.set_once", {"a": 1}), user_agent=CHROME)
    assert translate(one)[0][0]["$set_once"] == {"a": 1}


def test_without_an_address_nobody_s_is_sent() -> None:
    ((update,), _) = translate(envelope(call("people.set", {"a": 1})))
    assert "$ip" not in update


def test_a_profile_of_nobody_is_dropped_with_the_reason() -> None:
    one = envelope(call("people.set", {"a": 1}), track(), identity=Identity())
    (messages, dropped) = translate(one)

    assert [message["event"] for message in messages] == ["A"]
    ((reason, records),) = dropped.items()
    assert "identified" in reason
    assert records == 1


def test_merged_operations_stand_for_as_many_records() -> None:
    (message,) = messages_of(
        call("people.set", {"a": 1}),
        call("people.set", {"b": 2}),
        call("people.set", {"a": 3}),
    )
    assert message.records == 3
    assert json.loads(message.json)["$set"] == {"a": 3, "b": 2}


@pytest.mark.parametrize(
    ("one", "operation", "value", "repeatable"),
    [
        (group("set", {"a": 1}), "$set", {"a": 1}, True),
        (group("set_once", {"a": 1}), "$set_once", {"a": 1}, True),
        (group("unset", ["a"]), "$unset", ["a"], True),
        (group("union", {"a": [1]}), "$union", {"a": [1]}, False),
        (group("remove", {"a": 1}), "$remove", {"a": 1}, False),
        (group("delete"), "$delete", "", True),
    ],
    ids=["set", "set_once", "unset", "union", "remove", "delete"],
)
def test_group_operations(
    one: Call, operation: str, value: t.Any, repeatable: bool
) -> None:
    (message,) = messages_of(one, ip="192.0.2.1", user_agent=CHROME)

    assert message.endpoint == "groups"
    assert message.repeatable is repeatable
    assert json.loads(message.json) == {
        "$token": "token",
        "$time": AT,
        "$group_key": "company",
        "$group_id": "acme",
        operation: value,
    }


# -- the envelope


def test_an_envelope_is_the_same_after_a_journey() -> None:
    one = envelope(
        track(),
        call("time_event", "B", AT),
        call("people.set", {"a": "\u2028"}),
        ip="192.0.2.1",
        user_agent=CHROME,
        url=["https", "shop.test", "", "/", ""],
        referrer="https://x.test",
        cookie={"a": 1, "__timers": {"A": 1_699_999_990_500}},
    )
    again = Envelope.from_json(json.loads(dumps(one.to_json())))

    assert again == one
    assert again.records == one.records == 2
    assert translate(again) == translate(one)


def test_a_clock_keeps_its_start_over_a_journey() -> None:
    one = envelope(call("time_event", "A", 1_699_999_999.0), track())
    again = Envelope.from_json(json.loads(dumps(one.to_json())))
    assert translate(again)[0][0]["properties"]["$duration"] == 1.5


def test_numbers_of_any_size_are_sent() -> None:
    ((event,), _) = translate(envelope(track(large=2**70, small=-(2**70))))
    assert event["properties"]["large"] == 2**70


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda values: (
        st.lists(values, max_size=3)
        | st.dictionaries(st.text(max_size=3), values, max_size=3)
    ),
    max_leaves=5,
)
event_names = st.sampled_from(["A", "B"])
some_ids = st.sampled_from(["ann", "bob", 42])
keys = st.sampled_from(["a", "b"])
properties = st.dictionaries(keys, json_values, max_size=2)
numbers = st.integers(-5, 5)


def method(name: str, *arguments: st.SearchStrategy[t.Any]) -> st.SearchStrategy[t.Any]:
    return st.tuples(st.just(name), st.tuples(*arguments))


recorded = st.one_of(
    method("track", event_names, properties),
    method("track_pageview", properties),
    method("track_with_groups", event_names, properties, st.just({"c": "x"})),
    method("time_event", event_names),
    method("identify", some_ids),
    method("alias", some_ids),
    method("reset"),
    method("register", properties),
    method("register_once", properties),
    method("unregister", keys),
    method("set_group", keys, some_ids),
    method("add_group", keys, some_ids),
    method("remove_group", keys, some_ids),
    method("disable"),
    method("disable", st.lists(event_names)),
    method("enable"),
    method("enable", st.lists(event_names)),
    method("set_config", properties),
    method("people.set", properties),
    method("people.set_once", properties),
    method("people.unset", st.lists(keys)),
    method("people.increment", st.dictionaries(keys, numbers)),
    method("people.append", properties),
    method("people.union", properties),
    method("people.remove", properties),
    method("people.track_charge", numbers),
    method("people.clear_charges"),
    method("people.delete_user"),
    method("group.set", properties),
    method("group.set_once", properties),
    method("group.unset", st.lists(keys)),
    method("group.union", properties),
    method("group.remove", properties),
    method("group.delete"),
    method("call", st.sampled_from(["brand_new", "people.brand_new"]), json_values),
    method(
        "call",
        st.sampled_from(
            ["people.set", "people.increment", "people.unset", "register", "alias"]
            + ["identify", "disable", "time_event", "set_group", "get_group.set"]
        ),
        json_values,
    ),
)
units = st.lists(
    st.tuples(st.sampled_from(["before_setup", "setup", "tracking"]), recorded),
    max_size=12,
)


def make(manager: Manager, name: str, arguments: tuple[t.Any, ...]) -> None:
    owner: t.Any = manager

    if name.startswith("people."):
        owner = manager.people
    elif name.startswith("group."):
        owner = manager.get_group("company", "acme")

    getattr(owner, name.rpartition(".")[2])(*arguments)


@pytest.fixture(scope="module")
def production() -> tuple[Flask, RecordingTransport]:
    """An app in production, in which mistakes are dropped."""
    transport = RecordingTransport()
    app = Flask("shop")
    app.config.update(
        MENGPANEEL_TOKEN="token",
        MENGPANEEL_SPOOL=None,
        MENGPANEEL_TRANSPORT=transport,
    )
    Mengpaneel(app)
    return app, transport


@pytest.mark.parametrize("merge", ["simplified", "original"])
@settings(max_examples=150)
@given(units, st.booleans())
def test_every_record_is_in_a_message_or_dropped_with_a_reason(
    production: tuple[Flask, RecordingTransport],
    merge: str,
    unit: list[tuple[str, tuple[str, tuple[t.Any, ...]]]],
    journey: bool,
) -> None:
    app, transport = production
    transport.envelopes.clear()

    with app.app_context(), Manager() as manager:
        for stage, (name, arguments) in unit:
            with getattr(manager, stage)():
                make(manager, name, arguments)

    for one in transport.envelopes:
        if journey:
            one = Envelope.from_json(json.loads(dumps(one.to_json())))

        messages, dropped = Translator(Config(token="token", id_merge=merge)).messages(
            one
        )
        assert sum(m.records for m in messages) + sum(dropped.values()) == one.records
        assert all(isinstance(reason, str) and reason for reason in dropped)

        for message in messages:
            assert message.endpoint in {"events", "people", "groups"}
            record = json.loads(message.json, parse_constant=pytest.fail)
            properties = record.get("properties", record)
            assert properties.get("token", properties.get("$token")) == "token"

        tracked = [c.properties["$insert_id"] for c in one.calls if c.tracks]
        events = [json.loads(m.json) for m in messages if m.endpoint == "events"]
        ids = [event["properties"]["$insert_id"] for event in events]
        assert [id for id in ids if id in tracked] == [
            id for id in tracked if id in ids
        ]


hostile_cookies = st.dictionaries(
    st.sampled_from(
        "distinct_id $device_id $user_id __timers __mps token time $insert_id a ip"
        " $browser $current_url".split()
    ),
    json_values,
)


@given(hostile_cookies)
def test_no_cookie_costs_a_call(
    production: tuple[Flask, RecordingTransport], cookie: dict[str, t.Any]
) -> None:
    identity = Identity.from_cookie(cookie)
    one = envelope(
        call("register_once", {"a": 1}),
        call("add_group", "a", "x"),
        track(),
        call("people.set", {"a": 1}),
        identity=identity or VISITOR,
        cookie=cookie,
    )
    messages, dropped = Translator(Config(token="token")).messages(one)
    assert dropped == {}
    assert sum(message.records for message in messages) == 3
    (event,) = [json.loads(m.json) for m in messages if m.endpoint == "events"]
    assert event["event"] == "A"
    assert event["properties"]["token"] == "token"
    assert event["properties"]["time"] == STAMP["time"]
    assert event["properties"]["$insert_id"] == "id-1"


RAW_COOKIES = [
    '{"__timers": {"A": 1e999}}',
    '{"__timers": {"A": 1' + "0" * 400 + "}}",
    '{"__timers": {"A": -1' + "0" * 400 + "}}",
    '{"__timers": {"A": true, "B": null, "C": "x"}}',
    '{"a": 1e999}',
    '{"a": [{"b": -1e999}]}',
    '{"a": 1' + "0" * 3000 + "}",
    '{"a": NaN}',
    '{"a": "\\ud800"}',
    '{"\\ud800": 1}',
    '{"distinct_id": "\\ud800", "$device_id": "\\ud800", "$user_id": "\\ud800"}',
    '{"a": ' + "[" * 300 + "]" * 300 + "}",
    '{"a": ' + "[" * 450 + "]" * 450 + "}",
    '{"a": ' + "[" * 600 + "]" * 600 + "}",
    '{"a": ' + "[" * 900 + "]" * 900 + "}",
    '{"a": ' + '{"b":' * 450 + "1" + "}" * 450 + "}",
    '{"a": ' + "[" * 2000 + "]" * 2000 + "}",
    '{"": 1, "a": {"": {}}}',
    '{"distinct_id": "null", "$device_id": "undefined", "$user_id": "anonymous"}',
    '{"distinct_id": "", "$device_id": " ", "$user_id": "\\n"}',
    '{"distinct_id": "$device:"}',
    '{"$user_id": "$device:x"}',
    '{"$user_id": {"a": 1}, "$device_id": [1], "distinct_id": true}',
]


@pytest.mark.parametrize("raw", RAW_COOKIES, ids=range(len(RAW_COOKIES)))
@pytest.mark.parametrize("ext", ["json", "orjson"])
def test_a_hostile_cookie_costs_no_call_and_sends_nothing_that_mixpanel_refuses(
    create_app: CreateApp,
    mengpaneel: Mengpaneel,
    transport: RecordingTransport,
    monkeypatch: pytest.MonkeyPatch,
    raw: str,
    ext: str,
) -> None:
    if ext == "json":
        monkeypatch.setattr("flask_mengpaneel.deliver.translation.orjson", None)

    # No session, in which an operation could wait for somebody to be identified.
    app = create_app(testing=False, SECRET_KEY=None)

    @app.post("/")
    def view() -> dict[str, t.Any]:
        mengpaneel.track("A")
        mengpaneel.register({"b": 1})
        mengpaneel.people.set("c", 1)
        return {}

    client = app.test_client(use_cookies=False)
    headers = {"Cookie": f"mp_token_mixpanel={quote(raw, safe='[]{}:')}"}
    assert client.post("/", headers=headers).status_code == 200

    for envelope_ in transport.envelopes:
        messages, dropped = Translator(Config(token="token")).messages(envelope_)
        assert dropped == {}
        texts = [message.json for message in messages]

    event, update = (json.loads(text, parse_constant=pytest.fail) for text in texts)
    assert all("\\ud800" not in text for text in texts)
    ids = event["properties"]
    assert ids["distinct_id"]
    assert {ids["distinct_id"], ids.get("$device_id"), ids.get("$user_id")}.isdisjoint(
        {"null", "undefined", "anonymous", " ", "\n", "$device:"}
    )
    assert not str(ids.get("$user_id", "")).startswith("$device:")
    assert update["$set"]["c"] == 1


def test_alias_goes_to_the_configured_host(
    create_app: CreateApp, mengpaneel: Mengpaneel
) -> None:
    with Sink() as sink:
        app = create_app(transport="inline", api_host=sink.url)

        with app.app_context(), Manager() as manager, manager.before_setup():
            manager.alias("ann", "visitor")

        (event,) = sink.events
        assert event["event"] == "$create_alias"
        assert event["properties"]["distinct_id"] == "visitor"


def test_ids_and_super_properties_come_from_the_library_s_cookie(
    app: Flask,
    client: FlaskClient,
    mengpaneel: Mengpaneel,
    transport: RecordingTransport,
) -> None:
    @app.post("/")
    def view() -> dict[str, t.Any]:
        mengpaneel.track("A")
        return {}

    cookie = {
        "distinct_id": "ann",
        "$device_id": "d1",
        "$user_id": "ann",
        "Plan": "pro",
    }
    client.set_cookie("mp_token_mixpanel", quote(json.dumps(cookie)))
    client.post("/", headers={"User-Agent": CHROME})
    (event,) = sent(app, transport)
    assert {name: event["properties"][name] for name in cookie} == cookie
    assert event["properties"]["$browser"] == "Chrome"
    assert event["properties"]["ip"] == "127.0.0.1"
