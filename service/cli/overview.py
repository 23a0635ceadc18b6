"""`ackgate status` and `gate`: how things stand, asked of a running service."""

from service.cli.options import URL, Account, AsJson, CaFile, KeyFile, Url, User
from service.cli.output import print_json, print_pairs
from service.cli.remote import server_at, talk
from service.cli.tables import print_gate


def status(
    url: Url = URL, key_file: KeyFile = None, ca_file: CaFile = None, as_json: AsJson = False
) -> None:
    """Show how many identities are in each state, and how long the oldest has been pending."""
    server = server_at(url, key_file, ca_file)
    answer = talk(server, lambda api: api.get("status"), as_json=as_json)
    if as_json:
        print_json(answer)
    else:
        print_pairs(answer)


def gate(
    account: Account,
    user: User,
    url: Url = URL,
    key_file: KeyFile = None,
    ca_file: CaFile = None,
    as_json: AsJson = False,
) -> None:
    """Ask whether a user may be written to now, and if not, why not.

    Exit 0 whatever the answer is; programs read 'sendable' of the JSON.
    """
    server = server_at(url, key_file, ca_file)
    path = ("accounts", account, "recipients", user)
    answer = talk(server, lambda api: api.get(*path), as_json=as_json)
    if as_json:
        print_json(answer)
    else:
        print_gate(answer)
