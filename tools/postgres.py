"""A PostgreSQL server of a process's own, in a temporary folder, stopped at the end.

It needs the programs that Debian's package `postgresql` installs.
"""

import fcntl
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path

from tools.processes import RunError, cpu_seconds_of, free_port

USER, PASSWORD = "ackgate", "a-password-that-only-tests-know"
SUPERUSER = "postgres"


def programs() -> Path | None:
    """Return the folder of PostgreSQL's programs, the newest of Debian's; None without any."""
    folders = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    newest = max(folders, key=lambda found: int(found.parts[-3]), default=None)
    found = newest or shutil.which("initdb")
    return Path(found).resolve().parent if found else None


def run_program(program: str, *arguments: str, accepted: Container[int] = (0,)) -> str:
    """Run a program of PostgreSQL's, and return what it prints; RunError where it fails."""
    folder = programs()
    if folder is None:
        raise RunError("no PostgreSQL: install Debian's package postgresql")
    command = [str(folder / program), "--no-password", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in accepted:
        raise RunError(f"{program} failed: {done.stderr}")
    return done.stdout


class LocalServer:
    """A server of this process's own, reached by its socket in `folder` and on the loopback.

    `durable` leaves fsync on; without, its files are good until the machine fails. `settings` are
    those of the next start.
    """

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        bin_folder = programs()
        if bin_folder is None:
            raise RunError("no PostgreSQL: install Debian's package postgresql")
        self._programs = bin_folder
        self._durable = durable
        self._process: subprocess.Popen[bytes] | None = None
        self.folder = folder
        self.port = free_port()
        self.url = f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/postgres"
        self.superuser_url = f"postgresql://{SUPERUSER}@/postgres?host={folder}&port={self.port}"
        self.settings = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(folder),
            "shared_buffers": "32MB",
        }
        if not durable:
            self.settings |= dict.fromkeys(["fsync", "full_page_writes", "autovacuum"], "off")

    def create(self) -> None:
        """Make the files of the server, with a user who may create databases."""
        if self._owner is not None:
            shutil.chown(self.folder, self._owner, self._owner)
        command = ["initdb", "-D", "data", "-U", SUPERUSER, "--locale=C.UTF-8", "--encoding=UTF8"]
        access = ["--auth-local=trust", "--auth-host=scram-sha-256"]
        no_sync = [] if self._durable else ["--no-sync"]
        made = self._run([*command, *access, *no_sync])
        if made.returncode:
            raise RunError(f"initdb failed: {made.stderr}")
        self.start()
        self._execute(f"CREATE USER {USER} CREATEDB PASSWORD '{PASSWORD}'")

    def create_standby(self, primary: "LocalServer", name: str) -> None:
        """Make the files of a standby that follows a primary, which knows it by a name."""
        if self._owner is not None:
            shutil.chown(self.folder, self._owner, self._owner)
        source = (
            f"host={primary.folder} port={primary.port} user={SUPERUSER} application_name={name}"
        )
        copied = self._run(
            [
                "pg_basebackup",
                "-d",
                source,
                "-D",
                "data",
                "--write-recovery-conf",
                "--checkpoint=fast",
            ]
        )
        if copied.returncode:
            raise RunError(f"pg_basebackup failed: {copied.stderr}")
        self.start()

    def promote(self, port: int) -> None:
        """Let a standby be a primary, at another port: as where an address moves to it."""
        done = self._run(["pg_ctl", "promote", "-D", "data", "--wait"])
        if done.returncode:
            raise RunError(f"pg_ctl failed: {done.stderr}")
        self.stop()
        self.port = port
        self.settings["port"] = str(port)
        self.start()

    def create_database(self, name: str) -> str:
        """Make a database without tables that is the user's own; return its URL."""
        self._execute(f"CREATE DATABASE {name} OWNER {USER}")
        return f"{self.url.rpartition('/')[0]}/{name}"

    def drop_database(self, name: str) -> None:
        """Delete a database; whoever is connected to it is cut off."""
        self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    def _execute(self, statement: str) -> None:
        address = ["-h", str(self.folder), "-p", str(self.port)]
        done = self._run(["psql", *address, "-U", SUPERUSER, "-qc", statement, "postgres"])
        if done.returncode:
            raise RunError(f"psql failed: {done.stderr}")

    def start(self) -> None:
        """Start the server, and wait until it takes connections."""
        options = [f"--{name}={value}" for name, value in self.settings.items()]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command(["postgres", "-D", "data", *options], dies_with_us=True),
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 60
        ready = ["pg_isready", "-q", "-h", str(self.folder), "-p", str(self.port)]
        while self._run(ready).returncode:
            if self._process.poll() is not None or time.monotonic() > deadline:
                log_text = (self.folder / "log").read_text(errors="replace")
                raise RunError(f"PostgreSQL does not start: {log_text[-2000:]}")
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server: SIGINT ends it in order; after SIGQUIT it has to recover."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(60)
            self._process = None

    def crash(self) -> None:
        """End the server at once, so that it recovers as it starts again."""
        self.stop(signal.SIGQUIT)
        self.start()

    def cpu_seconds(self) -> float:
        """Return the CPU time so far of the server's processes, with those that have ended."""
        if self._process is None:
            return 0.0
        pid, used = self._process.pid, 0.0
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for each in (pid, *map(int, children)):
            with suppress(OSError):  # it has ended meanwhile
                used += cpu_seconds_of(each)
        return used

    def put(self, name: str, content: bytes) -> Path:
        """Make a file that the server's user alone can read."""
        file = self.folder / name
        file.touch(mode=0o600)
        file.write_bytes(content)
        if self._owner is not None:
            shutil.chown(file, self._owner, self._owner)
        return file

    @cached_property
    def _owner(self) -> str | None:
        """The user whom the server runs as, for it refuses to run as root; None: as we do."""
        if os.geteuid() != 0:
            return None
        names = {entry.pw_name for entry in pwd.getpwall()}
        return SUPERUSER if SUPERUSER in names else "nobody"

    def _run(self, command: list[str]) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            self._command(command), cwd=self.folder, capture_output=True, text=True, check=False
        )

    def _command(self, command: list[str], *, dies_with_us: bool = False) -> list[str]:
        program, *arguments = command
        setpriv = ["setpriv", "--pdeathsig", "QUIT"] if dies_with_us else ["setpriv"]
        if self._owner is not None:
            owner = pwd.getpwnam(self._owner)
            ids = ["--reuid", str(owner.pw_uid), "--regid", str(owner.pw_gid), "--clear-groups"]
            setpriv += ids
        prefix = setpriv if shutil.which("setpriv") else []
        return [*prefix, str(self._programs / program), *arguments]


@contextmanager
def _new_folder() -> Iterator[Path]:
    """Make a folder that is deleted at the end, or by a later run where this one is killed.

    It is not below pytest's own: these are closed to the server's user, and too long for a socket.
    """
    for left in Path("/tmp").glob(f"{_PREFIX}*/lock"):
        with suppress(OSError), left.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left.parent, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir="/tmp") as name:
        folder = Path(name)
        with (folder / "new").open("x") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            (folder / "new").rename(folder / "lock")
            yield folder


_PREFIX = "ackgate-pg-"


@contextmanager
def local_server(*, durable: bool = False) -> Iterator[LocalServer]:
    """Run a server of the caller's own; it may be stopped and started again."""
    with _new_folder() as folder:
        server = LocalServer(folder, durable=durable)
        try:
            server.create()
            yield server
        finally:
            server.stop()


@contextmanager
def standby_of(primary: LocalServer, name: str) -> Iterator[LocalServer]:
    """Run a standby of a server, which it follows by its socket."""
    with _new_folder() as folder:
        standby = LocalServer(folder, durable=True)
        try:
            standby.create_standby(primary, name)
            yield standby
        finally:
            standby.stop()
