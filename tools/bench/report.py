"""What a benchmark found: a table, its goals, and notes; for the terminal, Markdown and JSON."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

WIDTH = 160
"""Columns of a terminal that is none."""

Cell = str | float | int


@dataclass(frozen=True, slots=True)
class Goal:
    """What is to be reached: a bound from below, or from above.

    `noisy` says that other programs used the machine meanwhile, so that it has to be asked again.
    """

    text: str
    value: float
    bound: float
    at_least: bool = True
    noisy: bool = False

    @property
    def passes(self) -> bool:
        """Tell whether it is reached."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    @property
    def line(self) -> str:
        """Write it with its verdict."""
        sign = "≥" if self.at_least else "≤"
        verdict = "PASS" if self.passes else ("below" if self.at_least else "above")
        verdict = f"NOISY, {verdict}" if self.noisy else verdict
        return f"{verdict}: {self.text}: {self.value:.3g}, goal {sign} {self.bound:g}"


@dataclass(slots=True)
class Section:
    """One benchmark's results. `plot` is what the picture shows: series of points by name."""

    name: str
    title: str
    columns: Sequence[str]
    rows: list[Sequence[Cell]] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    plot: dict[str, Any] = field(default_factory=dict)


def written(cell: Cell) -> str:
    """Write a cell for people."""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, int):
        return f"{cell:,}"
    return f"{cell:,.0f}" if abs(cell) >= 1000 else f"{cell:.3g}"  # noqa: PLR2004  as people write


def show(section: Section) -> None:
    """Print a section."""
    table = Table(title=section.title, title_justify="left")
    for index, column in enumerate(section.columns):
        table.add_column(column, justify="right" if index else "left")
    for row in section.rows:
        table.add_row(*map(written, row))
    console = Console(width=max(Console().width, WIDTH))
    console.print(table)
    for goal in section.goals:
        style = "yellow" if goal.noisy else "green" if goal.passes else "bold red"
        console.print(goal.line, style=style, highlight=False)
    for note in section.notes:
        console.print(f"* {note}", highlight=False)


def markdown(section: Section) -> str:
    """Write a section as Markdown."""
    head = [f"## {section.title}", "", "| " + " | ".join(section.columns) + " |"]
    head.append("|---|" + "--:|" * (len(section.columns) - 1))
    rows = ["| " + " | ".join(map(written, row)) + " |" for row in section.rows]
    lists = [f"* {goal.line}" for goal in section.goals] + [f"* {note}" for note in section.notes]
    return "\n".join([*head, *rows, "", *lists, ""])
