"""The calls about identities: a PUT that acknowledges, and a GET where that is needed.

A GET is needed where the outcome of a PUT is unknown, where a callback leaves something open, and
now and then for what stays unacknowledged.
"""

import asyncio
import time

import structlog

from service.ledger.leases import BeginPut, Lease, SweepIdentities
from service.ledger.ledger import Ledger
from service.model.outcomes import (
    Accepted,
    Answered,
    GetOutcome,
    Gone,
    NoEffect,
    NotTried,
    PutOutcome,
    Unknown,
)
from service.model.users import LEASE_MS
from service.observability import failpoints
from service.store.database import UnavailableError
from service.whatsapp.http import (
    TOO_MANY,
    UNAUTHORIZED,
    UNAVAILABLE,
    CallError,
    LoginRefusedError,
    NotSentError,
)
from service.whatsapp.onprem import Client

MAX_BEGIN_SECONDS = LEASE_MS / 2000
"""So soon after it was asked whether a PUT is still ours it begins: the lease lasts longer."""

NO_EFFECT = {TOO_MANY, UNAVAILABLE, UNAUTHORIZED}

log = structlog.get_logger(__name__)


class WithdrawnError(Exception):
    """The work was cancelled, or its lease has ended: the PUT is not to be sent."""


async def acknowledge(client: Client, ledger: Ledger, lease: Lease) -> PutOutcome:
    """Try once. Where an earlier try may have had an effect, the client is asked first."""
    if lease.begun:
        found = await _outcome_by_get(client, lease, "an earlier try may have taken effect")
        unacknowledged = (
            isinstance(found, Answered)
            and found.answer.hash == lease.hash
            and not found.answer.acknowledged
        )
        if not unacknowledged:
            return found
    return await _put(client, ledger, lease)


async def _put(client: Client, ledger: Ledger, lease: Lease) -> PutOutcome:
    async def begin() -> None:
        failpoints.reached("acknowledge.before_begin")
        asked_at = time.monotonic()
        is_ours = await ledger.submit(BeginPut(lease))
        # A process that stood still meanwhile does not know whose it is by now.
        if not is_ours or time.monotonic() - asked_at > MAX_BEGIN_SECONDS:
            raise WithdrawnError
        failpoints.reached("acknowledge.before_put")

    try:
        status = await client.acknowledge(lease.wa_id, lease.hash or "", begin)
    except (WithdrawnError, LoginRefusedError, UnavailableError):
        # If one was sent before, it was answered with 401, and had no effect.
        return NotTried(lease.begun)
    except NotSentError as error:
        return NoEffect(f"PUT: {error}")
    except CallError as error:
        return await _outcome_by_get(client, lease, f"PUT: {error}")
    failpoints.reached("acknowledge.after_put")
    if status in range(200, 300):
        return Accepted()
    said = f"PUT was answered with {status}"
    if status in NO_EFFECT:
        return NoEffect(said)
    refused = status in range(400, 500)
    return await _outcome_by_get(client, lease, said, refused=refused)


async def _outcome_by_get(
    client: Client, lease: Lease, reason: str, *, refused: bool = False
) -> PutOutcome:
    """Find out by a GET what a PUT came to; `reason` is why its own answer does not say."""
    failpoints.reached("acknowledge.before_get")
    try:
        answer = await client.identity(lease.wa_id)
    except LoginRefusedError:
        return NotTried(begun=True)
    except CallError as error:
        return Unknown(f"{reason}; {error}")
    failpoints.reached("acknowledge.after_get")
    if answer is None:
        return Gone(f"{reason}; GET identity was answered with 404")
    return Answered(answer, refused, reason)


async def ask(client: Client, lease: Lease) -> GetOutcome:
    """Ask once for the latest identity."""
    failpoints.reached("ask.before_get")
    try:
        answer = await client.identity(lease.wa_id)
    except LoginRefusedError:
        return NotTried()
    except CallError as error:
        return Unknown(str(error))
    failpoints.reached("ask.after_get")
    return Gone() if answer is None else Answered(answer)


async def sweep(account: str, ledger: Ledger, *, after_seconds: float, per_second: float) -> None:
    """Have the client asked, slowly, about identities that stay unacknowledged for so long.

    A notification that was lost is made up for by that.
    """
    pause = max(1.0, min(after_seconds / 10, 60.0))
    while True:
        await asyncio.sleep(pause)
        before = ledger.clock() - round(after_seconds * 1000)
        limit = max(1, round(per_second * pause))
        try:
            failpoints.reached("sweep.before_write")
            found = await ledger.submit(SweepIdentities(account, before, limit))
            failpoints.reached("sweep.after_write")
        except UnavailableError:
            continue
        except Exception:
            log.exception("the sweep of identities failed", account=account)
            continue
        if found:
            log.info("asking about unsettled identities", account=account, count=found)
