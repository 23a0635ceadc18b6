"""`ackgate db`: make, upgrade, check, back up and restore the database."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from service.cli.options import AsJson, Config, loaded
from service.cli.output import confirm, fail, note, print_json, print_pairs, show
from service.cli.units import size
from service.store import maintenance
from service.store.database import StoreError
from service.store.sqlite_files import path_of

app = typer.Typer(
    name="db",
    help="Make, upgrade, check, back up and restore the database.\n\n"
    "Run these as the user that the service runs as.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """End the command with one line where the database can't be used."""
    try:
        yield
    except StoreError as error:
        fail(str(error))


@app.command()
def create(config: Config = None, as_json: AsJson = False) -> None:
    """Make a new, empty database: the first one, or one in the place of one that is gone for good.

    The service makes the first one itself, unless `database.create` is "never". It never makes one
    where there was one before. Nobody is known to a new database, so nobody is held or blocked.
    """
    path = path_of(loaded(config).database.url)
    with _one_line_errors():
        maintenance.create(path)
    show({"file": str(path)}, f"{path}: made", as_json=as_json)


@app.command()
def upgrade(config: Config = None, as_json: AsJson = False) -> None:
    """Bring the database to this release, after a backup beside it; create it where there is none.

    Not while the service runs. The service does the same when it starts, unless told --no-migrate.
    """
    database = loaded(config).database
    path = path_of(database.url)
    with _one_line_errors():
        opened = maintenance.upgrade(path, create=database.may_create)
    before, after = opened.before, opened.after
    if before == after:
        line = f"{path}: nothing to do, the schema is at {after}"
    else:
        line = f"{path}: the schema went from {before or 'nothing'} to {after}"
    done = {"file": str(path), "before": before, "after": after}
    show(done, line, as_json=as_json)


@app.command()
def check(config: Config = None, as_json: AsJson = False) -> None:
    """Check the database: every page, every reference, and the version of its schema.

    The service may run meanwhile. Exit 1: something is wrong with it.
    """
    path = path_of(loaded(config).database.url)
    with _one_line_errors(), Console(stderr=True).status("checking"):
        report = maintenance.check(path)
    _print_report(path, report, {}, as_json=as_json)


def _print_report(
    file: Path, report: maintenance.Report, contents: dict[str, Any], *, as_json: bool
) -> None:
    """Print what a file is and holds; end with an error where it has a fault."""
    document = {
        "file": str(file),
        "bytes": report.size,
        "schema": report.schema,
        "latest_schema": report.latest,
        **contents,
        "faults": list(report.faults),
    }
    if as_json:
        print_json(document)
    else:
        print_pairs(document | {"faults": list(report.faults) or "none"})
    if report.faults:
        fail(f"{file}: {report.faults[0]}")


@app.command()
def backup(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The new file; it must not exist yet.")
    ],
    verify: Annotated[
        bool, typer.Option("--verify", help="Write nothing: look whether FILE is a good backup.")
    ] = False,
    no_verify: Annotated[
        bool, typer.Option("--no-verify", help="Don't read the copy to see that it is whole.")
    ] = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Copy the database, as it stands at one moment, to a new file. The service may run meanwhile.

    The copy is verified before it gets its name: every page and every reference. Exit 1, and no
    file: the database is damaged. The copy is readable by its owner alone. It holds hashes and
    phone numbers: keep it safe.

    With --verify a backup is read instead: every page, every reference, its schema, and what is in
    it. Exit 1: a restore would refuse it.
    """
    if verify:
        _verify(file, as_json=as_json)
        return
    path = path_of(loaded(config).database.url)
    with _one_line_errors(), _bar("backing up") as progress:
        maintenance.back_up(path, file, progress, verify=not no_verify)
    count = file.stat().st_size
    show({"file": str(file), "bytes": count}, f"{file}: {size(count)}", as_json=as_json)


def _verify(file: Path, *, as_json: bool) -> None:
    with _one_line_errors(), Console(stderr=True).status("verifying"):
        report, contents = maintenance.verify(file)
    held = {
        "last_callback_at": _written(contents.last_callback_at) if contents else None,
        "rows": dict(contents.rows) if contents else None,
    }
    _print_report(file, report, held, as_json=as_json)


def _written(at: int | None) -> str | None:
    if at is None:
        return None
    return datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What 'ackgate db backup' wrote.")],
    config: Config = None,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put a backup in the place of the database, once it is found to be whole.

    Not while the service runs. The database as it was is kept beside it. What came in since the
    backup is not in it, so every user of a WhatsApp client is unverified, and blocked at the gate,
    until the service has asked that client. The Cloud API can't be asked.
    """
    path = path_of(loaded(config).database.url)
    if not yes:
        confirm(f"Put {file} in the place of {path}?")
    with _one_line_errors(), _bar("restoring") as progress:
        kept = maintenance.restore(path, file, datetime.now(UTC), progress)
    show({"file": str(path), "kept": kept and str(kept)}, f"{path}: restored", as_json=as_json)
    if kept:
        note(f"the database as it was: {kept}")
    note("users of a WhatsApp client are unverified until the service has asked it about each")


@contextmanager
def _bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on a terminal; yield a function that moves it: what is done, and what there is."""
    columns = (TextColumn(title), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    shown = Progress(
        *columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()
    )
    with shown:
        task = shown.add_task(title, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)
