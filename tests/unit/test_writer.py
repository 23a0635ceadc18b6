"""Log lines are written by a thread, in order, and are dropped before anybody waits."""

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from service.observability import writer
from service.observability.writer import FLUSH_SECONDS, MAX_WAITING, LineWriter

PROGRAM = """
import sys
import structlog
from service.observability.logging import configure
configure("info", "json")
for number in range(1000):
    structlog.get_logger("service.test").info("line", number=number)
{end}
"""


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)


@pytest.fixture
def lines(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> LineWriter:
    """A writer into a pipe, to which its own line about dropped ones goes too."""
    made = LineWriter(pipe[1])

    class Log:
        def warning(self, event: str, *, lines: int) -> None:
            made.write(f"{lines} {event}")

    monkeypatch.setattr(writer, "log", Log())
    return made


def all_of(descriptor: int, ends_with: bytes) -> bytes:
    data = b""
    while not data.endswith(ends_with):
        data += os.read(descriptor, 1_000_000)
    return data


def test_lines_are_written_in_their_order(lines: LineWriter, pipe: tuple[int, int]) -> None:
    for number in range(500):
        lines.write(f"line {number}")
    lines.flush()
    assert all_of(pipe[0], b"499\n").decode().splitlines() == [f"line {n}" for n in range(500)]


def test_whoever_logs_waits_for_no_reader_and_what_is_dropped_is_counted_and_told(
    lines: LineWriter, pipe: tuple[int, int]
) -> None:
    dropped: list[int] = []
    lines.on_drop = lambda: dropped.append(1)
    fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, 4096)
    count = MAX_WAITING + 20_000
    began = time.monotonic()
    for number in range(count):
        lines.write(f"line {number:05}")
    assert time.monotonic() - began < 20
    # Besides what waits, the thread has taken 64 kB at most.
    assert 10_000 < len(dropped) <= 20_000
    read = all_of(pipe[0], b"in time\n").decode().splitlines()
    kept, told = read[:-1], read[-1]
    assert told == f"{len(dropped)} log lines were dropped: nobody read them in time"
    assert kept == [f"line {number:05}" for number in range(count - len(dropped))]


def test_the_end_waits_a_second_for_a_reader_and_no_longer(
    lines: LineWriter, pipe: tuple[int, int]
) -> None:
    fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, 4096)
    lines.write("x" * 100_000)
    began = time.monotonic()
    lines.flush()
    assert FLUSH_SECONDS * 0.9 < time.monotonic() - began < FLUSH_SECONDS + 3
    lines.flush()
    assert time.monotonic() - began < FLUSH_SECONDS + 4
    all_of(pipe[0], b"x\n")
    lines.write("after it")
    lines.flush()
    assert all_of(pipe[0], b"it\n") == b"after it\n"


def test_a_reader_that_is_gone_costs_lines_and_nothing_else() -> None:
    reading, writing = os.pipe()
    lines = LineWriter(writing)
    dropped: list[int] = []
    lines.on_drop = lambda: dropped.append(1)
    os.close(reading)
    for _ in range(3):
        lines.write("nobody reads this")
        lines.flush()
    assert len(dropped) == 3


def test_a_pipe_that_does_not_block_loses_no_line(lines: LineWriter, pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[1], False)
    lines.write("x" * 300_000)
    lines.write("the end")
    assert len(all_of(pipe[0], b"the end\n")) == 300_001 + len("the end\n")


@pytest.mark.parametrize(
    ("end", "code"),
    [("", 0), ("sys.exit(2)", 2), ("sys.excepthook = print\nraise RuntimeError", 1)],
    ids=["end", "exit 2", "crash"],
)
def test_lines_from_just_before_the_end_of_the_process_are_written(end: str, code: int) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(end=end)],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == code
    written = [json.loads(line) for line in ended.stderr.splitlines() if line.startswith("{")]
    assert [line["number"] for line in written] == list(range(1000))
