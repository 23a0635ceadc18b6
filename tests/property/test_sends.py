"""Whatever a body is, nobody is written to but whom the gate was asked about."""

import json
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from service.dialects.common import UnreadableError
from service.dialects.sends import Outgoing, read_cloud, read_onprem

NAMES = ["to", "recipient", "To", "t\\u006f", "type", "text", "status", "message_id", "image"]
KNOWN = ["messaging_product", "recipient_type", "recipient_identity_key_hash", "context"]
VALUES = [
    '"16505551234"', '"16505550666"', '"US.1349"', '"+1 650-555-1234"', '"1650\\u0035551234"',
    '"whatsapp"', '"individual"', '"group"', '"text"', '"image"', '"read"', '"wamid.x"', "null",
    '{"body":"x"}', '{"to":"16505550666"}', '{"body":"x","body":"y"}', '["16505550666"]', "1", '""',
]  # fmt: skip
HELLO = ['"type":"text"', '"text":{"body":"x"}']
WHATSAPP, TO = '"messaging_product":"whatsapp"', '"to":"16505551234"'
GOOD = [[*HELLO, WHATSAPP], [*HELLO, WHATSAPP, TO], [*HELLO, TO], [WHATSAPP, '"status":"read"']]

RECIPIENTS = VALUES[:5]
pairs = st.builds(
    '"{}":{}'.format, st.sampled_from(NAMES + KNOWN), st.sampled_from(VALUES)
) | st.builds('"{}":{}'.format, st.sampled_from(NAMES[:4]), st.sampled_from(RECIPIENTS))
bodies = (
    st.tuples(st.sampled_from(GOOD), st.lists(pairs, max_size=2))
    .flatmap(lambda parts: st.permutations([*parts[0], *parts[1]]))
    .map(lambda members: "{" + ",".join(members) + "}")
)


def first_wins(text: bytes) -> Any:
    return json.loads(text, object_pairs_hook=lambda pairs: dict(reversed(pairs)))


def read(reader: Any, body: bytes) -> Outgoing | None:
    try:
        outgoing: Outgoing = reader(body)
    except (UnreadableError, ValidationError):
        return None
    return outgoing


def named(body: Any) -> list[Any]:
    """Give every text at the top that could name somebody, under whatever key."""
    return [value for key, value in body.items() if key.lower() in {"to", "recipient"}]


@settings(max_examples=500)
@given(bodies)
def test_what_is_sent_names_whom_the_gate_was_asked_about_for_every_parser(text: str) -> None:
    for reader in (read_cloud, read_onprem):
        outgoing = read(reader, text.encode())
        if outgoing is None:
            continue
        for body in (outgoing.written(), outgoing.written("a hash")):
            for parse in (orjson.loads, json.loads, first_wins):
                whom = named(parse(body))
                assert whom == ([] if outgoing.recipient is None else [outgoing.recipient])
        came = [named(parse(text)) for parse in (orjson.loads, json.loads, first_wins)]
        told = [[one for one in whom if one is not None] for whom in came]
        assert told == [named(orjson.loads(outgoing.written()))] * 3


@given(st.binary(max_size=200) | bodies.map(str.encode), st.binary(max_size=3))
def test_any_bytes_are_read_or_refused(body: bytes, more: bytes) -> None:
    for reader in (read_cloud, read_onprem):
        read(reader, body)
        read(reader, body + more)
        read(reader, more + body)


def test_the_bodies_that_are_tried_are_not_all_refused() -> None:
    found: list[str] = []

    @given(bodies)
    def look(text: str) -> None:
        if read(read_cloud, text.encode()) is not None:
            found.append(text)

    look()
    assert found
