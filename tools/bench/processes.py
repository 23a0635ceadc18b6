"""Child processes: started on a core of their own, waited for, measured, and stopped."""

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SERVER_CORE, LOAD_CORE = 0, 1
START_SECONDS = 60.0
STOP_SECONDS = 20.0
POLL_SECONDS = 0.002


class BenchmarkError(Exception):
    """A benchmark can't be carried out; the text says why."""


class Process:
    """A child process, with the file that it writes to."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        core: int | None = None,
        folder: Path = ROOT,
        environ: Mapping[str, str] | None = None,
        name: str = "",
    ) -> None:
        self.name = name or Path(command[0]).name
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  it lives as long as the process
        self._child = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            preexec_fn=partial(_pin, core),  # noqa: PLW1509  no thread runs here
        )
        self.pid = self._child.pid
        self.keeps: object = None

    def wait_for(
        self,
        url: str,
        seconds: float = START_SECONDS,
        accepted: frozenset[int] = frozenset({200, 404, 405}),
    ) -> float:
        """Wait until a URL is answered with an accepted status; give the seconds it took."""
        started = time.perf_counter()
        while time.perf_counter() - started < seconds:
            if self._child.poll() is not None:
                raise BenchmarkError(f"{self.name} ended: {self.said()}")
            if answered(url) in accepted:
                return time.perf_counter() - started
            time.sleep(POLL_SECONDS)
        raise BenchmarkError(f"{self.name} is not ready after {seconds:g} s: {self.said()}")

    def finish(self, seconds: float = START_SECONDS) -> None:
        """Wait for its end; BenchmarkError where it fails."""
        if self._child.wait(seconds):
            raise BenchmarkError(f"{self.name} failed: {self.said()}")
        self._log.close()

    def said(self) -> str:
        """Give the end of what it wrote."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")[-1500:]

    def stop(self, *, kill: bool = False) -> None:
        """End it, and wait for its end."""
        if self._child.poll() is None:
            if kill:
                self._child.kill()
            else:
                self._child.terminate()
            try:
                self._child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait(STOP_SECONDS)
        self._log.close()

    def memory_mb(self) -> float:
        """Give its resident memory."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        return 0.0

    def cpu_seconds(self) -> float:
        """Give the CPU time so far, of all its threads and of children that ended."""
        return cpu_of(self.pid)

    def switches(self) -> int:
        """Count how often its threads went to sleep: the voluntary context switches so far."""
        found = 0
        for task in Path(f"/proc/{self.pid}/task").glob("*/status"):
            for line in task.read_text().splitlines():
                if line.startswith("voluntary_ctxt_switches:"):
                    found += int(line.split()[1])
        return found


def _pin(core: int | None) -> None:
    if core is not None and core < (os.cpu_count() or 1):
        os.sched_setaffinity(0, {core})


def cpu_of(pid: int) -> float:
    """Give the CPU time (s) of a process so far, with that of children that ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def answered(url: str) -> int | None:
    """Give the status that a URL is answered with; None for no answer."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, ValueError):
        return None


def free_port() -> int:
    """Give a port that was free a moment ago."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextmanager
def running(process: Process) -> Iterator[Process]:
    """Stop a process in the end."""
    try:
        yield process
    finally:
        process.stop()


def python(module: str, *arguments: str) -> list[str]:
    """Make the command that runs a module with this very Python."""
    return [sys.executable, "-m", module, *arguments]
