"""The business's own systems, to which the service relays: one is well, one fails at random."""

import asyncio
import random
import time
from collections.abc import Mapping

from aiohttp import web

from tools.soak.api import Api
from tools.soak.record import Record

STEADY, UNSTEADY = "steady", "unsteady"
ANSWER_SECONDS = 1.0
"""How long the service waits for an answer."""
FAILS = 0.2
"""How often the unsteady one fails. It never says that a callback is at fault: that takes hours."""
ACCEPTED, GONE = 202, 404
FAILURES = (500, 503, 429, 404)
POLL_SECONDS = 0.2


class Sinks:
    """Takes what is relayed, and notes what came first, in order. `is_down` is the unsteady one."""

    def __init__(self, record: Record, chance: random.Random) -> None:
        self._record = record
        self._chance = chance
        self._runner: web.AppRunner | None = None
        self._is_calm = self.is_down = False
        self._epoch, self._past = "", ""
        self._taken = record.relayed
        self.url = ""

    async def start(self) -> None:
        """Listen."""
        app = web.Application(client_max_size=8 * 1024 * 1024)
        app.router.add_post("/{name}", self._take)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        self._begin()

    def _begin(self) -> None:
        self._taken |= {STEADY: {}, UNSTEADY: {}}

    def begin_anew(self) -> None:
        """Note what comes from now on by itself: its ids have another beginning."""
        self._past, self._epoch = self._epoch, ""
        self._taken = self._record.relayed_again
        self._begin()

    async def aclose(self) -> None:
        """Listen no more."""
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def config(self) -> str:
        """The tables of the relays, which lead here."""
        return "".join(
            f'[relays.{name}]\nurl = "{self.url}/{name}"\ntimeout_seconds = {ANSWER_SECONDS}\n'
            for name in (STEADY, UNSTEADY)
        )

    async def _take(self, request: web.Request) -> web.Response:
        name, body = request.match_info["name"], await request.read()
        fails = self.is_down or self._chance.random() < FAILS
        if name == UNSTEADY and not self._is_calm and fails:
            self._record.counts["deliveries that failed"] += 1
            return await self._fail(request)
        epoch, _, number = request.headers["webhook-id"].partition(".")
        self._epoch = self._epoch or epoch
        if epoch != self._epoch or epoch == self._past:
            self._record.add_violation("an id of a delivery has a wrong beginning", epoch)
        first = self._taken[name].setdefault(int(number), body)
        if first != body:
            self._record.add_violation("two deliveries of a callback differ", repr((first, body)))
        self._record.counts["deliveries taken"] += 1
        return web.Response(status=204)

    async def _fail(self, request: web.Request) -> web.Response:
        """Answer with an error, too late, or not at all."""
        kind = self._chance.randrange(4)
        if kind == 0:
            await asyncio.sleep(2 * ANSWER_SECONDS)
        elif kind == 1 and request.transport is not None:
            request.transport.close()
        return web.Response(status=self._chance.choice(FAILURES))

    async def come_to_rest(self, api: Api, seconds: float) -> None:
        """Fail no more, and wait until each relay has delivered everything."""
        self._is_calm = True
        deadline = time.monotonic() + seconds
        for name in (STEADY, UNSTEADY):
            await api.call("POST", f"/api/v1/relays/{name}/resume")
        while left := await _left(api):
            if time.monotonic() > deadline:
                self._record.add_violation("a relay does not deliver everything", "; ".join(left))
                return
            await asyncio.sleep(POLL_SECONDS)


async def _left(api: Api) -> list[str]:
    """Return what is left of each relay; what waits for its next try is tried now."""
    _, answer = await api.call("GET", "/api/v1/relays")
    if not isinstance(answer, Mapping) or "items" not in answer:
        return ["no answer"]
    for relay in answer["items"]:
        if not relay["retrying"]:
            continue
        path = f"/api/v1/relays/{relay['name']}/deliveries"
        _, listed = await api.call("GET", f"{path}?state=retrying&limit=1000")
        for row in (listed or {}).get("items", ()):
            # 404: it was delivered meanwhile.
            await api.call("POST", f"{path}/{row['id']}/retry", right=(ACCEPTED, GONE))
    return [
        f"{relay['name']}: {relay['behind']} behind, {waiting} waiting"
        for relay in answer["items"]
        if (waiting := relay["retrying"] + relay["waiting"] + relay["dead"]) or relay["behind"]
    ]
