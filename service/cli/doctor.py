"""`ackgate doctor`: everything that can be wrong with an installation, on one page."""

import asyncio
from collections.abc import Coroutine, Iterator
from typing import Any

import typer
from rich.console import Console
from rich.text import Text

from service.cli.account_checks import check_callbacks, check_client, check_number
from service.cli.endpoint_checks import Check, check_endpoint, check_endpoint_of_app
from service.cli.options import AsJson, Config, loaded
from service.cli.output import fail, print_json, print_table, printable
from service.cli.setup import quiet_logs
from service.settings import Settings
from service.store.database import StoreError
from service.store.operating import operated
from service.workers.retention import LOW_DISK_BYTES

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")
STYLES = {"pass": "green", "warn": "yellow", "fail": "bold red"}
ORDER = tuple(STYLES)


@app.command()
def doctor(config: Config = None, as_json: AsJson = False) -> None:
    """Look at all that can be wrong: endpoint, certificates, login, settings, database, clock.

    A callback of its own goes through the public URL to each account's webhook endpoint, signed for
    that of an app of the Cloud API: it is kept in the journal as 'synthetic', and has no effect.
    Nothing is changed. Run it on the machine and as the user that the service runs as; it reads the
    configuration file, and speaks to the WhatsApp clients and to the Cloud API itself.

    Exit 0: nothing is wrong, though there may be warnings. Else 1; each line says what to do.
    """
    settings = loaded(config)
    with quiet_logs(), Console(stderr=True).status("examining"):
        checks = [*_check_database(settings.database.full_url)]
        checks += asyncio.run(_check_accounts(settings))
    checks += check_callbacks(settings)
    failed = sum(check.status == "fail" for check in checks)
    if as_json:
        worst = max((check.status for check in checks), key=ORDER.index)
        print_json({"status": worst, "checks": [_document(check) for check in checks]})
    else:
        _print(checks)
    if failed:
        fail(f"{failed} of {len(checks)} checks failed")


async def _check_accounts(settings: Settings) -> list[Check]:
    """Run the checks of all accounts at once."""
    running: list[Coroutine[Any, Any, list[Check]]] = []
    for name in settings.onprem_accounts:
        running += [check_endpoint(settings, name), check_client(name, settings)]
    running += [check_endpoint_of_app(settings, app) for app in settings.apps]
    running += [check_number(name, settings) for name in settings.cloud_accounts]
    return [check for found in await asyncio.gather(*running) for check in found]


def _check_database(url: str) -> Iterator[Check]:
    """Check the database, its schema, and the disk that its file is on."""
    try:
        found = operated(url).examine(LOW_DISK_BYTES)
    except StoreError as error:  # its driver is missing
        yield Check("database", None, "fail", str(error), "install it")
        return
    for name, is_good, detail, cure in found:
        yield Check(name, None, "pass" if is_good else "fail", detail, cure)


def _document(check: Check) -> dict[str, Any]:
    return {"check": check.name, **{k: v for k, v in check._asdict().items() if k != "name"}}


def _print(checks: list[Check]) -> None:
    print_table(
        ("", "check", "account", "found", "what to do"),
        (
            (
                Text(check.status, style=STYLES[check.status]),
                check.name,
                check.account or "",
                Text(
                    printable(check.detail), style=STYLES[check.status] * (check.cure is not None)
                ),
                check.cure or "",
            )
            for check in checks
        ),
        prose={"found", "what to do"},
    )
