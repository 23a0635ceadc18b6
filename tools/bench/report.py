"""What a benchmark found: a table, its goals, and notes; printed, and kept under `results`."""

import json
import os
import platform
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
ORDER = ("accept", "cloud", "peers", "end_to_end", "gate", "clearing", "growth", "idle")
PICTURE = "benchmarks.png"
PAGE = "benchmarks.md"
WIDTH = 170
"""The columns of what is no terminal."""

Cell = str | float | int


@dataclass(frozen=True, slots=True)
class Goal:
    """What is to be reached: a bound from below, or from above.

    `noisy` says that other programs used the machine meanwhile, so that it has to be measured anew.
    """

    text: str
    value: float
    bound: float
    at_least: bool = True
    noisy: bool = False

    @property
    def passes(self) -> bool:
        """Whether it is reached."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    @property
    def line(self) -> str:
        """The goal with its verdict."""
        sign = "≥" if self.at_least else "≤"
        verdict = "PASS" if self.passes else ("below" if self.at_least else "above")
        verdict = f"NOISY, {verdict}" if self.noisy else verdict
        return f"{verdict}: {self.text}: {self.value:.3g}, goal {sign} {self.bound:g}"


@dataclass(slots=True)
class Section:
    """The results of one benchmark. `plot` is what the picture shows; see `picture`."""

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


def keep(section: Section, *, quick: bool) -> None:
    """Write a section as JSON, and a page and a picture of all that were written so far."""
    folder = RESULTS / "quick" if quick else RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    goals = [asdict(goal) | {"passes": goal.passes} for goal in section.goals]
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    kept = asdict(section) | {"goals": goals, "machine": _machine(), "when": when}
    file = folder / f"{section.name}.json"
    file.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    files = [folder / f"{name}.json" for name in ORDER]
    found = [json.loads(file.read_text()) for file in files if file.exists()]
    (folder / PAGE).write_text(_page(found, quick=quick))
    try:
        from tools.bench.picture import draw  # noqa: PLC0415  matplotlib comes with `make bench`
    except ImportError:
        return
    draw([_section(one) for one in found], folder / PICTURE)


def _page(found: list[dict[str, Any]], *, quick: bool) -> str:
    command = "python -m tools.bench --quick" if quick else "make bench"
    parts = [
        "# Benchmarks",
        f"Written by `{command}`. Only ratios within one run mean anything: see the spread.",
        f"![what was measured]({PICTURE})",
    ]
    for kept in found:
        where = ", ".join(f"{key} {value}" for key, value in kept["machine"].items())
        parts.append(f"{_markdown(_section(kept))}\n*{kept['when']}; {where}*")
    return "\n\n".join(parts) + "\n"


def _section(kept: dict[str, Any]) -> Section:
    names = ("text", "value", "bound", "at_least", "noisy")
    goals = [Goal(**{name: goal[name] for name in names}) for goal in kept["goals"]]
    fields = {key: kept[key] for key in ("name", "title", "columns", "rows", "notes", "plot")}
    return Section(**fields, goals=goals)


def _markdown(section: Section) -> str:
    head = [f"## {section.title}", "", "| " + " | ".join(section.columns) + " |"]
    head.append("|---|" + "--:|" * (len(section.columns) - 1))
    rows = ["| " + " | ".join(map(written, row)) + " |" for row in section.rows]
    lists = [f"* {goal.line}" for goal in section.goals] + [f"* {note}" for note in section.notes]
    return "\n".join([*head, *rows, "", *lists, ""])


def _machine() -> dict[str, str]:
    """Describe the machine, as far as the numbers depend on it."""
    processor = platform.processor() or "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            processor = " ".join(line.partition(":")[2].split())
            break
    return {
        "processor": processor,
        "cores": str(os.cpu_count()),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "SQLite": sqlite3.sqlite_version,
        "aiohttp": version("aiohttp"),
        "uvloop": version("uvloop"),
    }
