"""How a number of the Cloud API must be set up: what is wrong is found, and only that."""

import pytest

from service.model.account_checks import CURES, IDENTITY_CHECK, CloudSettings, wrong_cloud_settings

ENDPOINT = "https://hooks.example.com/webhooks/meta"


@pytest.mark.parametrize(
    "url", [ENDPOINT, ENDPOINT.replace("hooks.", "HOOKS.").replace(".com", ".com:443")]
)
@pytest.mark.parametrize("subscribed", [True, None])
def test_a_number_whose_callbacks_come_to_the_endpoint_has_no_issue(
    url: str, subscribed: bool | None
) -> None:
    assert wrong_cloud_settings(CloudSettings(url, subscribed), ENDPOINT) == []


@pytest.mark.parametrize(
    "url", [None, "", "https://elsewhere.example.com/webhooks/meta", ENDPOINT + "/", ENDPOINT[:-1]]
)
def test_another_url_or_none_is_told_with_what_to_set(url: str | None) -> None:
    [wrong] = wrong_cloud_settings(CloudSettings(url), ENDPOINT)
    assert (wrong.code, wrong.setting) == ("webhook_url", "webhook_configuration")
    assert wrong.value == ENDPOINT


def test_without_a_public_url_only_a_missing_one_is_told_and_can_not_be_set() -> None:
    assert wrong_cloud_settings(CloudSettings("https://elsewhere.example.com"), None) == []
    [wrong] = wrong_cloud_settings(CloudSettings(None), None)
    assert wrong.setting is None


def test_a_subscription_that_lacks_is_told_first_since_a_url_can_be_set_only_then() -> None:
    found = wrong_cloud_settings(CloudSettings(None, subscribed=False), ENDPOINT)
    assert [each.code for each in found] == ["webhook_unsubscribed", "webhook_url"]


def test_every_code_has_its_cure() -> None:
    found = wrong_cloud_settings(CloudSettings(None, subscribed=False), ENDPOINT)
    assert {IDENTITY_CHECK.code, *(each.code for each in found)} <= set(CURES)
