"""What replicas tell each other is read as it was written, and told once."""

from service.api.reports import (
    AccountReport,
    Elsewhere,
    LeaderReport,
    RelayReport,
    Report,
    read,
    written,
)
from service.model.account_checks import Issue

OFF = Issue("identity_check_off", "shop", 2_000, "off")
WRONG = Issue("wrong_signatures", None, 5_000, "wrong", "meta")


def test_a_report_is_read_as_it_was_written() -> None:
    account = AccountReport(
        {"state": "ok", "since": None, "retry_in_seconds": None},
        {
            "quality_rating": "GREEN",
            "reachable": True,
            "unreachable_since": None,
            "last_error": None,
        },
        {"read_at": None, "client_version": "v2", "issues": ["webhook_url"]},
        7,
    )
    leading = LeaderReport(
        {"shop": account},
        {"crm": RelayReport(True, "answered 503")},
        [("shop", OFF), ("@meta", WRONG)],
        {"disk": {"status": "pass", "free_bytes": 7}},
    )
    report = Report([OFF, WRONG], {"shop": 1}, leading)
    assert read(written(report)) == report
    assert read(written(Report())) == Report([])


def test_what_another_release_tells_says_nothing_or_less() -> None:
    assert read("{}") == Report()
    assert read('{"noticed": 7}') == Report()
    assert read('{"leading": {"further": 1}, "later": []}') == Report(leading=LeaderReport())


def test_what_several_noticed_is_told_once_as_the_first_one_noticed_it() -> None:
    later = OFF._replace(since=3_000, detail="later")
    elsewhere = Elsewhere([Report([later, WRONG]), Report([WRONG._replace(since=4_000)])])
    assert elsewhere.noticed([OFF], {}) == [OFF, WRONG._replace(since=4_000)]
    assert Elsewhere().noticed([], {}) == []


def test_a_hash_that_came_to_any_replica_shows_that_the_check_is_on() -> None:
    assert Elsewhere([Report([OFF], {"shop": 1_000})]).noticed([], {"shop": 1_500}) == [OFF]
    assert Elsewhere([Report([OFF], {"shop": 1_000})]).noticed([], {"shop": 2_001}) == []
    assert Elsewhere([Report([], {"shop": 2_001})]).noticed([OFF], {}) == []
    assert Elsewhere([Report([], {"other": 9_000})]).noticed([OFF, WRONG], {}) == [OFF, WRONG]
