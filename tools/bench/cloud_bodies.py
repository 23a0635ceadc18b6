"""The callbacks of the Cloud API that the load is made of, and On-Premises ones of their size.

Users are numbers, as in `tools.bench.bodies`; each has a wa_id and a user id. Every body of a kind
has the same length, and so has its counterpart.
"""

import base64
import json
from collections.abc import Iterator
from itertools import count

from tools.bench.bodies import (
    FIRST_SEEN_MS,
    NEW_USERS,
    Bodies,
    hash_of,
    identity_change,
    wa_id,
)
from tools.bench.bodies import message_of as onprem_message
from tools.bench.bodies import status as onprem_status

NUMBER_ID = "106540352242922"
BATCH = 1_000
"""Updates of one webhook, as many as the Cloud API sends at most."""

_MESSAGE_ID, _STATUS_ID = b"\x12", b"\x11"
_STATES = ("sent", "delivered", "read")


def user_id(user: int) -> str:
    """Name a user by a user id; neighbours get ids far apart."""
    return f"US.1349{wa_id(user)}"


def messages(first: int, now_ms: int) -> Bodies:
    """Write what users never seen wrote, one message each, with the identity hash."""
    for user in count(NEW_USERS + first):
        yield _webhook([_message(user, now_ms)])


def messages_by_number(first: int, now_ms: int) -> Bodies:
    """Write the same as Meta's page on the identity change check shows it: without user ids."""
    for user in count(NEW_USERS + first):
        yield _webhook([_message(user, now_ms, _MESSAGE_BY_NUMBER)])


def messages_by_number_onprem(first: int, now_ms: int) -> Bodies:
    """Write the identity changes of users never seen, as long as those."""
    for user in count(NEW_USERS + first):
        yield identity_change(user, 0, now_ms + user % 60_000).ljust(MESSAGE_BY_NUMBER_BYTES)


def messages_onprem(first: int, now_ms: int) -> Bodies:
    """Write the identity changes of users never seen, as long as a message of the Cloud API."""
    for user in count(NEW_USERS + first):
        yield identity_change(user, 0, now_ms + user % 60_000).ljust(MESSAGE_BYTES)


def messages_like_onprem(first: int, now_ms: int) -> Bodies:
    """Write what users never seen wrote, with the identity, as an On-Premises client does."""
    for user in count(NEW_USERS + first):
        said = onprem_message(user, user, now_ms + user % 60_000, acknowledged=False)
        yield said.ljust(MESSAGE_BY_NUMBER_BYTES)


def statuses(first: int, users: int) -> Bodies:
    """Write what became of messages to users who are known."""
    for number in count(first):
        yield _webhook([_status(number % users, number)])


def statuses_by_number(first: int, users: int) -> Bodies:
    """Write the same with the recipient's number alone."""
    for number in count(first):
        yield _webhook([_status(number % users, number, _STATUS_BY_NUMBER)])


def statuses_by_number_onprem(first: int, users: int) -> Bodies:
    """Write the same as an On-Premises client does, as long as those."""
    for number in count(first):
        yield onprem_status(number % users, number).ljust(STATUS_BY_NUMBER_BYTES)


def statuses_onprem(first: int, users: int) -> Bodies:
    """Write the same as an On-Premises client does, as long as a status of the Cloud API."""
    for number in count(first):
        yield onprem_status(number % users, number).ljust(STATUS_BYTES)


def batches(first: int, now_ms: int) -> Bodies:
    """Write the messages of a thousand users never seen in one webhook."""
    for start in count(NEW_USERS + first, BATCH):
        yield _webhook([_message(user, now_ms) for user in range(start, start + BATCH)])


def batches_of_statuses(first: int, users: int) -> Bodies:
    """Write a thousand statuses in one webhook."""
    for start in count(first, BATCH):
        yield _webhook([_status(n % users, n) for n in range(start, start + BATCH)])


def known(users: int) -> Iterator[bytes]:
    """Write messages that make the first users known, a thousand in each webhook."""
    for start in range(0, users, BATCH):
        many = range(start, min(users, start + BATCH))
        yield _webhook([_message(user, FIRST_SEEN_MS) for user in many])


def _webhook(values: list[str]) -> bytes:
    changes = ",".join(values)
    return (
        '{"object":"whatsapp_business_account","entry":[{"id":"102290129340398","changes":['
        f"{changes}]}}]}}"
    ).encode()


def _message(user: int, now_ms: int, template: str = "") -> str:
    name = wa_id(user)
    return (template or _MESSAGE) % {
        "wa_id": name,
        "user_id": user_id(user),
        "hash": hash_of(user),
        "id": _wamid(name, user, _MESSAGE_ID),
        "at": (now_ms + user % 60_000) // 1000,
    }


def _status(user: int, number: int, template: str = "") -> str:
    name = wa_id(user)
    return (template or _STATUS) % {
        "wa_id": name,
        "user_id": user_id(user),
        "id": _wamid(name, number, _STATUS_ID),
        "status": _STATES[number % 3],
        "at": (FIRST_SEEN_MS + number) // 1000,
    }


def _wamid(name: str, number: int, direction: bytes) -> str:
    digits = b"%020X" % number
    raw = b"\x1c\x18%c%b\x15\x02\x00%b\x18%c%b\x00" % (
        len(name), name.encode(), direction, len(digits), digits,
    )  # fmt: skip
    return f"wamid.{base64.b64encode(raw).decode()}"


def _template(**lists: object) -> str:
    metadata = {"display_phone_number": "15550783881", "phone_number_id": NUMBER_ID}
    value = {"messaging_product": "whatsapp", "metadata": metadata, **lists}
    return json.dumps({"value": value, "field": "messages"}, separators=(",", ":"))


def _message_template(contact: dict[str, str], sender: dict[str, str]) -> str:
    """Write a message and its contact, which both name the user."""
    text = {"body": "Does it come in another color?"}
    said = {"id": "%(id)s", "timestamp": "%(at)d", "text": text, "type": "text"}
    of_whom = {"profile": {"name": "A user"}, "identity_key_hash": "%(hash)s"}
    return _template(contacts=[of_whom | contact], messages=[sender | said])


def _status_template(recipient: dict[str, str]) -> str:
    """Write what became of a message to whoever is named."""
    told = {"id": "%(id)s", "status": "%(status)s", "timestamp": "%(at)d"}
    pricing = {
        "billable": False,
        "pricing_model": "PMP",
        "category": "service",
        "type": "free_customer_service",
    }
    return _template(statuses=[told | recipient | {"pricing": pricing}])


_MESSAGE = _message_template(
    {"wa_id": "%(wa_id)s", "user_id": "%(user_id)s"},
    {"from": "%(wa_id)s", "from_user_id": "%(user_id)s"},
)
_MESSAGE_BY_NUMBER = _message_template({"wa_id": "%(wa_id)s"}, {"from": "%(wa_id)s"})
_STATUS = _status_template({"recipient_id": "%(wa_id)s", "recipient_user_id": "%(user_id)s"})
_STATUS_BY_NUMBER = _status_template({"recipient_id": "%(wa_id)s"})
MESSAGE_BY_NUMBER_BYTES = len(_webhook([_message(NEW_USERS, FIRST_SEEN_MS, _MESSAGE_BY_NUMBER)]))
MESSAGE_BYTES = len(_webhook([_message(NEW_USERS, FIRST_SEEN_MS)]))
STATUS_BYTES = len(_webhook([_status(0, 1)]))
STATUS_BY_NUMBER_BYTES = len(_webhook([_status(0, 1, _STATUS_BY_NUMBER)]))
"""The length of the middle one of the three states."""
