"""How a simulator is set up: where it listens and delivers, whom it lets in, how it behaves."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from service.simulator.cloud.options import CloudOptions
from service.simulator.faults import Fault

WEEK_SECONDS = 7 * 24 * 3600
DAY_SECONDS = 24 * 3600

KNOWN_WA_IDS = {"525566295500": "5215566295500", "5511987654321": "551187654321"}
"""Meta's pages: the wa_id of a Mexican and of a Brazilian number, which no rule gives."""


class Options(BaseModel):
    """Every choice, with the client's documented default; times in seconds."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

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
    """So many wrong logins within `wrong_login_seconds`, and each further login gets 429."""
    wrong_login_seconds: float = Field(default=60, gt=0)
    admin: bool = True
    """Whether the login is an admin's: no other may see or change settings and certificates."""

    phone_number: str = "+16315550100"
    """The number that the client is registered under: its country completes others."""
    show_security_notifications: bool = False
    webhook_url: str | None = None
    webhook_ca_file: Path | None = None
    """Verifies the webhook's certificate, until another is uploaded; else the system's."""
    webhook_timeout_seconds: float = Field(default=20, gt=0)
    retry_base_seconds: float = Field(default=3, gt=0)
    retry_cap_seconds: float = Field(default=900, gt=0)
    give_up_seconds: float = Field(default=DAY_SECONDS, gt=0)
    max_concurrent_requests: int = Field(default=6, ge=1)
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

    faults: tuple[Fault, ...] = ()
    seed: int = 0
    """Repeats what faults with a `rate` or a `jitter` do by chance."""
    version: str = Field(default="v2.41.3", pattern=r"^v\d+(\.\d+)+$")
    """From v2.43 on every contact check answers `valid`, at once."""
    clock: Callable[[], float] = Field(default=time.time, exclude=True, repr=False)
    """Unix seconds, for tests of expiry."""
    cloud: CloudOptions = Field(default_factory=CloudOptions)
    """The Cloud API, which the same process speaks under `/v25.0` and every other `/vNN.N`."""
