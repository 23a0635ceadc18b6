"""What the gate reads: who recipients are, and what the client last said of them.

Questions that wait while others are read are read together, in few statements for all of them.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Protocol

from service.model.numbers import Spelling, other_spellings, spell
from service.model.recipients import LatestCheck, Recipient, RecipientData
from service.model.users import storable
from service.store.database import RecipientQuery, UnavailableError, let_others_join

MAX_QUESTIONS = 64
MAX_RECIPIENTS = 1_000
"""Read together at most, so that nobody waits longer for others than for the largest question."""
SPELLED_ON_LOOP = 64
"""Texts that are spelled on the event loop; more take milliseconds, and go to a thread."""


class Reads(Protocol):
    """The statements of the gate, each for many recipients of an account at once."""

    async def users(self, account: str, aliases: Collection[str]) -> Mapping[str, Recipient]:
        """Return the users by what they are called."""

    async def checks(
        self,
        account: str,
        inputs: Collection[str] = (),
        forms: Collection[str] = (),
        wa_ids: Collection[str] = (),
    ) -> Iterable[LatestCheck]:
        """Return what the client last said of numbers; one of many may come more than once.

        Numbers are known by the literal text that was asked about, by their canonical form, or by
        the wa_id that was answered.
        """


Snapshot = Callable[[], AbstractAsyncContextManager[Reads]]
"""Opens a snapshot of the database for the gate's statements; one at a time."""


_Waiting = tuple[RecipientQuery, asyncio.Future[RecipientData]]


class Gate:
    """Finds what is known of recipients, for one question or for several at once."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._waiting: list[_Waiting] = []
        self._running: asyncio.Task[None] | None = None

    async def find(self, query: RecipientQuery) -> RecipientData:
        """Ask along with who else waits. Raises UnavailableError."""
        future: asyncio.Future[RecipientData] = asyncio.get_running_loop().create_future()
        self._waiting.append((query, future))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        try:
            while self._waiting:
                await let_others_join(self._waiting, MAX_QUESTIONS)
                batch = self._waiting[: self._fitting()]
                del self._waiting[: len(batch)]
                await self._answer(batch)
        finally:
            self._running = None

    async def _answer(self, batch: Sequence[_Waiting]) -> None:
        """Answer questions together; where one of them can't be, it harms no other."""
        try:
            found = await self._find([query for query, _ in batch])
        except Exception as error:  # noqa: BLE001  nobody may be left waiting
            if len(batch) > 1 and not isinstance(error, UnavailableError):
                for waiting in batch:
                    await self._answer([waiting])
                return
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
        else:
            for (_, future), data in zip(batch, found, strict=True):
                if not future.done():
                    future.set_result(data)

    def _fitting(self) -> int:
        """Return how many of the questions that wait are read together."""
        recipients = 0
        for count, (query, _) in enumerate(self._waiting[:MAX_QUESTIONS]):
            recipients += len(query.asked)
            if count and recipients > MAX_RECIPIENTS:
                return count
        return MAX_QUESTIONS

    async def _find(self, queries: Sequence[RecipientQuery]) -> list[RecipientData]:
        """Answer questions, those about the same account from the same statements."""
        together: dict[RecipientQuery, list[str]] = {}
        for query in queries:
            together.setdefault(query._replace(asked=()), []).extend(query.asked)
        found = {}
        async with self._snapshot() as reads:
            for query, asked in together.items():
                found[query] = await find_recipients(reads, query._replace(asked=asked))
        return [found[query._replace(asked=())] for query in queries]

    async def close(self) -> None:
        """Finish the questions that wait."""
        while self._running is not None:
            with suppress(asyncio.CancelledError):
                await self._running


async def find_recipients(reads: Reads, query: RecipientQuery) -> RecipientData:
    """Read what is known by all that the texts may mean, and by what their checks answered."""
    account = query.account
    if len(query.asked) > SPELLED_ON_LOOP:
        spellings = await asyncio.to_thread(_spelled, query)
    else:
        spellings = _spelled(query)
    names = {name for found in spellings.values() for name in (*found.names, *found.others)}
    forms = {
        form
        for found in spellings.values()
        for form in (*found.forms, *found.completed, *found.others)
    }
    checks = [*await reads.checks(account, spellings, forms, names)]
    answered = {check.wa_id for check in checks if check.wa_id is not None}
    answered |= {other for wa_id in answered for other in other_spellings(wa_id)}
    users = await reads.users(account, names | answered)
    called = {user.wa_id for user in users.values() if user.wa_id}
    if more := (answered | called) - names:
        checks += await reads.checks(account, wa_ids=more)
    return RecipientData.of(query.country_of, spellings, users, dict.fromkeys(checks))


def _spelled(query: RecipientQuery) -> dict[str, Spelling]:
    return {text: spell(text, query.country_of) for text in query.asked if storable(text)}
