"""`ackgate contacts`: what is known of numbers; `check`, which goes on where it was interrupted."""

import asyncio
import csv
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from service.cli.documents import CONTACTS, print_page
from service.cli.files import column_of, read_csv
from service.cli.options import (
    URL,
    All,
    AsJson,
    CaFile,
    Cursor,
    KeyFile,
    Limit,
    Url,
    complete_account,
    given,
)
from service.cli.output import fail, note, print_json, print_pairs
from service.cli.remote import Api, Page, RefusedError, pages, server_at, talk

app = typer.Typer(
    name="contacts", help="Check phone numbers, and list the results.", no_args_is_help=True
)

CHUNK = 200
"""Numbers in one request."""
POLLED = 50
"""Numbers looked up in one request, whose URL holds them."""
MAX_OPEN = 2_000
"""Numbers that may be open before more are asked about."""
MAX_CHARACTERS = 256
TRIES = 5
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 5.0
PAGE = 1000
COLUMNS = ("input", "status", "wa_id", "checked_at", "expires_at")
AGAIN = frozenset(
    {HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT}
)

Item = dict[str, Any]


OnlyAccount = Annotated[
    str | None,
    typer.Option(
        metavar="ACCOUNT",
        help="The account. Default: the only one there is.",
        autocompletion=complete_account,
    ),
]


@app.command("list")
def list_(
    account: OnlyAccount = None,
    input_: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="NUMBER",
            help="Only this number, as it was checked; may be repeated.",
        ),
    ] = None,
    wa_id: Annotated[
        list[str] | None,
        typer.Option(metavar="WA_ID", help="Only numbers with this wa_id; may be repeated."),
    ] = None,
    limit: Limit = 100,
    all_: All = False,
    cursor: Cursor = None,
    url: Url = URL,
    key_file: KeyFile = None,
    ca_file: CaFile = None,
    as_json: AsJson = False,
) -> None:
    """List what the WhatsApp client last said of the account's numbers."""
    query = given(input=input_, wa_id=wa_id, cursor=cursor)

    async def act(api: Api) -> Page:
        name = account or await _only_account(api)
        return await pages(api, ("accounts", name, "contacts"), query, None if all_ else limit)

    server = server_at(url, key_file, ca_file)
    print_page(
        CONTACTS, talk(server, act, as_json=as_json), "no number is like that", as_json=as_json
    )


@app.command()
def check(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A CSV file; a row of names at its top is optional."),
    ],
    account: OnlyAccount = None,
    column: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="The column of the numbers, if its name is none of the usual."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The results. Default: FILE with .checked.csv or .json."),
    ] = None,
    patience: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=1, help="How long to wait when no result comes."),
    ] = 600,
    url: Url = URL,
    key_file: KeyFile = None,
    ca_file: CaFile = None,
    as_json: AsJson = False,
) -> None:
    """Check the numbers of a file, and write what the WhatsApp client says of each.

    What is known stands in a file beside the results until all is done: run the command again
    to go on. Opt-ins are taken from columns named opt_in_at and opt_in_how.
    """
    rows = _read(file, column)
    target = out or file.with_suffix(".checked.json" if as_json else ".checked.csv")
    part = target.with_name(f"{target.name}.part")
    server = server_at(url, key_file, ca_file)

    async def act(api: Api) -> Work:
        name = account or await _only_account(api)
        with _appending(part) as kept:
            work = Work(api, name, rows, kept, _resumed(part, name), patience)
            await work.run()
        return work

    try:
        work = talk(server, act, as_json=as_json)
    except BaseException:
        if part.exists() and part.stat().st_size:
            note(f"what is known so far is in {part}: run the command again to go on")
        raise
    _finish(work, target, part, as_json=as_json)


@dataclass(frozen=True, slots=True)
class Row:
    """A number of the file, literally, and the customer's opt-in."""

    input: str
    opt_in: Mapping[str, str] | None = None

    @property
    def contact(self) -> Any:
        """The number as the API takes it."""
        return {"input": self.input, "opt_in": self.opt_in} if self.opt_in else self.input


def _read(file: Path, column: str | None) -> list[Row]:
    lines = read_csv(file)
    if not lines:
        fail(f"{file}: holds no number", status=2)
    head = lines[0].names
    place = column_of(file, head, column)
    body = [line.cells for line in (lines if place is None else lines[1:])]
    rows = [_row(cells, place or 0, head) for cells in body if len(cells) > (place or 0)]
    unusable = [row.input for row in rows if len(row.input) > MAX_CHARACTERS or "\0" in row.input]
    if unusable:
        fail(f"{file}: {len(unusable)} cells are no numbers; is it the right column?", status=2)
    return [row for row in rows if row.input]


def _row(cells: Sequence[str], place: int, head: Sequence[str]) -> Row:
    named = dict(zip(head, cells, strict=False))
    at, how = named.get("opt_in_at"), named.get("opt_in_how")
    return Row(cells[place], {"at": at, "how": how} if at and how else None)


async def _only_account(api: Api) -> str:
    found = (await api.get("accounts")).get("items") or []
    if len(found) != 1:
        fail(f"there are {len(found)} accounts: name one with --account", status=2)
    return str(found[0].get("account"))


@contextmanager
def _appending(part: Path) -> Iterator[TextIO]:
    """Open the file of the results so far for its owner alone, since it holds phone numbers."""
    try:
        number = os.open(part, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    except OSError as error:
        fail(f"{part}: {error.strerror}")
    with os.fdopen(number, "w", encoding="utf-8") as opened:
        yield opened


def _resumed(part: Path, account: str) -> dict[str, Item]:
    """Return the results of an earlier run; a last line that was cut off is left out."""
    found: dict[str, Item] = {}
    for line in part.read_text(encoding="utf-8").splitlines():
        try:
            item = json.loads(line)
        except ValueError:
            continue
        if isinstance(item, dict) and item.get("account") == account:
            found[str(item.get("input"))] = item
    return found


def _is_done(item: Item) -> bool:
    return item.get("status") != "processing" and not item.get("checking")


@dataclass(slots=True)
class Work:
    """The numbers of a file, and the results that came so far."""

    api: Api
    account: str
    rows: Sequence[Row]
    kept: TextIO
    done: dict[str, Item]
    patience: float
    open: dict[str, None] = field(default_factory=dict)

    async def run(self) -> None:
        """Ask about all that have no result, and wait for the results."""
        todo = list({row.input: row for row in self.rows}.values())
        left = [row for row in todo if row.input not in self.done]
        columns = (
            TextColumn("checking"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True)) as progress:
            bar = progress.add_task("", total=len(todo), completed=len(todo) - len(left))
            try:
                for chunk in _chunks(left, CHUNK):
                    self._take(await self._ask(chunk), [row.input for row in chunk])
                    progress.update(bar, completed=len(self.done))
                    if len(self.open) > MAX_OPEN:
                        await self._wait(progress, bar, MAX_OPEN // 2)
            except RefusedError:
                # The results of earlier requests are worth keeping.
                await self._wait(progress, bar, 0)
                raise
            await self._wait(progress, bar, 0)

    async def _ask(self, rows: Sequence[Row]) -> list[Item]:
        """Have numbers checked; repeat a failed request, which its Idempotency-Key makes free."""
        body = {"contacts": [row.contact for row in rows]}
        text = json.dumps([self.account, body, int(time.time()) // 86_400])
        key = {"Idempotency-Key": sha256(text.encode(errors="surrogatepass")).hexdigest()}
        path = ("accounts", self.account, "contacts")
        for tries in range(TRIES):
            try:
                answer = await self.api.post(*path, body=body, headers=key)
            except RefusedError as error:
                seconds = _again_in(error, tries)
                if seconds is None or tries == TRIES - 1:
                    raise
                await asyncio.sleep(seconds)
            else:
                return list(answer.document.get("items") or ())
        raise AssertionError("the last try returns or raises")

    def _take(self, items: Iterable[Item], asked: Iterable[str] = ()) -> None:
        self.open |= dict.fromkeys(asked)
        for item in items:
            input_ = str(item.get("input"))
            if input_ in self.open and _is_done(item):
                del self.open[input_]
                self.done[input_] = item
                self.kept.write(json.dumps(item) + "\n")
        self.kept.flush()

    async def _wait(self, progress: Progress, bar: Any, until: int) -> None:
        """Wait until only so many numbers are open, or no result has come for too long."""
        pause, last = FIRST_PAUSE_SECONDS, time.monotonic()
        while len(self.open) > until and time.monotonic() - last < self.patience:
            await asyncio.sleep(pause)
            before = len(self.open)
            for inputs in _chunks(list(self.open), POLLED):
                query = [("limit", str(PAGE)), *(("input", input_) for input_ in inputs)]
                page = await self.api.get("accounts", self.account, "contacts", query=query)
                self._take(page.get("items") or ())
            progress.update(bar, completed=len(self.done))
            if len(self.open) < before:
                pause, last = FIRST_PAUSE_SECONDS, time.monotonic()
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def _again_in(error: RefusedError, tries: int) -> float | None:
    """Return after how many seconds to repeat a request; None where that would not help."""
    seconds = error.problem.get("retry_after")
    if isinstance(seconds, int | float):
        return float(seconds)
    return min(2.0**tries, LONGEST_PAUSE_SECONDS) if error.status in AGAIN else None


def _chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _finish(work: Work, target: Path, part: Path, *, as_json: bool) -> None:
    """Write the results in the order of the file; end the command where one is missing."""
    if work.open:
        fail(f"{len(work.open)} numbers have no result yet; run the command again")
    items = [work.done[row.input] for row in work.rows]
    try:
        _write(items, target, as_json=as_json)
        part.unlink()
    except OSError as error:
        fail(f"{target}: {error.strerror}")
    counts: dict[str, int] = {}
    for item in items:
        counts[str(item.get("status"))] = counts.get(str(item.get("status")), 0) + 1
    summary = {"file": str(target), "numbers": len(items), **dict(sorted(counts.items()))}
    if as_json:
        print_json(summary)
    else:
        print_pairs(summary)


def _write(items: Sequence[Item], target: Path, *, as_json: bool) -> None:
    number = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(number, "w", encoding="utf-8", newline="") as opened:
        if as_json:
            json.dump(items, opened, indent=2)
            return
        writer = csv.writer(opened)
        writer.writerow(COLUMNS)
        writer.writerows([item.get(name) for name in COLUMNS] for item in items)
