"""How the Cloud API is set up: its business numbers, its secrets, its webhooks, its habits."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from service.simulator.faults import Fault

WEEK_SECONDS = 7 * 24 * 3600
MOST_UPDATES = 1000
"""So many updates come in one webhook at most (Meta's page on webhooks)."""

WABA_ID = "102290129340398"


class Number(BaseModel):
    """A business number, and the WhatsApp Business Account that it belongs to."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    phone_number_id: str = Field(default="106540352242922", pattern=r"^[0-9]{1,32}$")
    display_phone_number: str = "15550783881"
    verified_name: str = "Lucky Shrub"
    waba_id: str = Field(default=WABA_ID, pattern=r"^[0-9]{1,32}$")


class CloudOptions(BaseModel):
    """Every choice, with the documented default where there is one; times in seconds."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    numbers: tuple[Number, ...] = Field(default=(Number(),), min_length=1)
    app_id: str = "670843887433847"
    app_name: str = "Ackgate"
    app_secret: str = Field(default="development-only", min_length=1, repr=False)
    access_token: str = Field(default="development-only", min_length=1, repr=False)
    identity_check: bool = False
    """Whether the identity change check of every number is on from the start."""

    webhook_url: str | None = None
    """The callback URL of the app; a number's or its account's own goes before it."""
    subscribed: bool = True
    """Whether the app is subscribed to the accounts from the start; else nothing is sent."""
    webhook_ca_file: Path | None = None
    """Verifies the webhook's certificate; else the system's authorities."""
    webhook_timeout_seconds: float = Field(default=20, gt=0)
    retry_base_seconds: float = Field(default=5, gt=0)
    """The pause after the first failed attempt; it doubles with each further one."""
    retry_cap_seconds: float = Field(default=3600, gt=0)
    give_up_seconds: float = Field(default=WEEK_SECONDS, gt=0)
    max_concurrent_requests: int = Field(default=12, ge=1)
    batch: int = Field(default=1, ge=1, le=MOST_UPDATES)
    """So many updates at most are gathered for one webhook."""
    batch_seconds: float = Field(default=0.2, gt=0)
    """How long updates are gathered, when fewer come."""
    per_change: int = Field(default=1, ge=1)
    """So many updates of one number and kind at most share one element of `changes`."""

    user_ids: bool = True
    """Whether webhooks name business-scoped user ids, as they do since spring 2026."""
    absent: Literal["missing", "empty"] = "missing"
    """How a phone number that may not be shown is left out."""
    statuses: tuple[Literal["sent", "delivered", "read"], ...] = ("sent", "delivered")
    """What follows a message that is delivered."""
    failed_with_hash: bool = False
    """Whether a status with 137000 brings the new hash."""
    failed_with_contacts: bool = False
    """Whether a failed status has `contacts`, which Meta's page leaves out."""

    faults: tuple[Fault, ...] = ()
    seed: int = 0
    """Repeats what faults with a `rate` or a `jitter` do by chance."""
    clock: Callable[[], float] = Field(default=time.time, exclude=True, repr=False)
    """Unix seconds."""
