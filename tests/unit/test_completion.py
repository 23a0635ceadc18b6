"""A shell completes commands, options and the names of accounts."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

ACKGATE = Path(sys.executable).with_name("ackgate")
TOML = '[accounts.main]\npassword_file = "/none"\n[accounts.shop]\n[accounts.shore]\n'


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a configuration that an operator can't use, only read."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ACKGATE_CONFIG", raising=False)
    (tmp_path / "config").mkdir()
    (tmp_path / "config/ackgate.toml").write_text(TOML)
    return tmp_path


def printed(env: Mapping[str, str]) -> str:
    done = subprocess.run(
        [ACKGATE], env={**os.environ, **env}, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return done.stdout


def in_bash(typed: str) -> list[str]:
    words = typed.split(" ")
    asked = {"COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)}
    return printed({**asked, "_ACKGATE_COMPLETE": "complete_bash"}).split()


@pytest.mark.slow
def test_commands_are_completed_also_those_that_are_loaded_when_they_are_called() -> None:
    assert in_bash("ackgate reci") == ["recipients"]
    assert in_bash("ackgate doc") == ["doctor"]
    assert in_bash("ackgate contacts l") == ["list"]
    assert set(in_bash("ackgate issues ")) == {"list", "dismiss"}
    assert "--until" in in_bash("ackgate recipients block shop 1 --u")


def test_the_names_of_accounts_are_completed() -> None:
    assert in_bash("ackgate gate sho") == ["shop", "shore"]
    assert in_bash("ackgate identities list --account m") == ["main"]
    assert in_bash("ackgate acknowledge ma") == ["main"]


def test_without_a_configuration_that_can_be_read_no_account_is_completed(folder: Path) -> None:
    file = folder / "config/ackgate.toml"
    for text in ("accounts = 1", "no TOML", None):
        file.write_text(text) if text else file.unlink()
        assert in_bash("ackgate gate sho") == []


def test_zsh_and_fish_are_answered_too() -> None:
    zsh = printed({"_ACKGATE_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "ackgate gate sho"})
    assert '"shop"' in zsh
    fish = {"_ACKGATE_COMPLETE": "complete_fish", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    assert printed({**fish, "_TYPER_COMPLETE_ARGS": "ackgate gate sho"}).split() == [
        "shop",
        "shore",
    ]


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_what_is_shown_for_bash_works_in_bash() -> None:
    script = f"""
        eval "$({ACKGATE} --show-completion)"
        complete -p ackgate
        COMP_WORDS=(ackgate gate sho) COMP_CWORD=2
        _ackgate_completion {ACKGATE}
        echo "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1].split() == ["shop", "shore"]
