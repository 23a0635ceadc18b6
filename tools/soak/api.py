"""The API as the business uses it: each answer must have a right status, whatever goes on."""

import asyncio
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import cycle, islice
from typing import Any

import aiohttp

from tools.installation import APP_SECRET, AUTHORIZATION
from tools.soak.evidence import GateAnswer
from tools.soak.record import Change, Decision, Record
from tools.soak.service import Service
from tools.webhooks import signature

ANSWER_SECONDS = 30.0
TRIES_APART_SECONDS = 0.3
AT_MOST = 1000
"""Recipients in one lookup."""
OK, UNAUTHORIZED, UNAVAILABLE = 200, 401, 503
READS = (
    "/api/v1/status",
    "/api/v1/accounts",
    "/api/v1/accounts/main",
    "/api/v1/identities?limit=50",
    "/api/v1/identities?state=pending,held&limit=20",
    "/api/v1/accounts/main/contacts?limit=50",
    "/api/v1/journal?limit=20",
    "/api/v1/journal?state=quarantined",
    "/api/v1/audit?limit=50",
    "/api/v1/audit?event=changed&limit=20",
    "/health/live",
    "/health/ready",
    "/health/status",
    "/metrics",
    "/openapi.json",
)
PAGES = 3
"""The number of pages that are read of a list."""


class Api:
    """Calls the API of each service in turn, and notes each answer that has a wrong status."""

    def __init__(self, services: Sequence[Service], record: Record) -> None:
        self._turns = cycle(services)
        self._record = record
        self._http = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS),
            headers=AUTHORIZATION,
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.close()

    async def call(
        self, method: str, path: str, right: Iterable[int] = (), body: object = None
    ) -> tuple[int | None, Any]:
        """Call a route; return status and answer, or None where there was none.

        `right` are the right statuses besides 200, and 503 while the database can't be used.
        """
        try:
            async with self._http.request(
                method, next(self._turns).url + path, json=body
            ) as response:
                text = response.content_type == "text/plain"
                answer = await (response.text() if text else response.json(content_type=None))
                status = response.status
        except (aiohttp.ClientError, OSError):
            self._record.counts["API calls without an answer"] += 1
            return None, None
        self._record.counts[f"API calls answered {status}"] += 1
        if status not in {OK, UNAVAILABLE, *right}:
            what = path.partition("?")[0].rpartition("/")[2] if method == "POST" else "a read"
            self._record.add_violation(
                f"the API answered {what} with {status}", f"{path}: {answer}"
            )
        return status, answer

    async def read(self, chance: random.Random) -> None:
        """Read a list, page by page, or something else that can be read."""
        path = chance.choice(READS)
        for _ in range(PAGES):
            _, answer = await self.call("GET", path)
            cursor = answer.get("next_cursor") if isinstance(answer, Mapping) else None
            if not cursor:
                return
            path = f"{path.partition('&cursor')[0]}&cursor={cursor}"

    async def gate(self, wa_id: str) -> None:
        """Ask about one recipient."""
        await self.call("GET", f"/api/v1/accounts/main/recipients/{wa_id}")

    async def refresh(self, wa_id: str) -> None:
        """Have the client asked about a user; it may be out of reach."""
        path = f"/api/v1/accounts/main/identities/{wa_id}/refresh"
        await self.call("POST", path, {404, 502, 504})

    async def lookup(self, names: Iterable[str]) -> dict[str, frozenset[str]]:
        """Ask the gate about many; return the codes of the reasons against each."""
        left, found = iter(names), {}
        while some := list(islice(left, AT_MOST)):
            path = "/api/v1/accounts/main/recipients/lookup"
            status, answer = await self.call("POST", path, body={"recipients": some})
            for item in answer["items"] if status == OK else ():
                found[item["input"]] = self._reasons(item)
        return found

    def _reasons(self, item: Mapping[str, Any]) -> frozenset[str]:
        if "error" in item:
            return frozenset({"error"})
        reasons = frozenset(reason["code"] for reason in item["reasons"])
        if item["sendable"] is bool(reasons):
            self._record.add_violation("the gate does not agree with its own reasons", str(item))
        return reasons

    async def check_effect(self, change: Change) -> None:
        """Check that an accepted change is in effect, if there is an answer."""
        path = f"/api/v1/accounts/main/identities/{change.wa_id}"
        status, shown = await self.call("GET", path)
        if status == OK and change.hash not in {
            shown["hash"],
            *(entry["hash"] for entry in shown["history"]),
        }:
            self._record.add_violation("an accepted change is not in effect", str(change))

    async def decide(self, change: Change, verb: str, query: str = "") -> Decision:
        """Decide about an accepted change, repeating it until there is an answer."""
        decision = Decision(change.wa_id, change.hash, verb, time.time())
        self._record.decisions.append(decision)
        path = f"/api/v1/accounts/main/identities/{change.wa_id}/{verb}{query}"
        body = {
            "hash": change.hash,
            "note": "soak",
            "evidence": {"method": "phone_call", "reference": "S-1"},
        }
        while decision.status is None:
            status, _ = await self.call("POST", path, {202, 409}, body)
            if status in {None, UNAVAILABLE}:
                decision.unanswered += status is None
                await asyncio.sleep(TRIES_APART_SECONDS)
                continue
            decision.status, decision.answered_at = status, time.time()
        self._record.counts["decisions"] += 1
        return decision

    async def identity(self, account: str, name: str) -> tuple[str | None, str | None] | None:
        """Return hash and state of a user; None where there was no answer."""
        path = f"/api/v1/accounts/{account}/identities/{name}"
        status, shown = await self.call("GET", path)
        return (shown["hash"], shown["state"]) if status == OK else None

    async def decide_locally(self, account: str, name: str, hash_: str | None, verb: str) -> bool:
        """Decide about a user of the Cloud API; return whether the decision was accepted."""
        path = f"/api/v1/accounts/{account}/identities/{name}/{verb}"
        status = None
        while status in {None, UNAVAILABLE}:
            status, _ = await self.call("POST", path, body={"hash": hash_, "note": "soak"})
            if status != OK:
                await asyncio.sleep(TRIES_APART_SECONDS)
        self._record.counts["decisions on the Cloud API"] += 1
        return status == OK

    async def forge(self, body: bytes) -> None:
        """Send a webhook that another app signed, which must be refused."""
        url, headers = next(self._turns).cloud_webhook, signature(f"not {APP_SECRET}", body)
        with suppress(aiohttp.ClientError, OSError):
            async with self._http.post(url, data=body, headers=headers) as response:
                status = response.status
                if status not in {UNAUTHORIZED, UNAVAILABLE}:
                    self._record.add_violation("a forged webhook was not refused", str(status))

    async def cloud_lookup(self, account: str, names: Iterable[str]) -> dict[str, GateAnswer]:
        """Ask the gate about users of the Cloud API."""
        left, found = iter(names), {}
        while some := list(islice(left, AT_MOST)):
            path = f"/api/v1/accounts/{account}/recipients/lookup"
            status, answer = await self.call("POST", path, body={"recipients": some})
            for item in answer["items"] if status == OK else ():
                hash_ = item.get("identity_key_hash")
                found[item["input"]] = GateAnswer(self._reasons(item), hash_)
        return found

    async def abandon(self, _: random.Random) -> None:
        """Ask something and close the connection before the answer."""
        with suppress(TimeoutError, aiohttp.ClientError, OSError):
            async with asyncio.timeout(0.001):
                await self._http.get(f"{next(self._turns).url}/api/v1/audit")
