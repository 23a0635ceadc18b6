"""Acknowledges what was decided: a PUT, and a GET where the PUT's outcome is unknown."""

from service.ledger.leases import Lease
from service.model.outcomes import Accepted, Answered, Gone, NoEffect, NotTried, PutOutcome, Unknown
from service.observability import failpoints
from service.whatsapp.client import Client
from service.whatsapp.errors import CallError, LoginRefusedError, NotSentError

NO_EFFECT = {429, 503}
UNAUTHORIZED = 401


async def acknowledge(client: Client, task: Lease) -> PutOutcome:
    """Try once. Where an earlier try may have had an effect, the client is asked first."""
    if task.begun:
        found = await _ask(client, task, "an earlier try may have taken effect")
        if not _still_to_do(found, task):
            return found
    return await _put(client, task)


def _still_to_do(found: PutOutcome, task: Lease) -> bool:
    return (
        isinstance(found, Answered)
        and found.answer.hash == task.hash
        and not found.answer.acknowledged
    )


async def _put(client: Client, task: Lease) -> PutOutcome:
    failpoints.reached("acknowledge.before_put")
    try:
        status = await client.acknowledge(task.wa_id, task.hash or "")
    except LoginRefusedError:
        return NotTried(task.begun)
    except NotSentError as error:
        return NoEffect(f"PUT: {error}")
    except CallError as error:
        return await _ask(client, task, f"PUT: {error}")
    failpoints.reached("acknowledge.after_put")
    if 200 <= status < 300:  # noqa: PLR2004  the class of success
        return Accepted()
    said = f"PUT was answered with {status}"
    if status in NO_EFFECT or status == UNAUTHORIZED:
        return NoEffect(said)
    refused = 400 <= status < 500  # noqa: PLR2004  the class of refusals
    return await _ask(client, task, said, refused=refused)


async def _ask(client: Client, task: Lease, why: str, *, refused: bool = False) -> PutOutcome:
    """Let a GET tell what a PUT came to."""
    failpoints.reached("acknowledge.before_get")
    try:
        answer = await client.identity(task.wa_id)
    except LoginRefusedError:
        return NotTried(begun=True)
    except CallError as error:
        return Unknown(f"{why}; {error}")
    failpoints.reached("acknowledge.after_get")
    if answer is None:
        return Gone(f"{why}; GET identity was answered with 404")
    return Answered(answer, refused, why)
