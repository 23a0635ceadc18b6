"""Acknowledges what was decided: a PUT, and a GET where the PUT's outcome is unknown."""

from service.ledger.leases import Lease
from service.model.outcomes import (
    Accepted,
    Gone,
    NoEffect,
    NotTried,
    PutOutcome,
    Told,
    Unknown,
)
from service.observability import failpoints
from service.whatsapp.http import CallError, LoginRefusedError, NotSentError
from service.whatsapp.onprem import Client

NO_EFFECT = {429, 503}
UNAUTHORIZED = 401


async def acknowledge(client: Client, lease: Lease) -> PutOutcome:
    """Try once. Where an earlier try may have had an effect, the client is asked first."""
    if lease.begun:
        found = await _ask(client, lease, "an earlier try may have taken effect")
        if not _still_to_do(found, lease):
            return found
    return await _put(client, lease)


def _still_to_do(found: PutOutcome, lease: Lease) -> bool:
    return (
        isinstance(found, Told)
        and found.answer.hash == lease.hash
        and not found.answer.acknowledged
    )


async def _put(client: Client, lease: Lease) -> PutOutcome:
    failpoints.reached("acknowledge.before_put")
    try:
        status = await client.acknowledge(lease.wa_id, lease.hash or "")
    except LoginRefusedError:
        return NotTried(lease.begun)
    except NotSentError as error:
        return NoEffect(f"PUT: {error}")
    except CallError as error:
        return await _ask(client, lease, f"PUT: {error}")
    failpoints.reached("acknowledge.after_put")
    if 200 <= status < 300:  # noqa: PLR2004  the class of success
        return Accepted()
    said = f"PUT was answered with {status}"
    if status in NO_EFFECT or status == UNAUTHORIZED:
        return NoEffect(said)
    refused = 400 <= status < 500  # noqa: PLR2004  the class of refusals
    return await _ask(client, lease, said, refused=refused)


async def _ask(client: Client, lease: Lease, why: str, *, refused: bool = False) -> PutOutcome:
    """Let a GET tell what a PUT came to."""
    failpoints.reached("acknowledge.before_get")
    try:
        answer = await client.identity(lease.wa_id)
    except LoginRefusedError:
        return NotTried(begun=True)
    except CallError as error:
        return Unknown(f"{why}; {error}")
    failpoints.reached("acknowledge.after_get")
    if answer is None:
        return Gone(f"{why}; GET identity was answered with 404")
    return Told(answer, refused, why)
