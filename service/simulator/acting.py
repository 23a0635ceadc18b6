"""The commands that make a running simulator act, through its control routes."""

import json
from typing import Annotated

import typer

from service.simulator import conditions, tables
from service.simulator.options import Options
from service.simulator.remote import Remote, Sent
from service.simulator.terminal import (
    CA_FILE,
    URL,
    AsJson,
    CaFile,
    Password,
    Url,
    Username,
    remotely,
    setting_of,
    show,
)

app = typer.Typer()
DEFAULTS = Options()

User = Annotated[str, typer.Argument(help="The user's wa_id.")]


@app.command()
def change(
    user: User,
    hash_: Annotated[str | None, typer.Option("--hash", help="Else a random one.")] = None,
    silent: Annotated[bool, typer.Option("--silent", help="A lost notification.")] = False,
    url: Url = URL,
    ca_file: CaFile = CA_FILE,
    as_json: AsJson = False,
) -> None:
    """Change a user's identity, which blocks messages to the user."""
    body = {"hash": hash_, "notify": not silent}
    answer = remotely(url, ca_file, lambda remote: remote.user(user, "change", body))
    show(answer, f"{user} has the identity {answer['hash']} now", as_json=as_json)


@app.command()
def acknowledge(
    user: User, url: Url = URL, ca_file: CaFile = CA_FILE, as_json: AsJson = False
) -> None:
    """Acknowledge a user's identity elsewhere, behind Ackgate's back."""
    answer = remotely(url, ca_file, lambda remote: remote.user(user, "acknowledge"))
    show(answer, f"{user} is acknowledged with {answer['hash']}", as_json=as_json)


@app.command()
def write(
    user: User, text: str, url: Url = URL, ca_file: CaFile = CA_FILE, as_json: AsJson = False
) -> None:
    """Let a user write to the business."""
    answer = remotely(url, ca_file, lambda remote: remote.user(user, "write", {"text": text}))
    show(answer, f"{user} wrote: callback {answer['callback']}", as_json=as_json)


@app.command()
def send(
    user: User,
    text: str,
    username: Username = DEFAULTS.username,
    password: Password = DEFAULTS.password,
    url: Url = URL,
    ca_file: CaFile = CA_FILE,
    as_json: AsJson = False,
) -> None:
    """Send a message to a user as the business does; exit 1 when it is refused."""

    async def act(remote: Remote) -> Sent:
        return await remote.send(await remote.login(username, password), user, text)

    sent = remotely(url, ca_file, act)
    outcome = f"accepted {sent.id}" if sent.accepted else f"refused {sent.code}: {sent.title}"
    answer = {"accepted": sent.accepted, "id": sent.id, "code": sent.code, "title": sent.title}
    show(answer, outcome, as_json=as_json)
    if not sent.accepted:
        raise typer.Exit(1)


@app.command()
def number(
    old: User,
    new: Annotated[str, typer.Argument(help="The wa_id that the user has from now on.")],
    url: Url = URL,
    ca_file: CaFile = CA_FILE,
    as_json: AsJson = False,
) -> None:
    """Let a user take another number."""
    answer = remotely(url, ca_file, lambda remote: remote.user(old, "number", {"new": new}))
    show(answer, f"{old} has the number {new} now", as_json=as_json)


@app.command()
def callback(
    file: Annotated[typer.FileBinaryRead, typer.Argument(help="The body; - is the input.")],
    url: Url = URL,
    ca_file: CaFile = CA_FILE,
    as_json: AsJson = False,
) -> None:
    """Deliver a file as a callback, as it is."""
    body = file.read()
    answer = remotely(url, ca_file, lambda remote: remote.control("POST", "/callbacks", body))
    show(answer, f"callback {answer['callback']} is on its way", as_json=as_json)


@app.command()
def state(url: Url = URL, ca_file: CaFile = CA_FILE, as_json: AsJson = False) -> None:
    """Show everything that it knows: users, calls, acknowledgements, messages, callbacks."""
    answer = remotely(url, ca_file, lambda remote: remote.control("GET", "/state"))
    if as_json:
        typer.echo(json.dumps(answer))
    else:
        tables.print_state(answer)


@app.command()
def settings(
    changes: Annotated[list[str] | None, typer.Argument(help="Such as blocked_send=fail.")] = None,
    url: Url = URL,
    ca_file: CaFile = CA_FILE,
    as_json: AsJson = False,
) -> None:
    """Show the application settings, after changing some, or how it behaves."""
    body = dict(map(setting_of, changes or []))
    answer = remotely(url, ca_file, lambda remote: remote.control("PATCH", "/settings", body))
    if as_json:
        typer.echo(json.dumps(answer))
    else:
        tables.print_pairs("Settings", answer)


conditions.add_to(app)
