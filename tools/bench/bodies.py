"""The callbacks that the load is made of: distinct bodies, in the JSON of Meta's pages.

A user is a number: `wa_id(n)`. The hash of a user's n-th identity is a function of both, so that
the load, the generator of databases and the simulator agree without telling each other.
"""

import base64
import json
import random
from collections.abc import Iterator
from itertools import count

IDENTITY_BYTES = 433
"""The length of a notification of an identity change, as in the notes on performance."""
STATUSES, MESSAGES, CHANGES = 0.60, 0.38, 0.01
"""The everyday mix; what is left are contact checks."""
FIRST_SEEN_MS = 1_700_000_000_000
"""When the identity of user 0 was made, Unix milliseconds; of each further user one later."""
NEW_USERS = 100_000_000
"""Users from this number on are nobody's: the identity changes of new users begin here."""
NAMES, SPREAD = 10**10, 6_180_339_887
"""Names there are, and a number without a factor in common with that."""

RECIPIENTS = 1_000
"""Of one lookup."""

Bodies = Iterator[bytes]


def wa_id(user: int) -> str:
    """Name a user; neighbours get names far apart, as the users of a real day have."""
    return f"1{user * SPREAD % NAMES:010}"


def hash_of(user: int, nth: int = 0) -> str:
    """Give the hash of a user's n-th identity: 12 characters of base64, as the client's."""
    return base64.b64encode((user << 16 | nth).to_bytes(8, "big")).decode()


def system_id(name: str, at_ms: int) -> str:
    """Write the self-describing id of a system message about an identity."""
    content = f"sys-{name}@s.whatsapp.net-{at_ms}-identity".encode()
    number = bytes.fromhex(name + "f" * (len(name) % 2))
    head = bytes([0, 0x11, 0x80 | len(number), *number, 3, len(content)])
    return base64.urlsafe_b64encode(head + content).rstrip(b"=").decode()


def identity_change(user: int, nth: int, at_ms: int) -> bytes:
    """Write the notification of a user's n-th identity, 433 bytes long."""
    name = wa_id(user)
    return _CHANGE % (
        name.encode(),
        system_id(name, at_ms).encode(),
        hash_of(user, nth).encode(),
        name.encode(),
        at_ms // 1000,
    )


def message(user: int, number: int) -> bytes:
    """Write what a user wrote, with the identity that is known and acknowledged."""
    return message_of(user, number, FIRST_SEEN_MS + user, acknowledged=True)


def message_of(user: int, number: int, at_ms: int, *, acknowledged: bool) -> bytes:
    """Write what a user wrote, with an identity since then."""
    name = wa_id(user).encode()
    return _MESSAGE % (
        name,
        name,
        number,
        b"true" if acknowledged else b"false",
        at_ms,
        hash_of(user).encode(),
        number,
        at_ms // 1000 + number // 1000,
    )


def status(user: int, number: int) -> bytes:
    """Write that a message to a user was sent, delivered or read."""
    state = (b"sent", b"delivered", b"read")[number % 3]
    return _STATUS % (number, wa_id(user).encode(), state, (FIRST_SEEN_MS + number) // 1000)


def contact_check(user: int) -> bytes:
    """Write the result of a contact check."""
    name = wa_id(user).encode()
    return _CONTACT % (name, name)


def identity_changes(first: int, now_ms: int) -> Bodies:
    """Write the changes of users never seen, one each."""
    for user in count(NEW_USERS + first):
        yield identity_change(user, 0, now_ms + user % 60_000)


def everyday(first: int, now_ms: int, users: int) -> Bodies:
    """Write the everyday mix of so many existing users; `first` keeps two runs distinct."""
    chance = random.Random(first)
    for number in count(first):
        user, kind = chance.randrange(users), chance.random()
        if kind < STATUSES:
            yield status(user, number)
        elif kind < STATUSES + MESSAGES:
            yield message(user, number)
        elif kind < STATUSES + MESSAGES + CHANGES:
            yield identity_change(user, 1 + number % 60_000, now_ms + number % 60_000)
        else:
            yield contact_check(user)


def _template(value: object, indent: int | None = None) -> bytes:
    text = json.dumps(value, indent=indent, separators=None if indent else (",", ":"))
    return text.replace('"<%d>"', "%d").replace('"<%s>"', "%s").encode()


_CHANGE = _template(
    {
        "messages": [
            {
                "from": "%s",
                "id": "%s",
                "system": {"identity": "%s", "type": "user_identity_changed", "user": "%s"},
                "timestamp": "%d",
                "type": "system",
            }
        ]
    },
    indent=4,
)
_MESSAGE = _template(
    {
        "contacts": [{"profile": {"name": "A user"}, "wa_id": "%s"}],
        "messages": [
            {
                "from": "%s",
                "id": "ABGGFjFVU2AfAgo-%012d",
                "identity": {"acknowledged": "<%s>", "created_timestamp": "<%d>", "hash": "%s"},
                "text": {"body": "Hello, this is message %012d of a conversation"},
                "timestamp": "%d",
                "type": "text",
            }
        ],
    }
)
_STATUS = _template(
    {
        "statuses": [
            {
                "id": "ABGGFlA5FpafAgo-%012d",
                "recipient_id": "%s",
                "status": "%s",
                "timestamp": "%d",
            }
        ]
    }
)
_CONTACT = _template({"contacts": [{"input": "+%s", "status": "valid", "wa_id": "%s"}]})


def _padded(template: bytes) -> bytes:
    """Lengthen the notification with spaces at its end, which JSON allows."""
    sample = template % (
        b"1" * 11,
        system_id("1" * 11, 10**12).encode(),
        b"h" * 12,
        b"1" * 11,
        10**9,
    )
    return template + b" " * (IDENTITY_BYTES - len(sample))


_CHANGE = _padded(_CHANGE)


def traffic(first: int, users: int) -> Bodies:
    """Write what asks for no work: the everyday statuses and messages alone."""
    chance = random.Random(first)
    for number in count(first):
        kind = message if chance.random() * (STATUSES + MESSAGES) > STATUSES else status
        yield kind(chance.randrange(users), number)


def lookups(first: int, users: int) -> Bodies:
    """Write lookups of a thousand: one half by wa_id, one by number as the business holds it."""
    chance = random.Random(first)
    while True:
        asked = [wa_id(chance.randrange(users)) for _ in range(RECIPIENTS)]
        asked[::2] = [f"+{name}" for name in asked[::2]]
        yield json.dumps({"recipients": asked}).encode()
