"""The composition root: builds the parts, and starts and stops them in the order of flow."""

from service.app.service import Service, running, serve
from service.ingress.listener import StartError

__all__ = ["Service", "StartError", "running", "serve"]
