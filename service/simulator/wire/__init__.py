"""The client's own API, as Meta's pages on the On-Premises API describe it."""
