"""What a business sends through Ackgate: whom a message is for, and what an answer to it says.

The gate is asked about one recipient, so the body must not mean another one to whoever gets it. So
a body is read strictly, and what is sent on is written anew from what was read: a key that is given
twice, a key that is not known here, or a recipient in two places is refused. Graph takes parameters
such as `access_token` and `method` in a body too; they are among the keys that are not known.

Follows Meta's pages on messages of the Cloud API, on user ids, and on the messages node of the
On-Premises API.
"""

import json
import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple, Self, get_args

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    model_validator,
)

from service.dialects.cloud_value import HASH_REFUSED_CODE
from service.dialects.common import UnreadableError, has_code
from service.dialects.onprem import SEND_BLOCKED_CODE
from service.model.events import Event, HashRefused, SendBlocked
from service.model.timeline import Moment
from service.model.users import MAX_HASH_CHARACTERS, usable_hash

REFUSED_CODE = 1028
"""The client's error where it refuses a message at once; 480 is that of a failed status."""


# Reading JSON that has one meaning alone.


def parse_strictly(raw: bytes) -> dict[str, Any]:
    """Read a JSON object that every parser reads alike, and that can be written again.

    Raise UnreadableError where it is none: also where a key is given twice, a number is not finite
    or beyond 64 bits, a text is no valid Unicode, or it is nested too deep.
    """
    try:
        value = json.loads(
            raw.decode(),
            object_pairs_hook=_each_key_once,
            parse_int=_integer,
            parse_float=_finite,
            parse_constant=_finite,
        )
        orjson.dumps(value)
    except UnicodeDecodeError:
        raise UnreadableError("the body is no valid UTF-8") from None
    except (RecursionError, orjson.JSONEncodeError):
        raise UnreadableError("the body is nested too deep, or holds no valid Unicode") from None
    except ValueError:
        raise UnreadableError("the body is no JSON") from None
    if not isinstance(value, dict):
        raise UnreadableError("the body is no JSON object")
    return value


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise UnreadableError("a key is given twice")
    return found


def _integer(digits: str) -> int:
    if len(digits) > 20 or not -(2**63) <= int(digits) < 2**64:  # noqa: PLR2004  of 64 bits
        raise UnreadableError("a number is beyond 64 bits")
    return int(digits)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise UnreadableError("a number is not finite")
    return value


# What may be sent.


def _is_hash(text: str) -> str:
    if not usable_hash(text):
        raise ValueError("must be printable")
    return text


Phone = Annotated[
    str,
    StringConstraints(pattern=r"^\+?[(0-9][0-9 ().-]{1,62}$"),
    Field(description="A phone number, or a wa_id.", examples=["+1 631-556-7001"]),
]
UserId = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Z]{2}\.[A-Za-z0-9.]{1,128}$"),
    Field(description="A user id.", examples=["US.13491208655302741918"]),
]
Hash = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_HASH_CHARACTERS),
    AfterValidator(_is_hash),
    Field(examples=["rHEhX5K/adk="]),
]
Content = dict[str, JsonValue]
EXAMPLE: dict[str, JsonValue] = {
    "to": "+1 631-556-7001", "type": "text", "text": {"body": "Your order is on its way"},
}  # fmt: skip
CloudType = Literal[
    "text", "image", "audio", "video", "document", "sticker", "location", "contacts",
    "interactive", "template", "reaction",
]  # fmt: skip
OnPremType = Literal[
    "text", "image", "audio", "video", "document", "sticker", "location", "contacts",
    "interactive", "template", "hsm",
]  # fmt: skip


class _Sendable(BaseModel):
    """A body whose every key is known; nothing is converted."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class _Message(_Sendable):
    """What messages of both APIs have in common."""

    recipient_type: Literal["individual"] | None = None
    text: Content | None = None
    image: Content | None = None
    audio: Content | None = None
    video: Content | None = None
    document: Content | None = None
    sticker: Content | None = None
    location: Content | None = None
    contacts: list[Content] | None = None
    interactive: Content | None = None
    template: Content | None = None
    context: Content | None = None
    preview_url: bool | None = None
    biz_opaque_callback_data: str | None = None

    def check_content(self, kind: str, kinds: Sequence[str]) -> None:
        """Raise ValueError where it doesn't have the content of its type, or that of another."""
        if [name for name in kinds if getattr(self, name) is not None] != [kind]:
            raise ValueError("must have the content that its type names, and no other")


class CloudMessage(_Message):
    """A message of the Cloud API, to one person; a null counts as nothing."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"messaging_product": "whatsapp", **EXAMPLE}]}
    )
    messaging_product: Literal["whatsapp"]
    to: Phone | None = None
    recipient: UserId | None = None
    recipient_identity_key_hash: Hash | None = None
    type: CloudType | None = None
    reaction: Content | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if (self.to is None) is (self.recipient is None):
            raise ValueError("must name one recipient: a number in to, or a user id in recipient")
        self.check_content(self.type or "text", get_args(CloudType))
        return self


class ReadMark(_Sendable):
    """Marks a user's message as read, and may show that the business is writing (Cloud API)."""

    messaging_product: Literal["whatsapp"]
    status: Literal["read"]
    message_id: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    typing_indicator: Content | None = None


class OnPremisesMessage(_Message):
    """A message of the On-Premises API, to one person; a null counts as nothing."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})
    to: Phone
    type: OnPremType | None = None
    hsm: Content | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        self.check_content(self.type or "text", get_args(OnPremType))
        return self


class Outgoing(NamedTuple):
    """What is to be sent, and whom the gate is to be asked about; None: it reaches nobody new.

    `hash` is the one that the sender brings along.
    """

    body: dict[str, Any]
    recipient: str | None
    hash: str | None = None

    def written(self, hash_: str | None = None) -> bytes:
        """Return the body to be sent, with the hash that the gate gives, if it gives one."""
        if hash_ is None:
            return orjson.dumps(self.body)
        return orjson.dumps({**self.body, "recipient_identity_key_hash": hash_})


def read_cloud(raw: bytes) -> Outgoing:
    """Read what is sent to `/messages` of the Cloud API.

    Raise UnreadableError where it is no JSON of one meaning, ValidationError where it is no message
    that may be sent.
    """
    body = _without_nulls(parse_strictly(raw))
    if "status" in body:
        ReadMark.model_validate(body)
        return Outgoing(body, None)
    message = CloudMessage.model_validate(body)
    return Outgoing(body, message.to or message.recipient, message.recipient_identity_key_hash)


def read_onprem(raw: bytes) -> Outgoing:
    """Read what is sent to `/v1/messages` of the On-Premises API. Raises as `read_cloud` does."""
    body = _without_nulls(parse_strictly(raw))
    return Outgoing(body, OnPremisesMessage.model_validate(body).to)


def _without_nulls(body: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in body.items() if value is not None}


# What is answered.


def read_refusal(payload: Any, users: Sequence[str], asked_at: int, *, cloud: bool) -> list[Event]:
    """Return what an answer to a message says of the identity of its recipient, if anything.

    `users` are the names of whom it was for, `asked_at` (Unix ms) is when the gate let it pass: a
    trust since then is not touched by the refusal.
    """
    if not isinstance(payload, dict):
        return []
    # Graph has one error, the client a list of them.
    holders = (payload, {"errors": [payload.get("error")]})
    codes = (HASH_REFUSED_CODE,) if cloud else (REFUSED_CODE, SEND_BLOCKED_CODE)
    if not any(has_code(holder, code) for holder in holders for code in codes):
        return []
    if cloud:
        return [HashRefused(user, Moment(asked_at), None) for user in users]
    return [SendBlocked(user, None, None) for user in users]
