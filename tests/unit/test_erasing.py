"""What is about one user is taken out of a callback, and its neighbours stay."""

import json
from typing import Any

import pytest

from service.dialects.erasing import ERASED, Names, about, erase

MINE = Names({"16315551001", "US.1349", "+1 (631) 555-1002"})
OTHER = "16315559999"


def cloud(*messages: Any, contacts: Any = ()) -> dict[str, Any]:
    value = {"metadata": {"phone_number_id": "1"}, "messages": [*messages]}
    value["contacts"] = [*contacts]
    change = {"field": "messages", "value": value}
    return {"object": "whatsapp_business_account", "entry": [{"id": "0", "changes": [change]}]}


def erased(value: Any) -> Any:
    left = erase(json.dumps(value).encode(), "", MINE)
    return left if left is None or left == ERASED else json.loads(left)


THEIRS = {"from": OTHER, "text": {"body": "16315551001234 is another number"}}


def test_a_callback_about_the_user_alone_is_emptied() -> None:
    contact = {"wa_id": "16315551001", "profile": {"name": "A name"}}
    assert erased(cloud({"from": "16315551001"}, contacts=[contact])) == ERASED
    assert erased({"contacts": [{"input": "+1 631 555 1001", "status": "processing"}]}) == ERASED
    assert erased({"from": "16315551001", "text": "no array at all"}) == ERASED


def test_neighbours_in_the_same_callback_stay() -> None:
    theirs = {"wa_id": OTHER, "profile": {"name": "Theirs"}}
    mine = {"user_id": "US.1349", "profile": {"name": "Mine"}}
    both = cloud({"from": "16315551001"}, THEIRS, contacts=[mine, theirs])
    assert erased(both) == cloud(THEIRS, contacts=[theirs])
    assert erased(cloud(THEIRS, contacts=[theirs])) is None


def test_only_the_innermost_element_goes() -> None:
    card = {"phones": [{"wa_id": "16315551001"}, {"wa_id": OTHER}], "name": "x"}
    shared = {"from": OTHER, "contacts": [card]}
    left = {"from": OTHER, "contacts": [{"phones": [{"wa_id": OTHER}], "name": "x"}]}
    assert erased(cloud(shared)) == cloud(left)


def test_a_text_that_holds_the_name_as_a_word_names_the_user() -> None:
    said = {"from": OTHER, "system": {"body": "User A changed from 16315551001 to 2"}}
    assert erased({"messages": [said, THEIRS]}) == {"messages": [THEIRS]}


@pytest.mark.parametrize(
    ("body", "left"),
    [
        (b"16315551001, not JSON", ERASED),
        (b"\xff 16315551001", ERASED),
        (b'{"a": 163155510012, "cut', None),
        (b"[" * 100_000 + b'"16315551001"', ERASED),
        (b'{"a":[16315551001,"b"]}', b'{"a":["b"]}'),
        (
            b'{"a":["16315551001",123456789012345678901234567890,1.10,-0.0,1e5,"\xc3\xa9",null]}',
            b'{"a":[123456789012345678901234567890,1.10,-0.0,1e5,"\xc3\xa9",null]}',
        ),
        (b'{"a":["\\u00316315551001","\\ud800"]}', b'{"a":["\\ud800"]}'),
    ],
)
def test_whatever_a_body_is(body: bytes, left: bytes | None) -> None:
    assert erase(body, "", MINE) == left


def test_a_compressed_body_is_looked_through_as_it_is() -> None:
    assert erase(b"\x1f\x8b 16315551001", "gzip", MINE) == ERASED


def test_what_is_about_the_user_is_told_and_nothing_of_others() -> None:
    mine = {"from": "16315551001", "text": {"body": "hello"}}
    assert about(json.dumps(cloud(mine, THEIRS)).encode(), "", MINE) == [mine]
    assert about(json.dumps(cloud(THEIRS)).encode(), "", MINE) is None
    assert about(b"16315551001 x", "", MINE) == ["16315551001 x"]


@pytest.mark.parametrize(
    "spelled",
    [
        "+1 (631) 555-1001",
        "BEGIN:VCARD\r\nTEL;type=CELL:\u202a+1\u00a0(631)\u00a0555\u201110\u00a001\u202c\r\nEND:VCARD",
        "call 001 631.555.1001, please",
        "call 0016315551001",
    ],
)
def test_a_number_is_found_however_it_is_written(spelled: str) -> None:
    card = {"from": OTHER, "vcard": spelled}
    assert erased(cloud(card, THEIRS)) == cloud(THEIRS)
    assert erase(spelled.encode(), "", MINE) == ERASED


@pytest.mark.parametrize(
    "spelled",
    ["(631) 555-1001", "+1 (631) 555-10012", "16.315551001e0", "1a6315551001", "US.1 349"],
)
def test_what_only_looks_like_the_number_stays(spelled: str) -> None:
    assert erased(cloud({"from": OTHER, "text": {"body": spelled}})) is None


def of_number(number: Any, *messages: Any) -> dict[str, Any]:
    value = {"metadata": {"phone_number_id": number}, "messages": [*messages]}
    return {"field": "messages", "value": value}


def webhook(*changes: Any) -> dict[str, Any]:
    return {"object": "whatsapp_business_account", "entry": [{"id": "0", "changes": [*changes]}]}


WROTE = {"from": "16315551001", "text": {"body": "hello"}}
ANYBODYS = {"field": "account_update", "value": {"users": [{"phone": "16315551001"}]}}


def test_what_is_of_another_account_stays_and_is_not_told() -> None:
    both = webhook(of_number("1", WROTE), of_number(2, WROTE), of_number("3", WROTE), ANYBODYS)
    raw = json.dumps(both).encode()
    left = erase(raw, "", MINE, {"2"})
    assert left is not None
    nobodys = {"field": "account_update", "value": {"users": []}}
    assert json.loads(left) == webhook(
        of_number("1"), of_number(2, WROTE), of_number("3"), nobodys
    ), "what is of no account in particular goes too"
    assert about(raw, "", MINE, {"2"}) == [WROTE, WROTE, {"phone": "16315551001"}]
    theirs = json.dumps(webhook(of_number("2", WROTE))).encode()
    assert erase(theirs, "", MINE, {"2"}) is None
    assert about(theirs, "", MINE, {"2"}) is None
    assert about(b"cut: 16315551001", "", MINE, {"2"}) == []


def test_what_stands_by_is_of_the_number_that_it_names() -> None:
    change = of_number("1", WROTE)
    change["value"]["standby"] = of_number("2", WROTE)["value"]
    for others, value, stands_by in (
        ({"2"}, [], [WROTE]),
        ({"1"}, [WROTE], []),
        ("12", None, None),
    ):
        left = erase(json.dumps(webhook(change)).encode(), "", MINE, {*others})
        if left is not None:
            (found,) = json.loads(left)["entry"][0]["changes"]
            assert found["value"]["messages"] == value
            assert found["value"]["standby"]["messages"] == stands_by
        assert (left is None) == (value is None)


def test_an_element_with_a_part_of_others_loses_only_what_names_the_user() -> None:
    named = webhook(of_number("2", WROTE))
    named["entry"][0]["id"] = "16315551001"
    left = erase(json.dumps(named).encode(), "", MINE, {"2"})
    assert left is not None
    assert json.loads(left)["entry"] == [{"changes": [of_number("2", WROTE)]}]
    assert about(json.dumps(named).encode(), "", MINE, {"2"}) == [
        {"id": "16315551001", "changes": [{"field": "messages"}]}
    ]
