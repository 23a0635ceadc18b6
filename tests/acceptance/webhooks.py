"""Webhooks of the Cloud API as they are written down on Meta's pages, made of their parts."""

import time
from collections.abc import Sequence
from typing import Any

from tests.acceptance.conftest import NUMBER, SHEENA, hour_ago

Json = dict[str, Any]

MISMATCH = 137000


def envelope(*values: Json) -> Json:
    """Put values into one webhook, each in a change of its own."""
    changes = [{"field": "messages", "value": value} for value in values]
    return {
        "object": "whatsapp_business_account",
        "entry": [{"id": "102290129340398", "changes": changes}],
    }


def value(
    contacts: Sequence[Any] | None = None,
    messages: Sequence[Any] | None = None,
    statuses: Sequence[Any] | None = None,
    *,
    number: str = NUMBER,
) -> Json:
    """Put elements into one value; a list that is None is left out."""
    lists = {"contacts": contacts, "messages": messages, "statuses": statuses}
    return {
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": "15550783881", "phone_number_id": number},
        **{name: list(found) for name, found in lists.items() if found is not None},
    }


def seconds(after: float) -> str:
    """Give so many seconds after an hour ago, as webhooks write times."""
    return str(hour_ago(after) // 1000)


def contact(hash_: str | None = None, **names: str) -> Json:
    """Write an element of `contacts`; the names are `wa_id`, `user_id`, `parent_user_id`."""
    told = {} if hash_ is None else {"identity_key_hash": hash_}
    return {"profile": {"name": "Sheena Nelson"}, **names, **told}


def text(after: float = 0, **names: str) -> Json:
    """Write a text message; the names are `from` (as `wa_id`) and `from_user_id`."""
    named = {"from" if key == "wa_id" else f"from_{key}": name for key, name in names.items()}
    return {
        **named,
        "id": f"wamid.{after:g}{''.join(names.values())}",
        "timestamp": seconds(after),
        "type": "text",
        "text": {"body": "Hello"},
    }


def wrote(
    hash_: str | None = None, after: float = 0, *, number: str = NUMBER, **names: str
) -> Json:
    """Let a user have written, so many seconds after an hour ago."""
    who = names or {"wa_id": SHEENA}
    return envelope(value([contact(hash_, **who)], [text(after, **who)], number=number))


def status(
    state: str,
    after: float = 0,
    id_: str = "wamid.OPAQUE==",
    hash_: str | None = None,
    **names: str,
) -> Json:
    """Write an element of `statuses`; the names are `recipient_id`, `recipient_user_id`."""
    told = {} if hash_ is None else {"recipient_identity_key_hash": hash_}
    return {"id": id_, "status": state, "timestamp": seconds(after), **names, **told}


def mismatch(
    after: float | None = None, id_: str = "wamid.OPAQUE==", hash_: str | None = None, **names: str
) -> Json:
    """Write the status of a message that was refused now, for the user has another hash."""
    after = time.time() - hour_ago() / 1000 if after is None else after
    errors = [{"code": MISMATCH, "title": "Recipient identity key hash mismatch"}]
    return status("failed", after, id_, hash_, **names) | {"errors": errors}


def told(*statuses: Json, contacts: Sequence[Json] | None = None) -> Json:
    """Put statuses into a webhook of their own."""
    return envelope(value(contacts, statuses=statuses))


def system(after: float = 0, sender: str | None = SHEENA, **about: str) -> Json:
    """Write a system message, which comes without `contacts`."""
    named = {} if sender is None else {"from": sender}
    message = {
        **named,
        "id": f"wamid.system{after:g}",
        "timestamp": seconds(after),
        "system": {"body": "User changed", **about},
        "type": "system",
    }
    return envelope(value(messages=[message]))
