"""From the raw bytes of a callback to events: one dialect for each API of WhatsApp.

`onprem` and `cloud` each have a `read`, which never fails: what can't be read is a fault in its
result, and everything beside it counts. The package is pure; what an event does is for
`service.model` to say, and which dialect a body has for the webhook endpoint.
"""
