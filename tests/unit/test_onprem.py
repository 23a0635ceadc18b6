"""The callbacks of the On-Premises API: every shape of the wire, and what is broken in them."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from service.dialects import onprem
from service.model.events import (
    ContactChecked,
    Fault,
    HashUnreadable,
    IdentitySeen,
    NumberChanged,
    Reading,
    SendBlocked,
    UserWrote,
)
from service.model.timeline import Moment, Precision

PAYLOADS = Path(__file__).parent.parent / "payloads" / "onprem"
WA_ID, NEW = "16315553601", "16315553602"
HASH = "Rc/eg9Rl0JA="
AT = Moment(1_602_535_356_000, Precision.SECOND)

Json = dict[str, Any]


def read(callback: Any) -> Reading:
    return onprem.read("application/json", "", json.dumps(callback).encode())


def identity_changed(system: Json | None = None, **others: Any) -> Json:
    return {
        "from": WA_ID,
        "id": "no-hint",
        "timestamp": "1602535356",
        "type": "system",
        "system": {"type": "user_identity_changed", "identity": HASH, "user": WA_ID}
        | (system or {}),
    } | others


def number_changed(system: Json | None = None, **others: Any) -> Json:
    return {
        "from": WA_ID,
        "timestamp": "1602535356",
        "type": "system",
        "system": {"type": "user_changed_number", "new_wa_id": NEW} | (system or {}),
    } | others


def message(identity: Any = None, **others: Any) -> Json:
    stamp = {} if identity is None else {"identity": identity}
    return {"from": WA_ID, "timestamp": "1602535356", "type": "text"} | stamp | others


def blocked(**others: Any) -> Json:
    status = {"status": "failed", "recipient_id": WA_ID, "id": "m1", "timestamp": "1602535356"}
    return status | {"errors": [{"code": 480, "title": "identity change"}]} | others


def without(element: Json, *keys: str) -> Json:
    return {key: value for key, value in element.items() if key not in keys}


def message_id(text: str, prefix: bytes = b"\x00\x11\x86\x16\x31\x55\x53\x60\x1f\x03/") -> str:
    return base64.urlsafe_b64encode(prefix + text.encode()).rstrip(b"=").decode()


PAYLOAD_READINGS = {
    "identity-changed": Reading((IdentitySeen(WA_ID, HASH, Moment(1_602_535_356_332)),)),
    "message-with-identity": Reading(
        (
            IdentitySeen(
                WA_ID,
                "Sjvjlx8G6Z0=",
                Moment(1_602_532_300_000),
                Moment(1_602_532_300_000, Precision.SECOND),
                acknowledged=True,
            ),
            UserWrote(WA_ID, Moment(1_602_532_300_000, Precision.SECOND)),
        ),
        others=1,
    ),
    "status-blocked": Reading((SendBlocked(WA_ID, AT, "gBGGFjFVU2AfAgldhhKwWDGSrTs"),)),
    "number-changed": Reading(
        (NumberChanged("16315558889", "16315558890", Moment(1_574_080_102_213)),)
    ),
    "contact-check": Reading(
        (
            ContactChecked("+1 631 555 1001", "valid", "16315551001"),
            ContactChecked("6315551002", "invalid", None),
        )
    ),
    "text": Reading(
        (UserWrote("79944065555", Moment(1_628_770_488_000, Precision.SECOND)),), others=1
    ),
    "status-delivered": Reading(others=1, delivered=("16315555555",)),
    "error": Reading(others=1),
}


@pytest.mark.parametrize("name", sorted(path.stem for path in PAYLOADS.glob("*.json")))
def test_metas_own_examples_are_understood(name: str) -> None:
    body = (PAYLOADS / f"{name}.json").read_bytes()
    assert onprem.read("application/json", "", body) == PAYLOAD_READINGS[name]


class TestWhatWeSendOurselves:
    def test_a_callback_of_the_doctor_says_nothing_and_is_known_as_that(self) -> None:
        assert read({"ackgate-doctor": {"id": "1"}}) == Reading(synthetic=True)

    @pytest.mark.parametrize("other", [{"messages": []}, {"anything": 1}])
    def test_whatever_else_is_in_a_body_makes_it_a_callback_like_any(self, other: Json) -> None:
        assert not read({"ackgate-doctor": {}, **other}).synthetic

    def test_its_key_hides_no_event(self) -> None:
        reading = read({"ackgate-doctor": {}, "statuses": [blocked()]})
        assert not reading.synthetic
        assert reading.events


class TestIdentityChanged:
    def test_it_says_who_has_which_hash_since_when(self) -> None:
        reading = read({"messages": [identity_changed()]})
        assert reading == Reading((IdentitySeen(WA_ID, HASH, AT),))

    @pytest.mark.parametrize("body", [{}, {"body": "may have changed"}, {"body": 7, "new": {}}])
    def test_a_body_and_unknown_keys_are_normal(self, body: Json) -> None:
        assert len(read({"messages": [identity_changed(body, extra=[1])]}).events) == 1

    def test_it_speaks_of_system_user_else_of_from(self) -> None:
        by_from = identity_changed()
        del by_from["system"]["user"]
        for element in (without(identity_changed(), "from"), by_from):
            assert read({"messages": [element]}).events == (IdentitySeen(WA_ID, HASH, AT),)

    def test_both_and_different_is_a_fault(self) -> None:
        reading = read({"messages": [identity_changed({"user": NEW})]})
        fault = Fault("messages[0]", "system.user and from name different users")
        assert reading == Reading(faults=(fault,))

    def test_neither_is_a_fault(self) -> None:
        element = without(identity_changed({"user": None}), "from")
        reading = read({"messages": [element]})
        assert reading.faults == (Fault("messages[0]", "no user is named"),)

    def test_a_number_where_a_wa_id_is_documented_as_text_is_read(self) -> None:
        element = identity_changed({"user": int(WA_ID)}, **{"from": int(WA_ID)})
        assert read({"messages": [element]}).events == (IdentitySeen(WA_ID, HASH, AT),)

    @pytest.mark.parametrize("hash_", ["", "x" * 1025, "x" * 10_000, "a\nb", "\x00", "\ud800", 7])
    def test_an_unusable_hash_is_a_fault_and_told_of_its_user(self, hash_: Any) -> None:
        reading = read({"messages": [identity_changed({"identity": hash_}, id="m1")]})
        assert reading.events == (HashUnreadable(WA_ID, AT, "m1"),)
        assert [fault.where for fault in reading.faults] == ["messages[0].system.identity"]

    @pytest.mark.parametrize("hash_", [HASH, "x" * 1024, "with space", "é", "+/="])
    def test_a_hash_is_opaque(self, hash_: str) -> None:
        (seen,) = read({"messages": [identity_changed({"identity": hash_})]}).events
        assert isinstance(seen, IdentitySeen)
        assert seen.hash == hash_

    def test_no_hash_is_a_fault(self) -> None:
        element = identity_changed()
        del element["system"]["identity"]
        reading = read({"messages": [element]})
        assert [type(event) for event in reading.events] == [HashUnreadable]
        assert reading.faults == (Fault("messages[0].system.identity", "missing"),)

    def test_of_a_user_who_cannot_be_read_it_is_only_a_fault(self) -> None:
        for system in ({"user": "a/b"}, {"user": NEW}):
            reading = read({"messages": [identity_changed({"identity": ["x"]} | system)]})
            assert (reading.events, len(reading.faults)) == ((), 1)

    @pytest.mark.parametrize(
        "wa_id", ["a/b", "a\x00", "😀", "\ud800", "", "x" * 141, "../x", True, 1.5, [], "1\n", "+1"]
    )
    def test_an_unusable_wa_id_is_a_fault(self, wa_id: Any) -> None:
        element = identity_changed({"user": wa_id}, **{"from": wa_id})
        reading = read({"messages": [element]})
        assert reading.events == ()
        assert len(reading.faults) == 1

    @pytest.mark.parametrize(
        "timestamp", ["soon", "", None, -1, "-1", 0, "9" * 16, 10**30, [], 1.5]
    )
    def test_an_unreadable_timestamp_leaves_the_arrival_to_go_by(self, timestamp: Any) -> None:
        (seen,) = read({"messages": [identity_changed(timestamp=timestamp)]}).events
        assert seen == IdentitySeen(WA_ID, HASH, None)

    def test_a_timestamp_may_be_a_number(self) -> None:
        (seen,) = read({"messages": [identity_changed(timestamp=1602535356)]}).events
        assert seen == IdentitySeen(WA_ID, HASH, AT)


class TestTheMillisecondInTheMessageId:
    def changed(self, id_: Any) -> Moment | None:
        (seen,) = read({"messages": [identity_changed(id=id_)]}).events
        assert isinstance(seen, IdentitySeen)
        return seen.changed

    def test_it_outranks_the_timestamp(self) -> None:
        id_ = message_id(f"sys-{WA_ID}@s.whatsapp.net-1602535356332-identity")
        assert self.changed(id_) == Moment(1_602_535_356_332)

    @pytest.mark.parametrize("prefix", [b"", b"\xff\xfe\xfd", b"anything", b"sys", b"-" * 40])
    def test_what_comes_before_it_does_not_matter(self, prefix: bytes) -> None:
        id_ = message_id(f"sys-{WA_ID}@s.whatsapp.net-1602535356332-identity", prefix)
        assert self.changed(id_) == Moment(1_602_535_356_332)

    @pytest.mark.parametrize(
        "id_",
        [
            message_id(f"sys-{NEW}@s.whatsapp.net-1602535356332-identity"),
            message_id(f"sys-{WA_ID}@s.whatsapp.net-0-identity"),
            message_id(f"sys-{WA_ID}@s.whatsapp.net-{10**15 - 1}-identity"),
            message_id(f"sys-{WA_ID}@s.whatsapp.net-{10**16}-identity"),
            message_id(f"sys-{WA_ID}@s.whatsapp.net-soon-identity"),
            message_id("random"),
            "not base64 at all!",
            "é",
            "\ud800",
            "A",
            "",
            "x" * 100_000,
            7,
            None,
            ["id"],
        ],
    )
    def test_a_hint_that_is_none_leaves_the_timestamp(self, id_: Any) -> None:
        assert self.changed(id_) == AT


class TestNumberChanged:
    def test_it_says_from_where_to_where(self) -> None:
        reading = read({"messages": [number_changed()]})
        assert reading == Reading((NumberChanged(WA_ID, NEW, AT),))

    def test_the_new_number_may_be_a_number(self) -> None:
        (moved,) = read({"messages": [number_changed({"new_wa_id": int(NEW)})]}).events
        assert moved == NumberChanged(WA_ID, NEW, AT)

    def test_to_the_same_number_is_a_fault(self) -> None:
        reading = read({"messages": [number_changed({"new_wa_id": WA_ID})]})
        assert reading.faults == (Fault("messages[0]", "the new number is the old one"),)

    @pytest.mark.parametrize("new_wa_id", [None, "", "a/b", {}])
    def test_without_a_usable_new_number_it_is_a_fault(self, new_wa_id: Any) -> None:
        reading = read({"messages": [number_changed({"new_wa_id": new_wa_id})]})
        assert (reading.events, len(reading.faults)) == ((), 1)

    def test_without_the_old_number_it_is_a_fault(self) -> None:
        reading = read({"messages": [without(number_changed(), "from")]})
        assert reading.faults == (Fault("messages[0].from", "missing"),)


class TestMessage:
    def test_it_says_that_the_user_wrote(self) -> None:
        assert read({"messages": [message()]}) == Reading((UserWrote(WA_ID, AT),))

    @pytest.mark.parametrize(
        "type_",
        ["text", "image", "voice", "contacts", "order", "unknown", "brand_new", None, 7],
    )
    def test_whatever_its_type(self, type_: Any) -> None:
        element = message(type=type_, contacts=[{"name": {}}])
        assert read({"messages": [element]}) == Reading((UserWrote(WA_ID, AT),))

    @pytest.mark.parametrize(
        ("said", "acknowledged"),
        [
            (True, True),
            (False, False),
            ("true", True),
            ("False", False),
            (None, None),
            ("yes", None),
            (1, None),
            ({}, None),
        ],
    )
    def test_its_stamp_says_which_hash_and_whether_acknowledged(
        self, said: Any, acknowledged: bool | None
    ) -> None:
        stamp = {"hash": HASH, "created_timestamp": 1_602_532_300_123, "acknowledged": said}
        seen, wrote = read({"messages": [message(stamp)]}).events
        assert seen == IdentitySeen(WA_ID, HASH, Moment(1_602_532_300_123), AT, acknowledged)
        assert wrote == UserWrote(WA_ID, AT)

    @pytest.mark.parametrize("created", [None, "soon", 0, -5, 10**15, 1.5, True])
    def test_without_a_time_in_the_stamp_the_messages_own_counts(self, created: Any) -> None:
        stamp = {"hash": HASH, "created_timestamp": created}
        seen, _ = read({"messages": [message(stamp)]}).events
        assert seen == IdentitySeen(WA_ID, HASH, AT, AT)

    def test_the_time_in_the_stamp_may_be_text(self) -> None:
        stamp = {"hash": HASH, "created_timestamp": "1602532300123"}
        seen, _ = read({"messages": [message(stamp)]}).events
        assert isinstance(seen, IdentitySeen)
        assert seen.changed == Moment(1_602_532_300_123)

    @pytest.mark.parametrize("stamp", [{}, {"hash": ""}, {"hash": 7}, "hash", []])
    def test_an_unreadable_stamp_is_a_fault_and_told_and_the_user_wrote(self, stamp: Any) -> None:
        element = message(stamp, id="m1")
        said = Moment(int(element["timestamp"]) * 1000, Precision.SECOND)
        reading = read({"messages": [element]})
        told = HashUnreadable(WA_ID, said, "m1")
        assert reading.events == (UserWrote(WA_ID, said), told)
        assert len(reading.faults) == 1

    def test_it_never_speaks_of_the_contact_beside_it(self) -> None:
        card = {"profile": {"name": "Kerry"}, "wa_id": NEW}
        reading = read({"contacts": [card], "messages": [message({"hash": HASH})]})
        assert {event.user for event in reading.events} == {WA_ID}
        assert reading.others == 1

    def test_without_a_sender_and_a_stamp_it_is_nothing_of_ours(self) -> None:
        assert read({"messages": [{"type": "text"}]}) == Reading(others=1)

    def test_a_stamp_without_a_sender_is_a_fault(self) -> None:
        reading = read({"messages": [without(message({"hash": HASH}), "from")]})
        assert reading.faults == (Fault("messages[0].from", "missing"),)


class TestSystem:
    @pytest.mark.parametrize("type_", ["group_created", "group_user_joined", "brand_new", None, 7])
    def test_every_other_system_message_is_let_pass(self, type_: Any) -> None:
        element = identity_changed({"type": type_})
        assert read({"messages": [element]}) == Reading(others=1)

    def test_it_is_known_by_its_system_object_too(self) -> None:
        assert len(read({"messages": [without(identity_changed(), "type")]}).events) == 1

    @pytest.mark.parametrize("system", [None, [], "x", 7])
    def test_without_its_system_object_it_is_a_fault(self, system: Any) -> None:
        reading = read({"messages": [identity_changed(), {"type": "system", "system": system}]})
        assert len(reading.events) == 1
        assert reading.faults == (
            Fault("messages[1]", "a system message without its system object"),
        )


class TestStatus:
    def test_a_480_says_to_whom_a_message_did_not_go(self) -> None:
        assert read({"statuses": [blocked()]}) == Reading((SendBlocked(WA_ID, AT, "m1"),))

    @pytest.mark.parametrize(
        "errors", [[{"code": "480"}], [{"code": 1}, {"code": 480}], ["x", None, {"code": 480}]]
    )
    def test_among_other_errors_and_as_text_too(self, errors: list[Any]) -> None:
        assert len(read({"statuses": [blocked(errors=errors)]}).events) == 1

    @pytest.mark.parametrize(
        "status",
        [
            blocked(status="read"),
            blocked(status=None),
            blocked(errors=[{"code": 470}]),
            blocked(errors=[]),
            blocked(errors=None),
            blocked(errors={"code": 480}),
            blocked(errors=[480]),
            {},
        ],
    )
    def test_everything_else_is_let_pass(self, status: Json) -> None:
        assert read({"statuses": [status]}) == Reading(others=1)

    def test_to_whom_messages_were_sent_and_delivered_is_noted(self) -> None:
        sent = {"status": "sent", "recipient_id": WA_ID}
        delivered = {"status": "delivered", "recipient_id": "16315550002"}
        noted = read({"statuses": [sent, delivered, sent, sent | {"recipient_id": 7}, 7]})
        assert (noted.sent, noted.delivered) == ((WA_ID, WA_ID), ("16315550002",))
        assert not noted.events

    @pytest.mark.parametrize("recipient_id", [None, "a/b", ""])
    def test_without_a_usable_recipient_it_is_a_fault(self, recipient_id: Any) -> None:
        reading = read({"statuses": [blocked(recipient_id=recipient_id)]})
        assert [fault.where for fault in reading.faults] == ["statuses[0].recipient_id"]

    @pytest.mark.parametrize("top", [{}, {"recipient_id": None}, {"recipient_id": ""}])
    def test_the_recipient_may_stand_in_the_message_of_a_status(self, top: Json) -> None:
        inside = {"message": {"recipient_id": WA_ID}, "type": "message"} | top
        element = without(blocked(), "recipient_id") | inside
        assert read({"statuses": [element]}) == Reading((SendBlocked(WA_ID, AT, "m1"),))
        sent = without(element, "errors") | {"status": "sent"}
        noted = read({"statuses": [sent, sent | {"status": "delivered"}]})
        assert (noted.sent, noted.delivered, noted.others) == ((WA_ID,), (WA_ID,), 2)

    def test_the_recipient_of_the_status_itself_comes_first(self) -> None:
        element = blocked(message={"recipient_id": NEW})
        assert read({"statuses": [element]}) == Reading((SendBlocked(WA_ID, AT, "m1"),))

    @pytest.mark.parametrize("message", [{"recipient_id": "a/b"}, {"recipient_id": ["x"]}])
    def test_an_unusable_recipient_in_the_message_is_a_fault(self, message: Json) -> None:
        reading = read({"statuses": [without(blocked(), "recipient_id") | {"message": message}]})
        assert [fault.where for fault in reading.faults] == ["statuses[0].message.recipient_id"]

    @pytest.mark.parametrize("id_", [None, 7, "x" * 257, "a\nb", "\ud800"])
    def test_an_id_that_is_not_fit_to_be_kept_is_not(self, id_: Any) -> None:
        assert read({"statuses": [blocked(id=id_)]}).events == (SendBlocked(WA_ID, AT, None),)


class TestContacts:
    @pytest.mark.parametrize("status", ["valid", "invalid", "processing", "failed", "brand_new"])
    def test_a_status_makes_it_the_result_of_a_check(self, status: str) -> None:
        check = {"input": "+1 631 555 1001", "status": status, "wa_id": WA_ID}
        expected = Reading((ContactChecked("+1 631 555 1001", status, WA_ID),))
        assert read({"contacts": [check], "meta": {"version": "2.45"}}) == expected

    @pytest.mark.parametrize(
        "card",
        [
            {"profile": {"name": "Kerry"}, "wa_id": WA_ID},
            {"profile": {}, "input": "x"},
            {"input": "+1", "wa_id": WA_ID},
            {},
        ],
    )
    def test_the_card_of_a_sender_and_the_answer_to_a_send_are_let_pass(self, card: Json) -> None:
        assert read({"contacts": [card]}) == Reading(others=1)

    @pytest.mark.parametrize(
        "check",
        [
            {"status": "valid"},
            {"input": "", "status": "valid"},
            {"input": "x" * 257, "status": "valid"},
            {"input": "a\x00", "status": "valid"},
            {"input": "\ud800", "status": "valid"},
            {"input": 7, "status": "valid"},
            {"input": "+1", "status": "VALID"},
            {"input": "+1", "status": None},
            {"input": "+1", "status": "valid", "wa_id": "a/b"},
        ],
    )
    def test_an_unreadable_check_is_a_fault(self, check: Json) -> None:
        reading = read({"contacts": [check]})
        assert (reading.events, len(reading.faults)) == ((), 1)


class TestTheWholeCallback:
    def test_all_of_its_parts_are_read_whatever_comes_together(self) -> None:
        callback = {
            "errors": [{"code": 400}],
            "statuses": [blocked()],
            "messages": [message(), identity_changed(), number_changed()],
            "contacts": [{"input": "+1", "status": "valid"}],
            "unknown": [1, 2],
        }
        reading = read(callback)
        assert [type(event) for event in reading.events] == [
            ContactChecked,
            UserWrote,
            IdentitySeen,
            NumberChanged,
            SendBlocked,
        ]
        assert (reading.faults, reading.others) == ((), 1)

    @pytest.mark.parametrize("callback", [{}, {"messages": None}, {"messages": []}, {"meta": {}}])
    def test_an_empty_one_is_nothing_wrong(self, callback: Json) -> None:
        assert read(callback) == Reading()

    @pytest.mark.parametrize("key", ["contacts", "messages", "statuses", "errors"])
    @pytest.mark.parametrize("part", [{}, "text", 7, True, {"0": {}}])
    def test_a_part_that_is_no_array_is_a_fault_and_the_others_count(
        self, key: str, part: Any
    ) -> None:
        good = {"statuses": [blocked()], "messages": [message()]}
        reading = read(good | {key: part})
        assert reading.faults == (Fault(key, "not an array"),)
        assert len(reading.events) == (1 if key in good else 2)

    def test_one_message_twice_in_one_body_is_told_twice(self) -> None:
        assert len(read({"messages": [identity_changed(), identity_changed()]}).events) == 2

    def test_a_fault_says_where(self) -> None:
        reading = read({"messages": [message(), 7, message(), None]})
        assert [str(fault) for fault in reading.faults] == [
            "messages[1]: not an object",
            "messages[3]: not an object",
        ]

    def test_a_body_that_cant_be_read_is_one_fault(self) -> None:
        assert onprem.read("application/json", "", b"{") == Reading(
            faults=(Fault("", "the body is no JSON"),)
        )
        assert str(onprem.read("text/plain", "", b"{}").faults[0]) == (
            "the media type is not application/json"
        )

    def test_long_integers_and_nan_spoil_only_their_element(self) -> None:
        body = (
            b'{"messages":[{"from":"1","timestamp":' + b"9" * 5_000 + b"},"
            b'{"from":NaN},{"from":' + b"1" * 5_000 + b'},{"from":"2","timestamp":Infinity}]}'
        )
        reading = onprem.read("application/json", "", body)
        assert reading.events == (UserWrote("1", None), UserWrote("2", None))
        assert len(reading.faults) == 2


class TestWebhooksOfTheCloudApi:
    @pytest.mark.parametrize(
        "top", [{"object": "whatsapp_business_account"}, {"entry": []}, {"object": 7, "entry": 7}]
    )
    def test_are_a_fault_and_nothing_in_them_is_read(self, top: Json) -> None:
        reading = read(top | {"messages": [identity_changed()], "statuses": [blocked()]})
        assert reading == Reading(faults=(Fault("", onprem.OF_CLOUD),))
