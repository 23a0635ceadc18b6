"""After a restore nobody knows what changed since: the client is asked, and the gate says so."""

import time
from typing import Any

import pytest

from tests.acceptance.conftest import (
    HASH_A,
    HASH_B,
    OTHER_ID,
    WA_ID,
    Install,
    Installation,
    Json,
    hour_ago,
    notice,
    until,
    wrote,
)

STRANGER = "4917012345"


async def account(made: Installation) -> Json:
    status, shown = await made.api("GET", "/accounts/main")
    assert status == 200
    return dict(shown)


async def verified(made: Installation) -> None:
    async def no_longer() -> bool:
        return (await account(made))["unverified"] is None

    await until(no_longer, what="the account is verified")


async def health(made: Installation) -> Json:
    return dict((await made.api("GET", "/health/status"))[1])


async def sample(made: Installation, name: str) -> str:
    text = (await made.api("GET", "/metrics"))[1]
    [line] = [line for line in text.splitlines() if line.startswith(name)]
    return str(line.split()[-1])


async def events(made: Installation) -> list[str]:
    _, listed = await made.api("GET", "/audit?limit=1000")
    return [entry["event"] for entry in listed["items"] if entry["wa_id"] is None]


async def restored(install: Install, **over: Any) -> Installation:
    """Restore a database with one acknowledged user, while the client answers no GET."""
    made = await install(**over)
    await made.acknowledged(hash_=HASH_A)
    backup = await made.back_up()
    made.sim.fault("identity_get", status=500)
    await made.restore(backup)
    return made


async def test_a_database_that_was_never_restored_is_verified(manual: Installation) -> None:
    await manual.acknowledged()
    assert (await account(manual))["unverified"] is None
    assert not [name for name in (await health(manual))["checks"] if name.startswith("verified")]
    assert await sample(manual, "ackgate_unverified_users") == "0.0"


async def test_nobody_is_written_to_until_the_client_was_asked(install: Install) -> None:
    made = await restored(install)
    gate = await made.gate()
    [reason] = gate["reasons"]
    assert (reason["code"], gate["sendable"], gate["known"]) == ("unverified", False, True)
    shown = (await account(made))["unverified"]
    assert shown == {"since": reason["since"], "remaining": 1}
    assert "asked" in reason["clears_when"]
    seen = await health(made)
    assert seen["status"] == "warn"
    assert "1 users" in seen["checks"]["verified:main"]["detail"]
    assert (await made.api("GET", "/health/ready"))[0] == 200
    assert await sample(made, "ackgate_unverified_users") == "1.0"
    made.sim.clear_faults()
    await verified(made)
    assert await made.reasons() == []
    assert "verified:main" not in (await health(made))["checks"]
    assert (await events(made))[-2:] == ["restored", "verified"]


async def test_a_user_never_heard_of_may_be_written_to_with_a_warning(install: Install) -> None:
    made = await restored(install)
    gate = await made.gate(STRANGER)
    assert (gate["sendable"], gate["known"]) == (True, False)
    codes = [warning["code"] for warning in gate["warnings"]]
    assert codes == ["contact_unknown", "account_unverified", "catching_up"]
    made.sim.clear_faults()
    await verified(made)
    codes = [warning["code"] for warning in (await made.gate(STRANGER))["warnings"]]
    assert codes == ["contact_unknown", "catching_up"]


async def test_a_change_that_came_in_after_the_backup_is_found(manual: Installation) -> None:
    await manual.acknowledged(hash_=HASH_A)
    backup = await manual.back_up()
    await manual.change(hash_=HASH_B)
    await manual.restore(backup)
    await verified(manual)
    assert (await manual.identity())["hash"] == HASH_B
    assert await manual.reasons() == ["identity_pending"]


async def test_an_acknowledgement_made_after_the_backup_is_found(manual: Installation) -> None:
    hash_ = await manual.change()
    backup = await manual.back_up()
    await manual.acknowledge(hash_, query="?wait=10")
    await manual.restore(backup)
    await verified(manual)
    assert (await manual.state(), await manual.reasons()) == ("acknowledged", [])
    assert len(manual.puts()) == 1


async def test_whom_the_client_does_not_know_is_verified_too(manual: Installation) -> None:
    await manual.deliver(notice(STRANGER, HASH_A, hour_ago()))
    backup = await manual.back_up()
    await manual.restore(backup)
    await verified(manual)
    assert await manual.reasons(STRANGER) == ["identity_pending"]


async def test_users_in_demand_are_asked_about_first(install: Install) -> None:
    made = await install(reconciler={"verify_per_second": 3})
    names = [f"1631555{n:04}" for n in range(40)]
    for name in names:
        await made.change(name)
    backup = await made.back_up()
    before = made.sim.calls["identity_get"]
    await made.restore(backup)
    wanted = names[-2]
    assert "unverified" in await made.reasons(wanted)

    async def answered() -> bool:
        return "unverified" not in await made.reasons(wanted)

    await until(answered)
    assert made.gets(wanted) == 1
    assert made.sim.calls["identity_get"] - before < 20
    assert (await account(made))["unverified"]["remaining"] > 20


async def test_one_whom_the_client_does_not_answer_about_holds_up_nobody(
    install: Install,
) -> None:
    made = await install(reconciler={"verify_per_second": 100})
    for n in range(20):
        await made.change(f"1631555{n:04}")
    await made.change()
    backup = await made.back_up()
    made.sim.fault("identity_get", status=500, wa_id=WA_ID)
    await made.restore(backup)

    async def only_one_is_left() -> bool:
        assert "unverified" in await made.reasons()
        return bool((await account(made))["unverified"]["remaining"] == 1)

    await until(only_one_is_left)
    made.sim.clear_faults()
    await verified(made)


async def test_the_client_is_asked_no_faster_than_configured(install: Install) -> None:
    made = await install(reconciler={"verify_per_second": 10})
    for n in range(10):
        await made.change(f"1631555{n:04}")
    backup = await made.back_up()
    started = time.monotonic()
    await made.restore(backup)
    await verified(made)
    assert time.monotonic() - started > 0.8


async def test_a_restart_forgets_nobody(install: Install) -> None:
    made = await install(reconciler={"verify_per_second": 1})
    for n in range(3):
        await made.change(f"1631555{n:04}")
    await made.restore(await made.back_up())
    since = (await account(made))["unverified"]["since"]
    await made.stop()
    await made.start(reconciler={"verify_per_second": 100})
    shown = (await account(made))["unverified"]
    assert shown is None or shown["since"] == since
    await verified(made)
    assert all(made.gets(f"1631555{n:04}") >= 1 for n in range(3))


async def test_callbacks_that_come_in_meanwhile_take_effect(install: Install) -> None:
    made = await restored(install)
    await made.change(hash_=HASH_B)
    assert set(await made.reasons()) == {"identity_pending", "unverified"}
    await made.deliver(wrote(STRANGER, HASH_A, hour_ago()))
    assert await made.reasons(STRANGER) == ["identity_pending"], "known since the restore"
    made.sim.clear_faults()
    await verified(made)
    assert await made.reasons() == ["identity_pending"]


async def test_a_refresh_verifies_a_user(install: Install) -> None:
    made = await restored(install, reconciler={"verify_per_second": 0.01})
    await until(lambda: made.gets() >= 1)
    made.sim.clear_faults()
    assert (await made.refresh())[0] == 200
    assert await made.reasons() == []


async def test_a_decision_from_before_the_backup_asks_before_it_puts(manual: Installation) -> None:
    hash_ = await manual.change()
    manual.sim.fault("identity_put", status=503)
    await manual.acknowledge(hash_)
    await until(manual.puts)
    backup = await manual.back_up()
    manual.sim.clear_faults()
    await manual.becomes("acknowledged")
    manual.sim.change_identity(WA_ID, HASH_B, notify=False)
    puts = manual.puts()
    await manual.restore(backup)
    await verified(manual)
    assert await manual.reasons() == ["identity_pending"]
    assert (await manual.identity())["hash"] == HASH_B
    assert manual.puts() == puts


async def test_what_policy_had_only_scheduled_waits_for_a_person(install: Install) -> None:
    made = await install(policy={"mode": "auto", "delay_seconds": 600})
    hash_ = await made.change()
    backup = await made.back_up()
    await made.hold(hash_)
    await made.restore(backup)
    await verified(made)
    shown = await made.identity()
    assert (shown["state"], shown["due_at"]) == ("pending", None)
    assert "restored" in (await made.audit(event="pending"))[-1]["reason"]
    made.pass_time(700)
    assert (await made.acknowledge(hash_, query="?wait=10"))[0] == 200
    assert len(made.puts()) == 1


async def test_a_second_restore_begins_anew(manual: Installation) -> None:
    await manual.change()
    await manual.change(OTHER_ID)
    backup = await manual.back_up()
    for _ in range(2):
        await manual.restore(backup)
        await verified(manual)
        assert await manual.reasons(OTHER_ID) == ["identity_pending"]
    assert (await events(manual)).count("restored") == 1, "the first restore is not in the backup"
    await manual.restore(await manual.back_up())
    await verified(manual)
    assert (await events(manual)).count("restored") == 2


async def test_while_the_client_is_down_its_users_stay_unverified(manual: Installation) -> None:
    await manual.acknowledged(hash_=HASH_A)
    backup = await manual.back_up()
    manual.sim.fault("any", drop="before")
    await manual.restore(backup)
    await until(lambda: manual.sim.calls["identity_get"] > 0 or manual.sim.calls["login"] > 1)
    assert await manual.reasons() == ["unverified"]
    manual.sim.clear_faults()
    await verified(manual)
    assert await manual.reasons() == []


@pytest.mark.slow
async def test_while_one_is_left_to_be_asked_about_the_account_stays_unverified(
    install: Install,
) -> None:
    made = await install(reconciler={"verify_per_second": 100})
    await made.acknowledged(OTHER_ID)
    await made.acknowledged(hash_=HASH_A)
    backup = await made.back_up()
    made.sim.fault("identity_get", status=500, wa_id=WA_ID)
    asked = made.gets()
    await made.restore(backup)
    await until(lambda: made.gets() >= asked + 3, what="who is left is asked about again and again")
    assert (await account(made))["unverified"]["remaining"] == 1
    assert await made.reasons() == ["unverified"]
    assert await made.reasons(OTHER_ID) == []
    warned = [warning["code"] for warning in (await made.gate(STRANGER))["warnings"]]
    assert "account_unverified" in warned
    assert "verified" not in await events(made)
    made.sim.clear_faults()
    await verified(made)
    assert await made.reasons() == []
    assert (await events(made)).count("verified") == 1
