"""`ackgate db`: make, upgrade, check, back up, restore and copy the database."""

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
from service.settings import SettingsError, database_at
from service.store import maintenance, operating
from service.store.database import StoreError
from service.store.operating import Operated, file_of, operated

app = typer.Typer(
    name="db",
    help="Make, upgrade, check, back up, restore and copy the database.\n\n"
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

    On PostgreSQL: make the tables in a database that has none.

    The service makes the first one itself, unless `database.create` is "never". It never makes one
    where there was one before. Nobody is known to a new database, so nobody is held or blocked.
    """
    url = loaded(config).database.full_url
    with _one_line_errors():
        database = operated(url)
        database.create()
    show(database.place, f"{_name(database)}: made", as_json=as_json)


@app.command()
def upgrade(config: Config = None, as_json: AsJson = False) -> None:
    """Bring the database to this release, after a backup beside it; create it where there is none.

    On PostgreSQL it is one transaction, and there is no backup.

    Not while the service runs. The service does the same when it starts, unless told --no-migrate.
    """
    settings = loaded(config).database
    with _one_line_errors():
        database = operated(settings.full_url)
        opened = database.upgrade(create=settings.may_create)
    before, after = opened.before, opened.after
    if before == after:
        line = f"{_name(database)}: nothing to do, the schema is at {after}"
    else:
        line = f"{_name(database)}: the schema went from {before or 'nothing'} to {after}"
    show({**database.place, "before": before, "after": after}, line, as_json=as_json)


@app.command()
def check(config: Config = None, as_json: AsJson = False) -> None:
    """Check the database: every page, every reference, and the version of its schema.

    On PostgreSQL: whether every table and index is there, and every rule in force.

    The service may run meanwhile. Exit 1: something is wrong with it.
    """
    url = loaded(config).database.full_url
    with _one_line_errors(), Console(stderr=True).status("checking"):
        database = operated(url)
        report, contents = database.check()
    _print_report(database.place, report, _held(contents) if contents else {}, as_json=as_json)


def _name(database: Operated) -> str:
    """Return what a database is called for people."""
    return next(iter(database.place.values()))


def _print_report(
    place: dict[str, str], report: maintenance.Report, contents: dict[str, Any], *, as_json: bool
) -> None:
    """Print what a database is and holds; end with an error where it has a fault."""
    document = {
        **place,
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
        fail(f"{next(iter(place.values()))}: {report.faults[0]}")


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
    with _one_line_errors():
        path = file_of(loaded(config).database.url)
    with _one_line_errors(), _bar("backing up") as progress:
        maintenance.back_up(path, file, progress, verify=not no_verify)
    count = file.stat().st_size
    show({"file": str(file), "bytes": count}, f"{file}: {size(count)}", as_json=as_json)


def _verify(file: Path, *, as_json: bool) -> None:
    with _one_line_errors(), Console(stderr=True).status("verifying"):
        report, contents = maintenance.verify(file)
    held = _held(contents) if contents else {"last_callback_at": None, "rows": None}
    _print_report({"file": str(file)}, report, held, as_json=as_json)


def _held(contents: maintenance.Contents) -> dict[str, Any]:
    at = _written(contents.last_callback_at)
    return {"last_callback_at": at, "rows": dict(contents.rows)}


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
    with _one_line_errors():
        path = file_of(loaded(config).database.url)
    if not yes:
        confirm(f"Put {file} in the place of {path}?")
    with _one_line_errors(), _bar("restoring") as progress:
        kept = maintenance.restore(path, file, datetime.now(UTC), progress)
    show({"file": str(path), "kept": kept and str(kept)}, f"{path}: restored", as_json=as_json)
    if kept:
        note(f"the database as it was: {kept}")
    note(UNVERIFIED)


@app.command()
def restored(
    config: Config = None,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Tell Ackgate that other programs have restored the database, or moved it to another server.

    Not while the service runs. What came in since the backup is not in it. So that happens which
    `ackgate db restore` does after it has put a backup in its place: every user of a WhatsApp
    client is unverified, and blocked at the gate, until the service has asked that client. The
    Cloud API can't be asked. A PostgreSQL database is brought to this release first.
    """
    url = loaded(config).database.full_url
    with _one_line_errors():
        database = operated(url)
    if not yes:
        confirm(f"Make all users in {_name(database)} unverified?")
    with _one_line_errors(), Console(stderr=True).status("marking"):
        database.mark_restored(datetime.now(UTC))
    show(database.place, f"{_name(database)}: marked as restored", as_json=as_json)
    note(UNVERIFIED)


@app.command()
def copy(
    source: Annotated[str, typer.Option("--from", metavar="URL", help="The file: sqlite:///PATH.")],
    target: Annotated[
        str, typer.Option("--to", metavar="URL", help="postgresql://USER@HOST/DATABASE.")
    ],
    password_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Holds the password of --to. Default: as the environment has database.password.",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Copy a SQLite file to a PostgreSQL database: beside the service first, then without it.

    The first run copies everything while the service goes on. Then stop the service, and run it
    again: it copies what has changed since, compares every table by number and checksum of its
    rows, and makes the copy final. No service starts on a copy before that. A run that was cut
    short is run again.
    """
    path, url = _copied(source), _copied_to(target, password_file)
    name = next(iter(operated(url).place.values()))
    if not yes:
        confirm(f"Copy {path} to {name}?")
    with _one_line_errors(), _bar("copying") as progress:
        outcome = operating.copy(path, url, progress)
    rows = {table: tally.rows for table, tally in outcome.tallies.items()}
    document = {
        "file": str(path),
        "database": name,
        "final": outcome.is_final,
        "rows": rows,
        "checksums": {table: f"{tally.checksum:032x}" for table, tally in outcome.tallies.items()},
        "replaced": outcome.replaced,
    }
    said = "final, equal by checksum" if outcome.is_final else "not final"
    show(document, f"{name}: {sum(rows.values()):,} rows, {said}", as_json=as_json)
    for place in outcome.replaced:
        note(f"a character that PostgreSQL can't keep is U+FFFD now: {place}")
    if not outcome.is_final:
        note("a service works on the file: stop it, and run this again")


def _copied(url: str) -> Path:
    try:
        database = database_at(url)
    except SettingsError as error:
        fail(f"--from: {error}", status=2)
    if database.is_postgres:
        fail("--from must be sqlite:///PATH", status=2)
    return file_of(database.url)


def _copied_to(url: str, password_file: Path | None) -> str:
    try:
        database = database_at(url, password_file)
    except SettingsError as error:
        fail(f"--to: {error}", status=2)
    if not database.is_postgres:
        fail("--to must be postgresql://USER@HOST/DATABASE", status=2)
    return database.full_url


UNVERIFIED = "users of a WhatsApp client are unverified until the service has asked it about each"


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
