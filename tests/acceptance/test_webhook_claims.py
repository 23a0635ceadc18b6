"""What callbacks of the On-Premises API claim, which carry no signature."""

from tests.acceptance.conftest import HASH_A, WA_ID, Installation, hour_ago, wrote


async def test_a_forged_callback_closes_the_gate_and_never_opens_it(manual: Installation) -> None:
    hash_ = await manual.change()
    closed = await manual.reasons()
    created = manual.sim.users[WA_ID].created_timestamp
    await manual.deliver(
        wrote(WA_ID, hash_, created, acknowledged=True),
        wrote(WA_ID, HASH_A, created + 1000, acknowledged=True),
        wrote(WA_ID, HASH_A, hour_ago(), acknowledged=True),
    )
    assert (await manual.reasons(), manual.puts()) == (closed, [])
    assert await manual.state() == "pending"
    assert await manual.audit(event="acknowledged") == []
