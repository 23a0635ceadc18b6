"""The composition root: builds the parts, and starts and stops them in the order of flow."""

from service.app.service import Service, StartError, running, serve

__all__ = ["Service", "StartError", "running", "serve"]
