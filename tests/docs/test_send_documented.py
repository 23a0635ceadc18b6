"""The page about sending through names each result and status, and the limits in force."""

import json
import os
from typing import Any

import pytest

from service.api import sending
from service.api.params import MAX_BODY_BYTES
from service.api.routes import SENDING
from service.api.schemas import GraphFailure, OnPremisesFailure
from service.whatsapp import onprem
from service.whatsapp.http import PLACE_SECONDS
from tests.answers import _adapter
from tests.docs.conftest import bare, blocks, read, table

PAGE = read("docs/send.md")
TEXT = " ".join(PAGE.split())


def test_every_result_is_documented_and_no_other() -> None:
    assert [bare(row[0]) for row in table(PAGE, "`result`", "means")] == list(sending.RESULTS)


def test_every_status_of_ackgates_own_is_documented() -> None:
    rows = table(PAGE, "status", "means", "was it sent?")
    named = {int(status) for row in rows for status in row[0].split(", ")}
    described = {status for route in SENDING if route.errors for status in route.errors.meanings}
    # WhatsApp's own alone, and an internal error, which every page of the API has.
    assert described - named == {429, 500}
    assert named <= described


def test_every_route_that_sends_through_is_named() -> None:
    assert not [route.path for route in SENDING if f"POST {route.path}`" not in PAGE]


def test_the_limits_are_as_documented() -> None:
    assert MAX_BODY_BYTES == 1 << 20
    assert sending.MAX_MEDIA_BYTES == 105 << 20
    assert "105 MiB" in TEXT
    assert sending.MEDIA_SECONDS == 600
    assert "ten minutes" in TEXT
    # One wait for the place of a message, one for that of a call.
    assert 2 * PLACE_SECONDS == 10
    assert "ten seconds at the very most" in TEXT
    assert (onprem.MESSAGES_SHARE, onprem.MEDIA_SHARE) == (2, 8)


def test_every_header_that_is_passed_back_is_named() -> None:
    assert not [name for name in sending.PASSED_BACK if f"`{name}`" not in TEXT]


@pytest.mark.parametrize(("key", "type_"), [("error", GraphFailure), ("errors", OnPremisesFailure)])
def test_the_examples_are_errors_as_they_are_answered(key: str, type_: object) -> None:
    shown = [json.loads(b.text) for b in blocks("json") if b.page.name == "send.md"]
    [example] = [one for one in shown if key in one]
    _adapter(type_).validate_python(example, strict=True, extra="forbid")


def test_the_example_of_pywa_is_a_program_that_knows_pywa() -> None:
    [block] = [b for b in blocks("python") if b.page.name == "send.md"]
    lines = [line for line in block.text.splitlines() if "send_message" not in line]
    names: dict[str, Any] = {"ACKGATE_KEY": os.urandom(8).hex()}
    exec("\n".join(lines), names)
    whatsapp, session = names["whatsapp"], names["session"]
    assert str(session.base_url) == "https://ackgate.example.com/graph/v25.0/"
    assert session.headers["Authorization"] == f"Bearer {names['ACKGATE_KEY']}"
    assert whatsapp.phone_id == "106540352242922"
    session.close()
