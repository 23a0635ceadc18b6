"""The calls out to the WhatsApp client."""
