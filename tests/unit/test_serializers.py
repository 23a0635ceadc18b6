"""The gate's answers as JSON."""

import json
from typing import Any

from service.api import serializers
from service.model.gate import Reason, Verdict

NOW = 1_600_000_000_123
TIME = "2020-09-13T12:26:40.123Z"


def written(verdict: Verdict, *, cloud: bool = False) -> Any:
    return json.loads(serializers.gate_answer("main", verdict, NOW, cloud=cloud))


def test_an_answer_has_the_fields_that_are_documented() -> None:
    reason = Reason("blocked", NOW, "1631", until=NOW + 1000, detail='said "stop"', clears_when="x")
    warning = Reason("account_unreachable", None, clears_when="it answers")
    assert written(Verdict("1631", True, (reason,), (warning,))) == {
        "account": "main",
        "wa_id": "1631",
        "known": True,
        "sendable": False,
        "reasons": [
            {
                "code": "blocked",
                "since": TIME,
                "of": "1631",
                "clears_when": "x",
                "until": TIME.replace("40.", "41."),
                "detail": 'said "stop"',
            }
        ],
        "warnings": [
            {
                "code": "account_unreachable",
                "since": None,
                "of": None,
                "clears_when": "it answers",
            }
        ],
        "as_of": TIME,
    }


def test_whom_to_write_to_instead_is_named_as_a_wa_id_or_as_a_user_id() -> None:
    moved = (Reason("number_changed", NOW, "1", alias="2"), Reason("x", NOW, "1", alias="US.1349"))
    first, second = written(Verdict("1", True, moved, ()))["reasons"]
    assert (first["wa_id"], second["user_id"]) == ("2", "US.1349")


def test_what_can_be_no_recipient_has_an_error_in_the_place_of_an_answer() -> None:
    [item] = json.loads(serializers.gate_answers("main", [("\x00", None)], NOW, cloud=False))[
        "items"
    ]
    assert item["input"] == "\x00"
    assert set(item) == {"input", "error"}
    assert item["error"]["title"]


def test_on_the_cloud_api_an_answer_says_which_hash_to_send_along() -> None:
    verdict = Verdict(None, True, (), (), "US.1349", 'a"b/+=')
    answer = written(verdict, cloud=True)
    assert (answer["user_id"], answer["identity_key_hash"]) == ("US.1349", 'a"b/+=')
    assert answer["wa_id"] is None
    assert "identity_key_hash" not in written(verdict)
