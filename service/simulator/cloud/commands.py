"""`ackgate simulate cloud`: the commands that make the Cloud API of a running simulator act."""

from typing import Annotated

import typer

from service.simulator.options import CloudOptions, Number
from service.simulator.remote import user_path
from service.simulator.terminal import (
    CA_FILE,
    URL,
    AccessToken,
    AsJson,
    CaFile,
    On,
    Shown,
    Url,
    add_shared,
    call,
    print_faults,
    print_keys,
    print_pairs,
    remotely,
    show,
)

app = typer.Typer(
    name="cloud", help="Make the Cloud API of a running simulator act.", no_args_is_help=True
)
DEFAULTS = CloudOptions()
USER_KEYS = ("wa_id", "user_id", "hash", "username")
NUMBER_KEYS = ("phone_number_id", "waba_id", "identity_check", "webhook_url")
MESSAGE_KEYS = ("to", "outcome", "hash", "id")

User = Annotated[str, typer.Argument(help="The user's number or user id.")]


def number_from(text: str) -> Number:
    """Read `phone_number_id`, `phone_number_id=number` or `phone_number_id=number@waba_id`."""
    phone_number_id, _, rest = text.partition("=")
    display, _, waba_id = rest.partition("@")
    given = {"display_phone_number": display, "waba_id": waba_id}
    return Number(phone_number_id=phone_number_id, **{k: v for k, v in given.items() if v})


def _path(user: str, action: str) -> str:
    return "/cloud" + user_path(user, action)


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
    answer = call(url, ca_file, "POST", _path(user, "write"), {"text": text, "number": on})
    show(answer, f"{user} wrote", as_json=as_json)


@app.command()
def reinstall(
    user: User,
    hash_: Annotated[str | None, typer.Option("--hash", help="Else a random one.")] = None,
    url: Url = URL,
    ca_file: CaFile = CA_FILE,
    as_json: AsJson = False,
) -> None:
    """Return a user another identity, of which no webhook tells by itself."""
    answer = call(url, ca_file, "POST", _path(user, "reinstall"), {"hash": hash_})
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
    answer = call(url, ca_file, "POST", _path(user, "number"), body)
    line = f"{user} has the number {new} and the user id {answer['user_id']} now"
    show(answer, line, as_json=as_json)


@app.command("user-id")
def user_id(
    user: User, on: On = None, url: Url = URL, ca_file: CaFile = CA_FILE, as_json: AsJson = False
) -> None:
    """Let a user get another user id, whose number isn't told."""
    answer = call(url, ca_file, "POST", _path(user, "user-id"), {"number": on})
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
    answer = call(url, ca_file, "POST", _path(user, "announce"), body)
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
        url, ca_file, lambda remote: remote.deliver_cloud(access_token, on, user, text, hash_)
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
    answer = call(url, ca_file, "PUT", "/cloud/webhook", body)
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
    path = f"/cloud/callbacks?signed={'false' if unsigned else 'true'}"
    answer = call(url, ca_file, "POST", path, file.read())
    show(answer, f"callback {answer['callback']} is on its way", as_json=as_json)


def print_state(state: Shown) -> None:
    """Print everything that the Cloud API of a simulator knows."""
    print_keys("Users", USER_KEYS, state["users"])
    print_keys("Numbers", NUMBER_KEYS, state["numbers"].values())
    print_pairs("Calls", state["calls"])
    print_keys("Latest messages", MESSAGE_KEYS, state["messages"].pop("latest"))
    print_pairs("Messages", state["messages"])
    callbacks = state["callbacks"]
    pending, answers = len(callbacks.pop("pending")), callbacks.pop("answers")
    print_pairs("Callbacks", {**callbacks, "pending": pending})
    print_pairs("Answers to callbacks", answers)
    print_faults(state["faults"])


add_shared(
    app,
    "/cloud",
    print_state,
    state_help="Show everything that it knows: users, numbers, calls, messages, callbacks.",
    settings_help="Show how it behaves, after changing some of it.",
    example="batch=1000",
)
