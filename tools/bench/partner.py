"""The simulator's process, as the benchmarks speak with it."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tools.bench.processes import LOAD_CORE, ROOT, STOP_SECONDS, BenchmarkError, cpu_of, python


class Partner:
    """A running simulator."""

    def __init__(self, child: "subprocess.Popen[str]", *, tls: bool) -> None:
        self._child = child
        told = self._read()
        scheme = "https" if tls else "http"
        self.base_url = f"{scheme}://127.0.0.1:{told['port']}"
        self.ca_file = Path(told["ca_file"]) if tls else None

    def ask(self, command: str) -> Any:
        """Give a command, and its answer."""
        if self._child.stdin is not None:
            self._child.stdin.write(command + "\n")
            self._child.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        line = self._child.stdout.readline() if self._child.stdout is not None else ""
        if not line:
            raise BenchmarkError("the simulator ended")
        return json.loads(line)

    def cpu_seconds(self) -> float:
        """Give its CPU time so far."""
        return cpu_of(self._child.pid)


@contextmanager
def partner(folder: Path, *, tls: bool) -> Iterator[Partner]:
    """Run a simulator on the core of the load."""
    way = "--tls" if tls else "--plain"
    child = subprocess.Popen(
        python("tools.bench.counterpart", str(folder), way, str(LOAD_CORE)),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Partner(child, tls=tls)
    finally:
        if child.stdin is not None:
            child.stdin.close()
        try:
            child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
