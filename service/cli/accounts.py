"""`ackgate accounts`: how the accounts are, and `setup`, which sets one as it should be."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import typer

from service.cli.options import (
    URL,
    Account,
    AsJson,
    CaFile,
    Config,
    KeyFile,
    Url,
    loaded,
    need_account,
)
from service.cli.output import confirm, fail, note, print_json, print_pairs, print_table
from service.cli.remote import server_at, talk
from service.cli.setup import AccountSetup, Setup, cure_of, how_to_give_back, quiet_logs, setup_of
from service.model.account_checks import CURES, WrongSetting
from service.settings import Settings
from service.whatsapp.http import CallError

RESTART = "the client takes the certificate once its Coreapps have been restarted"

app = typer.Typer(
    name="accounts", invoke_without_command=True, no_args_is_help=False, rich_markup_mode="markdown"
)


@app.callback()
def accounts(
    context: typer.Context,
    url: Url = URL,
    key_file: KeyFile = None,
    ca_file: CaFile = None,
    as_json: AsJson = False,
) -> None:
    """Show each account: its callbacks, backlog and login, and the health of its client.

    This asks a running service. 'setup' calls the Cloud API or the WhatsApp client itself.
    """
    if context.invoked_subcommand is not None:
        return
    server = server_at(url, key_file, ca_file)
    answer = talk(server, lambda api: api.get("accounts"), as_json=as_json)
    if as_json:
        print_json(answer)
        return
    for account in answer.get("items") or ():
        print_pairs(account, title=str(account.get("account")))


@app.command()
def setup(
    account: Account,
    config: Config = None,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the difference, and change nothing.")
    ] = False,
    take_over: Annotated[
        bool,
        typer.Option("--take-over", help="With --yes: take the webhook even from another system."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show how the settings of an account differ from what they should be; set them so.

    Asks before anything is changed, and reads the settings again afterwards. It speaks to the
    WhatsApp client, or to the Cloud API, itself.

    Where the webhook is taken from another system, that one's URL is shown whole, and how to give
    it back; --yes alone does not take it. A bot in front, which forwards, is declared by
    accounts.ACCOUNT.webhook_url: then its URL is the right one.

    On-Premises: the login of the configuration file must be an admin's. Where server.public_ca_file
    is set, the client is given that certificate, to verify the webhook endpoint by. The service may
    run or not.

    Cloud API: switches the number's identity change check on, which can't be read back, and
    registers the webhook endpoint for the number. Meta calls the endpoint meanwhile: the service
    must run.

    Exit 0: everything is as it should be by now. Else 1.
    """
    settings = loaded(config)
    need_account(settings, account)
    before = _run(settings, account, lambda peer: peer.look())
    if not as_json:
        _print_differences(before)
    back = None
    if before.taken_from is not None:
        back = how_to_give_back(settings, account, before, config)
        note(f"{account}: the webhook is taken from another system: {before.taken_from}")
        note(f"to give it back: {back}")
    if settings.registered_url(account) is None:
        note("server.public_url is not set: whether the webhook URL is right is not known")
    changed: list[str] = []
    after = before
    if before.to_set and not dry_run:
        _need_consent(settings, account, before, yes=yes, take_over=take_over)
        changed = [each.setting for each in before.to_set if each.setting]
        after = _run(settings, account, lambda peer: peer.fix(before))
    if as_json:
        print_json(_document(account, before, after, changed) | {"give_back": back})
    elif changed:
        typer.echo(f"{account}: set {', '.join(changed)}")
    if any(each.code == "webhook_ca" for each in before.fixable) and changed:
        note(RESTART)
    for each in after.unfixable:
        note(f"{each.code}: {each.detail}; {_cure(each, account)}")
    if after.wrong:
        fail(f"{account}: not as it should be: {', '.join(each.code for each in after.wrong)}")


def _need_consent(
    settings: Settings, account: str, before: Setup, *, yes: bool, take_over: bool
) -> None:
    """Ask, where --yes does not say it; end the command without it, or without --take-over."""
    if not yes:
        where = "for the number" if account in settings.cloud_accounts else "at the client"
        confirm(f"Set these {where} of {account}?")
    elif before.taken_from is not None and not take_over:
        fail(
            f"{account}: nothing was changed: give --take-over beside --yes; or, if that system "
            f"forwards callbacks to here, set accounts.{account}.webhook_url to its URL"
        )


def _run(
    settings: Settings, name: str, act: Callable[[AccountSetup], Coroutine[Any, Any, Setup]]
) -> Setup:
    """Run `act` with the account's client or number, or end with the line that says why not."""

    async def run() -> Setup:
        async with setup_of(settings, name) as peer:
            return await act(peer)

    try:
        with quiet_logs():
            return asyncio.run(run())
    except CallError as error:
        cure = cure_of(error, settings, name)
        fail(f"{name}: {error}; {cure}" if cure else f"{name}: {error}")


def _print_differences(before: Setup) -> None:
    if not before.to_set:
        typer.echo("nothing is to be set")
        return
    print_table(
        ("setting", "is", "should be", "what is wrong"),
        ((x.setting, x.now, x.wanted, x.detail) for x in before.to_set),
        prose={"what is wrong"},
    )


def _document(account: str, before: Setup, after: Setup, changed: list[str]) -> dict[str, Any]:
    return {
        "account": account,
        "client_version": before.version,
        "differences": [
            {
                "code": x.code,
                "setting": x.setting,
                "is": x.now,
                "should_be": x.wanted,
                "detail": x.detail,
            }
            for x in before.to_set
        ],
        "taken_from": before.taken_from,
        "changed": changed,
        "left": [
            {"code": x.code, "detail": x.detail, "cure": _cure(x, account)} for x in after.wrong
        ],
    }


def _cure(wrong: WrongSetting, account: str) -> str:
    return CURES[wrong.code].replace("ACCOUNT", account)
