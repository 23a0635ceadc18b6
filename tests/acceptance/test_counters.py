"""Every labelled counter is there from the start, at 0: an alert on an increase sees the first."""

from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

from tests.acceptance import webhooks
from tests.acceptance.conftest import (
    HASH_A,
    HASH_B,
    STRANGE_NUMBER,
    TOKEN,
    WA_ID,
    Caller,
    CloudInstallation,
    Installation,
    blocked,
    hour_ago,
    notice,
    until,
    wrote,
)

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
NOT_KNOWN_BEFORE = {"ackgate_requests_total", "ackgate_process_cpu_seconds_total"}
"""A route answers any status; so does a client. Processor time is used before anybody asks."""


async def counters(made: Caller) -> Samples:
    """Scrape the counters as Prometheus does."""
    status, text = await made.api("GET", "/metrics")
    assert status == 200
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        if family.type == "counter"
        for sample in family.samples
        if sample.name.endswith("_total") and sample.name not in NOT_KNOWN_BEFORE
        and not sample.labels.get("outcome", "").isdigit()
    }  # fmt: skip


def value(samples: Mapping[tuple[str, frozenset[tuple[str, str]]], float], **labels: str) -> float:
    return samples["ackgate_callbacks_total", frozenset(labels.items())]


async def test_the_first_quarantined_callback_is_an_increase(manual: Installation) -> None:
    before = await counters(manual)
    assert value(before, account="main", result="quarantined") == 0
    await manual.deliver(b"no JSON")
    after = await counters(manual)
    assert value(after, account="main", result="quarantined") == 1


async def test_the_first_quarantined_webhook_is_an_increase(shop: CloudInstallation) -> None:
    before = await counters(shop)
    for account in ("shop", "outlet", "@meta"):
        assert value(before, account=account, result="quarantined") == 0
    assert await shop.deliver_signed(b"no JSON") == 200
    unreadable = webhooks.envelope(webhooks.value(messages=["no object"]))
    await shop.come(unreadable)
    after = await counters(shop)
    assert value(after, account="@meta", result="quarantined") == 1
    assert value(after, account="shop", result="quarantined") == 1


async def test_whatever_is_counted_was_there_from_the_start(shop: CloudInstallation) -> None:
    before = await counters(shop)
    main = shop.of("main")
    hash_ = await shop.change()
    await main.acknowledge(hash_, query="?wait=10")
    await main.deliver(
        wrote(WA_ID, HASH_A, hour_ago()),
        notice(WA_ID, HASH_B, hour_ago()),
        blocked(WA_ID),
        blocked("16315559999"),
        b"no JSON",
        {"contacts": [{"input": "+16315559998", "status": "invalid"}], "errors": [{"code": 1}]},
    )
    await main.api("POST", "/accounts/main/contacts", {"contacts": ["+16315559997"]})
    await main.api("POST", "/accounts/main/contacts", {"contacts": ["+16315559996"] * 2})
    assert await main.post({}, path=f"/webhooks/nobody/{TOKEN}") == 404
    assert await main.post(b"x" * 5_000_000) == 413
    assert await shop.deliver_signed(b"{}", "0" * 32) == 401
    await shop.come(
        webhooks.wrote(HASH_A, user_id="US.13491208655302741918", wa_id="16505551234"),
        webhooks.told(webhooks.mismatch(recipient_id="16505551234")),
        webhooks.told(webhooks.status("sent", recipient_id="16505551234")),
        webhooks.system(type="user_changed_number", wa_id="16505551235"),
        webhooks.wrote(HASH_A, number=STRANGE_NUMBER),
        {"object": "page", "entry": []},
    )

    async def asked() -> bool:
        return "ackgate_outcomes_total" in {
            name for (name, _), count in (await counters(shop)).items() if count
        }

    await until(asked)
    after = await counters(shop)
    counted = {of for of, count in after.items() if count}
    assert {name for name, _ in counted} >= {
        "ackgate_callbacks_total",
        "ackgate_callback_events_total",
        "ackgate_unknown_numbers_total",
        "ackgate_contact_inputs_checked_total",
        "ackgate_outcomes_total",
    }
    assert counted <= before.keys()
    assert not any(count for of, count in before.items() if of[0] != "ackgate_client_calls_total")
