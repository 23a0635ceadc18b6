"""The gate's answers as JSON, written by hand: what a parser makes of them."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from service.api import verdicts
from service.model.gate import CLEARS_WHEN, Reason, Verdict
from service.model.names import is_user_id

NOW = 1_600_000_000_123
TIME = "2020-09-13T12:26:40.123Z"

times = st.integers(0, 253_402_300_799_999)
reasons = st.builds(
    Reason,
    st.sampled_from(sorted(CLEARS_WHEN)),
    st.none() | times,
    st.none() | st.text() | st.from_regex(r"[A-Z]{2}\.[0-9]{1,9}", fullmatch=True),
    st.none() | times,
    st.none() | st.text(),
)


def items(*parts: str) -> list[Any]:
    found: list[Any] = json.loads(verdicts.together(parts))["items"]
    return found


some = st.lists(reasons, max_size=3).map(tuple)


def test_an_answer_has_the_fields_that_are_documented() -> None:
    reason = Reason("blocked", NOW, until=NOW + 1000, detail='said "stop"')
    warning = Reason("contact_unknown", None)
    written = verdicts.one("main", Verdict("1631", True, (reason,), (warning,)), NOW)
    assert json.loads(written) == {
        "account": "main",
        "wa_id": "1631",
        "known": True,
        "sendable": False,
        "reasons": [
            {
                "code": "blocked",
                "since": TIME,
                "clears_when": CLEARS_WHEN["blocked"],
                "until": TIME.replace("40.", "41."),
                "detail": 'said "stop"',
            }
        ],
        "warnings": [
            {
                "code": "contact_unknown",
                "since": None,
                "clears_when": CLEARS_WHEN["contact_unknown"],
            }
        ],
        "as_of": TIME,
    }


@given(st.text(), st.none() | st.text(), st.booleans(), some, some)
def test_whatever_the_texts_are_it_is_json_and_says_the_same(
    asked: str,
    wa_id: str | None,
    known: bool,
    given_reasons: tuple[Reason, ...],
    warnings: tuple[Reason, ...],
) -> None:
    verdict = Verdict(wa_id, known, given_reasons, warnings)
    [item] = items(verdicts.many("main", [(asked, verdict)], NOW))
    assert (item["input"], item["wa_id"], item["known"]) == (asked, wa_id, known)
    assert item["sendable"] is not bool(given_reasons)
    for written, meant in (
        *zip(item["reasons"], given_reasons, strict=True),
        *zip(item["warnings"], warnings, strict=True),
    ):
        named = "user_id" if is_user_id(meant.alias or "") else "wa_id"
        assert (written["code"], written.get(named)) == (meant.code, meant.alias)
        assert ("until" in written, written.get("detail")) == (
            meant.until is not None, meant.detail
        )  # fmt: skip


def test_what_can_be_no_recipient_has_an_error_in_the_place_of_an_answer() -> None:
    [item] = items(verdicts.many("main", [("\x00", None)], NOW))
    assert item["input"] == "\x00"
    assert set(item) == {"input", "error"}
    assert item["error"]["title"]


def test_on_the_cloud_api_an_answer_says_which_hash_to_send_along() -> None:
    verdict = Verdict(None, True, (), (), "US.1349", 'a"b/+=')
    one = json.loads(verdicts.one("shop", verdict, NOW, cloud=True))
    [many] = items(verdicts.many("shop", [("US.1349", verdict)], NOW, cloud=True))
    for written in (one, many):
        assert (written["user_id"], written["identity_key_hash"]) == ("US.1349", 'a"b/+=')
        assert (written["wa_id"], written["as_of"]) == (None, TIME)
    assert "identity_key_hash" not in json.loads(verdicts.one("main", verdict, NOW))
