"""From raw bytes to a JSON object: what is turned away, and in which words."""

import json
import time
from math import inf

import pytest

from service.dialects.common import (
    LARGE_BYTES,
    MAX_DEPTH,
    MAX_GROWTH,
    UnreadableError,
    parsed_size,
    read_object,
    size_to_read,
)


def why(body: bytes, content_type: str = "application/json", content_encoding: str = "") -> str:
    with pytest.raises(UnreadableError) as caught:
        read_object(content_type, content_encoding, body)
    return str(caught.value)


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "application/json",
        "Application/JSON; charset=utf-8",
        " application/json ;x=y",
        "application/problem+json",
    ],
)
@pytest.mark.parametrize("content_encoding", ["", "identity"])
def test_json_by_any_of_its_names_is_read(content_type: str, content_encoding: str) -> None:
    assert read_object(content_type, content_encoding, b'{"a": 1}') == {"a": 1}


@pytest.mark.parametrize("content_type", ["text/plain", "text/json", "image/svg+json", "json", ";"])
def test_another_media_type_is_not_read(content_type: str) -> None:
    if content_type == ";":
        assert read_object(content_type, "", b"{}") == {}
    else:
        assert why(b"{}", content_type) == "the media type is not application/json"


@pytest.mark.parametrize("content_encoding", ["gzip", "deflate", "br", "identity, gzip"])
def test_a_compressed_body_is_not_read(content_encoding: str) -> None:
    assert why(b"{}", content_encoding=content_encoding) == "the body is compressed"


def test_a_byte_order_mark_is_no_fault() -> None:
    assert read_object("", "", b'\xef\xbb\xbf{"a": 1}') == {"a": 1}


@pytest.mark.parametrize("body", [b"\xff", b'{"a": "\xe9"}', '{"a": 1}'.encode("utf-16")])
def test_what_is_no_utf_8_is_not_read(body: bytes) -> None:
    assert why(body) == "the body is no valid UTF-8"


@pytest.mark.parametrize("body", [b"", b"{", b'{"a": }', b"{'a': 1}", b"{}{}", b"hello"])
def test_what_is_no_json_is_not_read(body: bytes) -> None:
    assert why(body) == "the body is no JSON"


@pytest.mark.parametrize("body", [b"[]", b"null", b"1", b'"text"', b"NaN", b"true"])
def test_what_is_no_object_is_not_read(body: bytes) -> None:
    assert why(body) == "the body is no JSON object"


def nested(depth: int) -> bytes:
    """Return an object that is so many levels deep, itself the first."""
    return b'{"a":' * (depth - 1) + b"{}" + b"}" * (depth - 1)


def test_a_hundred_levels_are_read() -> None:
    assert read_object("", "", nested(MAX_DEPTH))


@pytest.mark.parametrize(
    "body",
    [
        nested(MAX_DEPTH + 1),
        b'{"a":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}",
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=["objects", "arrays", "beyond the parser"],
)
def test_more_than_a_hundred_levels_are_not(body: bytes) -> None:
    assert why(body) == "the body is nested deeper than 100"


def test_a_wide_body_is_not_a_deep_one() -> None:
    body = json.dumps({"messages": [{"a": [{}]}] * 1_000}).encode()
    assert len(read_object("", "", body)["messages"]) == 1_000


MOST = MAX_GROWTH * LARGE_BYTES


@pytest.mark.parametrize("element", [b"[]", b"{}", b"[[[[[]]]]]", b'{"a":{}}', b'"ab"', b"1.5"])
def test_a_body_of_tiny_values_alone_is_read_up_to_a_bound(element: bytes) -> None:
    """Else 4 MiB, the largest body, are parsed into up to 200 MB."""
    one, two = (parsed_size(wide(element, count)) for count in (1, 2))
    count = (MOST - one) // (two - one) + 1
    assert len(read_object("", "", wide(element, count))["x"]) == count
    dense = wide(element, count + 1)
    assert len(dense) < LARGE_BYTES
    assert why(dense) == "the body holds too many values"
    assert size_to_read(dense) == 0 < size_to_read(wide(element, count)) <= MOST


@pytest.mark.parametrize(
    "element",
    [
        b'{"input":"+16315550001","status":"valid","wa_id":"16315550001"}',
        b'{"id":"gBEGkYiEB1VXAglK1ZEqA1YKPrU","status":"sent","timestamp":"1518694700"}',
    ],
    ids=["contacts", "statuses"],
)
@pytest.mark.parametrize("size", [LARGE_BYTES, 3 * LARGE_BYTES])
def test_real_elements_are_read_however_many_fit_into_a_body(element: bytes, size: int) -> None:
    count = size // (len(element) + 1)
    assert len(read_object("", "", wide(element, count))["x"]) == count


def test_brackets_and_commas_within_texts_are_no_values() -> None:
    texts = [sign * 4_000 for sign in ("[", "{", ",", ":", '{"a":[', '\\",')]
    body = json.dumps({"messages": [{"text": {"body": text}} for text in texts * 70]}).encode()
    assert len(read_object("", "", body)["messages"]) == 6 * 70
    assert 0 < size_to_read(body) < MOST


def test_values_behind_texts_are_counted_all_the_same() -> None:
    text = json.dumps('\\",[' * 1_000).encode()
    assert why(wide(text + b"," + b",".join([b"{}"] * 1_000), 250)) == (
        "the body holds too many values"
    )


def test_a_text_that_never_ends_is_looked_at_once() -> None:
    """Each quote within it begun with anew would take a million times as long."""
    assert why(b'{"x":"' + b'\\",' * 1_000_000) == "the body is no JSON"


def wide(element: bytes, count: int) -> bytes:
    return b'{"x":[' + b",".join([element] * count) + b"]}"


def test_an_integer_too_long_for_python_spoils_only_itself() -> None:
    body = b'{"a": ' + b"9" * 5_000 + b', "b": 12345678901234567890}'
    assert read_object("", "", body) == {"a": inf, "b": 12_345_678_901_234_567_890}


def test_a_hundred_thousand_elements_are_read_within_seconds() -> None:
    body = json.dumps({"messages": [{"from": "1", "type": "text"}] * 100_000}).encode()
    began = time.perf_counter()
    assert len(read_object("", "", body)["messages"]) == 100_000
    assert time.perf_counter() - began < 5
