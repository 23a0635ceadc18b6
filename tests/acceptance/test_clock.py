"""The clock of the machine is set back while work is leased, and its holder is no more."""

import time

from tests.acceptance.conftest import WA_ID, Installation, blocked, until

DAY = 86_400


async def hold(made: Installation) -> None:
    """Let the one piece of work be leased by somebody whose clock was a day ahead."""
    ends = time.time_ns() // 1_000_000 + DAY * 1000 + 10_000
    leased = "UPDATE outbox SET holder = 'nobody any more', lease_until = :ends"
    assert await made.write(leased, ends=ends) == 1


async def pass_leases(made: Installation, closed_by: str) -> None:
    """Let time pass, a little more than a lease each time, until the gate is open."""

    async def is_open() -> bool:
        made.pass_time(11)
        return not await made.reasons()

    assert await made.reasons() == [closed_by]
    await until(is_open)


async def test_a_decision_that_was_leased_before_the_clock_went_back_is_sent(
    auto: Installation,
) -> None:
    auto.sim.fault("identity_put", status=503)
    await auto.change()
    await until(auto.puts)
    await hold(auto)
    auto.sim.clear_faults()
    auto.pass_time(-DAY)
    await pass_leases(auto, "identity_acknowledging")
    assert await auto.state() == "acknowledged"


async def test_a_question_that_was_leased_before_the_clock_went_back_is_asked(
    manual: Installation,
) -> None:
    await manual.acknowledged()
    manual.sim.fault("identity_get", status=503)
    asked = manual.gets()
    await manual.deliver(blocked(WA_ID))
    await until(lambda: manual.gets() > asked)
    await hold(manual)
    manual.sim.clear_faults()
    manual.pass_time(-DAY)
    await pass_leases(manual, "send_blocked")
    assert await manual.state() == "acknowledged"
