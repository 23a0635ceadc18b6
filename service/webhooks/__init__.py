"""Callbacks, from the socket to the ledger: listening, who sends, how large it is, and the 200.

What a body means is for `service.dialects`, and what follows from it for `service.model`; a
callback is handed to `service.ledger` as one command. The REST API has its own handlers in
`service.api`, and is served by the same listeners.
"""
