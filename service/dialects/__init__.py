"""The languages in which the WhatsApp APIs speak: raw bytes to events, pure."""
