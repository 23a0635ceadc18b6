"""Messages that are sent through: what is judged is what is sent, or nothing is."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from service.dialects.common import UnreadableError
from service.dialects.sends import parse_strictly, read_cloud, read_onprem, read_refusal
from service.model.events import HashRefused, SendBlocked
from service.model.timeline import Moment

X, Y = "16505551234", "16505559999"
TEXT = {"text": {"body": "Hello"}}
CLOUD: dict[str, Any] = {"messaging_product": "whatsapp", "to": Y, "type": "text", **TEXT}
ONPREM: dict[str, Any] = {"to": Y, "type": "text", **TEXT}
MARK = {"messaging_product": "whatsapp", "status": "read", "message_id": "wamid.x"}


def raw(body: Any, **more: Any) -> bytes:
    return json.dumps({**body, **more}).encode()


# One meaning


@pytest.mark.parametrize(
    "text",
    [
        '{"to": "1", "to": "2"}',
        '{"to": "1", "t\\u006f": "2"}',
        '{"\\u0074\\u006f": "1", "to": "1"}',
        '{"a": [{"b": {"c": 1, "c": 1}}]}',
        '{"a": NaN}',
        '{"a": Infinity}',
        '{"a": -Infinity}',
        '{"a": 1e999}',
        '{"a": 18446744073709551616}',
        '{"a": -9223372036854775809}',
        '{"a": ' + "9" * 5000 + "}",
        '{"a": "\\ud800"}',
        '{"\\udc00": 1}',
        '{"a": ' + "[" * 300 + "]" * 300 + "}",
        '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '\ufeff{"a": 1}',
        '{"a": 1} {"a": 2}',
        '{"a": 1}\x00',
        "{'a': 1}",
        '{"a": 1,}',
        '{"a": 1 /* two */}',
        '{"a": "line\nbreak"}',
        "[]",
        '"text"',
        "null",
        "",
        "to=1&type=text",
    ],
)
def test_json_that_parsers_read_differently_is_refused(text: str) -> None:
    with pytest.raises(UnreadableError):
        parse_strictly(text.encode())


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "latin-1"])
def test_only_utf_8_is_read(encoding: str) -> None:
    with pytest.raises(UnreadableError):
        parse_strictly('{"to": "ü1"}'.encode(encoding))


def test_what_is_refused_is_not_repeated() -> None:
    with pytest.raises(UnreadableError) as refused:
        parse_strictly(b'{"16505551234": 1, "16505551234": 2}')
    assert X not in str(refused.value)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), values))
def test_what_is_read_is_written_as_the_same(body: dict[str, Any]) -> None:
    assert orjson.loads(orjson.dumps(parse_strictly(orjson.dumps(body)))) == body


# Whom a message is for


@pytest.mark.parametrize(
    "to", [Y, f"+{Y}", "+1 (650) 555-9999", "(650) 555-9999", "1.650.555.9999", "0049 30 1234567"]
)
def test_a_number_in_any_spelling_is_whom_the_gate_is_asked_about(to: str) -> None:
    outgoing = read_cloud(raw(CLOUD, to=to))
    assert outgoing.recipient == to
    assert orjson.loads(outgoing.written())["to"] == to
    assert read_onprem(raw(ONPREM, to=to)).recipient == to


def test_a_user_id_is_whom_the_gate_is_asked_about() -> None:
    body = {**CLOUD, "recipient": "US.1349"}
    del body["to"]
    assert read_cloud(raw(body)).recipient == "US.1349"
    assert read_cloud(raw(body, to=None)).written() == orjson.dumps(body)


MANY_WAYS: list[dict[str, Any]] = [
    {"to": None},
    {"to": ""},
    {"to": 16505559999},
    {"to": [Y]},
    {"to": {"phone": Y}},
    {"to": f"{Y},{X}"},
    {"to": f"{Y}\n{X}"},
    {"to": f"{Y}\x00"},
    {"to": f"{Y};ext=1"},
    {"to": "\N{ARABIC-INDIC DIGIT ONE}6505559999"},
    {"to": "\N{FULLWIDTH PLUS SIGN}16505559999"},
    {"to": "US.1349"},
    {"to": "16505559999@g.us"},
    {"to": "Y2FwaV9ncm91cDox"},
    {"to": "tel:+16505559999"},
    {"to": "+"},
    {"to": " " + Y},
    {"To": X},
    {"TO": X},
    {"to ": X},
    {"to[]": X},
    {"t\N{CYRILLIC SMALL LETTER O}": X},
    {"recipients": [X]},
    {"recipient_id": X},
    {"wa_id": X},
    {"recipient_type": "group"},
    {"recipient_type": "Individual"},
    {"recipient_type": ["individual"]},
    {"group_id": "1"},
    {"access_token": "EAAG"},
    {"method": "DELETE"},
    {"batch": []},
    {"ids": X},
    {"__proto__": {"to": X}},
    {"type": "to"},
    {"type": "access_token", "access_token": {}},
    {"type": "image"},
    {"type": 5},
    {"text": "Hello"},
    {"text": None},
    {"image": {"id": "1"}},
    {"status": "read", "message_id": "wamid.x"},
]
"""A good message with these keys over it; what the gate would be asked could be another's."""


@pytest.mark.parametrize("over", MANY_WAYS, ids=str)
def test_a_message_that_could_go_to_another_than_the_gate_is_asked_about_is_refused(
    over: dict[str, Any],
) -> None:
    with pytest.raises(ValidationError):
        read_cloud(raw(CLOUD, **over))
    with pytest.raises(ValidationError):
        read_onprem(raw(ONPREM, **over))


@pytest.mark.parametrize(
    "over",
    [
        {"recipient": "US.1349"},
        {"recipient": X},
        {"recipient": {"id": X}},
        {"to": None, "recipient": Y},
        {"to": None, "recipient": "us.1349"},
        {"messaging_product": "messenger"},
        {"messaging_product": None},
        {"recipient_identity_key_hash": 5},
        {"recipient_identity_key_hash": ""},
        {"recipient_identity_key_hash": "a\nb"},
        {"recipient_identity_key_hash": "x" * 1025},
        {"type": "hsm", "hsm": {}, "text": None},
    ],
    ids=str,
)
def test_a_message_of_the_cloud_api_names_one_recipient_once(over: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        read_cloud(raw(CLOUD, **over))


@pytest.mark.parametrize(
    "over", [{"messaging_product": "whatsapp"}, {"recipient": "US.1349"}, {"recipient": X}], ids=str
)
def test_a_message_of_the_on_premises_api_has_no_key_of_the_other(over: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        read_onprem(raw(ONPREM, **over))


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("text", {"body": "Hello", "preview_url": True}),
        ("image", {"link": "https://example.com/a.jpg", "caption": "A"}),
        ("location", {"latitude": 37.4847, "longitude": -122.1473}),
        ("contacts", [{"name": {"formatted_name": "Ana"}, "phones": [{"phone": "+1 650"}]}]),
        ("template", {"name": "order", "language": {"code": "en"}, "components": []}),
        ("interactive", {"type": "button", "action": {"buttons": []}}),
    ],
)
def test_every_kind_of_content_goes_as_it_came(kind: str, content: Any) -> None:
    head = {"to": Y, "type": kind, kind: content, "recipient_type": "individual"}
    onprem = {**head, "context": {"message_id": "x"}}
    cloud = {"messaging_product": "whatsapp", **onprem, "biz_opaque_callback_data": "order-1"}
    assert orjson.loads(read_cloud(raw(cloud)).written()) == cloud
    assert orjson.loads(read_onprem(raw(onprem)).written()) == onprem


def test_a_message_without_a_type_is_text() -> None:
    body = {k: v for k, v in CLOUD.items() if k != "type"}
    assert read_cloud(raw(body)).recipient == Y


def test_a_null_counts_as_nothing_and_is_not_sent() -> None:
    written = read_cloud(raw(CLOUD, recipient=None, context=None, image=None)).written()
    assert orjson.loads(written) == CLOUD


# The hash


def test_the_gates_hash_goes_along_and_the_senders_own_stays_where_the_gate_has_none() -> None:
    plain = read_cloud(raw(CLOUD))
    assert orjson.loads(plain.written("a"))["recipient_identity_key_hash"] == "a"
    assert "recipient_identity_key_hash" not in orjson.loads(plain.written())
    own = read_cloud(raw(CLOUD, recipient_identity_key_hash="b"))
    assert own.hash == "b"
    assert orjson.loads(own.written())["recipient_identity_key_hash"] == "b"


# Read marks


def test_a_read_mark_has_no_recipient() -> None:
    typing = {**MARK, "typing_indicator": {"type": "text"}}
    for mark in (MARK, typing):
        outgoing = read_cloud(raw(mark))
        assert (outgoing.recipient, orjson.loads(outgoing.written())) == (None, mark)


@pytest.mark.parametrize(
    "over",
    [
        {"to": X},
        {"recipient": "US.1349"},
        {"type": "text", **TEXT},
        {"status": "delivered"},
        {"status": ["read"]},
        {"message_id": None},
        {"message_id": ""},
        {"messaging_product": "x"},
        {"access_token": "EAAG"},
    ],
    ids=str,
)
def test_a_read_mark_that_is_a_message_too_is_refused(over: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        read_cloud(raw(MARK, **over))
    with pytest.raises(ValidationError):
        read_onprem(raw(MARK))


# Answers


@pytest.mark.parametrize("code", [137000, "137000"])
def test_a_137000_says_that_the_recipient_has_another_hash_as_of_when_the_gate_was_asked(
    code: Any,
) -> None:
    answer = {"error": {"code": code, "message": "x"}}
    assert read_refusal(answer, [Y], 5, cloud=True) == [HashRefused(Y, Moment(5), None)]
    assert read_refusal(answer, [Y], 5, cloud=False) == []


@pytest.mark.parametrize("code", [1028, 480, "1028"])
def test_a_1028_or_480_says_that_an_identity_is_not_acknowledged(code: Any) -> None:
    answer = {"errors": [{"code": 1}, {"code": code}]}
    blocked = [SendBlocked(Y, None, None), SendBlocked(X, None, None)]
    assert read_refusal(answer, [Y, X], 5, cloud=False) == blocked
    assert read_refusal(answer, [Y], 5, cloud=True) == []


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        "137000",
        {},
        {"error": 137000},
        {"error": {"code": 131026}},
        {"error": {"code": True}},
        {"error": {"code": "²"}},
        {"error": {"code": "9" * 5000}},
        {"error": {"code": None}},
        {"errors": {"code": 1028}},
        {"errors": ["1028"]},
        {"messages": [{"id": "wamid.137000"}]},
    ],
    ids=str,
)
def test_every_other_answer_says_nothing_of_an_identity(answer: Any) -> None:
    assert read_refusal(answer, [Y], 5, cloud=True) == []
    assert read_refusal(answer, [Y], 5, cloud=False) == []
