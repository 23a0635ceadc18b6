"""The rules of identities and contacts, pure: no I/O, no clock, no settings of their own."""
