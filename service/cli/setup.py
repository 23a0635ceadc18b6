"""`ackgate accounts setup`: sets a client as it should be, after a yes."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, NamedTuple, TypeVar

import typer

from service.cli.clients import client_at, quiet_logs
from service.cli.options import Account, AsJson, Config, loaded, need_client
from service.cli.output import confirm, fail, note, print_json, print_table
from service.model.client_settings import Wrong, patch_of, wrong_settings
from service.model.issues import CURES
from service.settings import Settings
from service.whatsapp.client import Client
from service.whatsapp.errors import CallError, ForbiddenError
from service.workers.inspector import expected_of

T = TypeVar("T")
AS_ADMIN = (
    "this takes an admin's login, which may come from the environment for once: "
    "ACKGATE_ACCOUNTS__{}__USERNAME and …__PASSWORD"
)
RESTART = "the client takes the certificate once its Coreapps have been restarted"


class _Found(NamedTuple):
    """How a client is set: what setup can mend, what it can't, and the webhooks object as it is."""

    mendable: list[Wrong]
    others: list[Wrong]
    webhooks: dict[str, Any]
    version: str | None

    @property
    def wrong(self) -> list[Wrong]:
        return self.mendable + self.others


def setup(
    account: Account,
    config: Config = None,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the difference, and change nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show how the settings of a WhatsApp client differ from what they should be; set them so.

    Asks before anything is changed, and reads the settings again afterwards. Where
    server.public_ca_file is set, the client is given that certificate, to verify the door by. It
    speaks to the client itself, with the login of the configuration file, which must be an
    admin's; the service may run or not.

    Exit 0: everything is as it should be by now. Else 1.
    """
    settings = loaded(config)
    need_client(settings, account)
    before = _at(settings, account, lambda client: _look(client, settings))
    if not as_json:
        _show(before)
    if settings.server.public_url is None:
        note("server.public_url is not set: whether the webhook URL is right is not known")
    changed: list[str] = []
    after = before
    if before.mendable and not dry_run:
        if not yes:
            confirm(f"Set these at the client of {account}?")
        changed = [each.setting for each in before.mendable if each.setting]
        after = _at(settings, account, lambda client: _mend(client, settings, before))
    if as_json:
        print_json(_document(account, before, after, changed))
    elif changed:
        typer.echo(f"{account}: set {', '.join(changed)}")
    if any(each.code == "webhook_ca" for each in before.mendable) and changed:
        note(RESTART)
    _conclude(account, after)


def _at(settings: Settings, name: str, act: Callable[[Client], Coroutine[Any, Any, T]]) -> T:
    """Do something with a client, or end with the line that says why it can't be done."""

    async def do() -> T:
        async with client_at(name, settings.onprem_accounts[name]) as client:
            return await act(client)

    try:
        with quiet_logs():
            return asyncio.run(do())
    except ForbiddenError as error:
        fail(f"{name}: {error}; {AS_ADMIN.format(name.upper())}")
    except CallError as error:
        fail(f"{name}: {error}")


async def _look(client: Client, settings: Settings) -> _Found:
    told = await client.settings()
    found = wrong_settings(told, expected_of(settings, client.name))
    return _Found(
        [each for each in found if each.setting is not None],
        [each for each in found if each.setting is None],
        dict(told.webhooks),
        told.version,
    )


async def _mend(client: Client, settings: Settings, found: _Found) -> _Found:
    """Set what is wrong, the certificate first, so that the door can be verified; look again."""
    file = settings.server.public_ca_file
    if file is not None and any(each.code == "webhook_ca" for each in found.mendable):
        await client.upload_authority(file.read_text())
    if patch := patch_of(found.mendable, found.webhooks):
        await client.change_settings(patch)
    return await _look(client, settings)


def _show(found: _Found) -> None:
    if found.mendable:
        print_table(
            ("setting", "is", "should be", "what is wrong"),
            ((x.setting, x.now, x.wanted, x.detail) for x in found.mendable),
        )
    else:
        typer.echo("nothing is to be set")


def _document(account: str, before: _Found, after: _Found, changed: list[str]) -> dict[str, Any]:
    return {
        "account": account,
        "client_version": before.version,
        "differences": [
            {"code": x.code, "setting": x.setting, "is": x.now, "should_be": x.wanted}
            | {"detail": x.detail}
            for x in before.mendable
        ],
        "changed": changed,
        "left": [
            {"code": x.code, "detail": x.detail, "cure": _cure(x, account)} for x in after.wrong
        ],
    }


def _cure(wrong: Wrong, account: str) -> str:
    return CURES[wrong.code].replace("ACCOUNT", account)


def _conclude(account: str, after: _Found) -> None:
    for each in after.others:
        note(f"{each.code}: {each.detail}; {_cure(each, account)}")
    if after.wrong:
        fail(f"{account}: not as it should be: {', '.join(each.code for each in after.wrong)}")
