"""A WhatsApp Business API client and the Cloud API for development and tests: the other side.

It listens on a real socket, answers as Meta's pages say under `/v1` and `/v25.0` (`sim.cloud`),
delivers callbacks with the documented retries, and fails on request. What Meta's side does belongs
here, with the commands that make a running one act; nothing of the service does, and nothing is
imported from it, so that it stays an honest counterpart.

>>> from service.simulator import Options, Simulator
>>> async with Simulator(Options(port=0, show_security_notifications=True)) as sim:
...     sim.webhook_url = "http://127.0.0.1:8080/webhooks/main/…"
...     sim.change_identity("16315553601")
...     await sim.settled()
"""

from service.simulator.faults import Fault
from service.simulator.options import CloudOptions, Number, Options
from service.simulator.simulator import Simulator

__all__ = ["CloudOptions", "Fault", "Number", "Options", "Simulator"]
