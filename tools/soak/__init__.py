"""The soak: load with random faults against the real command, and a verdict on all it accepted.

It meets the service at its sockets and in its tables, and judges it by rules of its own.
"""
