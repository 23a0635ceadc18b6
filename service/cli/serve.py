"""`ackgate serve`, the service in one process, and `check-config`: whether it would start."""

import asyncio
from collections.abc import Callable
from importlib import import_module
from typing import Annotated

import typer

from service.cli.options import AsJson, Config, loaded
from service.cli.output import fail, note, print_json, print_pairs
from service.settings import load


def serve(
    config: Config = None,
    no_migrate: Annotated[
        bool,
        typer.Option("--no-migrate", help="Refuse to start where the database needs an upgrade."),
    ] = False,
) -> None:
    """Run the service, until SIGTERM or Ctrl-C.

    It then finishes what it accepted, and exits with 0. The database is upgraded first where it
    needs to be, after a backup beside it. After a SIGHUP the configuration is read again: keys,
    policies, gate rules, tokens, secrets and certificates take effect at once.
    """
    settings = loaded(config)
    from service import app  # noqa: PLC0415 - loads all parts, which other commands needn't
    from service.store.database import StoreError  # noqa: PLC0415 - as above

    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(app.serve(settings, lambda: load(config), migrate=not no_migrate))
    except (app.StartError, StoreError) as error:
        fail(str(error))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes uvloop's event loops; None, for asyncio's own, where it isn't installed."""
    try:
        factory: Callable[[], asyncio.AbstractEventLoop] = import_module("uvloop").new_event_loop
    except ImportError:
        return None
    return factory


def check_config(config: Config = None, as_json: AsJson = False) -> None:
    """Check the configuration, and show what is in force, without secrets.

    Exit 0: the service would accept it. Else 2, after one line that names the key at fault.
    """
    settings = loaded(config)
    if settings.alerts.destinations:
        from service.workers.alerts import AlertsError, channels_of  # noqa: PLC0415 - as above

        try:
            channels_of(settings.alerts)
        except AlertsError as error:
            fail(str(error), status=2)
    if as_json:
        print_json(settings.redacted())
    else:
        print_pairs(settings.redacted())
    if settings.open_to_loopback_only:
        note("no API key: only this machine may call")
    for line in settings.deprecated_keys():
        note(line)
