"""`ackgate accounts setup`: sets an account as it should be, after a yes."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import typer

from service.cli.clients import quiet_logs
from service.cli.options import Account, AsJson, Config, loaded, need_account
from service.cli.output import confirm, fail, note, print_json, print_table
from service.cli.sides import Found, Side, side_of
from service.model.account_checks import CURES, Issue, WrongSetting
from service.settings import Settings
from service.whatsapp.errors import (
    CallError,
    ForbiddenError,
    HandshakeError,
    InvalidError,
    LoginRefusedError,
    NotThereError,
)

AS_ADMIN = (
    "this takes an admin's login, which may come from the environment for once: "
    "ACKGATE_ACCOUNTS__{}__USERNAME and …__PASSWORD"
)
WITH_PERMISSION = "give it the permission whatsapp_business_management"
HANDSHAKE = (
    "Meta asks the door itself: it must run, with the verify_token of apps.{} in this "
    "configuration, and be reachable at server.public_url with a certificate that is publicly "
    "known; 'ackgate doctor' tells which of it is wrong; then run this again"
)
UNTAKEN = (
    "the webhook URL must be https and at most 200 characters long, and the app subscribed to the "
    "WhatsApp Business Account: set accounts.{}.waba_id, and run this again"
)
RESTART = "the client takes the certificate once its Coreapps have been restarted"


def setup(
    account: Account,
    config: Config = None,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the difference, and change nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show how the settings of an account differ from what they should be; set them so.

    Asks before anything is changed, and reads the settings again afterwards. It speaks to the
    WhatsApp client, or to the Cloud API, itself.

    On-Premises: the login of the configuration file must be an admin's. Where server.public_ca_file
    is set, the client is given that certificate, to verify the door by. The service may run or not.

    Cloud API: switches the number's identity change check on, which can't be read back, and
    registers the door as the number's webhook. Meta calls the door meanwhile: the service must run.

    Exit 0: everything is as it should be by now. Else 1.
    """
    settings = loaded(config)
    need_account(settings, account)
    before = _at(settings, account, lambda side: side.look())
    if not as_json:
        _show(before)
    if settings.server.public_url is None:
        note("server.public_url is not set: whether the webhook URL is right is not known")
    changed: list[str] = []
    after = before
    if before.to_set and not dry_run:
        if not yes:
            where = "for the number" if account in settings.cloud_accounts else "at the client"
            confirm(f"Set these {where} of {account}?")
        changed = [each.setting for each in before.to_set if each.setting]
        after = _at(settings, account, lambda side: side.mend(before))
    if as_json:
        print_json(_document(account, before, after, changed))
    elif changed:
        typer.echo(f"{account}: set {', '.join(changed)}")
    if any(each.code == "webhook_ca" for each in before.mendable) and changed:
        note(RESTART)
    _conclude(account, after)


def _at(settings: Settings, name: str, act: Callable[[Side], Coroutine[Any, Any, Found]]) -> Found:
    """Do something with the other side, or end with the line that says why it can't be done."""

    async def do() -> Found:
        async with side_of(settings, name) as side:
            return await act(side)

    try:
        with quiet_logs():
            return asyncio.run(do())
    except CallError as error:
        cure = cure_of(error, settings, name)
        fail(f"{name}: {error}; {cure}" if cure else f"{name}: {error}")


def cure_of(error: CallError, settings: Settings, name: str) -> str | None:
    """Tell what to do about a call that failed, where the error does not say so itself."""
    cloud = name in settings.cloud_accounts
    match error:
        case HandshakeError():
            return HANDSHAKE.format(settings.cloud_accounts[name].app)
        case InvalidError():
            return UNTAKEN.format(name)
        case ForbiddenError():
            return WITH_PERMISSION if cloud else AS_ADMIN.format(name.upper())
        case LoginRefusedError() if cloud:
            return Issue("login_refused", name, 0, "").cure
        case NotThereError():
            return Issue("number_unreadable", name, 0, "").cure
        case _:
            return None


def _show(found: Found) -> None:
    if found.to_set:
        print_table(
            ("setting", "is", "should be", "what is wrong"),
            ((x.setting, x.now, x.wanted, x.detail) for x in found.to_set),
        )
    else:
        typer.echo("nothing is to be set")


def _document(account: str, before: Found, after: Found, changed: list[str]) -> dict[str, Any]:
    return {
        "account": account,
        "client_version": before.version,
        "differences": [
            {"code": x.code, "setting": x.setting, "is": x.now, "should_be": x.wanted}
            | {"detail": x.detail}
            for x in before.to_set
        ],
        "changed": changed,
        "left": [
            {"code": x.code, "detail": x.detail, "cure": _cure(x, account)} for x in after.wrong
        ],
    }


def _cure(wrong: WrongSetting, account: str) -> str:
    return CURES[wrong.code].replace("ACCOUNT", account)


def _conclude(account: str, after: Found) -> None:
    for each in after.others:
        note(f"{each.code}: {each.detail}; {_cure(each, account)}")
    if after.wrong:
        fail(f"{account}: not as it should be: {', '.join(each.code for each in after.wrong)}")
