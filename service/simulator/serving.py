"""Running a simulator as a process of its own, until it is told to end."""

import asyncio
import signal
from collections.abc import Callable

from service.simulator.options import Options
from service.simulator.simulator import Simulator


async def serve_until_told(options: Options, say: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; OSError when the port is taken."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    async with Simulator(options) as sim:
        for line in announcement(sim):
            say(line)
        await told.wait()


def announcement(sim: Simulator) -> list[str]:
    """Return the lines that say where it is and what it does."""
    notified = "on" if sim.settings.show_security_notifications else "off"
    lines = [
        f"The simulator listens on {sim.base_url}",
        f"  callbacks go to {sim.webhook_url or 'nowhere yet: give --webhook'}",
        f"  show_security_notifications is {notified}",
        f"The Cloud API is at {sim.graph_url}",
        f"  webhooks go to {sim.cloud.webhook_url or 'nowhere yet: give --cloud-webhook'}",
    ]
    if sim.options.tls:
        lines.insert(1, f"  its CA file is {sim.ca_file}")
    return lines
