"""What a client must be set to: each wrong setting is found, and only those."""

from dataclasses import replace
from typing import Any

import pytest

from service.model.account_checks import (
    CURES,
    NOTICES,
    ClientSettings,
    ExpectedSettings,
    Issue,
    WrongSetting,
    origin,
    patch_of,
    wrong_settings,
)
from service.model.webhook_urls import is_endpoint_at, same_url

TOKEN = "a-token-nobody-may-see"
ENDPOINT = f"https://hooks.example.com/webhooks/main/{TOKEN}"
EXPECTED = ExpectedSettings(ENDPOINT, frozenset({"aa"}), 100)
RIGHT = ClientSettings(
    security_notifications=True,
    number_notifications=True,
    callback_persist=True,
    sent_status=True,
    webhook_url=ENDPOINT,
    max_concurrent_requests=24,
    max_backoff_ms=900_000,
    authorities=frozenset({"aa", "bb"}),
    skew_seconds=0.4,
    version="v2.45.1",
    webhooks={"url": ENDPOINT, "max_concurrent_requests": 24},
)


def codes(told: ClientSettings, expected: ExpectedSettings = EXPECTED) -> list[str]:
    return [each.code for each in wrong_settings(told, expected)]


def the(told: ClientSettings, expected: ExpectedSettings = EXPECTED) -> WrongSetting:
    [found] = wrong_settings(told, expected)
    return found


def test_a_client_that_is_set_as_it_should_be_has_no_issue() -> None:
    assert codes(RIGHT) == []


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"security_notifications": False}, "security_notifications_off"),
        ({"security_notifications": None}, "security_notifications_off"),
        ({"webhook_url": None}, "webhook_url"),
        ({"webhook_url": ""}, "webhook_url"),
        ({"webhook_url": "https://elsewhere.example.com/in"}, "webhook_url"),
        ({"webhook_url": ENDPOINT[:-1]}, "webhook_url"),
        ({"webhook_url": ENDPOINT + "/"}, "webhook_url"),
        ({"webhook_url": ENDPOINT.replace("https", "http")}, "webhook_url"),
        ({"webhook_url": "https://[nothing"}, "webhook_url"),
        ({"authorities": frozenset()}, "webhook_ca"),
        ({"authorities": frozenset({"cc"})}, "webhook_ca"),
        ({"callback_persist": False}, "callback_persist_off"),
        ({"number_notifications": False}, "number_notifications_off"),
        ({"sent_status": False}, "sent_status_off"),
        ({"max_backoff_ms": 900_001}, "callback_backoff"),
        ({"max_concurrent_requests": 101}, "webhook_concurrency"),
        ({"skew_seconds": 61.0}, "clock_skew"),
        ({"skew_seconds": -61.0}, "clock_skew"),
    ],
)
def test_what_breaks_the_business_silently_is_told_by_its_code(
    change: dict[str, Any], code: str
) -> None:
    assert codes(replace(RIGHT, **change)) == [code]


@pytest.mark.parametrize(
    "change",
    [
        {"callback_persist": None},
        {"number_notifications": None},
        {"sent_status": None},
        {"max_backoff_ms": None},
        {"max_concurrent_requests": None},
        {"authorities": None},
        {"skew_seconds": None},
        {"skew_seconds": 60.0},
        {"max_concurrent_requests": 100},
        {"webhook_url": ENDPOINT.replace("hooks.example.com", "HOOKS.example.com:443")},
    ],
)
def test_what_is_as_good_or_not_told_and_right_by_default_is_no_issue(
    change: dict[str, Any],
) -> None:
    assert codes(replace(RIGHT, **change)) == []


def test_without_a_public_url_only_a_missing_webhook_url_is_told_and_setup_can_not_mend_it() -> (
    None
):
    unknown = replace(EXPECTED, webhook_url=None)
    elsewhere = replace(RIGHT, webhook_url="https://elsewhere.example.com")
    assert codes(elsewhere, unknown) == []
    assert the(replace(RIGHT, webhook_url=None), unknown).setting is None


def test_a_publicly_known_certificate_needs_no_upload() -> None:
    assert (
        codes(replace(RIGHT, authorities=frozenset()), replace(EXPECTED, authorities=frozenset()))
        == []
    )


def test_every_code_has_its_cure_and_no_cure_is_without_code() -> None:
    nothing = ClientSettings(
        callback_persist=False,
        number_notifications=False,
        sent_status=False,
        max_backoff_ms=10**9,
        max_concurrent_requests=10**9,
        authorities=frozenset(),
        skew_seconds=1e9,
    )
    told = set(codes(nothing))
    of_the_cloud_api = {
        "account_unreachable",
        "number_unreadable",
        "webhook_unsubscribed",
        "identity_check_off",
        "unknown_number",
    }
    of_the_cloud_api |= {"wrong_signatures"}
    others = {"login_refused", "client_unreachable", "key_expires", "identities_pending"}
    others |= of_the_cloud_api | {"erasure_unfinished"}
    others |= {"relay_paused", "relay_behind", "relay_dead", "relay_skipped", "relay_losing"}
    assert set(CURES) == told | NOTICES | others


def test_a_cure_names_the_account() -> None:
    issue = Issue("webhook_url", "shop", 0, "…")
    assert "setup shop" in issue.cure
    assert not issue.is_notice
    assert Issue("settings_unreadable", "shop", 0, "…").is_notice
    assert Issue("database_created", None, 0, "…").is_notice


@pytest.mark.parametrize(("subject", "named"), [("111", "111"), (None, "''")])
def test_a_cure_names_the_subject(subject: str | None, named: str) -> None:
    issue = Issue("unknown_number", None, 0, "…", subject)
    assert f"dismiss unknown_number --subject {named}" in issue.cure


def test_only_what_happened_once_is_past() -> None:
    past = {code for code in CURES if Issue(code, "shop", 0, "…").is_past}
    assert past == {
        "identity_check_off", "unknown_number", "wrong_signatures", "database_created",
        "relay_skipped",
    }  # fmt: skip


@pytest.mark.parametrize(
    "url",
    [
        "https://u:secret@elsewhere.example.com:8443/secret?secret#secret",
        f"https://hooks.example.com/other/{TOKEN}",
    ],
)
def test_no_token_or_password_of_a_url_is_ever_shown(url: str) -> None:
    wrong = the(replace(RIGHT, webhook_url=url))
    shown = f"{wrong.detail} {wrong.now} {wrong.wanted}"
    assert "secret" not in shown
    assert TOKEN not in shown
    assert wrong.value == ENDPOINT
    assert wrong.wanted == "https://hooks.example.com/webhooks/main/…"


def test_the_detail_tells_another_host_from_another_token() -> None:
    elsewhere = the(replace(RIGHT, webhook_url="https://elsewhere.example.com:8443/x"))
    assert "leads to https://elsewhere.example.com:8443:" in elsewhere.detail
    assert "another token" in the(replace(RIGHT, webhook_url=ENDPOINT[:-1])).detail
    assert "no webhook URL" in the(replace(RIGHT, webhook_url=None)).detail


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://a.example.com:443/x", "https://a.example.com"),
        ("http://[::1]:8080/x", "http://[::1]:8080"),
        ("nothing", "an address that is none"),
        ("https://a:99999", "an address that is none"),
    ],
)
def test_the_origin_is_all_that_is_shown(url: str, shown: str) -> None:
    assert origin(url) == shown


def test_an_address_that_is_none_is_not_the_endpoint() -> None:
    assert not same_url("https://[nothing", "https://[nothing")


class TestThePatch:
    def test_sets_what_is_wrong_and_nothing_else(self) -> None:
        wrong = wrong_settings(
            replace(RIGHT, security_notifications=False, skew_seconds=99.0), EXPECTED
        )
        assert patch_of(wrong, RIGHT.webhooks) == {"show_security_notifications": True}

    def test_sends_the_webhooks_whole_since_a_client_may_not_put_parts_together(self) -> None:
        told = replace(
            RIGHT,
            webhook_url=None,
            sent_status=False,
            sent_setting="webhooks.message.sent",
            webhooks={"max_concurrent_requests": 12, "message": {"sent": False, "read": True}},
        )
        patch = patch_of(wrong_settings(told, EXPECTED), told.webhooks)
        assert patch == {
            "webhooks": {
                "url": ENDPOINT,
                "max_concurrent_requests": 12,
                "message": {"sent": True, "read": True},
            }
        }
        assert told.webhooks["message"] == {"sent": False, "read": True}

    def test_holds_no_certificate(self) -> None:
        wrong = wrong_settings(replace(RIGHT, authorities=frozenset()), EXPECTED)
        assert patch_of(wrong, RIGHT.webhooks) == {}


@pytest.mark.parametrize(
    ("url", "is_one"),
    [
        ("https://hooks.example.com/at/webhooks/main/another-token", True),
        ("https://HOOKS.example.com:443/at/webhooks/meta", True),
        ("https://hooks.example.com/at/bot", False),
        ("https://hooks.example.com/webhooks/main/x", False),
        ("https://hooks.example.com:8443/at/webhooks/meta", False),
        ("https://elsewhere.example.com/at/webhooks/meta", False),
        ("https://[nothing", False),
    ],
)
def test_an_endpoint_of_this_installation_is_known_whatever_its_token(
    url: str, is_one: bool
) -> None:
    assert is_endpoint_at(url, "https://hooks.example.com/at") is is_one
