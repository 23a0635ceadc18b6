"""Names for the moments between the steps of a write, so that a test can end the process at each.

`ACKGATE_KILL_AT=ledger.after_commit:7` in the environment of a process has it killed (SIGKILL) when
it comes to that point for the seventh time; without `:7`, for the first. Else `reached` reads one
flag, and is called once for a batch or for a piece of work.

It is safe to ship: the configuration can't set it, for no key of the TOML file leads here, and the
settings take from the environment only names with two underscores together. No route and no command
sets it either. Whoever chooses the environment of a process may end the process anyway; and the end
is that of a power cut, which loses nothing that was answered with 200.
"""

import os
import re
import signal
import time

VARIABLE = "ACKGATE_KILL_AT"
LAST_SECONDS = 0.03
"""The thread that came to the point stops there, but the others go on for so long: an answer that
was given too early gets out, and the test finds that what it promised is missing."""

_SPEC = re.compile(r"(?P<name>[a-z]+\.[a-z_]+)(?::(?P<times>[1-9][0-9]*))?")

_armed = False
_name = ""
_left = 0


def reached(name: str, of: str = "") -> None:
    """Note that a point was reached; `of` precedes its name, for code that two packages share."""
    if _armed:
        _count(f"{of}.{name}" if of else name)


def arm(spec: str | None) -> None:
    """Choose the point at which the process is killed, `name` or `name:times`; None for nowhere.

    Raises ValueError if it is written otherwise: a test that would kill nothing must not pass.
    """
    global _armed, _name, _left  # noqa: PLW0603  a flag of the module is the cheapest to look at
    if spec is None:
        _armed = False
        return
    found = _SPEC.fullmatch(spec)
    if found is None:
        raise ValueError(f"{VARIABLE} must be a point's name, or name:times")
    _armed, _name, _left = True, found["name"], int(found["times"] or 1)


def _count(name: str) -> None:
    global _left  # noqa: PLW0603  as above
    if name != _name:
        return
    _left -= 1
    if _left == 0:
        time.sleep(LAST_SECONDS)
        os.kill(os.getpid(), signal.SIGKILL)


arm(os.environ.get(VARIABLE))
