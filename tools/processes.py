"""Child processes: started on a core of their own, waited for, measured, and ended."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SERVER_CORE, LOAD_CORE = 0, 1
"""Servers that are measured run on the first core, and what loads them on the second."""
START_SECONDS = 60.0
STOP_SECONDS = 30.0
POLL_SECONDS = 0.002
LARGEST_PIECE = 65_536
END_OF_LOG = 1_500


class RunError(Exception):
    """A benchmark or a soak can't go on; the text says why."""


class Process:
    """A child process. What it prints goes to the file `log`, or to a temporary one.

    A thread of this process writes the file: the child itself could not do so while a fault keeps
    its files from growing.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        name: str,
        core: int | None = None,
        environ: Mapping[str, str] | None = None,
        log: Path | None = None,
    ) -> None:
        self.name = name
        self._log = log.open("a+b", buffering=0) if log else tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  they live as long as the process
        with on_core(core):
            self._child = subprocess.Popen(
                command,
                bufsize=0,
                cwd=ROOT,
                env=environment(environ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        self.pid = self._child.pid
        self._copying = threading.Thread(target=self._copy, daemon=True)
        self._copying.start()

    def _copy(self) -> None:
        while self._child.stdout and (piece := self._child.stdout.read(LARGEST_PIECE)):
            self._log.write(piece)

    def wait_for(
        self, url: str, accepted: Collection[int] = (200,), seconds: float = START_SECONDS
    ) -> float:
        """Wait until a URL is answered with an accepted status; return the seconds it took."""
        started = time.perf_counter()
        while time.perf_counter() - started < seconds:
            if self.has_ended:
                raise RunError(f"{self.name} ended by itself: {self.printed()}")
            if status_of(url) in accepted:
                return time.perf_counter() - started
            time.sleep(POLL_SECONDS)
        raise RunError(f"{self.name} is not ready after {seconds:g} s: {self.printed()}")

    def printed(self) -> str:
        """Return the end of what it has printed."""
        if self.has_ended:
            self._copying.join(STOP_SECONDS)
        file = self._log.fileno()
        start = max(0, os.fstat(file).st_size - END_OF_LOG)
        return os.pread(file, END_OF_LOG, start).decode(errors="replace")

    @property
    def has_ended(self) -> bool:
        """Whether it runs no more."""
        return self._child.poll() is not None

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if the process is still running."""
        self._child.send_signal(number)

    def wait(self, seconds: float = STOP_SECONDS) -> int:
        """Return the exit code, once all that was printed is in the log; RunError if it runs on."""
        try:
            code = self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            raise RunError(f"{self.name} did not end within {seconds:g} s") from None
        self._copying.join(seconds)
        return code

    def kill(self) -> None:
        """End it with SIGKILL."""
        self.send(signal.SIGKILL)
        self.wait()

    def end(self) -> None:
        """End it with SIGTERM, or with SIGKILL where that is not enough."""
        self.send(signal.SIGTERM)
        try:
            self.wait()
        except RunError:
            self.kill()

    def cpu_seconds(self) -> float:
        """Return the CPU time so far."""
        return cpu_seconds_of(self.pid)

    def memory_mb(self) -> float:
        """Return the resident memory."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        return 0.0

    def wake_ups(self) -> int:
        """Return the number of voluntary context switches so far, of all threads."""
        found = 0
        for task in Path(f"/proc/{self.pid}/task").glob("*/status"):
            for line in task.read_text().splitlines():
                if line.startswith("voluntary_ctxt_switches:"):
                    found += int(line.split()[1])
        return found


@contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """Start processes on one core; on any for None, or where the machine has no such core."""
    before = os.sched_getaffinity(0)
    if core in before:
        os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_seconds_of(pid: int) -> float:
    """Return a process's CPU time, user and system, with that of children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def status_of(url: str) -> int | None:
    """Return the status that a URL is answered with; None for no answer."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, ValueError):
        return None


def free_port() -> int:
    """Return a port that nobody else is given as long as this process lives.

    A server that sets SO_REUSEADDR, as nearly all do, can listen on it, again and again.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    _held.append(held)
    return int(held.getsockname()[1])


_held: list[socket.socket] = []
"""Bound, and not listening: so no system gives their ports to anybody who asks for any."""


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return our environment without settings of Ackgate's own, and with more variables."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("ACKGATE_")}
    return ours | dict(more or {})


def python(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module with this Python."""
    return [sys.executable, "-m", module, *arguments]
