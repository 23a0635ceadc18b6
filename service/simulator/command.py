"""`ackgate simulate`: the simulator alone, and commands that make a running one act."""

import asyncio
import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from service.simulator import receiver, simulator
from service.simulator.certificate import MissingExtraError
from service.simulator.cloud import commands as cloud
from service.simulator.demo import BusinessLogin, Walk, demonstrate
from service.simulator.faults import parse
from service.simulator.options import CloudOptions, Options
from service.simulator.remote import DemoError, Remote, Sent, user_path
from service.simulator.terminal import (
    CA_FILE,
    URL,
    AccessToken,
    AsJson,
    CaFile,
    On,
    Password,
    Shown,
    Url,
    Username,
    add_shared,
    call,
    explain,
    fail,
    print_faults,
    print_keys,
    print_pairs,
    print_table,
    remotely,
    show,
)

app = typer.Typer(
    name="simulate",
    help="A simulator of the Cloud API and of a WhatsApp client, and commands that control it.",
    no_args_is_help=True,
)
DEFAULTS = Options()
RECEIVER_PORT = 9091
PUT_KEYS = ("wa_id", "hash", "outcome", "status", "request_id")
MESSAGE_KEYS = ("to", "accepted", "code", "id")

User = Annotated[str, typer.Argument(help="The user's wa_id.")]


@app.command()
def serve(
    host: Annotated[str, typer.Option()] = DEFAULTS.host,
    port: Annotated[int, typer.Option(help="0: a free one.")] = DEFAULTS.port,
    tls: Annotated[bool, typer.Option("--tls/--no-tls")] = True,
    var: Annotated[Path, typer.Option(help="The folder of its certificate.")] = DEFAULTS.var,
    username: Username = DEFAULTS.username,
    password: Password = DEFAULTS.password,
    password_file: Annotated[Path | None, typer.Option()] = None,
    webhook: Annotated[str | None, typer.Option(help="Where callbacks go.")] = None,
    webhook_ca_file: Annotated[Path | None, typer.Option(help="Verifies the webhook.")] = None,
    phone_number: Annotated[
        str, typer.Option(help="Its country completes numbers without a plus sign.")
    ] = DEFAULTS.phone_number,
    token_seconds: Annotated[float, typer.Option()] = DEFAULTS.token_seconds,
    retry_base: Annotated[float, typer.Option(help="Seconds.")] = DEFAULTS.retry_base_seconds,
    retry_cap: Annotated[float, typer.Option(help="Seconds.")] = DEFAULTS.retry_cap_seconds,
    security_notifications: Annotated[
        bool, typer.Option("--security-notifications/--no-security-notifications")
    ] = True,
    client_version: Annotated[
        str, typer.Option(help="From v2.43 on every contact check is valid.")
    ] = DEFAULTS.version,
    seed: Annotated[int, typer.Option(help="Repeats what faults do by chance.")] = DEFAULTS.seed,
    fault: Annotated[
        list[str] | None, typer.Option(help="Such as identity_put:status=500,times=3.")
    ] = None,
    cloud_webhook: Annotated[
        str | None, typer.Option(help="Where the Cloud API's webhooks go.")
    ] = None,
    cloud_number: Annotated[
        list[str] | None, typer.Option(help="PHONE_NUMBER_ID, or with =NUMBER or =NUMBER@WABA_ID.")
    ] = None,
    cloud_app_secret: Annotated[
        str, typer.Option(envvar="ACKGATE_SIMULATOR_APP_SECRET", help="Signs webhooks.")
    ] = DEFAULTS.cloud.app_secret,
    cloud_access_token: AccessToken = DEFAULTS.cloud.access_token,
    cloud_identity_check: Annotated[
        bool, typer.Option("--cloud-identity-check/--no-cloud-identity-check")
    ] = False,
    cloud_fault: Annotated[
        list[str] | None, typer.Option(help="Such as callback:repeat=2,times=3.")
    ] = None,
) -> None:
    """Serve until SIGTERM or SIGINT; security notifications are on, unlike at a new client."""
    try:
        options = Options(
            host=host,
            port=port,
            tls=tls,
            var=var,
            username=username,
            password=password if password_file is None else password_file.read_text().strip(),
            webhook_url=webhook,
            webhook_ca_file=webhook_ca_file,
            phone_number=phone_number,
            token_seconds=token_seconds,
            retry_base_seconds=retry_base,
            retry_cap_seconds=retry_cap,
            show_security_notifications=security_notifications,
            version=client_version,
            seed=seed,
            faults=tuple(map(parse, fault or ())),
            cloud=CloudOptions(
                numbers=tuple(map(cloud.number_from, cloud_number or ())) or DEFAULTS.cloud.numbers,
                webhook_url=cloud_webhook,
                webhook_ca_file=webhook_ca_file,
                app_secret=cloud_app_secret,
                access_token=cloud_access_token,
                identity_check=cloud_identity_check,
                retry_base_seconds=retry_base,
                retry_cap_seconds=retry_cap,
                seed=seed,
                faults=tuple(map(parse, cloud_fault or ())),
            ),
        )
        asyncio.run(simulator.serve(options, typer.echo))
    except ValidationError as error:
        fail(explain(error))
    except (OSError, MissingExtraError) as error:
        fail(f"The simulator can't start: {error}")


@app.command()
def receive(
    host: Annotated[str, typer.Option()] = DEFAULTS.host,
    port: Annotated[int, typer.Option(help="The port; 0: any free one.")] = RECEIVER_PORT,
    secret: Annotated[
        str | None,
        typer.Option(
            envvar="ACKGATE_SIMULATOR_RELAY_SECRET",
            help="The relay's secret, to verify signatures by.",
        ),
    ] = None,
    status: Annotated[
        int, typer.Option(min=200, max=599, help="What each delivery is answered.")
    ] = 200,
) -> None:
    """Receive what a relay passes on, and print it, until SIGTERM or SIGINT."""
    try:
        key = None if secret is None else receiver.key_of(secret)
        asyncio.run(receiver.serve(receiver.Receiver(typer.echo, key, status), host, port))
    except (OSError, ValueError) as error:
        fail(f"The receiver can't start: {error}")


@app.command()
def demo(
    url: Url = URL,
    ca_file: CaFile = CA_FILE,
    username: Username = DEFAULTS.username,
    password: Password = DEFAULTS.password,
    ackgate_url: Annotated[
        str, typer.Option(envvar="ACKGATE_URL", help="Where Ackgate is.")
    ] = "http://127.0.0.1:8080",
    key: Annotated[str, typer.Option(envvar="ACKGATE_KEY", help="Its API key, if any.")] = "",
    account: Annotated[
        str | None, typer.Option(help="The account at Ackgate; else one of each kind.")
    ] = None,
    access_token: AccessToken = DEFAULTS.cloud.access_token,
    on: On = None,
    seconds: Annotated[float, typer.Option(help="The time limit of each step.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show the main job with Ackgate: a change, the block, its end, the next message."""
    walk = Walk(seconds, (lambda _: None) if as_json else typer.echo)
    business = BusinessLogin(username, password, access_token, on)

    try:
        remotely(
            url,
            ca_file,
            lambda remote: demonstrate(walk, remote, business, ackgate_url, key, account),
        )
    except DemoError as error:
        fail(f"That was not as promised: {error}")
    finally:
        if as_json:
            typer.echo(json.dumps({"steps": walk.lines}))


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
    answer = call(url, ca_file, "POST", user_path(user, "change"), body)
    show(answer, f"{user} has the identity {answer['hash']} now", as_json=as_json)


@app.command()
def acknowledge(
    user: User, url: Url = URL, ca_file: CaFile = CA_FILE, as_json: AsJson = False
) -> None:
    """Acknowledge a user's identity elsewhere, behind Ackgate's back."""
    answer = call(url, ca_file, "POST", user_path(user, "acknowledge"))
    show(answer, f"{user} is acknowledged with {answer['hash']}", as_json=as_json)


@app.command()
def write(
    user: User, text: str, url: Url = URL, ca_file: CaFile = CA_FILE, as_json: AsJson = False
) -> None:
    """Let a user write to the business."""
    answer = call(url, ca_file, "POST", user_path(user, "write"), {"text": text})
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
    show(asdict(sent), outcome, as_json=as_json)
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
    answer = call(url, ca_file, "POST", user_path(old, "number"), {"new": new})
    show(answer, f"{old} has the number {new} now", as_json=as_json)


@app.command()
def callback(
    file: Annotated[typer.FileBinaryRead, typer.Argument(help="The body; - is the input.")],
    url: Url = URL,
    ca_file: CaFile = CA_FILE,
    as_json: AsJson = False,
) -> None:
    """Deliver a file as a callback, as it is."""
    answer = call(url, ca_file, "POST", "/callbacks", file.read())
    show(answer, f"callback {answer['callback']} is on its way", as_json=as_json)


def print_state(state: Shown) -> None:
    """Print everything that the simulated client knows."""
    users = [
        (
            user["wa_id"],
            user["hash"],
            user["acknowledged"],
            datetime.fromtimestamp(user["created_timestamp"] / 1000, UTC).isoformat(" ", "seconds"),
        )
        for user in state["users"].values()
    ]
    print_table("Users", ("wa_id", "hash", "acknowledged", "since"), users)
    print_pairs("Calls", state["calls"])
    print_keys("Acknowledgements that came in", PUT_KEYS, state["puts"])
    print_keys("Messages", MESSAGE_KEYS, state["messages"])
    pending = state["callbacks"].pop("pending")
    print_pairs("Callbacks", {**state["callbacks"], "pending": len(pending)})
    print_pairs("Contact checks", state["contacts"]["counts"])
    print_pairs("Logins", state["logins"])
    print_faults(state["faults"])


add_shared(
    app,
    "",
    print_state,
    state_help="Show everything that it knows: users, calls, acknowledgements, messages, "
    "callbacks.",
    settings_help="Show the application settings, after changing some, or how it behaves.",
    example="blocked_send=fail",
)
app.add_typer(cloud.app)
