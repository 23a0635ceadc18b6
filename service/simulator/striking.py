"""What a fault does to a call that came in, whichever API was called."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from service.simulator.calls import Call
from service.simulator.faults import Fault


@dataclass(frozen=True, slots=True)
class Strike:
    """One call and the fault that strikes it, if any; `pause` waits, in seconds."""

    request: web.Request
    call: Call
    fault: Fault | None
    pause: Callable[[float], Awaitable[None]]

    async def answer(
        self,
        act: Callable[[], Awaitable[web.StreamResponse]],
        falsely: Callable[[int], web.StreamResponse],
    ) -> web.StreamResponse:
        """Answer by the act itself or by a status of the fault's, and note it in the call."""
        fault = self.fault
        if fault is None:
            return self._noted(await act())
        self.call.faulty = True
        if fault.latency:
            await self.pause(fault.latency)
        response = await act() if fault.takes_effect else web.Response()
        if fault.drop or fault.hang:
            return await self._cut(fault)
        if fault.answers_falsely:
            status = fault.status or 200
            response = falsely(status) if fault.body is None else _literal(fault.body, status)
        return self._noted(response)

    def _noted(self, response: web.StreamResponse) -> web.StreamResponse:
        self.call.status = response.status
        return response

    async def _cut(self, fault: Fault) -> web.StreamResponse:
        """Close the socket instead of an answer, at once or after a while."""
        if fault.hang:
            await self.pause(fault.hang)
        if self.request.transport is not None:
            self.request.transport.abort()
        return web.Response()


def _literal(body: str, status: int) -> web.Response:
    """Answer a body as it is; what looks like a page is one, as a proxy would answer it."""
    is_page = body.lstrip().startswith("<")
    content_type = "text/html" if is_page else "application/json"
    return web.Response(text=body, status=status, content_type=content_type)
