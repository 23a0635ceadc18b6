"""How a simulator is set up: where it listens and delivers, who may call, how it behaves."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from service.simulator.faults import Fault

WEEK_SECONDS = 7 * 24 * 3600
DAY_SECONDS = 24 * 3600
MOST_UPDATES = 1000
"""So many updates come in one webhook at most (Meta's page on webhooks)."""

WABA_ID = "102290129340398"
KNOWN_WA_IDS = {"525566295500": "5215566295500", "5511987654321": "551187654321"}
"""Meta's pages: the wa_id of a Mexican and of a Brazilian number, which no rule gives."""


class ApiOptions(BaseModel):
    """What both APIs can be set to; times in seconds."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    webhook_url: str | None = None
    webhook_ca_file: Path | None = None
    """Verifies the webhook's certificate; without it the system's authorities do."""
    webhook_timeout_seconds: float = Field(default=20, gt=0)
    """How long one attempt may take."""
    retry_base_seconds: float = Field(default=3, gt=0)
    """The pause after the first failed attempt."""
    retry_cap_seconds: float = Field(default=900, gt=0)
    """The longest pause between two attempts."""
    give_up_seconds: float = Field(default=DAY_SECONDS, gt=0)
    """How old a callback becomes before it is given up."""
    max_concurrent_requests: int = Field(default=6, ge=1)
    """How many callbacks are delivered at once."""

    faults: tuple[Fault, ...] = ()
    seed: int = 0
    """Repeats what faults with a `rate` or a `jitter` do by chance."""
    clock: Callable[[], float] = Field(default=time.time, exclude=True, repr=False)
    """Returns Unix seconds; tests of expiry have their own."""


class Number(BaseModel):
    """A business number, and the WhatsApp Business Account that it belongs to."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    phone_number_id: str = Field(default="106540352242922", pattern=r"^[0-9]{1,32}$")
    display_phone_number: str = "15550783881"
    verified_name: str = "Lucky Shrub"
    waba_id: str = Field(default=WABA_ID, pattern=r"^[0-9]{1,32}$")


class CloudOptions(ApiOptions):
    """Every choice of the Cloud API, with the documented default where there is one.

    `webhook_url` is the callback URL of the app; a number's or its account's own goes before it.
    """

    numbers: tuple[Number, ...] = Field(default=(Number(),), min_length=1)
    app_id: str = "670843887433847"
    app_name: str = "Ackgate"
    app_secret: str = Field(default="development-only", min_length=1, repr=False)
    access_token: str = Field(default="development-only", min_length=1, repr=False)
    identity_check: bool = False
    """Whether the identity change check of every number is on from the start."""

    subscribed: bool = True
    """Whether the app is subscribed to the accounts from the start; else nothing is sent."""
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
    refuse_mismatch: bool = False
    """Whether a message with another hash than the user's is refused with 137000 at once."""
    failed_with_contacts: bool = False
    """Whether a failed status has `contacts`, which Meta's page leaves out."""


class Options(ApiOptions):
    """Every choice of the On-Premises client, with its documented default."""

    host: str = "127.0.0.1"
    port: int = Field(default=9090, ge=0, le=65535)
    """0: a free one."""
    tls: bool = True
    var: Path = Path("var")
    """The folder of the certificate and its key."""

    username: str = "ackgate"
    password: str = "development-only"  # noqa: S105 - a stand-in's, known to all
    token_seconds: float = Field(default=WEEK_SECONDS, gt=0)
    max_wrong_logins: int = Field(default=10, ge=1)
    """After so many wrong logins within `wrong_login_seconds` each further login gets 429."""
    wrong_login_seconds: float = Field(default=60, gt=0)
    admin: bool = True
    """Whether the login is an admin's: no other may see or change settings and certificates."""

    phone_number: str = "+16315550100"
    """The number that the client is registered under: its country completes others."""
    show_security_notifications: bool = False
    restart_seconds: float = Field(default=0, ge=0)
    """How long the Coreapps restart after the webhook's authority was changed."""

    blocked_send: Literal["refuse", "fail"] = "refuse"
    """A message to a blocked user: refused with 1028, or accepted and then failed with 480."""
    refusal_status: int = Field(default=400, ge=400, le=599)
    """The HTTP status of 1028, documented nowhere."""
    stale_hash_status: int = Field(default=409, ge=400, le=599)
    """The HTTP status for another hash than the latest, documented nowhere."""
    send_statuses: bool = True
    """Whether an accepted message is followed by the statuses sent and delivered."""

    contact_check_seconds: float = Field(default=0.2, ge=0)
    """How long a contact check takes that isn't answered from the cache."""
    contact_cache_seconds: float = Field(default=WEEK_SECONDS, ge=0)
    contacts_per_callback: int | None = Field(default=None, ge=1)
    """So many results at most come in one callback; None for all of a request's in one."""
    processing_wa_id: bool = False
    """Whether what is `processing` has a wa_id, as in Meta's example, though not in its text."""
    contacts_per_second: float = Field(default=20, gt=0)
    contacts_burst: int = Field(default=60, ge=1)
    health_per_minute: int = Field(default=10, ge=1)
    wa_ids: dict[str, str] = Field(default_factory=lambda: dict(KNOWN_WA_IDS))
    """The wa_id of a phone number in digits with its country code, where it isn't those digits."""

    version: str = Field(default="v2.41.3", pattern=r"^v\d+(\.\d+)+$")
    """From v2.43 on every contact check answers `valid`, at once."""
    cloud: CloudOptions = Field(default_factory=CloudOptions)
    """The Cloud API, which the same process speaks under `/v25.0` and every other `/vNN.N`."""
