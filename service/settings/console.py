"""The table of the operator's console: how long a sign-in lasts, and who may vouch for a person."""

import ipaddress
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from service.settings.types import HeaderName, List, Table, Text

ConsoleRole = Literal["none", "reader", "operator", "admin"]
"""What a person may do in the console; with "none" only those whom `roles` names may enter."""

MAX_HOURS = 168
"""What `session_hours` may be at most."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _network(value: str) -> str:
    try:
        ipaddress.ip_network(value)
    except ValueError:
        problem = "must be an address, or a network such as 10.0.0.0/8"
        raise ValueError(problem) from None
    return value


def _without_twins(roles: dict[str, ConsoleRole]) -> dict[str, ConsoleRole]:
    """Return the roles; raise ValueError where two names differ in the case of letters alone."""
    names: dict[str, str] = {}
    for name in roles:
        other = names.setdefault(name.casefold(), name)
        if other != name:
            problem = f"{other} and {name} differ in the case of letters alone; remove one"
            raise ValueError(problem)
    return roles


class ConsoleProxySettings(Table):
    """A proxy that signs people in, and names them in a header of each request.

    The header is believed of connections from `addresses` alone; without any, of nobody.
    """

    addresses: List[Annotated[str, AfterValidator(_network)]] = ()
    user_header: HeaderName = "X-Forwarded-Email"
    role: ConsoleRole = "none"
    roles: Annotated[dict[Text, ConsoleRole], AfterValidator(_without_twins)] = Field(
        default_factory=dict
    )
    sign_out_url: Text | None = None

    @property
    def networks(self) -> tuple[Network, ...]:
        """The addresses, to look others up in."""
        return tuple(map(ipaddress.ip_network, self.addresses))

    def role_of(self, user: str) -> ConsoleRole:
        """Return the role of a person whom the proxy names; the case of letters does not count."""
        known = {name.casefold(): role for name, role in self.roles.items()}
        return known.get(user.casefold(), self.role)


class ConsoleSettings(Table):
    """How long somebody stays signed in: without doing anything, and in all."""

    session_minutes: Annotated[float, Field(gt=0, le=1_440)] = 30.0
    session_hours: Annotated[float, Field(gt=0, le=MAX_HOURS)] = 12.0
    proxy: ConsoleProxySettings = ConsoleProxySettings()
