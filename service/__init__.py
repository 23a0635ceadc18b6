"""Ackgate: keeps every callback of a WhatsApp client, and acknowledges changed identities."""
