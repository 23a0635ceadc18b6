"""The On-Premises client: its API under `/v1`, as Meta's pages describe it, and its callbacks.

What it knows and what a test makes it do belongs here, with the control API for it. What the Cloud
API has too (options, faults, deliveries, the record of calls) lies one folder up.
"""
