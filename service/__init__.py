"""Ackgate: keeps every callback of a WhatsApp client, and acknowledges changed identities."""

__version__ = "0.2.0"
