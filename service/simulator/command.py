"""`ackgate simulate`: the simulator alone, and commands that make a running one act."""

import asyncio
import json
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from service.simulator import acting
from service.simulator.certificate import MissingExtraError
from service.simulator.cloud import command as cloud
from service.simulator.demo import Business, demonstrate
from service.simulator.faults import parse
from service.simulator.options import Options
from service.simulator.serving import serve_until_told
from service.simulator.terminal import (
    CA_FILE,
    URL,
    AsJson,
    CaFile,
    Password,
    Url,
    Username,
    fail,
    remotely,
    why,
)
from service.simulator.walk import DemoError, Walk

app = typer.Typer(
    name="simulate",
    help="A WhatsApp client for development and tests, and commands that make it act.",
    no_args_is_help=True,
)
DEFAULTS = Options()


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
    ] = cloud.DEFAULTS.app_secret,
    cloud_access_token: cloud.AccessToken = cloud.DEFAULTS.access_token,
    cloud_identity_check: Annotated[
        bool, typer.Option("--cloud-identity-check/--no-cloud-identity-check")
    ] = False,
    cloud_fault: Annotated[
        list[str] | None, typer.Option(help="Such as callback:repeat=2,times=3.")
    ] = None,
) -> None:
    """Serve until SIGTERM or SIGINT; security notifications are on, unlike at a new client."""
    told = cloud.Given(
        cloud_number,
        cloud_webhook,
        cloud_app_secret,
        cloud_access_token,
        cloud_identity_check,
        cloud_fault,
    )
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
            cloud=told.options(
                webhook_ca_file=webhook_ca_file,
                retry_base_seconds=retry_base,
                retry_cap_seconds=retry_cap,
                seed=seed,
            ),
        )
        asyncio.run(serve_until_told(options, typer.echo))
    except ValidationError as error:
        fail(why(error))
    except (OSError, MissingExtraError) as error:
        fail(f"The simulator can't start: {error}")


app.add_typer(acting.app)
app.add_typer(cloud.app)


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
    access_token: cloud.AccessToken = cloud.DEFAULTS.access_token,
    on: cloud.On = None,
    seconds: Annotated[float, typer.Option(help="The time limit of each step.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show the main job with Ackgate: a change, the block, its end, the next message."""
    walk = Walk(seconds, (lambda _: None) if as_json else typer.echo)
    business = Business(username, password, access_token, on)

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
