"""The values that the WhatsApp APIs send, as types: liberal in form, strict in what is usable."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, StringConstraints

from service.model.moments import LATEST_MS, SECOND_MS, Moment, Precision
from service.model.names import ALIAS_PATTERN, MAX_HASH_CHARACTERS, usable_hash


def _number_as_text(value: Any) -> Any:
    """Accept a number where a string of digits is documented."""
    return str(value) if type(value) is int else value


def _printable(text: str) -> str:
    if not usable_hash(text):
        raise ValueError("not printable")
    return text


def _digits(value: Any, factor: int) -> int | None:
    """Read a Unix time, a string or a number, as milliseconds; None where it can't be one."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 15:  # noqa: PLR2004  15 digits of milliseconds reach the year 33,658
        value = int(value)
    if type(value) is not int or not 0 < value * factor <= LATEST_MS:
        return None
    return value * factor


def _second(value: Any) -> Moment | None:
    at = _digits(value, SECOND_MS)
    return None if at is None else Moment(at, Precision.SECOND)


def _millisecond(value: Any) -> Moment | None:
    at = _digits(value, 1)
    return None if at is None else Moment(at)


def _truth(value: Any) -> bool | None:
    """Read a boolean, or its name: Meta's table says String, its JSON shows a boolean."""
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.lower())
    return value if isinstance(value, bool) else None


Alias = Annotated[str, BeforeValidator(_number_as_text), StringConstraints(pattern=ALIAS_PATTERN)]
"""What names a user."""

Hash = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_HASH_CHARACTERS),
    AfterValidator(_printable),
]
"""An identity hash: opaque, never decoded."""

Second = Annotated[Moment | None, BeforeValidator(_second)]
"""Unix seconds, which stand for a whole second; None where unreadable."""

Millisecond = Annotated[Moment | None, BeforeValidator(_millisecond)]
"""Unix milliseconds; None where unreadable."""

Truth = Annotated[bool | None, BeforeValidator(_truth)]
"""True, false, or None where unreadable."""


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) and value.isprintable() else None


Hint = Annotated[str | None, BeforeValidator(_text_or_none)]
"""A text that helps where it is one."""


class Element(BaseModel):
    """One element of a callback; unknown keys are normal."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)
