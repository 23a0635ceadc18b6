"""After a restore: the client is asked about every user of an account, those in demand first."""

import asyncio
import time
from collections.abc import Iterable
from functools import partial

import structlog

from service.ledger.identities import CompleteVerification, RecordAnswer
from service.ledger.ledger import Ledger
from service.model.policy import delay_seconds
from service.store.database import Database, UnavailableError
from service.store.restore import next_unverified, unverified_user
from service.whatsapp.http import CallError
from service.whatsapp.onprem import Client

CHUNK = 200
MAX_DEMAND = 10_000
MAX_ASKS = 3
NOT_AGAIN_SECONDS = 10.0
LONGEST_PAUSE_SECONDS = 30.0

log = structlog.get_logger(__name__)


class Verifier:
    """Asks about the users of one account until nobody is left; `since` is Unix milliseconds.

    It walks through their ids, again and again as long as some were not answered about. Those whom
    the gate was asked about come first. Who is left is in the database, so a restart forgets none.
    """

    def __init__(
        self,
        account: str,
        since: int,
        *,
        client: Client,
        ledger: Ledger,
        database: Database,
        per_second: float,
    ) -> None:
        self.since = since
        self._account = account
        self._client = client
        self._ledger = ledger
        self._database = database
        self._per_second = per_second
        self._at_once = max(1, client.max_in_flight // 2)
        self._demand: dict[int, None] = {}
        self._walk: list[int] = []
        self._after = 0
        self._asking: dict[int, asyncio.Task[None]] = {}
        self._failures = 0
        self._not_before: dict[int, float] = {}

    def want(self, user_ids: Iterable[int]) -> None:
        """Ask about these users first: somebody waits to write to them.

        Those about whom the client has just given no answer are left out, for all others would wait
        for them.
        """
        now = time.monotonic()
        for user_id in user_ids:
            waits = user_id in self._asking or self._not_before.get(user_id, now) > now
            if len(self._demand) < MAX_DEMAND and not waits:
                self._demand[user_id] = None

    async def run(self) -> None:
        """Ask until nobody is left."""
        log.warning("restored: asking the client about every user", account=self._account)
        try:
            while not await self._step():
                await self._rest()
        finally:
            for task in self._asking.values():
                task.cancel()
            await asyncio.gather(*self._asking.values(), return_exceptions=True)
        log.info("the client was asked about every user", account=self._account)

    async def _rest(self) -> None:
        """Wait until the next question is due: by the rate, longer after failures."""
        rate = 1 / self._per_second
        paused = min(self._client.paused_for(), LONGEST_PAUSE_SECONDS)
        failing = self._failures and delay_seconds(self._failures, 0.5, LONGEST_PAUSE_SECONDS)
        await asyncio.sleep(max(rate, paused, failing))

    async def _step(self) -> bool:
        """Begin to ask about one user; return whether nobody is left."""
        if self._client.paused_for() > 0 or len(self._asking) >= self._at_once:
            return False
        try:
            user_id = await self._next()
            if user_id is None and not self._asking:
                return await self._ledger.submit(CompleteVerification(self._account))
        except UnavailableError:
            self._failures += 1
            return False
        except Exception:
            log.exception("verifying failed", account=self._account)
            self._failures += 1
            return False
        if user_id is not None:
            asking = asyncio.create_task(self._ask(user_id))
            self._asking[user_id] = asking
            asking.add_done_callback(lambda _: self._asking.pop(user_id, None))
        return False

    async def _next(self) -> int | None:
        """Return whom to ask about next; None at the end of the walk, which then begins anew."""
        if self._demand:
            first = next(iter(self._demand))
            del self._demand[first]
            return first
        if not self._walk:
            account, after = self._account, self._after
            self._walk = await self._database.read(
                partial(next_unverified, account=account, after=after, limit=CHUNK)
            )
            self._walk.reverse()
        if not self._walk:
            self._after = 0
            return None
        self._after = self._walk.pop()
        return None if self._after in self._asking else self._after

    async def _ask(self, user_id: int) -> None:
        try:
            answered = await self._verify(user_id)
        except (CallError, UnavailableError):
            answered = False
        except Exception:
            log.exception("verifying a user failed", account=self._account)
            answered = False
        if answered:
            self._failures = 0
            return
        self._failures += 1
        if len(self._not_before) >= MAX_DEMAND:
            self._not_before.clear()
        self._not_before[user_id] = time.monotonic() + NOT_AGAIN_SECONDS

    async def _verify(self, user_id: int) -> bool:
        """Ask, and record the answer; where the identity changed meanwhile, ask again."""
        account = self._account
        for _ in range(MAX_ASKS):
            found = await self._database.read(
                partial(unverified_user, account=account, user_id=user_id)
            )
            if found is None:
                return True
            wa_id, version = found
            answer = await self._client.identity(wa_id)
            command = RecordAnswer(account, wa_id, version, answer)
            if not (await self._ledger.submit(command)).changed:
                return True
        return False
