"""The points at which a test can end the process: off, they cost next to nothing."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from service.observability import failpoints
from service.settings.sources import PREFIX

NANOSECONDS = 1000
"""Some forty times what it takes on an idle machine."""

CHILD = """
from service.observability import failpoints
for number in range(1, 10):
    print(number, flush=True)
    failpoints.reached("ledger.after_commit")
    failpoints.reached("after_lease", "ask")
    failpoints.reached("after_lease", "acknowledge")
"""


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    failpoints.arm(None)


def run(spec: str | None) -> tuple[int, list[str]]:
    environ = {k: v for k, v in os.environ.items() if k != failpoints.VARIABLE}
    if spec is not None:
        environ[failpoints.VARIABLE] = spec
    ended = subprocess.run(
        [sys.executable, "-c", CHILD], env=environ, capture_output=True, text=True, check=False
    )
    return ended.returncode, ended.stdout.split()


@pytest.mark.parametrize(
    ("spec", "last"),
    [
        ("ledger.after_commit", "1"),
        ("ledger.after_commit:1", "1"),
        ("ledger.after_commit:7", "7"),
        ("ask.after_lease:3", "3"),
        ("acknowledge.after_lease:2", "2"),
    ],
)
def test_the_process_is_killed_when_it_comes_to_the_point_for_the_nth_time(
    spec: str, last: str
) -> None:
    code, said = run(spec)
    assert (code, said[-1]) == (-signal.SIGKILL, last)


@pytest.mark.parametrize("spec", [None, "ledger.after_commit:10", "another.point"])
def test_else_nothing_happens(spec: str | None) -> None:
    code, said = run(spec)
    assert (code, said[-1]) == (0, "9")


@pytest.mark.parametrize("spec", ["", "ledger", "ledger.x:0", "ledger.x:-1", "ledger.x:", "a.b:c"])
def test_what_names_no_point_is_refused(spec: str) -> None:
    with pytest.raises(ValueError, match=failpoints.VARIABLE):
        failpoints.arm(spec)


def test_no_key_of_the_configuration_has_that_variable() -> None:
    assert "__" not in failpoints.VARIABLE.removeprefix(PREFIX)


def test_off_it_costs_next_to_nothing() -> None:
    calls = range(10_000)

    def seconds() -> float:
        began = time.perf_counter()
        for _ in calls:
            failpoints.reached("ledger.after_commit")
        return time.perf_counter() - began

    assert min(seconds() for _ in range(20)) / len(calls) < NANOSECONDS * 1e-9
