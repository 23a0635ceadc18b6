"""`ackgate simulate cloud`: the commands that make the Cloud API of a running simulator act."""

import json
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from service.simulator import conditions, tables
from service.simulator.cloud.options import CloudOptions, Number
from service.simulator.faults import parse
from service.simulator.remote import Remote
from service.simulator.terminal import (
    CA_FILE,
    URL,
    AsJson,
    CaFile,
    Url,
    remotely,
    setting_of,
    show,
)

app = typer.Typer(
    name="cloud", help="Make the Cloud API of a running simulator act.", no_args_is_help=True
)
DEFAULTS = CloudOptions()

User = Annotated[str, typer.Argument(help="The user's number or user id.")]
On = Annotated[str | None, typer.Option("--on", help="The phone_number_id; else the first.")]
AccessToken = Annotated[str, typer.Option(envvar="ACKGATE_SIMULATOR_ACCESS_TOKEN")]


@dataclass(frozen=True, slots=True)
class Given:
    """What `ackgate simulate serve` was told about the Cloud API."""

    numbers: list[str] | None
    webhook: str | None
    app_secret: str
    access_token: str
    identity_check: bool
    faults: list[str] | None

    def options(self, **shared: Any) -> CloudOptions:
        """Return the options; ValueError for what can't be."""
        numbers = tuple(map(_number, self.numbers or ())) or DEFAULTS.numbers
        return CloudOptions(
            numbers=numbers,
            webhook_url=self.webhook,
            app_secret=self.app_secret,
            access_token=self.access_token,
            identity_check=self.identity_check,
            faults=tuple(map(parse, self.faults or ())),
            **shared,
        )


def _number(text: str) -> Number:
    """Read `phone_number_id`, `phone_number_id=number` or `phone_number_id=number@waba_id`."""
    phone_number_id, _, rest = text.partition("=")
    display, _, waba_id = rest.partition("@")
    given = {"display_phone_number": display, "waba_id": waba_id}
    return Number(phone_number_id=phone_number_id, **{k: v for k, v in given.items() if v})


def _act(remote: Remote, user: str, act: str, **body: object) -> Any:
    given = {key: value for key, value in body.items() if value is not None}
    return remote.user(user, act, given, under="/cloud")


@app.command()
def write(
    user: User,
    text: str,
    on: On = None,
    url: Url = URL,
    ca_file: CaFile = CA_FILE,
    as_json: AsJson = False,
) -> None:
    """Let a user write to a business number."""
    answer = remotely(
        url, ca_file, lambda remote: _act(remote, user, "write", text=text, number=on)
    )
    show(answer, f"{user} wrote", as_json=as_json)


@app.command()
def reinstall(
    user: User,
    hash_: Annotated[str | None, typer.Option("--hash", help="Else a random one.")] = None,
    url: Url = URL,
    ca_file: CaFile = CA_FILE,
    as_json: AsJson = False,
) -> None:
    """Give a user another identity, of which no webhook tells by itself."""
    answer = remotely(url, ca_file, lambda remote: _act(remote, user, "reinstall", hash=hash_))
    show(answer, f"{user} has the identity {answer['hash']} now", as_json=as_json)


@app.command()
def number(
    user: User,
    new: Annotated[str, typer.Argument(help="The number that the user has from now on.")],
    on: On = None,
    old_spelling: Annotated[
        bool, typer.Option("--old-spelling", help="As customer_changed_number.")
    ] = False,
    url: Url = URL,
    ca_file: CaFile = CA_FILE,
    as_json: AsJson = False,
) -> None:
    """Let a user take another number, and with it another user id and identity."""
    body = {"new": new, "number": on, "spelling": "customer" if old_spelling else "user"}
    answer = remotely(url, ca_file, lambda remote: _act(remote, user, "number", **body))
    line = f"{user} has the number {new} and the user id {answer['user_id']} now"
    show(answer, line, as_json=as_json)


@app.command("user-id")
def user_id(
    user: User, on: On = None, url: Url = URL, ca_file: CaFile = CA_FILE, as_json: AsJson = False
) -> None:
    """Let a user get another user id, whose number isn't told."""
    answer = remotely(url, ca_file, lambda remote: _act(remote, user, "user-id", number=on))
    show(answer, f"{user} has the user id {answer['user_id']} now", as_json=as_json)


@app.command()
def announce(
    user: User,
    on: On = None,
    sibling: Annotated[
        bool, typer.Option("--sibling", help="The hash beside system, in identity.")
    ] = False,
    url: Url = URL,
    ca_file: CaFile = CA_FILE,
    as_json: AsJson = False,
) -> None:
    """Tell of a user's identity in the older spelling, customer_identity_changed."""
    body = {"number": on, "spelling": "sibling" if sibling else "customer"}
    answer = remotely(url, ca_file, lambda remote: _act(remote, user, "announce", **body))
    show(answer, f"{user} is told to have the identity {answer['hash']}", as_json=as_json)


@app.command()
def send(
    user: User,
    text: str,
    hash_: Annotated[str | None, typer.Option("--hash", help="The hash to send along.")] = None,
    on: On = None,
    access_token: AccessToken = DEFAULTS.access_token,
    url: Url = URL,
    ca_file: CaFile = CA_FILE,
    as_json: AsJson = False,
) -> None:
    """Send a message to a user as the business does; exit 1 when it isn't delivered."""
    answer = remotely(
        url,
        ca_file,
        lambda remote: remote.deliver_cloud(access_token, on, user, text, hash_),
    )
    show(answer, f"{answer['outcome']} {answer['id']}", as_json=as_json)
    if answer["outcome"] != "delivered":
        raise typer.Exit(1)


@app.command()
def webhook(
    webhook_url: Annotated[str, typer.Argument(metavar="WEBHOOK", help="The callback URL.")],
    verify_token: Annotated[str, typer.Option(help="What its handshake expects.")],
    url: Url = URL,
    ca_file: CaFile = CA_FILE,
    as_json: AsJson = False,
) -> None:
    """Make a URL the app's webhook, after its handshake, as the App Dashboard does."""
    body = {"url": webhook_url, "verify_token": verify_token}
    answer = remotely(url, ca_file, lambda remote: remote.control("PUT", "/cloud/webhook", body))
    show(answer, f"webhooks go to {webhook_url}", as_json=as_json)


@app.command()
def callback(
    file: Annotated[typer.FileBinaryRead, typer.Argument(help="The body; - is the input.")],
    unsigned: Annotated[bool, typer.Option("--unsigned", help="Without its signature.")] = False,
    url: Url = URL,
    ca_file: CaFile = CA_FILE,
    as_json: AsJson = False,
) -> None:
    """Deliver a file as a webhook, as it is, signed."""
    body = file.read()
    path = f"/cloud/callbacks?signed={'false' if unsigned else 'true'}"
    answer = remotely(url, ca_file, lambda remote: remote.control("POST", path, body))
    show(answer, f"callback {answer['callback']} is on its way", as_json=as_json)


@app.command()
def state(url: Url = URL, ca_file: CaFile = CA_FILE, as_json: AsJson = False) -> None:
    """Show everything that it knows: users, numbers, calls, messages, callbacks."""
    answer = remotely(url, ca_file, lambda remote: remote.control("GET", "/cloud/state"))
    if as_json:
        typer.echo(json.dumps(answer))
    else:
        tables.print_cloud_state(answer)


@app.command()
def settings(
    changes: Annotated[list[str] | None, typer.Argument(help="Such as batch=1000.")] = None,
    url: Url = URL,
    ca_file: CaFile = CA_FILE,
    as_json: AsJson = False,
) -> None:
    """Show how it behaves, after changing some of it."""
    body = dict(map(setting_of, changes or []))
    answer = remotely(url, ca_file, lambda remote: remote.control("PATCH", "/cloud/settings", body))
    if as_json:
        typer.echo(json.dumps(answer))
    else:
        tables.print_pairs("Settings", answer)


conditions.add_to(app, "/cloud")
