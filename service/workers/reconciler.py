"""Asks the client where a callback leaves a doubt, and now and then about what stays unsettled."""

import asyncio

import structlog

from service.ledger.leases import Lease, SweepIdentities
from service.ledger.ledger import Ledger
from service.model.outcomes import Answered, GetOutcome, Gone, NotTried, Unknown
from service.observability import failpoints
from service.store.database import UnavailableError
from service.whatsapp.client import Client
from service.whatsapp.errors import CallError, LoginRefusedError

log = structlog.get_logger(__name__)


async def ask(client: Client, task: Lease) -> GetOutcome:
    """Ask once for the latest identity."""
    failpoints.reached("ask.before_get")
    try:
        answer = await client.identity(task.wa_id)
    except LoginRefusedError:
        return NotTried()
    except CallError as error:
        return Unknown(str(error))
    failpoints.reached("ask.after_get")
    return Gone() if answer is None else Answered(answer)


async def sweep(account: str, ledger: Ledger, *, after_seconds: float, per_second: float) -> None:
    """Ask slowly about identities that stay unacknowledged: a lost notification heals so."""
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
            log.exception("sweeping failed", account=account)
            continue
        if found:
            log.info("asking about unsettled identities", account=account, count=found)
