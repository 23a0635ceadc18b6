"""Starts the service again and again, without the half second of imports: one fork for each order.

Reads one JSON object a line; answers each with the child's id, and later with how it ended.
"""

import gc
import json
import os
import sys

from service import app  # noqa: F401  what a child will need
from service.app import replica
from service.cli import main
from service.observability import failpoints
from service.store import postgres_peers
from service.workers import relays, worker

SAVE_EVERY_SECONDS = 0.2
RENEW_EVERY_SECONDS = 0.05
"""So that leases are renewed within the short life of a child."""
LEASE_MS, BELIEVED_SECONDS, LEAD_SECONDS = 1_000, 0.8, 0.2
"""With `--alone`: on PostgreSQL the next one waits as long as this for the lease of one killed."""
IS_ALONE = "--alone" in sys.argv


def serve(order: dict[str, str | None]) -> None:
    log = os.open(str(order["log"]), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    worker.RENEW_EVERY_SECONDS = RENEW_EVERY_SECONDS
    relays.SAVE_SECONDS = SAVE_EVERY_SECONDS
    if IS_ALONE:
        postgres_peers.LEASE_MS, postgres_peers.BELIEVED_SECONDS = LEASE_MS, BELIEVED_SECONDS
        replica.LEAD_SECONDS = LEAD_SECONDS
    failpoints.arm(order["kill_at"])
    sys.argv = ["ackgate", "serve", "--config", str(order["config"])]
    main()


gc.freeze()
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        serve(json.loads(line))
        sys.exit()
    print(child, flush=True)  # noqa: T201  the answer
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201  the answer
