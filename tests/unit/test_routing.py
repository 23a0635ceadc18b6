"""What a relay is told of a callback: its kinds, its accounts, its users."""

import json
from pathlib import Path
from typing import Any

import pytest

from service.dialects.routing import Routing, route_cloud, route_onprem

PAYLOADS = Path(__file__).parents[1] / "payloads"
NUMBERS = {"106540352242922": "shop", "106540352242923": "outlet"}


def onprem(body: Any) -> Routing:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return route_onprem("main", "application/json", "", raw)


def cloud(body: Any) -> Routing:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return route_cloud(NUMBERS, "application/json", "", raw)


def value(number: str = "106540352242922", **content: Any) -> Any:
    metadata = {"metadata": {"phone_number_id": number}}
    return {"field": "messages", "value": metadata | content}


def webhook(*changes: Any) -> Any:
    return {"object": "whatsapp_business_account", "entry": [{"changes": list(changes)}]}


@pytest.mark.parametrize(
    ("payload", "kinds"),
    [
        ("contact-check", {"contacts"}),
        ("error", {"errors"}),
        ("identity-changed", {"identities"}),
        ("message-with-identity", {"messages"}),
        ("number-changed", {"messages"}),
        ("status-blocked", {"statuses"}),
        ("status-delivered", {"statuses"}),
        ("text", {"messages"}),
    ],
)
def test_the_kinds_of_real_callbacks_of_the_on_premises_api(payload: str, kinds: set[str]) -> None:
    found = onprem((PAYLOADS / f"onprem/{payload}.json").read_bytes())
    assert found.kinds == kinds
    assert found.accounts == ("main",)


@pytest.mark.parametrize("payload", ["message-user-id-only", "message-with-hash", "number-changed"])
def test_a_message_of_the_cloud_api_is_of_one_user_whatever_the_user_is_called(
    payload: str,
) -> None:
    found = cloud((PAYLOADS / f"cloud/{payload}.json").read_bytes())
    assert (found.kinds, found.accounts, found.is_of_one) == ({"messages"}, ("shop",), True)
    assert found.names


def test_what_can_not_be_read_is_other() -> None:
    assert onprem(b"no JSON") == Routing(accounts=("main",))
    assert cloud(b"no JSON") == Routing()
    assert cloud(webhook({"field": "account_update", "value": {}})).kinds == {"other"}


def test_an_echo_and_a_contact_alone_are_other() -> None:
    assert cloud(webhook(value(message_echoes=[{"to": "1631"}]))).kinds == {"other"}
    assert cloud(webhook(value(contacts=[{"wa_id": "1631"}]))).kinds == {"other"}


def test_names_that_come_together_anywhere_are_of_one_user_and_others_are_not() -> None:
    card = {"wa_id": "1631", "user_id": "US.1"}
    by_number, by_id = {"from": "1631"}, {"from_user_id": "US.1"}
    apart = cloud(webhook(value(messages=[by_number, by_id])))
    assert not apart.is_of_one
    together = cloud(webhook(value(messages=[by_number, by_id], contacts=[card])))
    assert together.is_of_one
    assert together.names == {"shop/1631", "shop/US.1"}


def test_the_same_number_at_two_accounts_is_two_users() -> None:
    message = {"from": "1631"}
    both = webhook(value(messages=[message]), value("106540352242923", messages=[message]))
    found = cloud(both)
    assert set(found.accounts) == {"shop", "outlet"}
    assert (found.names, found.is_of_one) == ({"shop/1631", "outlet/1631"}, False)


def test_very_many_users_take_no_longer_than_their_number() -> None:
    found = onprem({"statuses": [{"recipient_id": str(10**9 + n)} for n in range(60_000)]})
    assert (len(found.names), found.is_of_one) == (60_000, False)
    links = [{"wa_id": str(n), "user_id": str(n + 1)} for n in range(1, 40_000)]
    assert onprem({"contacts": links}).is_of_one
