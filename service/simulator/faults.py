"""Faults: what the simulator does wrong on request, to one operation, some times, for one user."""

import json
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

CallOperation = Literal[
    "login",
    "identity_get",
    "identity_put",
    "messages",
    "media",
    "contacts",
    "health",
    "settings",
    "certificates",
    "number",
    "subscribed_apps",
    "any",
]
CallbackOperation = Literal[
    "callback",
    "callback_identity",
    "callback_number",
    "callback_message",
    "callback_status",
    "callback_contacts",
    "callback_errors",
    "callback_raw",
    "callback_batch",
]
Operation = CallOperation | CallbackOperation
OPERATIONS: tuple[str, ...] = (*get_args(CallOperation), *get_args(CallbackOperation))

SCOPE = frozenset({"operation", "wa_id", "times", "rate"})
CALLS_ONLY = frozenset({"status", "body", "drop", "hang", "effect"})
CALLBACKS_ONLY = frozenset({"lose", "repeat", "again", "reorder"})


def _read_seconds(value: object) -> object:
    """Read `true` or `forever` as a time without end."""
    return math.inf if value is True or value in ("true", "forever") else value


class Fault(BaseModel):
    """One fault. Times are seconds; `times` is how often it applies, None without end."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")

    operation: Operation
    """The operation that it applies to: `any` is every call, `callback` every callback."""
    wa_id: str | None = None
    """Applies only to what concerns this user."""
    times: int | None = Field(default=None, ge=1)
    latency: float = Field(default=0, ge=0)
    """Waits so long before all else."""
    jitter: float = Field(default=0, ge=0)
    """Waits up to so much longer, by chance."""
    rate: float = Field(default=1, gt=0, le=1)
    """Applies to this share of what it could, by chance."""
    status: int | None = Field(default=None, ge=200, le=599)
    """Answers this HTTP status instead of the true answer."""
    body: str | None = None
    """Answers this literal body, with `status` or 200."""
    drop: Literal["before", "after"] | None = None
    """Closes the socket without an answer, before or after the effect."""
    hang: Annotated[float, BeforeValidator(_read_seconds)] = Field(default=0, ge=0)
    """Gives no answer for so long, then closes the socket."""
    effect: bool = False
    """With `status`, `body` or `hang`: the call takes effect all the same."""
    lose: bool = False
    """The callback is never delivered."""
    repeat: int = Field(default=1, ge=1)
    """The callback is delivered so often in all."""
    again: float = Field(default=0, ge=0)
    """The callback is delivered once more, so much later."""
    reorder: int = Field(default=1, ge=1)
    """So many callbacks are held, then delivered in reverse, one after the other."""

    @model_validator(mode="after")
    def _fits_its_operation(self) -> Self:
        wanted = self.model_dump(exclude_defaults=True).keys() - SCOPE
        if not wanted:
            raise ValueError("a fault needs something to do, such as status=500")
        foreign = wanted & (CALLS_ONLY if self.operation.startswith("callback") else CALLBACKS_ONLY)
        if foreign:
            raise ValueError(f"{', '.join(sorted(foreign))} can't apply to {self.operation}")
        return self

    @property
    def takes_effect(self) -> bool:
        """Whether the call that it applies to is carried out."""
        return self.effect or self.drop == "after" or not self.replaces_answer

    @property
    def replaces_answer(self) -> bool:
        """Whether the true answer is withheld."""
        return bool(self.drop or self.hang or self.status or self.body is not None)

    def applies_to(self, operation: str, wa_id: str | None) -> bool:
        """Return whether it concerns this operation on this user."""
        if self.wa_id is not None and self.wa_id != wa_id:
            return False
        every = "callback" if operation.startswith("callback") else "any"
        return self.operation in (every, operation)


def parse(spec: str) -> Fault:
    """Read `operation:key=value,key=value`, the form of the command line; else ValueError."""
    operation, _, rest = spec.partition(":")
    return from_words(operation, [word for word in rest.split(",") if word])


def from_words(operation: str, words: list[str]) -> Fault:
    """Make a fault of an operation and words such as `status=500`; a word alone means true."""
    values: dict[str, Any] = {"operation": operation}
    for word in words:
        key, _, value = word.partition("=")
        values[key.strip()] = value.strip() or True
    return Fault.model_validate(values)


@dataclass(slots=True)
class _Active:
    """A fault that is on, the times that it has left, and the source of its chances."""

    fault: Fault
    left: int | None
    chances: random.Random


class Faults:
    """The faults that are on, each with a number and the times that it has left.

    What they do by chance is the same for the same seed: each has a generator of its own.
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._active: dict[int, _Active] = {}
        self._number = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Describe each as JSON: its `id`, the times `left`, and what differs from the defaults."""
        for number, each in self._active.items():
            fault = json.loads(each.fault.model_dump_json(exclude_defaults=True))
            yield {"id": number, "left": each.left, **fault}

    def __len__(self) -> int:
        return len(self._active)

    def add(self, fault: Fault) -> int:
        """Switch a fault on and return its number."""
        self._number += 1
        chances = random.Random(f"{self._seed}/{self._number}")  # noqa: S311 - repeatable by its seed
        self._active[self._number] = _Active(fault, fault.times, chances)
        return self._number

    def take(self, operation: str, wa_id: str | None) -> Fault | None:
        """Return the oldest fault that applies here, its jitter in its latency; use one time up."""
        for number, each in self._active.items():
            fault = each.fault
            if not fault.applies_to(operation, wa_id) or each.chances.random() >= fault.rate:
                continue
            if each.left is not None:
                each.left -= 1
            if each.left == 0:
                self.remove(number)
            if not fault.jitter:
                return fault
            latency = fault.latency + each.chances.uniform(0, fault.jitter)
            return fault.model_copy(update={"latency": latency})
        return None

    def remove(self, number: int) -> bool:
        """Switch one fault off; return whether there was one of that number."""
        return self._active.pop(number, None) is not None

    def clear(self) -> None:
        """Switch every fault off."""
        self._active.clear()
