"""The composition root: builds the parts of the service, starts and stops them in their order.

Nothing is decided here: each part gets what it needs from the configuration and from the other
parts. Whoever needs another part to exist is changed here; how it works is for its own package.
"""

from service.app.lifecycle import Service, running, serve
from service.webhooks.listener import StartError

__all__ = ["Service", "StartError", "running", "serve"]
