"""What the load generator sends: streams of distinct bodies, by name.

A user is a number, from which wa_id, user id and hash follow; so the load, the databases that were
made before and the simulator agree without speaking to each other.
"""

import base64
import json
import random
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count

from tools import bodies, webhooks
from tools.bodies import FIRST_SEEN_MS, hash_of, wa_id
from tools.webhooks import CloudUser, Number, Update

STATUSES, MESSAGES, CHANGES = 0.60, 0.38, 0.01
"""The everyday mix; the rest are contact checks."""
NEW_USERS = 100_000_000
"""Users from this number on are in no database."""
SIX = 6
"""The number of users whom one callback tells of."""
RECIPIENTS = 1_000
"""The number of recipients in one lookup."""
BATCH = 1_000
"""The number of updates in one webhook, which is the most that the Cloud API sends."""

Bodies = Iterator[bytes]
Work = Callable[[int, int, int], Bodies]
"""Makes bodies of a first number, the time (Unix ms), and the number of users that are known."""


def _message(user: int, number: int) -> bytes:
    """Return what a user wrote, with the identity that is known and acknowledged."""
    created_ms = FIRST_SEEN_MS + user
    at_ms = created_ms + number // 1000 * 1000
    return bodies.message(
        wa_id(user), hash_of(user), created_ms, acknowledged=True, number=number, at_ms=at_ms
    )


def _change(user: int, nth: int, at_ms: int) -> bytes:
    return bodies.identity_change(wa_id(user), hash_of(user, nth), at_ms)


def identity_changes(first: int, now_ms: int, _: int, length: int = 0) -> Bodies:
    """Yield the identity changes of users never seen, one each, padded to a length."""
    for user in count(NEW_USERS + first):
        yield _change(user, 0, now_ms + user % 60_000).ljust(length)


def new_messages(first: int, now_ms: int, _: int, length: int) -> Bodies:
    """Yield messages with the identity, of users never seen, padded to a length."""
    for user in count(NEW_USERS + first):
        at_ms = now_ms + user % 60_000
        at_s = at_ms + user // 1000 * 1000
        body = bodies.message(
            wa_id(user), hash_of(user), at_ms, acknowledged=False, number=user, at_ms=at_s
        )
        yield body.ljust(length)


def statuses(first: int, _: int, users: int, length: int) -> Bodies:
    """Yield statuses of messages to users who are known, padded to a length."""
    for number in count(first):
        yield bodies.status(wa_id(number % users), number).ljust(length)


def everyday(first: int, now_ms: int, users: int) -> Bodies:
    """Yield the everyday mix of users who are known; `first` keeps two runs distinct."""
    chance = random.Random(first)
    for number in count(first):
        user, kind = chance.randrange(users), chance.random()
        if kind < STATUSES:
            yield bodies.status(wa_id(user), number)
        elif kind < STATUSES + MESSAGES:
            yield _message(user, number)
        elif kind < STATUSES + MESSAGES + CHANGES:
            yield _change(user, 1 + number % 60_000, now_ms + number % 60_000)
        else:
            yield bodies.contact_check(f"+{wa_id(user)}", wa_id(user))


def six_changes(first: int, now_ms: int, users: int) -> Bodies:
    """Yield notifications of six identity changes each, so that two of them often share a user."""
    chance = random.Random(first)
    for number in count(first):
        some = chance.sample(range(users), SIX)
        told = [json.loads(_change(user, number % 65_536, now_ms + number)) for user in some]
        yield json.dumps({"messages": [one["messages"][0] for one in told]}).encode()


def traffic(first: int, _: int, users: int) -> Bodies:
    """Yield the everyday statuses and messages alone, which lead to no call to the client."""
    chance = random.Random(first)
    for number in count(first):
        is_message = chance.random() * (STATUSES + MESSAGES) > STATUSES
        user = chance.randrange(users)
        yield _message(user, number) if is_message else bodies.status(wa_id(user), number)


def lookups(first: int, _: int, users: int) -> Bodies:
    """Yield lookups of a thousand: half by wa_id, half by the number as the business has it."""
    chance = random.Random(first)
    while True:
        asked = [wa_id(chance.randrange(users)) for _ in range(RECIPIENTS)]
        asked[::2] = [f"+{name}" for name in asked[::2]]
        yield json.dumps({"recipients": asked}).encode()


def _template(update: Update) -> str:
    """Return an update as JSON, in which id, state and time are to be filled in by `%`."""
    (element,) = update.lists.get("messages") or update.lists["statuses"]
    element |= {"id": "%(id)s", "timestamp": "%(at)d"}
    if "status" in element:
        element["status"] = "%(state)s"
    [entry] = json.loads(webhooks.webhook(update))["entry"]
    return json.dumps(entry["changes"][0], separators=(",", ":"))


_LINE, _USER = Number(), CloudUser(wa_id="%(wa_id)s", user_id="%(user_id)s", hash="%(hash)s")
_WROTE = _template(webhooks.wrote(_LINE, _USER, 0))
_WROTE_BY_NUMBER = _template(webhooks.wrote(_LINE, _USER, 0, webhooks.BY_NUMBER))
_STATUS = _template(webhooks.delivered(_LINE, _USER, 0, with_hash=False))
_STATUS_BY_NUMBER = _template(
    webhooks.delivered(_LINE, _USER, 0, webhooks.BY_NUMBER, with_hash=False)
)


def _filled(template: str, user: int, number: int, at_ms: int) -> str:
    """Return an update about a user."""
    name = wa_id(user)
    digits, direction = b"%020X" % number, b"\x11" if "%(state)s" in template else b"\x12"
    id_ = b"\x1c\x18%c%b\x15\x02\x00%b\x18%c%b\x00" % (
        len(name), name.encode(), direction, len(digits), digits,
    )  # fmt: skip
    return template % {
        "wa_id": name,
        "user_id": f"US.1349{name}",
        "hash": hash_of(user),
        "id": f"wamid.{base64.b64encode(id_).decode()}",
        "state": ("sent", "delivered", "read")[number % 3],
        "at": at_ms // 1000,
    }


def _webhook(updates: Iterator[str]) -> bytes:
    changes = ",".join(updates)
    return (
        f'{{"object":"whatsapp_business_account","entry":[{{"id":"{_LINE.waba_id}","changes":['
        f"{changes}]}}]}}"
    ).encode()


def _cloud_message(user: int, now_ms: int, template: str = _WROTE) -> str:
    return _filled(template, user, user, now_ms + user % 60_000)


def cloud_messages(
    first: int, now_ms: int, _: int, template: str = _WROTE, batch: int = 1
) -> Bodies:
    """Yield signed messages of users never seen, with the identity hash, so many in a webhook."""
    for start in count(NEW_USERS + first, batch):
        users = range(start, start + batch)
        yield _webhook(_cloud_message(user, now_ms, template) for user in users)


def cloud_statuses(
    first: int, _: int, users: int, template: str = _STATUS, batch: int = 1
) -> Bodies:
    """Yield statuses of messages to users who are known, so many in a webhook."""
    for start in count(first, batch):
        numbers = range(start, start + batch)
        yield _webhook(_filled(template, n % users, n, FIRST_SEEN_MS + n) for n in numbers)


def cloud_users(users: int) -> Bodies:
    """Yield messages that make the first users known, a thousand in each webhook."""
    for start in range(0, users, BATCH):
        many = range(start, min(users, start + BATCH))
        yield _webhook(_cloud_message(user, FIRST_SEEN_MS) for user in many)


def _length(stream: Bodies) -> int:
    """Return the length of the second body: for statuses that of the middle one of the states."""
    next(stream)
    return len(next(stream))


_MESSAGE_LENGTH = _length(cloud_messages(0, FIRST_SEEN_MS, 0))
_BY_NUMBER_LENGTH = _length(cloud_messages(0, FIRST_SEEN_MS, 0, _WROTE_BY_NUMBER))
_STATUS_LENGTH = _length(cloud_statuses(0, 0, 10))
_STATUS_BY_NUMBER_LENGTH = _length(cloud_statuses(0, 0, 10, _STATUS_BY_NUMBER))

WORKS: dict[str, Work] = {
    "identities": identity_changes,
    "everyday": everyday,
    "traffic": traffic,
    "six changes": six_changes,
    "lookups": lookups,
    "cloud messages": cloud_messages,
    "cloud messages by number": partial(cloud_messages, template=_WROTE_BY_NUMBER),
    "cloud statuses": cloud_statuses,
    "cloud statuses by number": partial(cloud_statuses, template=_STATUS_BY_NUMBER),
    "cloud message batches": partial(cloud_messages, batch=BATCH),
    "cloud status batches": partial(cloud_statuses, batch=BATCH),
    "changes as long as cloud messages": partial(identity_changes, length=_MESSAGE_LENGTH),
    "changes as long as cloud messages by number": partial(
        identity_changes, length=_BY_NUMBER_LENGTH
    ),
    "messages as long as cloud messages by number": partial(new_messages, length=_BY_NUMBER_LENGTH),
    "statuses as long as cloud statuses": partial(statuses, length=_STATUS_LENGTH),
    "statuses as long as cloud statuses by number": partial(
        statuses, length=_STATUS_BY_NUMBER_LENGTH
    ),
}
