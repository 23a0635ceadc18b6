"""The documentation of the configuration names every key, and nothing that isn't one."""

import re
from pathlib import Path

import pytest

from service.settings import SettingsError, keys, load

PAGE = Path(__file__).parents[2] / "docs/configuration.md"


def documented() -> set[str]:
    rows = re.findall(r"^\| `([^`]+)` \|(.*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return {key for key, rest in rows if rest.count("|") == 3}


def test_every_key_is_documented() -> None:
    assert not set(keys()) - documented()


def test_nothing_is_documented_that_is_no_key() -> None:
    assert not documented() - set(keys())


def test_a_key_without_effect_is_documented_as_deprecated(tmp_path: Path) -> None:
    file = tmp_path / "ackgate.toml"
    file.write_text("server.max_connections = 1")
    [line] = load(file, {}).deprecated_keys()
    row = rf"^\| `{re.escape(line.partition(' ')[0])}` \|.*\| Deprecated: "
    assert re.search(row, PAGE.read_text(encoding="utf-8"), re.MULTILINE)


CLOUD = "accounts.shop = {kind='cloud', app='meta', phone_number_id='1', access_token='x'"
LOGIN = "base_url = 'https://127.0.0.1', username = 'a'"


@pytest.mark.parametrize(
    ("toml", "environ", "key"),
    [
        ("server.prot = 1", {}, "server.prot"),
        ("", {"ACKGATE_SERVER__PORT": "70000"}, "server.port"),
        (f"accounts.main = {{{LOGIN}}}", {}, "accounts.main.password"),
        (f"accounts.main = {{{LOGIN}, password='x', ca_file='x'}}", {}, "accounts.main.ca_file"),
        (
            f"accounts.main = {{{LOGIN}, password='x', webhook_token_file='token'}}",
            {},
            "accounts.main.webhook_token",
        ),
        (f"{CLOUD}, username='x'}}", {}, "accounts.shop.username"),
        (f"{CLOUD}}}", {}, "accounts.shop.app"),
        ("server.host = '0.0.0.0'", {}, "server.host"),
    ],
)
def test_the_errors_look_as_documented(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toml: str, environ: dict[str, str], key: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").mkdir()
    (tmp_path / "config/ackgate.toml").write_text(toml)
    (tmp_path / "token").write_text("short")
    with pytest.raises(SettingsError) as caught:
        load(None, environ)
    assert caught.value.key == key
    assert str(caught.value) in PAGE.read_text(encoding="utf-8").splitlines()


def test_a_missing_file_looks_as_documented(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError) as caught:
        load(None, {})
    assert str(caught.value) in PAGE.read_text(encoding="utf-8").splitlines()
