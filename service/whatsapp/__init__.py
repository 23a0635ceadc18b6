"""The calls out: to a WhatsApp client of the On-Premises API, and to the Cloud API.

A call, the login that it needs, what its answer says, and how it can fail belong here. What is done
about an answer doesn't: the rules are in `model`, and who calls when is in `workers`.
"""
