"""What every dialect promises of whatever comes in: no crash, no leak, no harm to neighbours."""

import base64
import json
from itertools import chain
from math import inf
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from service.dialects import cloud, cloud_users, onprem
from service.model.events import (
    AliasesSeen,
    ContactChecked,
    Event,
    HashRefused,
    HashUnreadable,
    IdentitySeen,
    MessageSent,
    NumberChanged,
    Reading,
    SendBlocked,
    UserWrote,
)
from service.model.timeline import LATEST_MS, Moment, Precision
from service.model.users import is_user_id, usable_alias, usable_hash

# The tables of Unicode that hypothesis builds at first take long on a busy machine.
patient = settings(suppress_health_check=[HealthCheck.too_slow])
SENTINEL = "SENTINEL"
JSON = "application/json"
KEYS = ("contacts", "messages", "statuses", "errors")

any_text = st.text(st.characters(), max_size=12)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**25), 10**25)
    | st.floats()
    | any_text
    | st.sampled_from(["", "\x00", "\ud800", "1631555/3601", "٣", "😀", "x" * 2_000])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=6,
)
sentinels = st.recursive(
    st.sampled_from([SENTINEL, f"\n{SENTINEL}\x00", [SENTINEL], {SENTINEL: SENTINEL}]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.just(SENTINEL), inner),
    max_leaves=3,
)
wa_ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,139}", fullmatch=True)
hashes = st.text(
    st.characters(exclude_categories=("C", "Z"), include_characters=" "), min_size=1, max_size=1024
)
short_hashes = st.sampled_from(["Rc/eg9Rl0JA=", "A", "a hash", "x" * 1024, "é"])
seconds = st.integers(1, LATEST_MS // 1000)
milliseconds = st.integers(1, LATEST_MS)


def body_of(callback: Any) -> bytes:
    return json.dumps(callback).encode()


def read(callback: Any) -> Reading:
    return onprem.read(JSON, "", body_of(callback))


def shaped(spoiler: st.SearchStrategy[Any]) -> dict[str, st.SearchStrategy[dict[str, Any]]]:
    """Return the shapes of the wire page, each with any of its parts spoiled or missing."""

    def part(good: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return good | good | spoiler

    alias, text = part(wa_ids), part(st.text(max_size=8))
    stamp = part(
        st.fixed_dictionaries(
            {},
            optional={
                "hash": part(short_hashes),
                "created_timestamp": part(milliseconds | milliseconds.map(str)),
                "acknowledged": part(st.booleans() | st.sampled_from(["true", "False"])),
            },
        )
    )
    kinds = st.sampled_from(["user_identity_changed", "user_changed_number", "group_created"])
    system = st.fixed_dictionaries(
        {"type": part(kinds)},
        optional={"identity": part(short_hashes), "user": alias, "new_wa_id": alias, "body": text},
    )
    stamped = part(seconds.map(str))
    message = {"from": alias, "id": text, "timestamp": stamped}
    error = st.fixed_dictionaries({"code": part(st.sampled_from([480, "480", 400]))})
    return {
        "messages": st.fixed_dictionaries({}, optional=message | {"identity": stamp})
        | st.fixed_dictionaries(
            {"type": part(st.just("system")), "system": part(system)}, optional=message
        ),
        "statuses": st.fixed_dictionaries(
            {"status": part(st.sampled_from(["failed", "read"]))},
            optional={
                "recipient_id": alias,
                "id": text,
                "timestamp": stamped,
                "errors": part(st.lists(part(error), max_size=2)),
            },
        ),
        "contacts": st.fixed_dictionaries(
            {},
            optional={
                "input": text,
                "status": part(st.sampled_from(["valid", "invalid", "processing"])),
                "wa_id": alias,
                "profile": part(st.just({"name": "Kerry"})),
            },
        ),
        "errors": st.fixed_dictionaries({}, optional={"code": part(st.just(400)), "title": text}),
    }


def callbacks(spoiler: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    parts = {
        key: st.lists(element | spoiler, max_size=4) | spoiler
        for key, element in shaped(spoiler).items()
    }
    return st.fixed_dictionaries({}, optional=parts | {"meta": spoiler})


def elements_of(callback: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return the elements in the order in which a callback is read."""
    return [
        (key, element)
        for key in KEYS
        if isinstance(callback.get(key), list)
        for element in callback[key]
    ]


def unreadable_last(readings: list[Reading]) -> tuple[Event, ...]:
    """Return the events of several readings in the order in which one reading has them."""
    events = chain.from_iterable(reading.events for reading in readings)
    return tuple(sorted(events, key=lambda event: isinstance(event, HashUnreadable)))


def keepable(event: Event) -> bool:
    """Return whether a database, a path and a log can bear all that the event carries."""
    match event:
        case ContactChecked():
            texts = [event.input, event.status]
            aliases = [event.wa_id]
            moments: list[Moment | None] = []
        case NumberChanged():
            texts, aliases, moments = [], [event.user, event.new_user], [event.at]
        case AliasesSeen():
            assert event.creates or event.wa_id
            assert is_user_id(event.user_id)
            assert event.parent is None or is_user_id(event.parent)
            texts, moments = [], [event.at]
            aliases = [event.user_id, event.wa_id, event.parent]
        case MessageSent():
            texts, aliases, moments = [event.message_id], [event.user], [event.at]
        case HashRefused():
            assert event.user or event.message_id
            assert event.hash is None or usable_hash(event.hash)
            texts = [event.message_id or "", event.hash or ""]
            aliases, moments = [event.user], [event.at]
        case SendBlocked() | HashUnreadable():
            texts = [event.message_id or ""]
            aliases, moments = [event.user], [event.at]
        case UserWrote():
            texts, aliases, moments = [], [event.user], [event.at]
        case IdentitySeen():
            assert usable_hash(event.hash)
            texts, aliases, moments = [event.hash], [event.user], [event.changed, event.said]
    return (
        all("\x00" not in text and text.encode() is not None for text in texts)
        and all(alias is None or usable_alias(alias) for alias in aliases)
        and all(moment is None or 0 < moment.at <= LATEST_MS for moment in moments)
    )


@patient
@given(st.binary(max_size=200), any_text, any_text)
def test_any_bytes_of_any_media_type_are_read_without_a_crash(
    body: bytes, content_type: str, content_encoding: str
) -> None:
    for type_, encoding in ((JSON, ""), (content_type, content_encoding)):
        reading = onprem.read(type_, encoding, body)
        assert reading.events == ()


@patient
@given(values)
def test_any_json_value_is_read_without_a_crash(value: Any) -> None:
    reading = read(value)
    assert all(keepable(event) for event in reading.events)
    assert isinstance(value, dict) or reading.faults


@patient
@given(callbacks(values))
def test_whatever_becomes_an_event_can_be_kept(callback: dict[str, Any]) -> None:
    reading = read(callback)
    assert all(keepable(event) for event in reading.events)
    for fault in reading.faults:
        assert str(fault).isprintable()


@patient
@given(callbacks(sentinels))
def test_a_fault_never_says_what_the_callback_holds(callback: dict[str, Any]) -> None:
    for fault in read(callback).faults:
        assert SENTINEL not in str(fault)
        assert SENTINEL.lower() not in str(fault).lower()


@patient
@example(
    {"messages": [{"from": 2**64, "identity": {"hash": "A", "created_timestamp": 1}}], "meta": inf}
)
@example({"messages": [{"from": 10**400, "identity": {"hash": "A"}}], "meta": inf})
@given(callbacks(values))
def test_every_element_alone_gives_the_same_events_as_among_its_neighbours(
    callback: dict[str, Any],
) -> None:
    whole = read(callback)
    alone = [read({key: [element]}) for key, element in elements_of(callback)]
    assert whole.events == unreadable_last(alone)
    assert whole.others == sum(reading.others for reading in alone)
    not_arrays = sum(
        callback.get(key) is not None and not isinstance(callback[key], list) for key in KEYS
    )
    faults = len(whole.faults) + whole.more_faults
    assert faults == sum(len(reading.faults) for reading in alone) + not_arrays


@st.composite
def good_and_broken(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a good callback, and the same with broken elements put between its own."""
    good: dict[str, list[Any]] = {}
    mixed: dict[str, list[Any]] = {}
    for key in ("contacts", "messages", "statuses"):
        good[key] = draw(st.lists(st.sampled_from(GOOD[key]), max_size=3))
        mixed[key] = list(good[key])
        for broken in draw(st.lists(st.sampled_from(BROKEN[key]), max_size=3)):
            mixed[key].insert(draw(st.integers(0, len(mixed[key]))), broken)
    return good, mixed


GOOD: dict[str, list[Any]] = {
    "contacts": [
        {"input": "+1 631 555 1001", "status": "valid", "wa_id": "16315551001"},
        {"profile": {"name": "Kerry"}, "wa_id": "16315551234"},
    ],
    "messages": [
        {"from": "16315553601", "timestamp": "1602535356", "type": "text"},
        {
            "from": "16315553601",
            "timestamp": "1602535356",
            "type": "system",
            "system": {"type": "user_identity_changed", "identity": "Rc/eg9Rl0JA="},
        },
    ],
    "statuses": [
        {"status": "failed", "recipient_id": "16315553601", "errors": [{"code": 480}], "id": "m1"},
        {"status": "delivered", "recipient_id": "16315553601"},
    ],
}
BROKEN: dict[str, list[Any]] = {
    "contacts": [None, [], "contact", {"status": "valid"}, {"status": 5, "input": "x"}],
    "messages": [
        7,
        {"from": "a/b", "type": "text"},
        {"type": "system"},
        {"from": "16315553601", "type": "system", "system": {"type": "user_identity_changed"}},
    ],
    "statuses": [True, {"status": "failed", "errors": [{"code": 480}]}],
}


@patient
@given(good_and_broken())
def test_broken_elements_do_not_change_what_their_neighbours_say(
    pair: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    good, mixed = pair
    expected, found = read(good), read(mixed)
    assert expected.faults == ()
    told = [event for event in found.events if not isinstance(event, HashUnreadable)]
    assert told == [*expected.events]
    assert found.others == expected.others
    assert len(found.faults) == sum(len(mixed[key]) - len(good[key]) for key in good)


@patient
@given(wa_ids, hashes, seconds, st.booleans(), st.booleans())
def test_an_identity_notification_says_who_has_which_hash_since_when(
    wa_id: str, hash_: str, at: int, with_from: bool, with_user: bool
) -> None:
    system = {"type": "user_identity_changed", "identity": hash_}
    message: dict[str, Any] = {"type": "system", "timestamp": str(at), "system": system}
    if with_from or not with_user:
        message["from"] = wa_id
    if with_user:
        system["user"] = wa_id
    reading = read({"messages": [message]})
    changed = Moment(at * 1000, Precision.SECOND)
    assert reading == Reading((IdentitySeen(wa_id, hash_, changed),))


@patient
@given(wa_ids, hashes, milliseconds, seconds, st.sampled_from([True, False, None]))
def test_a_stamped_message_says_who_wrote_and_with_which_identity(
    wa_id: str, hash_: str, created: int, sent: int, acknowledged: bool | None
) -> None:
    stamp: dict[str, Any] = {"hash": hash_, "created_timestamp": created}
    if acknowledged is not None:
        stamp["acknowledged"] = acknowledged
    message = {"from": wa_id, "timestamp": str(sent), "type": "text", "identity": stamp}
    said = Moment(sent * 1000, Precision.SECOND)
    seen = IdentitySeen(wa_id, hash_, Moment(created), said, acknowledged)
    assert read({"messages": [message]}) == Reading((seen, UserWrote(wa_id, said)))


@patient
@given(wa_ids, seconds, st.text(st.characters(codec="ascii", min_codepoint=33), max_size=256))
def test_a_blocked_send_says_to_whom_when_and_which_message(
    wa_id: str, at: int, message_id: str
) -> None:
    status = {
        "status": "failed",
        "recipient_id": wa_id,
        "id": message_id,
        "timestamp": str(at),
        "errors": [{"code": 480}],
    }
    kept = message_id if message_id.isprintable() else None
    blocked = SendBlocked(wa_id, Moment(at * 1000, Precision.SECOND), kept)
    assert read({"statuses": [status]}) == Reading((blocked,))


@patient
@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=256),
    st.sampled_from(["valid", "invalid", "processing", "failed", "brand_new"]),
    st.none() | wa_ids,
)
def test_a_contact_check_keeps_the_literal_input(text: str, status: str, wa_id: str | None) -> None:
    check = {"input": text, "status": status} | ({} if wa_id is None else {"wa_id": wa_id})
    assert read({"contacts": [check]}) == Reading((ContactChecked(text, status, wa_id),))


def meta_id(prefix: bytes, wa_id: str, at: int, kind: str) -> str:
    """Make a message id as Meta does: base64url without padding of a self-describing text."""
    text = f"sys-{wa_id}@s.whatsapp.net-{at}-{kind}".encode()
    raw = prefix + b"\x03" + bytes([len(text) & 0xFF]) + text
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@patient
@given(st.binary(max_size=12), wa_ids, milliseconds, seconds)
def test_the_millisecond_in_metas_message_id_says_best_when_it_happened(
    prefix: bytes, wa_id: str, at: int, second: int
) -> None:
    message = {
        "from": wa_id,
        "id": meta_id(prefix, wa_id, at, "identity"),
        "timestamp": str(second),
        "type": "system",
        "system": {"type": "user_identity_changed", "identity": "Rc/eg9Rl0JA=", "user": wa_id},
    }
    change = {
        "from": wa_id,
        "id": meta_id(prefix, wa_id, at, "change"),
        "timestamp": str(second),
        "type": "system",
        "system": {
            "type": "user_changed_number",
            "new_wa_id": f"new{wa_id[:137]}",
        },
    }
    seen, moved = read({"messages": [message, change]}).events
    assert isinstance(seen, IdentitySeen)
    assert isinstance(moved, NumberChanged)
    assert seen.changed == moved.at == Moment(at)


@patient
@given(any_text | st.binary(max_size=60).map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_any_other_message_id_leaves_the_timestamp_to_go_by(message_id: str) -> None:
    message = {
        "from": "16315553601",
        "id": message_id,
        "timestamp": "1602535356",
        "type": "system",
        "system": {"type": "user_identity_changed", "identity": "Rc/eg9Rl0JA="},
    }
    (seen,) = read({"messages": [message]}).events
    assert isinstance(seen, IdentitySeen)
    assert seen.changed == Moment(1_602_535_356_000, Precision.SECOND)


# What follows is the same promise for the Cloud API, where a body speaks of several accounts.

ACCOUNTS = {"1": "main", "2": "shop"}
user_ids = st.from_regex(r"[A-Z]{2}\.[A-Za-z0-9]{1,128}", fullmatch=True)
phones = st.from_regex(r"[1-9][0-9]{6,14}", fullmatch=True)


def read_cloud(webhook: Any) -> dict[str, Reading]:
    return dict(cloud.read(JSON, "", body_of(webhook), ACCOUNTS))


def webhook_of(*changes: Any) -> dict[str, Any]:
    return {"object": cloud.OBJECT, "entry": [{"id": "0", "changes": list(changes)}]}


def change_of(**value: Any) -> dict[str, Any]:
    return {"field": "messages", "value": {"metadata": {"phone_number_id": "1"}} | value}


def events_of(**value: Any) -> tuple[Event, ...]:
    reading = read_cloud(webhook_of(change_of(**value)))["main"]
    assert reading.faults == ()
    return reading.events


def cloud_values(spoiler: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Return values of the wire page, old and new, with any of their parts spoiled or missing."""

    def part(good: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return good | good | good | spoiler

    def optional(
        keys: dict[str, st.SearchStrategy[Any]], **fixed: st.SearchStrategy[Any]
    ) -> st.SearchStrategy[dict[str, Any]]:
        return st.fixed_dictionaries(fixed, optional=keys)

    # Few users, so that contacts, messages and statuses speak of the same ones.
    wa_id = part(st.sampled_from(["16505551234", "12195555358", ""]))
    user_id = part(st.sampled_from(["US.1349", "US.2481", "", "us.1349", "16505551234"]))
    parent = part(st.sampled_from(["US.ENT.1", "US.2481", "12195555358"]))
    hash_, stamped = part(short_hashes), part(seconds.map(str))
    id_ = part(st.sampled_from(["wamid.x", "wamid.HBgLMTY1MDM4Nzk0MzkVAgASGBQz", ""]))
    stamp = part(
        optional({"hash": hash_, "created_timestamp": part(milliseconds | milliseconds.map(str))})
    )
    types = [
        "user_changed_number",
        "customer_changed_number",
        "user_changed_user_id",
        "customer_identity_changed",
        "user_identity_changed",
        "brand_new",
    ]
    system = optional(
        {
            "type": part(st.sampled_from(types)),
            "identity": hash_ | stamp,
            **dict.fromkeys(("wa_id", "new_wa_id", "customer", "user"), wa_id),
            **dict.fromkeys(("user_id", "previous_user_id"), user_id),
            "parent_user_id": parent,
        }
    )
    message = {"from": wa_id, "from_user_id": user_id, "from_parent_user_id": parent}
    message |= {"id": id_, "timestamp": stamped, "type": part(st.just("text")), "identity": stamp}
    arrays = {
        "contacts": optional(
            {
                "wa_id": wa_id,
                "user_id": user_id,
                "parent_user_id": parent,
                "identity_key_hash": hash_,
            }
        ),
        "messages": optional(message) | optional(message, system=part(system)),
        "statuses": optional(
            {
                "status": part(st.sampled_from(["sent", "delivered", "read", "failed"])),
                "errors": part(st.lists(part(st.just({"code": 137000})), max_size=2)),
                "recipient_id": wa_id,
                "recipient_user_id": user_id,
                "recipient_parent_user_id": parent,
                "recipient_type": part(st.sampled_from(["group", "individual"])),
                "recipient_identity_key_hash": hash_,
                "id": id_,
                "timestamp": stamped,
            }
        ),
        "errors": optional({"code": part(st.just(131000))}),
    }
    number = part(
        st.fixed_dictionaries({"phone_number_id": part(st.sampled_from(["1", "2", "3"]))})
    )
    return optional(
        {key: part(st.lists(part(one), max_size=3)) for key, one in arrays.items()},
        metadata=number,
    )


def cloud_changes(spoiler: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    fields = st.sampled_from(["messages", "messages", "standby", "calls", ""]) | spoiler
    values = cloud_values(spoiler)
    standby = st.fixed_dictionaries({"standby": values | spoiler})
    nested = st.tuples(values, standby).map(lambda t: t[0] | t[1])
    return st.fixed_dictionaries({"value": values | nested}, optional={"field": fields}) | spoiler


def webhooks(spoiler: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    changes = st.lists(cloud_changes(spoiler), max_size=3) | spoiler
    entries = st.lists(st.fixed_dictionaries({"changes": changes}) | spoiler, max_size=2) | spoiler
    return st.fixed_dictionaries({"entry": entries}, optional={"object": st.just(cloud.OBJECT)})


@patient
@given(st.binary(max_size=200), any_text, any_text)
def test_any_bytes_on_the_cloud_are_read_without_a_crash(
    body: bytes, content_type: str, content_encoding: str
) -> None:
    for type_, encoding in ((JSON, ""), (content_type, content_encoding)):
        assert cloud.read(type_, encoding, body, ACCOUNTS)[""].events == ()


@patient
@given(values)
def test_any_json_value_on_the_cloud_is_read_without_a_crash(value: Any) -> None:
    readings = read_cloud(value)
    assert readings
    assert isinstance(value, dict) or readings[""].faults


@patient
@given(webhooks(values))
def test_whatever_becomes_an_event_on_the_cloud_can_be_kept(webhook: dict[str, Any]) -> None:
    for account, reading in read_cloud(webhook).items():
        assert account or not reading.events
        assert all(keepable(event) for event in reading.events)
        for fault in reading.faults:
            assert str(fault).isprintable()


@patient
@given(webhooks(sentinels))
def test_a_fault_on_the_cloud_never_says_what_the_webhook_holds(webhook: dict[str, Any]) -> None:
    for reading in read_cloud(webhook).values():
        for fault in reading.faults:
            assert SENTINEL.lower() not in str(fault).lower()


@patient
@given(st.lists(cloud_changes(values), max_size=4))
def test_every_change_alone_gives_each_account_the_same_as_among_its_neighbours(
    changes: list[Any],
) -> None:
    whole = read_cloud(webhook_of(*changes))
    alone = [read_cloud(webhook_of(change)) for change in changes]
    assert whole.keys() - {""} == set(chain.from_iterable(alone)) - {""}
    for account, reading in whole.items():
        parts = [readings[account] for readings in alone if account in readings]
        assert reading.events == unreadable_last(parts)
        assert reading.others == sum(part.others for part in parts)
        assert reading.sent == tuple(chain.from_iterable(part.sent for part in parts))


@patient
@given(cloud_values(values), st.lists(st.sampled_from([None, 7, "x", [], True]), max_size=3))
def test_broken_elements_do_not_change_what_their_neighbours_on_the_cloud_say(
    value: dict[str, Any], broken: list[Any]
) -> None:
    value = {key: value[key] for key in KEYS if isinstance(value.get(key), list)}
    mixed = {key: [*broken, *part, *broken] for key, part in value.items()}
    good, found = (read_cloud(webhook_of(change_of(**parts)))["main"] for parts in (value, mixed))
    assert (found.events, found.others) == (good.events, good.others)
    faults = len(good.faults) + good.more_faults + 2 * len(broken) * len(value)
    assert len(found.faults) + found.more_faults == faults


@patient
@given(st.none() | phones, st.none() | user_ids, st.none() | user_ids, hashes, seconds)
def test_a_message_on_the_cloud_says_who_wrote_and_with_which_hash(
    wa_id: str | None, user_id: str | None, parent: str | None, hash_: str, sent: int
) -> None:
    card = {"wa_id": wa_id, "user_id": user_id, "parent_user_id": parent}
    sender = {"from": wa_id or "", "from_user_id": user_id, "timestamp": str(sent)}
    reading = read_cloud(
        webhook_of(change_of(contacts=[card | {"identity_key_hash": hash_}], messages=[sender]))
    )["main"]
    user = user_id or wa_id
    if user is None:
        assert (reading.events, len(reading.faults)) == ((), 1)
        return
    at = Moment(sent * 1000, Precision.SECOND)
    named = () if user_id is None else (AliasesSeen(user_id, wa_id, parent, at),)
    assert reading == Reading((*named, IdentitySeen(user, hash_, at, at), UserWrote(user, at)))


@patient
@given(phones, st.none() | user_ids, hashes, seconds, st.sampled_from(["sent", "read", "failed"]))
def test_a_status_says_who_has_which_hash_and_whether_a_message_was_refused_for_it(
    wa_id: str, user_id: str | None, hash_: str, at: int, status: str
) -> None:
    element = {
        "status": status,
        "recipient_id": wa_id,
        "recipient_user_id": user_id,
        "recipient_identity_key_hash": hash_,
        "timestamp": at,
        "errors": [{"code": 137000}],
    }
    moment = Moment(at * 1000, Precision.SECOND)
    refused = status == "failed"
    named = () if user_id is None else (AliasesSeen(user_id, wa_id, None, moment, not refused),)
    told: Event = IdentitySeen(user_id or wa_id, hash_, moment, moment)
    if refused:
        told = HashRefused(user_id or wa_id, moment, None, hash_)
    assert events_of(statuses=[element]) == (*named, told)


@patient
@given(phones | user_ids.filter(lambda one: len(one) <= cloud_users.MAX_ALIAS_BYTES), st.binary())
def test_a_refused_message_is_led_to_its_user_by_its_id(alias: str, rest: bytes) -> None:
    raw = b"\x1c\x18" + bytes([len(alias)]) + alias.encode() + b"\x15" + rest[:40]
    id_ = f"wamid.{base64.b64encode(raw).decode()}"
    element = {"status": "failed", "id": id_, "errors": [{"code": "137000"}]}
    (*_, blocked) = events_of(statuses=[element])
    assert blocked == HashRefused(alias, None, id_ if len(id_) <= 256 else None)


@patient
@given(any_text | st.binary(max_size=200).map(lambda raw: base64.b64encode(raw).decode()))
def test_any_message_id_of_the_cloud_tells_a_usable_alias_or_nothing(text: str) -> None:
    for id_ in (text, f"wamid.{text}"):
        told = cloud_users.recipient_in_id(id_)
        assert told is None or usable_alias(told)


@patient
@given(phones, phones, hashes, seconds)
def test_old_and_new_spellings_on_the_cloud_give_equal_events(
    old: str, new: str, hash_: str, at: int
) -> None:
    def system(told: dict[str, Any], **others: Any) -> tuple[Event, ...]:
        element = {"type": "system", "timestamp": str(at), "system": told} | others
        return events_of(messages=[element])

    if old != new:
        number = {
            system({"type": type_, key: new}, **{"from": old})
            for type_ in ("user_changed_number", "customer_changed_number")
            for key in ("wa_id", "new_wa_id")
        }
        number.add(system({"type": "customer_changed_number", "customer": old, "wa_id": new}))
        assert number == {(NumberChanged(old, new, Moment(at * 1000, Precision.SECOND)),)}
    stamp = {"hash": hash_, "acknowledged": False}
    kinds = [{"type": "user_identity_changed"}, {"type": "customer_identity_changed"}]
    identity = {
        events
        for kind in kinds
        for events in (
            system(kind | {"identity": hash_, "user": old}),
            system(kind | {"identity": hash_, "customer": old}, **{"from": old}),
            system(kind | {"identity": stamp}, **{"from": old}),
            system(kind, identity=stamp, **{"from": old}),
        )
    }
    moment = Moment(at * 1000, Precision.SECOND)
    assert identity == {(IdentitySeen(old, hash_, moment, moment),)}
