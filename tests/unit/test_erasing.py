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
        (b'{"a":["\\u00316315551001","\\ud800"]}', b'{"a": ["\\ud800"]}'),
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
