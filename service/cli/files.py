"""The CSV files that commands read: numbers of a spreadsheet, or decisions."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

import typer

from service.cli.output import fail

STDIN = Path("-")
NUMBER_HEADS = (
    "phone",
    "phone_number",
    "number",
    "input",
    "contact",
    "msisdn",
    "whatsapp",
    "mobile",
)


class Line(NamedTuple):
    """A row of a file, and on which line it ends."""

    number: int
    cells: list[str]

    @property
    def names(self) -> list[str]:
        """The names of the columns, where it is the row of names."""
        return [cell.lower() for cell in self.cells]


def read_csv(file: Path) -> list[Line]:
    """Return the rows of a CSV file, of standard input where its name is `-`.

    Lines without text are left out. Ends the command where the file can't be read.
    """
    try:
        if file == STDIN:
            return list(_lines(typer.get_text_stream("stdin", encoding="utf-8-sig")))
        with file.open(encoding="utf-8-sig", newline="") as opened:
            return list(_lines(opened))
    except OSError as error:
        fail(f"{file}: {error.strerror}", status=2)
    except (UnicodeDecodeError, csv.Error):
        fail(f"{file}: is no CSV in UTF-8", status=2)


def _lines(opened: TextIO) -> Iterator[Line]:
    reader = csv.reader(opened)
    for cells in reader:
        if any(cell.strip() for cell in cells):
            yield Line(reader.line_num, [cell.strip() for cell in cells])


def column_of(
    file: Path, head: Sequence[str], column: str | None, usual: Sequence[str] = NUMBER_HEADS
) -> int | None:
    """Return which column is asked for, else which has one of the usual names.

    None, which stands for the first one, where the file has no names.
    """
    if column is not None:
        if column.lower() not in head:
            fail(f"{file}: has no column {column}", status=2)
        return head.index(column.lower())
    return next((head.index(name) for name in usual if name in head), None)
