"""Open files: every connection is one, and the system bounds them."""

import resource

from service.ingress.sites import MAX_REFUSED
from service.settings import Settings

RESERVED = 64
"""For the database, the log and the listeners, beside the connections."""


def needed(settings: Settings) -> int:
    """Count the files that may be open at once."""
    calls = sum(account.max_in_flight for account in settings.onprem_accounts.values())
    an_address = settings.server.max_connections + MAX_REFUSED
    return RESERVED + calls + len(settings.hosts) * an_address


def allowed() -> int:
    """Give how many this process may come to have open."""
    return _number(resource.getrlimit(resource.RLIMIT_NOFILE)[1])


def connections(settings: Settings) -> int:
    """Give how many connections each address can have: as configured, or what is allowed."""
    spare = allowed() - needed(settings)
    fewer = min(0, spare) // len(settings.hosts)
    return max(1, settings.server.max_connections + fewer)


def raise_limit(settings: Settings) -> None:
    """Let this process have as many files open as it needs, as far as it is allowed to."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(needed(settings), _number(hard))
    if wanted > _number(soft):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def shortage(settings: Settings) -> str | None:
    """Say, in one line for the operator, that there are too few; None where there are enough."""
    if allowed() >= needed(settings):
        return None
    return (
        f"server.max_connections: {settings.server.max_connections} need {needed(settings)} open "
        f"files, and the system allows {allowed()}: {connections(settings)} connections are taken; "
        "raise the hard limit (ulimit -Hn, LimitNOFILE=, --ulimit nofile=)"
    )


def _number(limit: int) -> int:
    return 2**31 if limit == resource.RLIM_INFINITY else limit
