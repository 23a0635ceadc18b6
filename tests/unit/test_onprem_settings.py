"""The client's settings as they come over the wire: liberal in form, and nothing made up."""

import json
from pathlib import Path
from typing import Any

import pytest

from service.simulator import certificate
from service.whatsapp.http import Reply
from service.whatsapp.onprem import fingerprints, settings_of, skew_of

Json = dict[str, Any]
DATE = "Sun, 06 Nov 1994 08:49:37 GMT"
AT = 784_111_777.0


def told(application: Any, **others: Any) -> Any:
    payload = {"settings": {"application": application}, **others}
    return settings_of(Reply(200, payload), None, None)


def test_metas_own_example_is_understood() -> None:
    """Meta's page on the application settings; what the page leaves open is put in."""
    application = {
        "callback_backoff_delay_ms": 3000,
        "callback_persist": True,
        "max_callback_backoff_delay_ms": 900000,
        "notify_user_change_number": True,
        "show_security_notifications": True,
        "webhooks": {
            "url": "https://hooks.example.com/x",
            "max_concurrent_requests": 12,
            "message": {"sent": True, "delivered": True, "read": False},
        },
    }
    found = told(application, meta={"api_status": "stable", "version": "3.0.1"})
    assert found.security_notifications is True
    assert found.number_notifications is True
    assert found.callback_persist is True
    assert (found.sent_status, found.sent_setting) == (True, "webhooks.message.sent")
    assert found.webhook_url == "https://hooks.example.com/x"
    assert found.max_concurrent_requests == 12
    assert found.max_backoff_ms == 900_000
    assert found.version == "3.0.1"
    assert found.webhooks == application["webhooks"]


def test_texts_count_as_what_they_say() -> None:
    found = told(
        {
            "show_security_notifications": "false",
            "sent_status": "True",
            "webhooks": {"max_concurrent_requests": "12"},
        }
    )
    assert found.security_notifications is False
    assert (found.sent_status, found.sent_setting) == (True, "sent_status")
    assert found.max_concurrent_requests == 12


@pytest.mark.parametrize(
    "application",
    [
        {},
        {"webhooks": None},
        {"webhooks": []},
        {"webhooks": {"url": 1, "message": [], "max_concurrent_requests": True}},
        {"show_security_notifications": 1, "max_callback_backoff_delay_ms": "soon"},
    ],
)
def test_what_can_not_be_read_is_not_told(application: Json) -> None:
    found = told(application)
    assert found.security_notifications is None
    assert found.webhook_url is None
    assert found.max_concurrent_requests is None
    assert found.max_backoff_ms is None


@pytest.mark.parametrize("payload", [None, [], {}, {"settings": []}, {"settings": {}}])
def test_an_answer_without_settings_is_none(payload: Any) -> None:
    assert settings_of(Reply(200, payload), None, None) is None


class TestTheClock:
    def test_within_the_time_of_the_call_nothing_is_ahead_or_behind(self) -> None:
        assert skew_of(DATE, AT, AT + 1) == 0
        assert skew_of(DATE, AT - 5, AT + 5) == 0

    def test_before_and_after_it_is(self) -> None:
        assert skew_of(DATE, AT - 400, AT - 399.5) == 400
        assert skew_of(DATE, AT + 400.5, AT + 401) == -400

    @pytest.mark.parametrize("date", [None, "", "yesterday"])
    def test_without_a_date_nothing_is_told(self, date: str | None) -> None:
        assert skew_of(date, AT, AT) is None


def test_each_certificate_of_a_bundle_has_its_fingerprint(tmp_path: Path) -> None:
    files = certificate.ensure(tmp_path)
    ca, cert = files.ca.read_text(), files.cert.read_text()
    assert len(fingerprints(ca)) == 1
    assert fingerprints(f"a note\n{ca}{cert}") == fingerprints(ca) | fingerprints(cert)
    assert fingerprints(ca.replace("\n", "\r\n")) == fingerprints(ca)
    assert fingerprints(json.dumps({})) == frozenset()
    with pytest.raises(ValueError, match=r"padding|data|base64"):
        fingerprints("-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----")
