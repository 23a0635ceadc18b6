"""`ackgate keys create`: what it prints is a key that the configuration takes."""

import json
import tomllib
from hashlib import sha256

import pytest
from typer.testing import CliRunner, Result

from service.cli import app
from service.settings.tree import ApiSettings


def create(*words: str) -> Result:
    return CliRunner().invoke(app, ["keys", "create", *words])


def test_a_new_key_is_printed_once_with_the_lines_for_the_configuration() -> None:
    options = ["--role", "operator", "--account", "main", "--account", "shop"]
    made = create("crm", *options, "--expires", "2100-01-31T00:00+01:00")
    key, _, lines = made.stdout.partition("\n")
    assert made.exit_code == 0
    assert len(key) == 64
    assert made.output.count(key) == 1
    configured = ApiSettings.model_validate(tomllib.loads(lines)["api"]).keys["crm"]
    assert configured.sha256.get_secret_value() == sha256(key.encode()).hexdigest()
    assert (configured.role, configured.accounts) == ("operator", ("main", "shop"))
    assert configured.expires_at is not None
    assert configured.expires_at.isoformat() == "2100-01-30T23:00:00+00:00"


def test_every_key_is_another_one_and_may_only_read_where_nothing_else_is_said() -> None:
    made = [json.loads(create("crm", "--json").stdout) for _ in range(2)]
    assert made[0]["key"] != made[1]["key"]
    for one in made:
        assert one["sha256"] == sha256(one["key"].encode()).hexdigest()
        configured = tomllib.loads(one["configuration"])["api"]["keys"]["crm"]
        assert configured == {"role": "reader", "sha256": one["sha256"]}


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (["Crm"], "NAME"),
        (["role", "--role", "root"], "--role"),
        (["crm", "--account", 'a"b'], "--account"),
        (["crm", "--expires", "2020-01-01"], "--expires"),
        (["crm", "--expires", "soon"], "--expires"),
    ],
)
def test_no_key_is_made_that_the_configuration_would_refuse(words: list[str], option: str) -> None:
    refused = create(*words)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert f"ackgate: {option}" in refused.stderr
