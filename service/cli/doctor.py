"""`ackgate doctor`: everything that can be wrong with an installation, on one page."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import typer
from rich.console import Console
from rich.text import Text

from service.cli.clients import quiet_logs
from service.cli.cloud_examinations import (
    examine_door_of_app,
    examine_identity_checks,
    examine_number,
)
from service.cli.examinations import (
    Check,
    examine_callbacks,
    examine_client,
    examine_database,
    examine_door,
)
from service.cli.options import AsJson, Config, loaded
from service.cli.output import fail, print_json, print_table, printable
from service.settings import Settings

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")
STYLES = {"pass": "green", "warn": "yellow", "fail": "bold red"}
ORDER = tuple(STYLES)


@app.command()
def doctor(config: Config = None, as_json: AsJson = False) -> None:
    """Look at everything that can be wrong: door, certificates, login, settings, database, clock.

    A callback of its own goes through the public URL of each account's door, signed for that of an
    app of the Cloud API: it is kept in the journal as 'synthetic', and has no effect. Nothing is
    changed. Run it on the machine and as the user that the service runs as; it reads the
    configuration file, and speaks to the WhatsApp clients and to the Cloud API itself.

    Exit 0: nothing is wrong, though there may be warnings. Else 1; each line says what to do.
    """
    settings = loaded(config)
    with quiet_logs(), Console(stderr=True).status("examining"):
        checks = [*examine_database(settings), *asyncio.run(_examine(settings))]
    checks += [*examine_callbacks(settings), *examine_identity_checks(settings)]
    failed = sum(check.status == "fail" for check in checks)
    if as_json:
        worst = max((check.status for check in checks), key=ORDER.index)
        print_json({"status": worst, "checks": [_document(check) for check in checks]})
    else:
        _print(checks)
    if failed:
        fail(f"{failed} of {len(checks)} checks failed")


async def _examine(settings: Settings) -> list[Check]:
    """Look at all accounts at once."""
    looking: list[Coroutine[Any, Any, list[Check]]] = []
    for name in settings.onprem_accounts:
        looking += [examine_door(settings, name), examine_client(name, settings)]
    for app in settings.apps:
        looking.append(examine_door_of_app(settings, app))
    for name in settings.cloud_accounts:
        looking.append(examine_number(name, settings))
    return [check for found in await asyncio.gather(*looking) for check in found]


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
    )
