"""The webhooks of the Cloud API: every shape of the wire, old and new, and what is broken."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from service.dialects import cloud, cloud_users
from service.model.events import (
    AliasesSeen,
    Event,
    Fault,
    HashRefused,
    HashUnreadable,
    IdentitySeen,
    MessageSent,
    NumberChanged,
    Reading,
    UserWrote,
)
from service.model.timeline import Moment, Precision

PAYLOADS = Path(__file__).parent.parent / "payloads" / "cloud"
NUMBER_ID, OTHER_NUMBER_ID = "106540352242922", "106540352242923"
ACCOUNTS = {NUMBER_ID: "main", OTHER_NUMBER_ID: "shop"}
WA_ID, NEW_WA_ID = "16505551234", "12195555358"
USER_ID, NEW_USER_ID = "US.13491208655302741918", "US.24817305912873645029"
PARENT = "US.ENT.11815799212886844830"
HASH, NEW_HASH = "DF2lS5v2W6x=", "Rc/eg9Rl0JA="
TIMESTAMP = "1749416383"
AT = Moment(1_749_416_383_000, Precision.SECOND)
LATER = Moment(1_749_416_384_000, Precision.SECOND)

Json = dict[str, Any]


def id_of(alias: str, field: bytes = b"\x15\x02") -> str:
    """Make a message id as Meta does: a length, the recipient, and a number of its own."""
    raw = b"\x1c\x18" + bytes([len(alias)]) + alias.encode() + field + b"\x00\x12\x18\x023A\x00"
    return f"wamid.{base64.b64encode(raw).decode()}"


def metadata(number_id: Any = NUMBER_ID) -> Json:
    return {"display_phone_number": "15550783881", "phone_number_id": number_id}


def change(value: Json | None = None, **others: Any) -> Json:
    inner = {"messaging_product": "whatsapp", "metadata": metadata()} | (value or {})
    return {"field": "messages", "value": inner} | others


def webhook(*changes: Any) -> Json:
    entry = {"id": "102290129340398", "changes": list(changes)}
    return {"object": "whatsapp_business_account", "entry": [entry]}


def read(callback: Any) -> dict[str, Reading]:
    body = json.dumps(callback).encode()
    return dict(cloud.read("application/json", "", body, ACCOUNTS))


def read_value(**value: Any) -> Reading:
    """Read one value of the account main, which alone is concerned."""
    readings = read(webhook(change(value)))
    assert readings.keys() == {"main"}
    return readings["main"]


def events_of(**value: Any) -> tuple[Event, ...]:
    reading = read_value(**value)
    assert reading.faults == ()
    return reading.events


def contact(**others: Any) -> Json:
    return {"profile": {"name": "Sheena Nelson"}} | others


def message(**others: Any) -> Json:
    text = {"id": "wamid.x", "timestamp": TIMESTAMP, "type": "text", "text": {"body": "Hello"}}
    return text | others


def system(type_: Any, *, told: Any = None, **others: Any) -> Json:
    inner = {"body": "User changed", "type": type_} | (told or {})
    return {"id": "wamid.x", "timestamp": TIMESTAMP, "type": "system", "system": inner} | others


def status(kind: str = "sent", **others: Any) -> Json:
    return {"id": id_of(WA_ID), "status": kind, "timestamp": TIMESTAMP} | others


def refused(**others: Any) -> Json:
    error = {"code": 137_000, "title": "Recipient identity key hash mismatch"}
    return status("failed", errors=[error], **others)


def seen(user: str, hash_: str = HASH, at: Moment | None = AT) -> IdentitySeen:
    return IdentitySeen(user, hash_, at, at)


PAYLOAD_READINGS = {
    "message-with-hash": Reading((seen(WA_ID), UserWrote(WA_ID, AT))),
    "message-user-id-only": Reading((AliasesSeen(USER_ID, None, None, AT), UserWrote(USER_ID, AT))),
    "number-changed": Reading(
        (NumberChanged(WA_ID, NEW_WA_ID, Moment(1_750_269_342_000, Precision.SECOND)),)
    ),
}


@pytest.mark.parametrize("name", sorted(path.stem for path in PAYLOADS.glob("*.json")))
def test_metas_own_examples_are_understood(name: str) -> None:
    body = (PAYLOADS / f"{name}.json").read_bytes()
    readings = cloud.read("application/json", "", body, ACCOUNTS)
    assert readings == {"main": PAYLOAD_READINGS[name]}


class TestEnvelope:
    def test_each_value_speaks_to_the_account_of_its_own_number(self) -> None:
        mine = change({"messages": [message(**{"from": WA_ID})]})
        other = change({"metadata": metadata(OTHER_NUMBER_ID), "statuses": [status("read")]})
        entries = webhook(mine)["entry"] + webhook(other, mine)["entry"]
        assert read({"object": "whatsapp_business_account", "entry": entries}) == {
            "main": Reading((UserWrote(WA_ID, AT), UserWrote(WA_ID, AT))),
            "shop": Reading(others=1),
        }

    def test_the_number_may_be_a_number(self) -> None:
        assert read(webhook(change({"metadata": metadata(int(NUMBER_ID))}))).keys() == {"main"}

    def test_an_account_is_concerned_even_when_nothing_is_told(self) -> None:
        assert read(webhook(change({"messages": []}))) == {"main": Reading()}

    @pytest.mark.parametrize(
        ("number_id", "words"),
        [
            ("15550000000", "the number 15550000000"),
            (15550000000, "the number 15550000000"),
            ("9" * 32, "the number " + "9" * 32),
            ("9" * 33, "this number"),
            ("a secret", "this number"),
            ("٣٣", "this number"),
            (-5, "this number"),
        ],
    )
    def test_a_number_of_nobody_is_a_fault_of_no_account(self, number_id: Any, words: str) -> None:
        readings = read(webhook(change({"metadata": metadata(number_id), "messages": [message()]})))
        assert readings == {"": Reading(faults=(Fault("", f"no account has {words}"),))}

    def test_a_number_of_nobody_is_named_once_and_harms_no_other(self) -> None:
        stranger = change({"metadata": metadata("1"), "messages": [message()]})
        mine = change({"messages": [message(**{"from": WA_ID})]})
        readings = read(webhook(stranger, mine, stranger))
        assert len(readings["main"].events) == 1
        assert readings[""].faults == (Fault("", "no account has the number 1"),)

    @pytest.mark.parametrize("metadata_", [None, {}, [], "x", {"phone_number_id": ""}])
    def test_without_a_number_a_value_is_a_fault_of_no_account(self, metadata_: Any) -> None:
        readings = read(webhook(change({"metadata": metadata_})))
        where = "entry[0].changes[0].value.metadata.phone_number_id"
        assert readings == {"": Reading(faults=(Fault(where, "missing"),))}

    @pytest.mark.parametrize("field", ["calls", "account_update", 7, ["messages"]])
    def test_another_field_is_let_pass_for_the_account_that_it_names(self, field: Any) -> None:
        value = {"messages": [message(**{"from": WA_ID})]}
        assert read(webhook(change(value, field=field))) == {"main": Reading(others=1)}

    @pytest.mark.parametrize(
        "value", [None, 7, [], {}, {"event": "x"}, {"metadata": metadata("1")}, {"metadata": []}]
    )
    def test_another_field_of_whatever_shape_is_let_pass_without_a_fault(self, value: Any) -> None:
        other = {"field": "account_update", "value": value}
        assert read(webhook(other)) == {"": Reading(others=1)}

    @pytest.mark.parametrize("field", [None, ""])
    def test_a_missing_field_is_known_by_the_messages_of_its_value(self, field: Any) -> None:
        value = {"messages": [message(**{"from": WA_ID})]}
        assert len(read(webhook(change(value, field=field)))["main"].events) == 1
        assert read(webhook(change({"groups": []}, field=field))) == {"main": Reading(others=1)}

    def test_webhooks_of_other_objects_are_let_pass(self) -> None:
        readings = read(webhook(change({"messages": [message()]})) | {"object": "instagram"})
        assert readings == {"": Reading(others=1)}

    def test_an_entry_without_changes_is_let_pass(self) -> None:
        assert read({"entry": [{"messaging": [{}]}]}) == {"": Reading(others=1)}

    @pytest.mark.parametrize(
        ("callback", "fault"),
        [
            ({}, Fault("entry", "missing")),
            ({"entry": {}}, Fault("entry", "not an array")),
            ({"entry": [7]}, Fault("entry[0]", "not an object")),
            ({"entry": [{"changes": 7}]}, Fault("entry[0].changes", "not an array")),
            ({"entry": [{"changes": [None]}]}, Fault("entry[0].changes[0]", "not an object")),
            (
                webhook({"field": "messages", "value": []}),
                Fault("entry[0].changes[0].value", "not an object"),
            ),
            (webhook({"field": "messages"}), Fault("entry[0].changes[0].value", "missing")),
        ],
    )
    def test_a_broken_envelope_is_a_fault_of_no_account(self, callback: Any, fault: Fault) -> None:
        assert read(callback) == {"": Reading(faults=(fault,))}

    def test_broken_parts_of_the_envelope_harm_no_neighbour(self) -> None:
        good = change({"messages": [message(**{"from": WA_ID})]})
        callback = webhook(None, good, {"field": "messages", "value": 7}, good)
        callback["entry"] = [7, *callback["entry"], {"changes": "x"}]
        readings = read(callback)
        assert len(readings["main"].events) == 2
        assert len(readings[""].faults) == 4

    @pytest.mark.parametrize("entry", [[], [{"changes": []}]])
    def test_an_empty_one_is_nothing_wrong(self, entry: Any) -> None:
        assert read({"entry": entry}) == {"": Reading()}

    def test_a_body_that_cant_be_read_is_one_fault_of_no_account(self) -> None:
        assert cloud.read("application/json", "", b"{", ACCOUNTS) == {
            "": Reading(faults=(Fault("", "the body is no JSON"),))
        }

    def test_many_faults_are_counted_not_named(self) -> None:
        reading = read_value(messages=[None] * 25)
        assert (len(reading.faults), reading.more_faults) == (10, 15)

    def test_a_thousand_updates_are_all_read(self) -> None:
        messages = [message(**{"from": str(16505550000 + i)}) for i in range(1000)]
        assert len(events_of(messages=messages)) == 1000


class TestWhatWeSendOurselves:
    def test_a_webhook_of_the_doctor_says_nothing_and_is_known_as_that(self) -> None:
        assert read({"ackgate-doctor": {"id": "1"}}) == {"": Reading(synthetic=True)}

    def test_its_key_hides_nothing(self) -> None:
        callback = webhook(change({"messages": [message(**{"from": WA_ID})]}))
        assert read(callback | {"ackgate-doctor": {}}) == read(callback)


class TestMessage:
    def test_it_says_that_the_user_wrote(self) -> None:
        assert events_of(messages=[message(**{"from": WA_ID})]) == (UserWrote(WA_ID, AT),)

    @pytest.mark.parametrize("type_", ["image", "unsupported", "brand_new", None, 7, []])
    def test_whatever_its_type(self, type_: Any) -> None:
        element = message(type=type_, system=None, errors=[{"code": 131051}], **{"from": WA_ID})
        assert events_of(messages=[element]) == (UserWrote(WA_ID, AT),)

    def test_the_user_id_is_the_stronger_alias_and_both_are_named_first(self) -> None:
        element = message(from_user_id=USER_ID, from_parent_user_id=PARENT, **{"from": WA_ID})
        assert events_of(messages=[element]) == (
            AliasesSeen(USER_ID, WA_ID, PARENT, AT),
            UserWrote(USER_ID, AT),
        )

    def test_a_naming_is_told_once_in_a_value(self) -> None:
        element = message(from_user_id=USER_ID, **{"from": WA_ID})
        events = events_of(messages=[element, element | {"timestamp": "1749416384"}])
        assert events == (
            AliasesSeen(USER_ID, WA_ID, None, AT),
            UserWrote(USER_ID, AT),
            UserWrote(USER_ID, LATER),
        )

    @pytest.mark.parametrize("empty", [None, ""])
    def test_an_empty_alias_is_missing(self, empty: Any) -> None:
        elements = [
            message(from_user_id=USER_ID, **{"from": empty}),
            message(from_user_id=empty, **{"from": WA_ID}),
        ]
        users = [
            event.user for event in events_of(messages=elements) if isinstance(event, UserWrote)
        ]
        assert users == [USER_ID, WA_ID]

    def test_a_user_id_in_the_place_of_the_number_is_a_user_id(self) -> None:
        assert events_of(messages=[message(**{"from": USER_ID})]) == (
            AliasesSeen(USER_ID, None, None, AT),
            UserWrote(USER_ID, AT),
        )

    def test_a_plus_before_the_number_is_no_part_of_it(self) -> None:
        assert events_of(messages=[message(**{"from": f"+{WA_ID}"})]) == (UserWrote(WA_ID, AT),)

    def test_without_any_sender_it_is_let_pass(self) -> None:
        assert read_value(messages=[message(), message(from_parent_user_id=PARENT)]) == Reading(
            others=2
        )

    @pytest.mark.parametrize("parent", ["a/b", "7099", "us.abd", 7099, [PARENT]])
    def test_a_parent_of_another_form_costs_nothing_else(self, parent: Any) -> None:
        element = message(from_user_id=USER_ID, from_parent_user_id=parent)
        assert events_of(messages=[element])[0] == AliasesSeen(USER_ID, None, None, AT)

    @pytest.mark.parametrize(
        ("key", "value", "why"),
        [
            ("from", "a/b", "no usable name of a user"),
            ("from", ["1"], "no usable name of a user"),
            ("from_user_id", {"a": 1}, "not of the form of a user id"),
            ("from_user_id", WA_ID, "not of the form of a user id"),
        ],
    )
    def test_an_unusable_alias_is_a_fault_of_this_message_alone(
        self, key: str, value: Any, why: str
    ) -> None:
        good = message(**{"from": WA_ID})
        reading = read_value(messages=[good, good | {key: value}, good])
        assert reading.faults == (Fault(f"entry[0].changes[0].value.messages[1].{key}", why),)
        assert len(reading.events) == 2

    @pytest.mark.parametrize("timestamp", [1_749_416_383, "1749416383"])
    def test_its_time_is_seconds_as_number_or_text(self, timestamp: Any) -> None:
        element = message(timestamp=timestamp, **{"from": WA_ID})
        assert events_of(messages=[element]) == (UserWrote(WA_ID, AT),)

    @pytest.mark.parametrize("timestamp", [None, "", "soon", -1, 10**30, [], {}, 1.5, True])
    def test_an_unreadable_time_is_none(self, timestamp: Any) -> None:
        element = message(timestamp=timestamp, **{"from": WA_ID})
        assert events_of(messages=[element]) == (UserWrote(WA_ID, None),)


class TestHashInContacts:
    def test_it_belongs_to_the_user_at_the_time_of_the_message(self) -> None:
        events = events_of(
            contacts=[contact(wa_id=WA_ID, identity_key_hash=HASH)],
            messages=[message(**{"from": WA_ID})],
        )
        assert events == (seen(WA_ID), UserWrote(WA_ID, AT))

    def test_it_is_found_by_the_user_id_when_the_numbers_differ(self) -> None:
        events = events_of(
            contacts=[contact(wa_id=NEW_WA_ID, user_id=USER_ID, identity_key_hash=HASH)],
            messages=[message(from_user_id=USER_ID, **{"from": WA_ID})],
        )
        assert events == (
            AliasesSeen(USER_ID, WA_ID, None, AT),
            AliasesSeen(USER_ID, NEW_WA_ID, None, AT),
            seen(USER_ID),
            UserWrote(USER_ID, AT),
        )

    @pytest.mark.parametrize(
        ("card", "sender"),
        [
            ({"wa_id": WA_ID, "user_id": USER_ID}, {"from": WA_ID}),
            ({"wa_id": WA_ID, "user_id": USER_ID}, {"from_user_id": USER_ID}),
            ({"wa_id": WA_ID}, {"from": WA_ID, "from_user_id": USER_ID}),
            ({"user_id": USER_ID}, {"from": WA_ID, "from_user_id": USER_ID}),
        ],
    )
    def test_contact_and_message_complete_each_other(self, card: Json, sender: Json) -> None:
        events = events_of(
            contacts=[contact(identity_key_hash=HASH, **card)], messages=[message(**sender)]
        )
        assert events == (
            AliasesSeen(USER_ID, WA_ID, None, AT),
            seen(USER_ID),
            UserWrote(USER_ID, AT),
        )

    def test_it_is_found_by_the_parent_id_where_there_is_nothing_else(self) -> None:
        events = events_of(
            contacts=[contact(parent_user_id=PARENT, identity_key_hash=HASH)],
            messages=[message(from_user_id=USER_ID, from_parent_user_id=PARENT)],
        )
        assert events == (
            AliasesSeen(USER_ID, None, PARENT, AT),
            seen(USER_ID),
            UserWrote(USER_ID, AT),
        )

    def test_each_of_many_users_has_the_hash_of_its_own_contact(self) -> None:
        events = events_of(
            contacts=[
                contact(wa_id=NEW_WA_ID, identity_key_hash=NEW_HASH),
                contact(wa_id=WA_ID, identity_key_hash=HASH),
            ],
            messages=[message(**{"from": WA_ID}), message(**{"from": NEW_WA_ID})],
        )
        hashes = {event.user: event.hash for event in events if isinstance(event, IdentitySeen)}
        assert hashes == {WA_ID: HASH, NEW_WA_ID: NEW_HASH}

    def test_it_is_seen_from_the_first_to_the_last_time_at_which_the_user_wrote(self) -> None:
        times = [6, 7, 3, 5, 9, 4, "soon", 6, "later"]
        messages = [message(timestamp=second, **{"from": WA_ID}) for second in times]
        read_at = [status("read", recipient_id=WA_ID, timestamp=second) for second in (2, 8, 12)]
        events = events_of(
            contacts=[contact(wa_id=WA_ID, identity_key_hash=HASH)],
            messages=messages,
            statuses=read_at,
        )
        moments = [event.changed for event in events if isinstance(event, IdentitySeen)]
        assert [None if moment is None else moment.at for moment in moments] == [
            6_000,
            None,
            3_000,
            9_000,
            2_000,
            12_000,
        ]
        assert sum(isinstance(event, UserWrote) for event in events) == len(times)

    def test_two_hashes_of_one_user_are_both_seen_for_neither_is_known_to_be_later(self) -> None:
        cards = [contact(wa_id=WA_ID, identity_key_hash=hash_) for hash_ in (HASH, NEW_HASH)]
        events = events_of(contacts=cards, messages=[message(**{"from": WA_ID})])
        assert events == (seen(WA_ID), seen(WA_ID, NEW_HASH), UserWrote(WA_ID, AT))

    def test_contacts_that_disagree_about_a_number_complete_nothing(self) -> None:
        cards = [
            contact(wa_id=WA_ID, user_id=user_id, identity_key_hash=HASH)
            for user_id in (USER_ID, NEW_USER_ID)
        ]
        events = events_of(contacts=cards, messages=[message(**{"from": WA_ID})])
        assert UserWrote(WA_ID, AT) in events
        assert seen(USER_ID) in events
        assert seen(NEW_USER_ID) in events

    def test_beside_the_message_of_another_number_it_takes_the_time_of_that(self) -> None:
        events = events_of(
            contacts=[contact(wa_id=NEW_WA_ID, user_id=USER_ID, identity_key_hash=HASH)],
            messages=[message(**{"from": WA_ID})],
        )
        assert events == (
            UserWrote(WA_ID, AT),
            AliasesSeen(USER_ID, NEW_WA_ID, None, AT),
            seen(USER_ID),
        )

    def test_beside_several_of_others_it_takes_the_earliest_time_of_all(self) -> None:
        read_later = status("read", recipient_id=WA_ID, timestamp="1749416385")
        others = [
            message(timestamp="1749416384", **{"from": WA_ID}),
            message(timestamp="soon", **{"from": WA_ID}),
            message(**{"from": "a/b"}),
            7,
        ]
        reading = read_value(
            contacts=[contact(wa_id=NEW_WA_ID, identity_key_hash=HASH)],
            messages=others,
            statuses=[read_later],
        )
        assert reading.events[-1] == seen(NEW_WA_ID)

    def test_it_takes_the_time_of_a_status_of_another_number_too(self) -> None:
        events = events_of(
            contacts=[contact(wa_id=NEW_WA_ID, identity_key_hash=HASH)],
            statuses=[status("read", recipient_id=WA_ID)],
        )
        assert events == (seen(NEW_WA_ID),)

    @pytest.mark.parametrize("messages", [None, [], [message(timestamp="soon")]])
    def test_only_where_nothing_in_the_value_has_a_time_is_it_unknown(self, messages: Any) -> None:
        reading = read_value(
            contacts=[contact(wa_id=WA_ID, identity_key_hash=HASH)], messages=messages
        )
        assert reading.events == (seen(WA_ID, at=None),)

    @pytest.mark.parametrize("user", [{"wa_id": WA_ID}, {"user_id": USER_ID}])
    def test_a_third_hash_of_one_user_is_a_fault_and_its_neighbours_count(self, user: Json) -> None:
        hashes = [HASH, NEW_HASH, HASH, "a third", "a third", NEW_HASH]
        other = contact(wa_id=NEW_WA_ID, identity_key_hash="of another")
        reading = read_value(
            contacts=[*(contact(identity_key_hash=hash_, **user) for hash_ in hashes), other]
        )
        told = [event for event in reading.events if isinstance(event, IdentitySeen)]
        assert [event.hash for event in told] == [HASH, NEW_HASH, "of another"]
        where = "entry[0].changes[0].value.contacts"
        assert [str(fault) for fault in reading.faults] == [
            f"{where}[{index}].identity_key_hash: more than two hashes of one user"
            for index in (3, 4)
        ]

    def test_it_takes_its_time_from_a_status_too(self) -> None:
        events = events_of(
            contacts=[contact(wa_id=WA_ID, identity_key_hash=HASH)],
            statuses=[status("read", recipient_id=WA_ID)],
        )
        assert events == (seen(WA_ID),)

    def test_beside_a_system_message_it_takes_the_time_of_that(self) -> None:
        element = system("brand_new", **{"from": WA_ID})
        events = events_of(
            contacts=[contact(wa_id=WA_ID, identity_key_hash=HASH)], messages=[element]
        )
        assert events == (seen(WA_ID),)

    @pytest.mark.parametrize("hash_", [7, "x" * 1025, "a\nb", [], {}])
    def test_an_unusable_one_is_a_fault_and_told_of_its_user(self, hash_: Any) -> None:
        reading = read_value(
            contacts=[contact(wa_id=WA_ID, identity_key_hash=hash_)],
            messages=[message(**{"from": WA_ID})],
        )
        assert reading.events == (UserWrote(WA_ID, AT), HashUnreadable(WA_ID, AT, "wamid.x"))
        assert [fault.where for fault in reading.faults] == [
            "entry[0].changes[0].value.contacts[0].identity_key_hash"
        ]

    def test_an_unusable_one_beside_one_that_can_be_read_comes_last(self) -> None:
        reading = read_value(
            contacts=[
                contact(wa_id=WA_ID, identity_key_hash=["x"]),
                contact(wa_id=WA_ID, identity_key_hash=HASH),
            ],
            messages=[message(**{"from": WA_ID})],
        )
        told = seen(WA_ID), UserWrote(WA_ID, AT), HashUnreadable(WA_ID, AT, "wamid.x")
        assert reading.events == told

    def test_an_unusable_one_of_whom_nothing_else_speaks_is_told_too(self) -> None:
        card = contact(user_id=USER_ID, identity_key_hash="a\nb")
        reading = read_value(contacts=[card], statuses=[status("read", recipient_id=NEW_WA_ID)])
        assert reading.events == (HashUnreadable(USER_ID, AT),)

    @pytest.mark.parametrize(
        "card", [{}, {"wa_id": "", "user_id": None}, {"parent_user_id": PARENT}]
    )
    def test_of_nobody_it_is_a_fault(self, card: Json) -> None:
        reading = read_value(contacts=[contact(identity_key_hash=HASH, **card)])
        assert reading.events == ()
        assert [fault.reason for fault in reading.faults] == ["no user is named"]

    @pytest.mark.parametrize("card", [{}, {"wa_id": WA_ID}, {"identity_key_hash": ""}])
    def test_a_contact_that_says_nothing_is_let_pass(self, card: Json) -> None:
        assert read_value(contacts=[contact(**card)]) == Reading(others=1)

    def test_a_contact_alone_only_links_its_two_aliases(self) -> None:
        assert events_of(contacts=[contact(wa_id=WA_ID, user_id=USER_ID)]) == (
            AliasesSeen(USER_ID, WA_ID, None, None, creates=False),
        )
        assert events_of(contacts=[contact(user_id=USER_ID)]) == ()


class TestFormOfUserIds:
    """What is no user id could else be taken for the number of somebody else."""

    @pytest.mark.parametrize("other", ["us.abd", "7070", 7070, "US.", "USA.1", f"+{USER_ID}", [1]])
    @pytest.mark.parametrize(
        ("part", "key", "element"),
        [
            ("contacts", "user_id", contact(wa_id=WA_ID, identity_key_hash=HASH)),
            ("messages", "from_user_id", message(**{"from": WA_ID})),
            (
                "statuses",
                "recipient_user_id",
                status(recipient_id=WA_ID, recipient_identity_key_hash=HASH),
            ),
            (
                "statuses",
                "recipient_participant_user_id",
                status(
                    recipient_type="group",
                    recipient_participant_id=WA_ID,
                    recipient_identity_key_hash=HASH,
                ),
            ),
        ],
    )
    def test_another_form_is_a_fault_of_its_element_alone(
        self, part: str, key: str, element: Json, other: Any
    ) -> None:
        good = read_value(**{part: [element]})
        reading = read_value(**{part: [element | {key: other}, element]})
        assert (good.faults, reading.events) == ((), good.events)
        where = f"entry[0].changes[0].value.{part}[0].{key}"
        assert reading.faults == (Fault(where, "not of the form of a user id"),)

    @pytest.mark.parametrize("other", ["us.abd", "7070", 7070])
    @pytest.mark.parametrize(
        ("type_", "key"),
        [
            ("user_changed_number", "user_id"),
            ("user_changed_number", "previous_user_id"),
            ("user_changed_user_id", "previous_user_id"),
            ("user_identity_changed", "user_id"),
        ],
    )
    def test_so_it_is_in_system_messages(self, type_: str, key: str, other: Any) -> None:
        told = {"wa_id": NEW_WA_ID, "identity": HASH, key: other}
        reading = read_value(messages=[system(type_, told=told, **{"from": WA_ID})])
        assert reading.events == ()
        where = f"entry[0].changes[0].value.messages[0].system.{key}"
        assert reading.faults == (Fault(where, "not of the form of a user id"),)

    @pytest.mark.parametrize("parent", ["7099", "us.abd", 7099])
    def test_a_parent_of_another_form_names_nobody(self, parent: Any) -> None:
        told = {"user_id": NEW_USER_ID, "previous_user_id": USER_ID}
        told |= {"parent_user_id": parent, "previous_parent_user_id": parent}
        parts: Json = {
            "contacts": [contact(user_id=USER_ID, parent_user_id=parent)],
            "messages": [system("user_changed_user_id", told=told)],
            "statuses": [
                status("read", recipient_id=WA_ID, recipient_user_id=USER_ID)
                | {"recipient_parent_user_id": parent}
            ],
        }
        named = [event for event in events_of(**parts) if isinstance(event, AliasesSeen)]
        assert [(event.user_id, event.parent) for event in named] == [
            (USER_ID, None),
            (NEW_USER_ID, None),
            (USER_ID, None),
        ]


class TestIdentityBesideAMessage:
    """`messages[].identity`, as older pages have it."""

    def test_it_says_which_hash_since_when(self) -> None:
        stamp = {"acknowledged": True, "created_timestamp": 1_749_416_000_123, "hash": HASH}
        events = events_of(messages=[message(identity=stamp, **{"from": WA_ID})])
        assert events == (
            IdentitySeen(WA_ID, HASH, Moment(1_749_416_000_123), AT),
            UserWrote(WA_ID, AT),
        )

    @pytest.mark.parametrize("created", ["1749416383", 1_749_416_383])
    def test_a_creation_in_seconds_is_not_taken_for_milliseconds(self, created: Any) -> None:
        stamp = {"created_timestamp": created, "hash": HASH}
        assert events_of(messages=[message(identity=stamp, **{"from": WA_ID})])[0] == seen(WA_ID)

    @pytest.mark.parametrize("created", [None, "", "soon", -1, []])
    def test_without_a_creation_the_time_of_the_message_counts(self, created: Any) -> None:
        stamp = {"created_timestamp": created, "hash": HASH}
        assert events_of(messages=[message(identity=stamp, **{"from": WA_ID})])[0] == seen(WA_ID)

    @pytest.mark.parametrize("stamp", [{"hash": ""}, {"hash": 7}, {"acknowledged": True}, 7, ["x"]])
    def test_an_unreadable_one_is_a_fault(self, stamp: Any) -> None:
        reading = read_value(messages=[message(identity=stamp, **{"from": WA_ID})])
        assert reading.events == (UserWrote(WA_ID, AT), HashUnreadable(WA_ID, AT, "wamid.x"))
        assert len(reading.faults) == 1

    def test_of_nobody_it_is_a_fault(self) -> None:
        reading = read_value(messages=[message(identity={"hash": HASH})])
        assert [fault.reason for fault in reading.faults] == ["no user is named"]


class TestNumberChanged:
    @pytest.mark.parametrize("type_", ["user_changed_number", "customer_changed_number"])
    @pytest.mark.parametrize("told", [{"wa_id": NEW_WA_ID}, {"new_wa_id": int(NEW_WA_ID)}])
    @pytest.mark.parametrize("old", ["from", "customer"])
    def test_every_spelling_says_from_where_to_where(
        self, type_: str, told: Json, old: str
    ) -> None:
        element = system(type_, told=told)
        (element if old == "from" else element["system"])[old] = WA_ID
        assert events_of(messages=[element]) == (NumberChanged(WA_ID, NEW_WA_ID, AT),)

    def test_the_user_ids_of_both_are_named_and_are_what_changed(self) -> None:
        told = {
            "wa_id": NEW_WA_ID,
            "user_id": NEW_USER_ID,
            "parent_user_id": PARENT,
            "previous_user_id": USER_ID,
            "previous_parent_user_id": "US.ENT.1",
        }
        element = system("user_changed_number", told=told, **{"from": WA_ID})
        assert events_of(messages=[element]) == (
            AliasesSeen(USER_ID, WA_ID, "US.ENT.1", AT),
            AliasesSeen(NEW_USER_ID, NEW_WA_ID, PARENT, AT),
            NumberChanged(USER_ID, NEW_USER_ID, AT),
        )

    def test_a_sender_that_is_the_new_user_already_is_not_the_old_one(self) -> None:
        told = {"wa_id": NEW_WA_ID, "user_id": NEW_USER_ID}
        element = system(
            "user_changed_number", told=told, from_user_id=NEW_USER_ID, **{"from": WA_ID}
        )
        assert events_of(messages=[element])[-1] == NumberChanged(WA_ID, NEW_USER_ID, AT)

    def test_the_user_id_before_may_be_that_of_the_sender(self) -> None:
        told = {"wa_id": NEW_WA_ID, "user_id": NEW_USER_ID}
        element = system("user_changed_number", told=told, from_user_id=USER_ID)
        assert events_of(messages=[element])[-1] == NumberChanged(USER_ID, NEW_USER_ID, AT)

    def test_it_is_no_message_of_the_user(self) -> None:
        element = system("user_changed_number", told={"wa_id": NEW_WA_ID}, **{"from": WA_ID})
        assert not any(isinstance(event, UserWrote) for event in events_of(messages=[element]))

    @pytest.mark.parametrize(
        ("told", "sender", "fault"),
        [
            ({}, WA_ID, ".system: no new number and no new user id"),
            ({"wa_id": ""}, WA_ID, ".system: no new number and no new user id"),
            ({"wa_id": "a/b"}, WA_ID, ".system.wa_id: no usable name of a user"),
            ({"wa_id": NEW_WA_ID}, None, ".from: missing"),
            ({"wa_id": WA_ID}, WA_ID, ": the new number is the old one"),
        ],
    )
    def test_without_an_old_and_a_new_name_it_is_a_fault(
        self, told: Json, sender: str | None, fault: str
    ) -> None:
        element = system("user_changed_number", told=told, **{"from": sender})
        reading = read_value(messages=[element])
        assert reading.events == ()
        where = "entry[0].changes[0].value.messages[0]"
        assert [str(one) for one in reading.faults] == [f"{where}{fault}"]


class TestUserIdChanged:
    def test_it_says_which_user_id_followed_which(self) -> None:
        told = {"previous_user_id": USER_ID, "user_id": NEW_USER_ID}
        assert events_of(messages=[system("user_changed_user_id", told=told)]) == (
            AliasesSeen(USER_ID, None, None, AT),
            AliasesSeen(NEW_USER_ID, None, None, AT),
            NumberChanged(USER_ID, NEW_USER_ID, AT),
        )

    def test_a_number_that_stayed_belongs_to_the_new_user_id(self) -> None:
        told = {"previous_user_id": USER_ID, "user_id": NEW_USER_ID, "wa_id": WA_ID}
        element = system("user_changed_user_id", told=told, **{"from": WA_ID})
        assert events_of(messages=[element]) == (
            AliasesSeen(USER_ID, None, None, AT),
            AliasesSeen(NEW_USER_ID, WA_ID, None, AT),
            NumberChanged(USER_ID, NEW_USER_ID, AT),
        )

    def test_without_the_one_before_the_number_leads_to_the_new_one(self) -> None:
        told = {"user_id": NEW_USER_ID, "wa_id": WA_ID}
        element = system("user_changed_user_id", told=told, **{"from": WA_ID})
        assert events_of(messages=[element]) == (AliasesSeen(NEW_USER_ID, WA_ID, None, AT),)

    def test_without_the_one_before_and_a_number_it_is_a_fault(self) -> None:
        element = system("user_changed_user_id", told={"user_id": NEW_USER_ID})
        reading = read_value(messages=[element])
        assert (reading.events, len(reading.faults)) == ((), 1)


class TestIdentityChanged:
    @pytest.mark.parametrize("type_", ["customer_identity_changed", "user_identity_changed"])
    @pytest.mark.parametrize(
        "told",
        [
            {"identity": HASH},
            {"identity": {"hash": HASH}},
            {"identity": {"hash": HASH, "created_timestamp": "1749416383"}},
        ],
    )
    @pytest.mark.parametrize("user", ["customer", "user", "from"])
    def test_every_spelling_says_who_has_which_hash(
        self, type_: str, told: Json, user: str
    ) -> None:
        element = system(type_, told=told)
        (element if user == "from" else element["system"])[user] = WA_ID
        assert events_of(messages=[element]) == (seen(WA_ID),)

    @pytest.mark.parametrize("type_", ["customer_identity_changed", "brand_new"])
    def test_the_hash_may_stand_beside_the_system_object(self, type_: str) -> None:
        stamp = {"acknowledged": False, "created_timestamp": 1_749_416_000_123, "hash": HASH}
        element = system(type_, identity=stamp, **{"from": WA_ID})
        expected = IdentitySeen(WA_ID, HASH, Moment(1_749_416_000_123), AT)
        assert events_of(messages=[element]) == (expected,)
        del element["system"]
        assert events_of(messages=[element]) == (expected,)

    def test_user_ids_are_named(self) -> None:
        told = {"identity": HASH, "user_id": USER_ID, "customer": WA_ID}
        assert events_of(messages=[system("customer_identity_changed", told=told)]) == (
            AliasesSeen(USER_ID, WA_ID, None, AT),
            seen(USER_ID),
        )

    @pytest.mark.parametrize(
        ("told", "sender"),
        [
            ({"customer": WA_ID}, {"from": NEW_WA_ID}),
            ({"user": WA_ID, "customer": NEW_WA_ID}, {}),
            ({"user_id": USER_ID}, {"from_user_id": NEW_USER_ID}),
        ],
    )
    def test_two_different_users_are_a_fault(self, told: Json, sender: Json) -> None:
        element = system("customer_identity_changed", told=told | {"identity": HASH}, **sender)
        reading = read_value(messages=[element])
        assert reading.events == ()
        assert [fault.reason for fault in reading.faults] == [
            "system and from name different users"
        ]

    @pytest.mark.parametrize("told", [{}, {"identity": ""}, {"identity": 7}, {"identity": {}}])
    def test_without_a_usable_hash_it_is_a_fault(self, told: Json) -> None:
        element = system("customer_identity_changed", told=told, **{"from": WA_ID})
        reading = read_value(messages=[element])
        assert reading.events == (HashUnreadable(WA_ID, AT, "wamid.x"),)
        assert len(reading.faults) == 1

    def test_of_nobody_it_is_a_fault(self) -> None:
        reading = read_value(messages=[system("user_identity_changed", told={"identity": HASH})])
        assert [fault.reason for fault in reading.faults] == ["no user is named"]


class TestOtherSystemMessages:
    @pytest.mark.parametrize("type_", ["group_created", "brand_new", None, 7, []])
    def test_they_are_let_pass(self, type_: Any) -> None:
        assert read_value(messages=[system(type_, **{"from": WA_ID})]) == Reading(others=1)

    @pytest.mark.parametrize("inner", [None, "", [], "x", 7])
    def test_without_its_system_object_it_is_a_fault(self, inner: Any) -> None:
        reading = read_value(messages=[system("x") | {"system": inner}, message(**{"from": WA_ID})])
        assert [fault.reason for fault in reading.faults] == [
            "a system message without its system object"
        ]
        assert len(reading.events) == 1


class TestStandby:
    """What is told of conversations that another app has, such as Meta's own agent."""

    def test_it_is_read_like_what_the_app_itself_is_told(self) -> None:
        parts = {
            "contacts": [contact(wa_id=WA_ID, identity_key_hash=HASH)],
            "messages": [
                message(**{"from": WA_ID}),
                system("user_changed_number", told={"wa_id": NEW_WA_ID}, **{"from": WA_ID}),
            ],
            "statuses": [refused(recipient_id=WA_ID)],
        }
        expected = {"main": Reading(events_of(**parts))}
        for field in ("standby", "messages", None):
            assert read(webhook(change({"standby": parts}, field=field))) == expected
        assert read(webhook(change(parts, field="standby"))) == expected

    def test_the_number_may_stand_in_it(self) -> None:
        inner = {"metadata": metadata(OTHER_NUMBER_ID), "messages": [message(**{"from": WA_ID})]}
        expected = {"shop": Reading((UserWrote(WA_ID, AT),))}
        for outer in ({"metadata": None}, {"metadata": metadata()}):
            assert read(webhook(change(outer | {"standby": inner}, field="standby"))) == expected

    def test_both_parts_of_a_value_count(self) -> None:
        beside = {"statuses": [refused(recipient_id=NEW_WA_ID)]}
        inner = {"standby": {"messages": [message(**{"from": WA_ID})]}}
        told = HashRefused(NEW_WA_ID, AT, id_of(WA_ID)), UserWrote(WA_ID, AT)
        assert read_value(**beside, **inner).events == told

    def test_a_fault_says_where(self) -> None:
        where = "entry[0].changes[0].value.standby"
        [fault] = read_value(standby={"messages": [7]}).faults
        assert fault.where == f"{where}.messages[0]"
        readings = read(webhook(change({"standby": [7]}, field="standby")))
        assert readings == {"": Reading(faults=(Fault(where, "not an object"),))}
        [fault] = read(webhook(change({"metadata": {}, "standby": {}})))[""].faults
        assert fault.where == f"{where}.metadata.phone_number_id"

    def test_an_empty_one_is_let_pass(self) -> None:
        assert read_value(standby={}) == Reading(others=1)

    @pytest.mark.parametrize("field", ["standby", "messages", "smb_message_echoes"])
    def test_what_the_business_itself_wrote_is_of_no_user(self, field: str) -> None:
        echo = message(**{"from": "15550783881", "to": WA_ID}, identity={"hash": HASH})
        for value in ({"message_echoes": [echo]}, {"standby": {"message_echoes": [echo]}}):
            assert read(webhook(change(value, field=field))) == {"main": Reading(others=1)}

    def test_a_hash_beside_an_echo_is_of_its_contact_at_that_time(self) -> None:
        echo = message(**{"from": "15550783881", "to": WA_ID})
        inner = {
            "contacts": [contact(wa_id=WA_ID, identity_key_hash=HASH)],
            "message_echoes": [echo],
        }
        assert read_value(standby=inner).events == (seen(WA_ID),)

    def test_who_has_the_conversation_is_let_pass(self) -> None:
        for value in ({"recipient": metadata()}, {"messaging_handovers": [{}]}):
            told = {"field": "messaging_handovers", "value": value}
            assert read(webhook(told)) == {"": Reading(others=1)}


class TestTheSampleOfTheDashboard:
    @pytest.fixture
    def sample(self) -> Json:
        return dict(
            json.loads((PAYLOADS.parent / "reported" / "dashboard-sample.json").read_text())
        )

    def test_is_let_pass(self, sample: Json) -> None:
        assert read(sample) == {"": Reading(others=1)}

    def test_is_one_of_a_number_of_nobody_where_the_entry_is_a_real_one(self, sample: Json) -> None:
        sample["entry"][0]["id"] = "102290129340398"
        fault = Fault("", "no account has the number 123456123")
        assert read(sample) == {"": Reading(faults=(fault,))}


class TestStatus:
    @pytest.mark.parametrize("hash_", [7, "x" * 1025, "a\nb", []])
    @pytest.mark.parametrize("kind", ["sent", "delivered", "read", "failed"])
    def test_an_unusable_hash_is_a_fault_and_told_of_its_user(self, kind: str, hash_: Any) -> None:
        element = status(kind, recipient_id=WA_ID, recipient_identity_key_hash=hash_)
        reading = read_value(statuses=[element])
        assert reading.events == (HashUnreadable(WA_ID, AT, id_of(WA_ID)),)
        assert len(reading.faults) == 1

    def test_an_unusable_hash_of_nobody_is_only_a_fault(self) -> None:
        element = status(id="wamid.opaque", recipient_identity_key_hash=[])
        reading = read_value(statuses=[element])
        assert (reading.events, len(reading.faults)) == ((), 1)

    def test_a_hash_is_seen_as_in_a_message(self) -> None:
        element = status(
            "delivered",
            recipient_id=WA_ID,
            recipient_user_id=USER_ID,
            recipient_parent_user_id=PARENT,
            recipient_identity_key_hash=HASH,
        )
        assert events_of(statuses=[element]) == (
            AliasesSeen(USER_ID, WA_ID, PARENT, AT),
            seen(USER_ID),
        )

    @pytest.mark.parametrize("kind", ["sent", "delivered", "read", "failed", "brand_new", None, []])
    def test_whatever_the_status_is(self, kind: Any) -> None:
        element = status(kind, recipient_id=WA_ID, recipient_identity_key_hash=HASH)
        assert events_of(statuses=[element]) == (seen(WA_ID),)

    def test_a_hash_of_a_message_to_nobody_known_belongs_to_whom_its_id_names(self) -> None:
        assert events_of(statuses=[status("read", recipient_identity_key_hash=HASH)]) == (
            seen(WA_ID),
        )
        element = status("read", id=id_of(USER_ID), recipient_identity_key_hash=HASH)
        assert events_of(statuses=[element]) == (
            AliasesSeen(USER_ID, None, None, AT),
            seen(USER_ID),
        )

    def test_a_hash_of_nobody_is_a_fault(self) -> None:
        reading = read_value(statuses=[status("read", id="x", recipient_identity_key_hash=HASH)])
        assert [fault.reason for fault in reading.faults] == ["no user is named"]

    def test_a_plain_one_links_the_two_aliases_and_is_no_reason_to_keep_a_user(self) -> None:
        element = status("read", recipient_id=WA_ID, recipient_user_id=USER_ID)
        assert events_of(statuses=[element]) == (
            AliasesSeen(USER_ID, WA_ID, None, AT, creates=False),
        )

    @pytest.mark.parametrize("named", [{"recipient_id": WA_ID}, {"recipient_user_id": USER_ID}, {}])
    def test_a_plain_one_with_one_alias_is_let_pass(self, named: Json) -> None:
        assert read_value(statuses=[status("read", **named)]) == Reading(others=1)

    def test_a_naming_that_is_a_reason_is_told_after_one_that_is_none(self) -> None:
        element = status("read", recipient_id=WA_ID, recipient_user_id=USER_ID)
        hashed = element | {"recipient_identity_key_hash": HASH}
        assert events_of(statuses=[element, hashed, element]) == (
            AliasesSeen(USER_ID, WA_ID, None, AT, creates=False),
            AliasesSeen(USER_ID, WA_ID, None, AT),
            seen(USER_ID),
        )

    def test_contacts_complete_it(self) -> None:
        events = events_of(
            contacts=[contact(wa_id=WA_ID, user_id=USER_ID)],
            statuses=[status("read", recipient_id=WA_ID)],
        )
        assert events == (AliasesSeen(USER_ID, WA_ID, None, AT, creates=False),)

    def test_a_message_to_the_parent_id_is_for_the_user_of_the_contact(self) -> None:
        events = events_of(
            contacts=[contact(user_id=USER_ID, parent_user_id=PARENT)],
            statuses=[status("read", recipient_user_id=PARENT, recipient_identity_key_hash=HASH)],
        )
        assert events == (AliasesSeen(USER_ID, None, PARENT, AT), seen(USER_ID))

    def test_to_whom_messages_were_sent_and_delivered_is_counted(self) -> None:
        reading = read_value(
            statuses=[
                status("sent", recipient_id=WA_ID, recipient_user_id=USER_ID),
                status("sent", recipient_id="", recipient_user_id=USER_ID),
                status("delivered", recipient_id=NEW_WA_ID),
                status("delivered", recipient_id=7),
                status("sent"),
                status("read", recipient_id=WA_ID),
                7,
            ]
        )
        assert (reading.sent, reading.delivered) == ((WA_ID, USER_ID), (NEW_WA_ID,))

    def test_in_a_group_it_speaks_of_the_participant_never_of_the_group(self) -> None:
        group = {"recipient_id": "120363000000000000", "recipient_type": "group"}
        element = status(
            "delivered", recipient_participant_id=WA_ID, recipient_identity_key_hash=HASH, **group
        )
        reading = read_value(statuses=[element, status("sent", **group)])
        assert reading.events == (seen(WA_ID),)
        assert (reading.sent, reading.delivered, reading.others) == ((), (WA_ID,), 1)


class TestHashRefused:
    def test_it_says_to_whom_a_message_did_not_go(self) -> None:
        element = refused(recipient_id=WA_ID)
        assert events_of(statuses=[element]) == (HashRefused(WA_ID, AT, id_of(WA_ID)),)

    @pytest.mark.parametrize(
        "errors", [[{"code": "137000"}], [{"code": 1}, {"code": 137000}], ["x", {"code": 137000}]]
    )
    def test_by_its_code_alone_wherever_it_stands(self, errors: list[Any]) -> None:
        element = refused(recipient_id=WA_ID) | {"errors": errors}
        assert len(events_of(statuses=[element])) == 1

    @pytest.mark.parametrize(
        "others",
        [
            {"status": "read"},
            {"errors": [{"code": 131026, "title": "137000"}]},
            {"errors": []},
            {"errors": None},
            {"errors": {"code": 137000}},
        ],
    )
    def test_other_failures_are_let_pass(self, others: Json) -> None:
        assert read_value(statuses=[refused(recipient_id=WA_ID) | others]) == Reading(others=1)

    def test_it_may_say_the_new_hash_but_is_no_message_with_one(self) -> None:
        element = refused(recipient_id=WA_ID, recipient_identity_key_hash=NEW_HASH)
        expected = HashRefused(WA_ID, AT, id_of(WA_ID), NEW_HASH)
        assert events_of(statuses=[element]) == (expected,)
        opaque = refused(id="wamid.opaque", recipient_identity_key_hash=NEW_HASH)
        expected = HashRefused(None, AT, "wamid.opaque", NEW_HASH)
        assert events_of(statuses=[opaque]) == (expected,)

    @pytest.mark.parametrize("hash_", [7, "x" * 1025, "a\nb", []])
    def test_with_an_unusable_hash_it_is_a_fault_and_a_refusal_all_the_same(
        self, hash_: Any
    ) -> None:
        reading = read_value(
            statuses=[refused(recipient_id=WA_ID, recipient_identity_key_hash=hash_)]
        )
        told = HashRefused(WA_ID, AT, id_of(WA_ID)), HashUnreadable(WA_ID, AT)
        assert (reading.events, len(reading.faults)) == (told, 1)

    @pytest.mark.parametrize("hash_", [None, NEW_HASH])
    def test_its_user_is_named_but_not_for_that_reason_kept(self, hash_: str | None) -> None:
        names = {"recipient_id": WA_ID, "recipient_user_id": USER_ID}
        element = refused(recipient_identity_key_hash=hash_, **names)
        assert events_of(statuses=[element]) == (
            AliasesSeen(USER_ID, WA_ID, None, AT, creates=False),
            HashRefused(USER_ID, AT, id_of(WA_ID), hash_),
        )

    @pytest.mark.parametrize("alias", [WA_ID, USER_ID])
    def test_without_a_recipient_the_message_id_may_tell_it(self, alias: str) -> None:
        element = refused(id=id_of(alias))
        assert events_of(statuses=[element]) == (HashRefused(alias, AT, id_of(alias)),)

    def test_else_an_earlier_status_of_the_same_message_will(self) -> None:
        element = refused(id="wamid.opaque")
        assert events_of(statuses=[element]) == (HashRefused(None, AT, "wamid.opaque"),)

    @pytest.mark.parametrize("id_", [None, "", 7, "x" * 257, "a\nb"])
    def test_without_any_of_these_it_is_a_fault(self, id_: Any) -> None:
        reading = read_value(statuses=[refused(id=id_)])
        assert [str(fault) for fault in reading.faults] == [
            "entry[0].changes[0].value.statuses[0]: no user is named"
        ]


class TestMessageSent:
    @pytest.mark.parametrize("kind", ["sent", "delivered"])
    @pytest.mark.parametrize("id_", ["wamid.opaque", id_of(NEW_WA_ID), "gBGG"])
    def test_it_is_told_where_the_id_does_not_lead_to_the_recipient(
        self, kind: str, id_: str
    ) -> None:
        element = status(kind, id=id_, recipient_user_id=USER_ID)
        assert events_of(statuses=[element]) == (MessageSent(USER_ID, id_, AT),)

    @pytest.mark.parametrize(
        ("id_", "named"),
        [
            (id_of(WA_ID), {"recipient_id": WA_ID}),
            (id_of(USER_ID), {"recipient_user_id": USER_ID}),
        ],
    )
    def test_it_is_not_where_the_id_does(self, id_: str, named: Json) -> None:
        assert events_of(statuses=[status("sent", id=id_, **named)]) == ()

    @pytest.mark.parametrize("kind", ["read", "played", "failed", None])
    def test_later_statuses_say_nothing_new(self, kind: Any) -> None:
        assert events_of(statuses=[status(kind, id="wamid.opaque", recipient_id=WA_ID)]) == ()

    @pytest.mark.parametrize("id_", [None, "", 7, "x" * 257, "\ud800"])
    def test_an_id_that_is_not_fit_to_be_kept_is_not(self, id_: Any) -> None:
        assert events_of(statuses=[status("sent", id=id_, recipient_id=WA_ID)]) == ()


class TestMessageId:
    @pytest.mark.parametrize(
        ("id_", "alias"),
        [
            ("wamid.HBgLMTY1MDM4Nzk0MzkVAgASGBQzQTRBNjU5OUFFRTAzODEwMTQ0RgA=", "16503879439"),
            ("wamid.HBgLMTk4MzU1NTE5NzQVAgASGAoxMTgyMDg2MjY3AA==", "19835551974"),
            ("wamid." + base64.urlsafe_b64encode(b"\x1c\x18\x0516505\x15>>>???").decode(), "16505"),
            (id_of("BR.1180955320860988", b"\x15\x14"), "BR.1180955320860988"),
        ],
    )
    def test_it_tells_the_number_or_the_user_id_that_it_holds(self, id_: str, alias: str) -> None:
        assert cloud_users.recipient_in_id(id_) == alias

    @pytest.mark.parametrize(
        "id_",
        [
            "wamid.HBgLVVMuMTM0OTEyMDg2NTUVAgASGBQ",
            "wamid.HBgNMTU1NTEyMzQ1NjcVAgASGBQzQUYwMDAwMDAwMDAwMDAwMDAA",
            "HBgLMTY1MDM4Nzk0MzkVAgASGBQzQTRBNjU5OUFFRTAzODEwMTQ0RgA=",
            "wamid.",
            "wamid.HBg",
            "wamid.HBgL",
            "wamid.HBgLMTY1",
            "wamid.é",
            "wamid.A",
            "wamid.not base64 at all!",
            id_of("120363000000000000"),
            id_of("1650"),
            id_of("a name"),
            id_of("1" * 200),
            "wamid." + base64.b64encode(b"\x1c\x18\x05\xff\xfe\xfd\xfc\xfb\x15").decode(),
        ],
    )
    def test_it_tells_nothing_that_it_does_not_surely_hold(self, id_: str) -> None:
        assert cloud_users.recipient_in_id(id_) is None


class TestValue:
    def test_all_of_its_parts_are_read_whatever_comes_together(self) -> None:
        reading = read_value(
            errors=[{"code": 131000}],
            statuses=[refused(recipient_id=WA_ID)],
            messages=[
                message(**{"from": WA_ID}),
                system("user_changed_number", told={"wa_id": NEW_WA_ID}, **{"from": WA_ID}),
            ],
            contacts=[contact(wa_id=WA_ID, identity_key_hash=HASH)],
            unknown=[1, 2],
        )
        assert [type(event) for event in reading.events] == [
            IdentitySeen,
            UserWrote,
            NumberChanged,
            HashRefused,
        ]
        assert (reading.faults, reading.others) == ((), 1)

    @pytest.mark.parametrize("value", [{"errors": [{"code": 1}]}, {}, {"groups": [1]}])
    def test_with_nothing_of_ours_it_is_let_pass(self, value: Json) -> None:
        assert read_value(**value) == Reading(others=1)

    @pytest.mark.parametrize("key", ["contacts", "messages", "statuses", "errors"])
    @pytest.mark.parametrize("part", [{}, "text", 7, True])
    def test_a_part_that_is_no_array_is_a_fault_and_the_others_count(
        self, key: str, part: Any
    ) -> None:
        good = {
            "statuses": [refused(recipient_id=WA_ID)],
            "messages": [message(**{"from": WA_ID})],
        }
        reading = read_value(**(good | {key: part}))
        assert reading.faults == (Fault(f"entry[0].changes[0].value.{key}", "not an array"),)
        assert len(reading.events) == (1 if key in good else 2)

    def test_very_many_contacts_of_one_user_tell_little_more_than_its_messages(self) -> None:
        cards = [contact(wa_id=WA_ID, identity_key_hash=f"hash {i}") for i in range(1000)]
        messages = [message(timestamp=1_749_416_383 + i, **{"from": WA_ID}) for i in range(1000)]
        reading = read_value(contacts=cards, messages=messages)
        hashes = {event.hash for event in reading.events if isinstance(event, IdentitySeen)}
        assert hashes == {"hash 0", "hash 1"}
        assert len(reading.events) == 1_004
        assert len(reading.faults) + reading.more_faults == 998

    def test_very_many_users_of_one_number_are_not_all_told_at_each_of_its_messages(self) -> None:
        cards = [
            contact(wa_id=WA_ID, user_id=f"US.{i}", identity_key_hash=f"hash {i}")
            for i in range(1000)
        ]
        messages = [message(timestamp=1_749_416_383 + i, **{"from": WA_ID}) for i in range(1000)]
        events = events_of(contacts=cards, messages=messages)
        users = {event.user for event in events if isinstance(event, IdentitySeen)}
        assert users == {f"US.{i}" for i in range(1000)}
        assert len(events) < 4_000

    def test_a_hash_that_was_told_at_its_own_message_takes_no_time_of_another(self) -> None:
        card = contact(user_id=USER_ID, identity_key_hash=HASH)
        cards = [card | {"wa_id": f"1650555100{i}"} for i in range(10)]
        own = message(from_user_id=USER_ID, timestamp="1749416384")
        events = events_of(contacts=cards, messages=[own, message(**{"from": NEW_WA_ID})])
        assert [event for event in events if isinstance(event, IdentitySeen)] == [
            seen(USER_ID, at=LATER)
        ]

    def test_contacts_that_say_the_same_are_told_once(self) -> None:
        card = contact(wa_id=WA_ID, user_id=USER_ID, identity_key_hash=HASH)
        cards = [card | {"profile": {"name": str(i)}} for i in range(100)]
        cards += [card | {"wa_id": f"1650555{i}"} for i in range(1000, 1100)]
        events = events_of(contacts=cards, messages=[message(from_user_id=NEW_USER_ID)])
        assert [event for event in events if isinstance(event, IdentitySeen)] == [seen(USER_ID)]
        assert sum(isinstance(event, AliasesSeen) for event in events) == 102
