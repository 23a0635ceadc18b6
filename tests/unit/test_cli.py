"""The commands that work without a running service, and what all commands have in common."""

import asyncio
import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

import service
from service.cli import app
from service.model.timeline import Change, Moment
from service.model.users import Identity, Link, State, User
from service.store import maintenance, upgrades
from service.store.database import StoreError
from service.store.digests import seal_of
from service.store.mapping import CHANGE_COLUMNS, USER_COLUMNS, change_row, user_row
from service.store.sqlite_files import FileLock, connect
from tests.unit.test_cli_maintenance import spoil_page_of

WA_ID, VIP, OTHER = "16315553601", "16315559999", "16315550000"
SECRET = "a-secret-nobody-may-see"
TOML = f"""
[accounts.main]
base_url = "https://127.0.0.1:9090"
username = "ackgate"
password = "{SECRET}"
[accounts.main.policy]
mode = "auto"
delay_seconds = 3
max_changes = 2
[[accounts.main.policy.rules]]
name = "vip"
wa_ids = ["{VIP}"]
mode = "manual"
[[accounts.main.policy.rules]]
name = "swift"
wa_ids = ["{OTHER}"]
delay_seconds = 0
"""
USER_ID = "US.13491208655302741918"
CLOUD = f"""
[apps.meta]
app_secret = "{SECRET}"
verify_token = "{SECRET}"
[accounts.main]
kind = "cloud"
app = "meta"
phone_number_id = "106540352242922"
access_token = "{SECRET}"
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a configuration, and nothing in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in ("ACKGATE_CONFIG", "ACKGATE_URL", "ACKGATE_KEY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "config").mkdir()
    (tmp_path / "config/ackgate.toml").write_text(TOML)
    return tmp_path


@pytest.fixture
def path() -> Path:
    """The database of that configuration."""
    file = Path("var/ackgate.db")
    maintenance.create(file)
    return file


def run(*words: str, expect: int = 0, typed: str | None = None) -> Result:
    result = CliRunner().invoke(app, list(words), input=typed)
    assert result.exit_code == expect, (result.output, result.exception)
    assert SECRET not in result.output
    return result


def refused(*words: str, expect: int = 1) -> str:
    [line] = run(*words, expect=expect).stderr.splitlines()
    assert line.startswith("ackgate: ")
    return line.removeprefix("ackgate: ")


def parsed(result: Result) -> Any:
    return json.loads(result.stdout)


def commands() -> list[Sequence[str]]:
    """Give every command of ours; the simulator's are tested with it."""

    def below(group: Any, path: tuple[str, ...]) -> list[Sequence[str]]:
        found: list[Sequence[str]] = [path]
        for name in group.list_commands(typer.Context(group)):
            command = group.get_command(typer.Context(group), name)
            if name != "simulate":
                one = (*path, name)
                found += below(command, one) if hasattr(command, "list_commands") else [one]
        return found

    return below(typer.main.get_command(app), ())


class TestTheWhole:
    @pytest.mark.parametrize("words", commands(), ids=" ".join)
    def test_every_command_explains_itself_and_each_of_its_options(
        self, words: Sequence[str]
    ) -> None:
        command: Any = typer.main.get_command(app)
        for word in words:
            command = command.get_command(typer.Context(command), word)
        assert (command.help or "").strip()
        assert all(p.help for p in command.params), [p.name for p in command.params if not p.help]
        assert "Usage: ackgate" in run(*words, "--help").stdout.replace("root", "ackgate")

    def test_without_arguments_it_shows_its_help(self) -> None:
        assert "identities" in run(expect=2).stdout
        assert "backup" in run("db", expect=2).stdout

    def test_the_simulator_is_mounted(self) -> None:
        assert "demo" in run("simulate", "--help").stdout

    def test_it_tells_its_version(self) -> None:
        assert run("--version").stdout == f"ackgate {version('ackgate')}\n"

    def test_most_commands_start_without_the_parts_they_do_not_need(self) -> None:
        code = "import sys, service.cli; print({'service.app', 'sqlalchemy'} & sys.modules.keys())"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        assert done.stdout.strip() == b"set()"

    @pytest.mark.parametrize(
        "words",
        [
            ("serve",),
            ("check-config",),
            ("db", "upgrade"),
            ("db", "check"),
            ("db", "backup", "x"),
            ("db", "restore", "x", "--yes"),
            ("db", "restored", "--yes"),
            ("policy", "explain", "main", WA_ID),
        ],
        ids=" ".join,
    )
    def test_a_wrong_configuration_is_one_line_and_exit_2(self, words: Sequence[str]) -> None:
        Path("odd.toml").write_text("[server]\nprot = 1\n")
        assert "server.prot: unknown key" in refused(*words, "--config", "odd.toml", expect=2)
        assert "no such configuration file" in refused(*words, "--config", "none", expect=2)


class TestServe:
    @pytest.fixture
    def stand_in(self, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
        """What takes the place of the composition root, and notes how it was called."""
        module: Any = ModuleType("service.app")
        module.StartError = type("StartError", (Exception,), {})
        module.fault, module.calls = None, []

        async def serve(settings: Any, _: Any, *, migrate: bool = True) -> None:
            module.calls.append((settings.server.port, migrate, asyncio.get_running_loop()))
            if module.fault:
                raise module.fault

        module.serve = serve
        monkeypatch.setitem(sys.modules, "service.app", module)
        monkeypatch.setattr(service, "app", module, raising=False)
        return module

    def test_runs_the_service_on_uvloop(self, stand_in: Any) -> None:
        run("serve")
        run("serve", "--no-migrate")
        assert [(port, migrate) for port, migrate, _ in stand_in.calls] == [
            (8080, True),
            (8080, False),
        ]
        assert type(stand_in.calls[0][2]).__module__.startswith("uvloop")

    def test_does_without_uvloop_where_it_is_not_installed(
        self, stand_in: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "uvloop", None)
        run("serve")
        assert type(stand_in.calls[0][2]).__module__.startswith("asyncio")

    def test_says_in_one_line_why_it_can_not_start(self, stand_in: Any) -> None:
        for fault in (stand_in.StartError("port taken"), StoreError("port taken")):
            stand_in.fault = fault
            assert refused("serve") == "port taken"


class TestCheckConfig:
    def test_shows_what_is_in_force_without_secrets(self) -> None:
        shown = run("check-config").stdout
        assert "accounts.main.policy.rules[0].wa_ids[0]" in shown
        assert f'"{VIP}"' not in shown
        assert VIP in shown
        tree = parsed(run("check-config", "--json"))
        assert tree["accounts"]["main"]["password"] == "…"
        assert tree["server"]["port"] == 8080

    def test_says_when_only_this_machine_may_call(self) -> None:
        assert "only this machine may call" in run("check-config").stderr
        key = f'api.keys.crm = {{role = "admin", sha256 = "{"0" * 64}"}}'
        Path("closed.toml").write_text(f"server.max_connections = 100\n{key}")
        said = run("check-config", "--config", "closed.toml").stderr
        assert said.startswith("ackgate: server.max_connections has no effect any more: ")
        assert said.count("\n") == 1

    def test_says_which_keys_have_no_effect(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ACKGATE_SERVER__MAX_CONNECTIONS", "100")
        assert "server.max_connections has no effect" in run("check-config").stderr


class TestDatabase:
    def test_an_upgrade_makes_it_and_then_finds_nothing_to_do(self) -> None:
        head = upgrades.latest()
        assert f"from nothing to {head}" in run("db", "upgrade").stdout
        assert "nothing to do" in run("db", "upgrade").stdout
        done = parsed(run("db", "upgrade", "--json"))
        assert done == {"file": "var/ackgate.db", "before": head, "after": head}

    def test_a_new_one_is_made_on_demand_where_there_was_one_before(self, path: Path) -> None:
        assert refused("db", "create") == "var/ackgate.db: exists already; move it away first"
        path.unlink()
        assert "ackgate db create" in refused("db", "upgrade")
        assert "var/ackgate.db: made" in run("db", "create").stdout
        assert "nothing to do" in run("db", "upgrade").stdout

    def test_none_is_made_where_none_is_wanted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ACKGATE_DATABASE__CREATE", "never")
        assert 'database.create is "never"' in refused("db", "upgrade")
        assert parsed(run("db", "create", "--json")) == {"file": "var/ackgate.db"}
        assert "nothing to do" in run("db", "upgrade").stdout

    def test_a_check_prints_what_it_found(self, path: Path) -> None:
        assert parsed(run("db", "check", "--json"))["faults"] == []
        assert "none" in run("db", "check").stdout
        with closing(sqlite3.connect(path, isolation_level=None)) as raw:
            raw.execute("INSERT INTO aliases VALUES ('main', '1', 7)")
        result = run("db", "check", expect=1)
        assert "refers to a row of users" in result.stdout
        assert result.stderr.startswith("ackgate: var/ackgate.db: damaged: ")

    def test_the_audit_trail_is_compared_with_seals_that_were_noted(self, path: Path) -> None:
        found = parsed(run("audit", "verify", "--json"))
        assert (found["seal"], found["faults"]) == (None, [])
        assert found["not_verified"] == ["the whole trail: there is no seal"]
        digest = seal_of(1, b"", [])
        with closing(sqlite3.connect(path, isolation_level=None)) as raw:
            raw.execute("INSERT INTO audit_seals VALUES (1, 0, 0, 0, ?, NULL)", (digest,))
        seal = f"1:{digest.hex()}"
        found = parsed(run("audit", "verify", "--seal", seal, "--seal", seal, "--json"))
        assert (found["seal"], found["faults"], found["not_verified"]) == (seal, [], [])
        result = run("audit", "verify", "--seal", seal, "--seal", "2:00ff", expect=1)
        assert "the seal of range 2 was noted, and is not there" in result.stderr
        assert "NUMBER:HEX" in refused("audit", "verify", "--seal", digest.hex(), expect=2)
        with closing(sqlite3.connect(path, isolation_level=None)) as raw:
            raw.execute("UPDATE audit_seals SET deleted_at = 1")
        # No retention is configured, and no entry tells of any.
        assert len(parsed(run("audit", "verify", "--json", expect=1))["faults"]) == 2

    def test_a_backup_is_made_and_restored(self, path: Path) -> None:
        assert "copy: " in run("db", "backup", "copy").stdout
        assert refused("db", "backup", "copy") == "copy: exists already; name a new file"
        assert run("db", "restore", "copy", typed="n\n", expect=1).stderr.endswith(
            "ackgate: nothing was changed\n"
        )
        result = run("db", "restore", "copy", typed="y\n")
        assert "var/ackgate.db: restored" in result.stdout
        assert "the database as it was: var/ackgate.db.replaced-" in result.stderr
        assert "unverified" in result.stderr
        path.unlink()
        done = parsed(run("db", "restore", "copy", "--yes", "--json"))
        assert done == {"file": "var/ackgate.db", "kept": None}

    @pytest.mark.usefixtures("path")
    def test_a_database_that_others_restored_is_marked(self) -> None:
        assert "give --yes" in run("db", "restored", typed="", expect=1).stderr
        result = run("db", "restored", typed="y\n")
        assert "var/ackgate.db: marked as restored" in result.stdout
        assert "unverified" in result.stderr
        assert parsed(run("db", "restored", "--yes", "--json")) == {"file": "var/ackgate.db"}

    def test_no_backup_is_made_of_a_damaged_database_unless_it_is_not_to_be_verified(
        self, path: Path
    ) -> None:
        spoil_page_of(path, "ix_audit_user_id")
        assert "damaged" in refused("db", "backup", "copy")
        assert not Path("copy").exists()
        run("db", "backup", "--no-verify", "copy")
        assert Path("copy").exists()

    @pytest.mark.usefixtures("path")
    def test_a_backup_is_verified_without_a_configuration(self) -> None:
        run("db", "backup", "copy")
        Path("config/ackgate.toml").unlink()
        shown = parsed(run("db", "backup", "--verify", "copy", "--json"))
        assert (shown["faults"], shown["rows"]["users"]) == ([], 0)
        assert shown["last_callback_at"] is None
        assert "none" in run("db", "backup", "--verify", "copy").stdout
        with closing(sqlite3.connect("copy", isolation_level=None)) as raw:
            raw.execute("INSERT INTO aliases VALUES ('main', '1', 7)")
        result = run("db", "backup", "--verify", "copy", expect=1)
        assert "refers to a row of users" in result.stdout
        assert result.stderr.startswith("ackgate: copy: damaged: ")
        assert refused("db", "backup", "--verify", "nothing") == "nothing: no such file"

    def test_the_last_callback_of_a_backup_is_told(self, path: Path) -> None:
        with closing(connect(path)) as raw:
            raw.execute(
                "INSERT INTO accounts (name, last_callback_at) VALUES ('main', 1600000000000)"
            )
        run("db", "backup", "copy")
        shown = parsed(run("db", "backup", "--verify", "copy", "--json"))
        assert shown["last_callback_at"] == "2020-09-13T12:26:40Z"

    def test_where_nobody_can_answer_nothing_is_restored(self, path: Path) -> None:
        run("db", "backup", "copy")
        assert "give --yes" in run("db", "restore", "copy", typed="", expect=1).stderr
        assert [f.name for f in path.parent.iterdir() if "replaced" in f.name] == []

    def test_what_can_not_be_done_is_one_line(self) -> None:
        assert refused("db", "check") == "var/ackgate.db: no such file"
        lock = FileLock(Path("var/ackgate.db"))
        Path("var").mkdir()
        lock.take()
        for words in (
            ("upgrade",),
            ("restore", "config/ackgate.toml", "--yes"),
        ):
            assert "in use by another process" in refused("db", *words)
        lock.release()
        assert "not a database" in refused("db", "restore", "config/ackgate.toml", "--yes")


def at(seconds_ago: float) -> Change:
    moment = Moment(round((time.time() - seconds_ago) * 1000))
    return Change("hash", moment, moment.at, [moment], outcome="superseded")


def known(path: Path, user: User, *history: Change) -> None:
    """Write a user with a history into the database."""
    marks = ",".join("?" * len(USER_COLUMNS))
    with closing(connect(path)) as raw:
        raw.execute(
            f"INSERT INTO users ({','.join(USER_COLUMNS)}) VALUES ({marks})",
            user_row(user, len(user.history)),
        )
        raw.execute("INSERT INTO aliases VALUES ('main', ?, ?)", (user.wa_id, user.id))
        raw.execute("INSERT INTO aliases VALUES ('main', 'old-name', ?)", (user.id,))
        marks = ",".join("?" * len(CHANGE_COLUMNS))
        for change in history:
            raw.execute(
                f"INSERT INTO changes ({','.join(CHANGE_COLUMNS)}) VALUES ({marks})",
                change_row(user.id, change),
            )


def user(latest: Change | None = None, state: State = State.ACKNOWLEDGED, **more: Any) -> User:
    identity = Identity(latest, state) if latest else Identity()
    return User(1, "main", WA_ID, 0, identity, **more)


class TestPolicyExplain:
    def explain(self, user: str) -> dict[str, Any]:
        return dict(parsed(run("policy", "explain", "main", user, "--json")))

    def next_change(self, user: str = WA_ID) -> dict[str, Any]:
        return dict(self.explain(user)["next_change"])

    def test_names_the_rule_or_the_default_and_what_it_means(self) -> None:
        default = self.explain(WA_ID)
        assert (default["decided_by"], default["mode"]) == ("default", "auto")
        assert default["meaning"] == (
            "a change is acknowledged after 3 s; beyond 2 within 86400 s it waits for a person"
        )
        assert self.explain(VIP)["decided_by"] == "rule vip"
        assert self.explain(VIP)["meaning"] == "every change waits for a person"
        assert self.explain(OTHER)["meaning"].startswith("a change is acknowledged at once;")

    def test_says_that_there_is_no_database_and_goes_on(self) -> None:
        result = run("policy", "explain", "main", WA_ID)
        assert "default" in result.stdout
        assert "var/ackgate.db: no such file; so what would become" in result.stderr
        assert not Path("var").exists()

    def test_a_user_never_heard_of_has_no_changes(self, path: Path) -> None:
        assert path.exists()
        assert self.next_change() == {
            "changes_in_window": 0,
            "automatic": True,
            "effect": "acknowledged after 3 s",
            "reason": "policy default: auto",
        }
        assert self.next_change(VIP)["effect"] == "waits for a person"

    @pytest.mark.parametrize(
        ("latest", "history", "count", "automatic"),
        [
            (60, (), 1, True),
            (60, (120,), 2, False),
            (60, (90_000,), 1, True),
            (90_000, (), 0, True),
        ],
    )
    def test_counts_the_changes_in_the_window_that_ends_now(
        self, path: Path, latest: float, history: Sequence[float], count: int, automatic: bool
    ) -> None:
        known(path, user(at(latest)), *map(at, history))
        shown = self.next_change()
        assert (shown["changes_in_window"], shown["automatic"]) == (count, automatic)

    def test_finds_the_user_by_another_alias(self, path: Path) -> None:
        known(path, user(at(60)))
        assert self.explain("old-name")["wa_id"] == WA_ID

    def test_a_change_after_a_hold_waits_for_a_person(self, path: Path) -> None:
        known(path, user(at(60), state=State.HELD))
        assert self.next_change()["reason"] == "the identity before was held"

    def test_one_of_a_user_who_moved_waits_for_a_person(self, path: Path) -> None:
        moved = Link("16315550001", "successor", Moment(0))
        known(path, user(at(60), links=[moved]))
        assert self.next_change()["reason"] == "the user has another number now"

    @pytest.mark.parametrize("trusts", [True, False])
    def test_a_first_hash_on_the_cloud_api_is_trusted_where_the_account_trusts_it(
        self, path: Path, trusts: bool
    ) -> None:
        self.move_to_the_cloud(path, trust_first_use=trusts)
        told = self.explain(USER_ID)
        assert (told["wa_id"], told["user_id"]) == (None, USER_ID)
        assert (told["first_hash"] == "trusted at once") is trusts
        assert (told["next_change"]["effect"] == "trusted at once") is trusts
        assert told["next_change"]["reason"].startswith(
            "policy trust_first_use: " if trusts else "policy default: "
        )
        assert self.explain(WA_ID)["user_id"] is None

    def test_a_later_hash_on_the_cloud_api_is_a_change_like_any(self, path: Path) -> None:
        known(path, user(at(60), user_id=USER_ID))
        self.move_to_the_cloud(path, trust_first_use=True)
        told = self.explain(WA_ID)
        assert (told["wa_id"], told["user_id"]) == (WA_ID, USER_ID)
        assert told["next_change"]["effect"] == "acknowledged after 3 s"

    def test_a_user_without_a_number_is_named_by_the_user_id(self, path: Path) -> None:
        nameless = user(at(60), user_id=USER_ID)
        nameless.wa_id = ""
        known(path, nameless)
        self.move_to_the_cloud(path, trust_first_use=True)
        told = self.explain("old-name")
        assert (told["wa_id"], told["user_id"]) == (None, USER_ID)

    def move_to_the_cloud(self, path: Path, *, trust_first_use: bool) -> None:
        assert path.exists()
        cloud = CLOUD + f"trust_first_use = {str(trust_first_use).lower()}\n"
        _, policy = TOML.split("[accounts.main.policy]", 1)
        Path("config/ackgate.toml").write_text(f"{cloud}[accounts.main.policy]{policy}")

    def test_refuses_an_unknown_account_and_what_can_name_nobody(self) -> None:
        assert refused("policy", "explain", "other", WA_ID) == (
            "other: no such account in the configuration, which has: main"
        )
        assert "without plus sign" in refused("policy", "explain", "main", "+1 631")

    def test_a_database_that_can_not_be_read_is_told(self, path: Path) -> None:
        path.write_bytes(b"no database" * 1000)
        assert "not a database" in run("policy", "explain", "main", WA_ID).stderr

    def test_a_database_without_tables_is_told_without_the_statement(self) -> None:
        Path("var").mkdir()
        Path("var/ackgate.db").touch()
        told = run("policy", "explain", "main", WA_ID).stderr
        assert "no such table" in told
        assert "SELECT" not in told
