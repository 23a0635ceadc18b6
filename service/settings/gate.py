"""What the gate goes by, as configured: which reasons block, and which only warn."""

from typing import Annotated

from pydantic import AfterValidator

from service.model.gate import CLEARS_WHEN, UNKNOWN, Rules
from service.settings.types import Table


def _code(value: str) -> str:
    if value == UNKNOWN:
        raise ValueError(f"{UNKNOWN} blocks where unknown_sendable is false, else it warns")
    if value not in CLEARS_WHEN:
        raise ValueError("must be a code of the gate, as docs/api.md lists them")
    return value


Code = Annotated[str, AfterValidator(_code)]


class GateSettings(Table):
    """The gate of one account."""

    warn: tuple[Code, ...] = ()
    block: tuple[Code, ...] = ()
    unknown_sendable: bool = True

    @property
    def rules(self) -> Rules:
        """What the model goes by."""
        unknown = frozenset() if self.unknown_sendable else frozenset({UNKNOWN})
        return Rules(frozenset(self.warn), frozenset(self.block) | unknown)
