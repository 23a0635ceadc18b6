"""Accepting on PostgreSQL beside accepting on SQLite."""

import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tools.bench.accept import TITLES, plan
from tools.bench.measure import Effort, interleaved, median, spread
from tools.bench.report import Goal, Section
from tools.bench.servers import ACKGATE, ackgate
from tools.installation import Installation
from tools.postgres import local_server

ON_POSTGRES = f"{ACKGATE} on PostgreSQL"
CONNECTIONS = 64
GOAL = 0.5


def measure(effort: Effort) -> Section:
    """Compare with both kinds of work."""
    section = Section(
        "postgres",
        "Accepting on PostgreSQL, whose server shares both cores with service and load",
        (
            "work", "PostgreSQL/s", "SQLite/s", "ratio", "spread", "CPU µs", "SQLite CPU µs",
            "p99 ms", "SQLite p99 ms", "not 200", "others",
        ),
    )  # fmt: skip
    with ExitStack() as stack:
        server = stack.enter_context(local_server(durable=True))
        folders = [Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(2)]
        on_file = Installation(folders[0])
        on_server = Installation(folders[1], database_url=server.create_database("bench"))
        services = (
            stack.enter_context(ackgate(on_file)),
            stack.enter_context(ackgate(on_server, name=ON_POSTGRES)),
        )
        for work, title in TITLES.items():
            sys.stderr.write(f"{title}, {CONNECTIONS} connections\n")
            series = interleaved(
                services,
                lambda s, w=work: plan(s, w, CONNECTIONS, effort.seconds),  # type: ignore[misc] # mypy infers no lambda with a default
                rounds=effort.rounds,
            )
            ratios = series.ratios(ON_POSTGRES, ACKGATE)
            section.rows.append(
                (
                    title,
                    series.median(ON_POSTGRES, "rate"),
                    series.median(ACKGATE, "rate"),
                    median(ratios),
                    spread(ratios),
                    series.median(ON_POSTGRES, "cpu_us"),
                    series.median(ACKGATE, "cpu_us"),
                    series.median(ON_POSTGRES, "p99_ms"),
                    series.median(ACKGATE, "p99_ms"),
                    series.failures(ON_POSTGRES, ACKGATE),
                    series.others,
                )
            )
            what = f"{title}, PostgreSQL by SQLite"
            section.goals.append(Goal(what, median(ratios), GOAL, noisy=series.noisy))
    section.notes += [
        "the databases are empty at first; fsync is on; the same work in turns, in the same run",
        "others: the most that other programs used in a round, the PostgreSQL server among them",
    ]
    return section
