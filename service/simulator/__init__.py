"""A WhatsApp Business API client for development and tests: the other side of the wire.

It speaks both APIs: the On-Premises client's under `/v1`, and the Cloud API's under `/v25.0`, which
is `sim.cloud`.

It listens on a real socket, answers as Meta's pages on the On-Premises API say, delivers callbacks
with the documented retries, and misbehaves on request. It imports nothing from the service, so that
it stays an honest counterpart.

>>> from service.simulator import Options, Simulator
>>> async with Simulator(Options(port=0, show_security_notifications=True)) as sim:
...     sim.webhook_url = "http://127.0.0.1:8080/webhooks/main/…"
...     sim.change_identity("16315553601")
...     await sim.settled()
"""

from service.simulator.cloud.options import CloudOptions, Number
from service.simulator.faults import Fault
from service.simulator.options import Options
from service.simulator.simulator import Simulator

__all__ = ["CloudOptions", "Fault", "Number", "Options", "Simulator"]
