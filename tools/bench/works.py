"""What can be sent to a server, by name."""

from collections.abc import Callable

from tools.bench import bodies, cloud_bodies
from tools.bench.bodies import Bodies

Work = Callable[[int, int, int], Bodies]
WORKS: dict[str, Work] = {
    "identities": lambda first, now_ms, _: bodies.identity_changes(first, now_ms),
    "everyday": bodies.everyday,
    "traffic": lambda first, _, users: bodies.traffic(first, users),
    "lookups": lambda first, _, users: bodies.lookups(first, users),
    "cloud messages": lambda first, now_ms, _: cloud_bodies.messages(first, now_ms),
    "as cloud messages": lambda first, now_ms, _: cloud_bodies.messages_onprem(first, now_ms),
    "cloud messages by number": (
        lambda first, now_ms, _: cloud_bodies.messages_by_number(first, now_ms)
    ),
    "as cloud messages by number": (
        lambda first, now_ms, _: cloud_bodies.messages_by_number_onprem(first, now_ms)
    ),
    "like cloud messages by number": (
        lambda first, now_ms, _: cloud_bodies.messages_like_onprem(first, now_ms)
    ),
    "cloud statuses": lambda first, _, users: cloud_bodies.statuses(first, users),
    "cloud statuses by number": lambda first, _, users: cloud_bodies.statuses_by_number(
        first, users
    ),
    "as cloud statuses by number": lambda first, _, users: cloud_bodies.statuses_by_number_onprem(
        first, users
    ),
    "as cloud statuses": lambda first, _, users: cloud_bodies.statuses_onprem(first, users),
    "cloud batches": lambda first, now_ms, _: cloud_bodies.batches(first, now_ms),
    "cloud status batches": lambda first, _, users: cloud_bodies.batches_of_statuses(first, users),
}
"""Each takes a first number, the time (Unix ms) and the number of users that are known."""
