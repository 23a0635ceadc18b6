"""The rules: what a callback, a decision or a client's answer does to a user or a contact.

Each rule is a pure function over the classes of this package, so that it can be read and tested
without anything around it: no I/O, no clock (`Context.now`), no settings and no logs. How bytes
become events is in `service.dialects`, how users are loaded and saved in `service.ledger` and
`service.store`, how a client is called in `service.whatsapp`.
"""
