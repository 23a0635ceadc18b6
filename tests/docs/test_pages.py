"""What every page promises: links that lead somewhere, keys that exist, examples that load."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.settings import CloudAccountSettings, Settings, keys, load
from service.settings.sources import is_known
from service.simulator.certificate import ensure
from tests.docs.conftest import PAGES, ROOT, Block, blocks, prose, read, spans, table

SECRETS = {
    "password": "a-password",
    "webhook_token": "a-webhook-token-of-24-ch",
    "app_secret": "0123456789abcdef" * 2,
    "verify_token": "a-verify-token",
    "access_token": "an-access-token",
    "sha256": "0" * 64,
}


def anchors(text: str) -> set[str]:
    heads = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)]+)\)", prose(text)):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_relative_to(ROOT), link
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), link


def test_the_readme_leads_to_every_page() -> None:
    text = read("README.md")
    assert not [
        p for p in PAGES if p.name != "README.md" and f"({p.relative_to(ROOT)})" not in text
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_variable_of_the_environment_that_is_named_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"\bACKGATE_([A-Z0-9_]*__[A-Z0-9_]+)", text):
        assert is_known(name.lower().split("__")), name


def dotted(text: str) -> Iterator[str]:
    """The keys that stand in backticks, such as `server.port`."""
    tables = "|".join(Settings.model_fields)
    for span in spans(text):
        if re.fullmatch(rf"({tables})\.[A-Za-z0-9_.\[\]]+", span):
            yield span


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_key_that_is_named_exists(page: Path) -> None:
    for name in dotted(page.read_text(encoding="utf-8")):
        assert is_known(name.split(".")) or name in set(keys()), name


def flat(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if not isinstance(value, dict):
        yield path
        return
    for name, inner in value.items():
        yield from flat(inner, (*path, name))


@pytest.mark.parametrize("block", blocks("toml"), ids=lambda b: b.page.name)
def test_every_key_in_an_example_of_the_configuration_exists(block: Block) -> None:
    for path in flat(tomllib.loads(block.text)):
        assert is_known(path), path


def with_files(text: str, folder: Path) -> str:
    """Let each file that an example names exist, so that it can be loaded."""
    made = ensure(folder)

    def place(found: re.Match[str]) -> str:
        name = found[1]
        if name in {"tls_cert_file", "ca_file"}:
            return f'{name} = "{made.cert if name == "tls_cert_file" else made.ca}"'
        if name == "tls_key_file":
            return f'{name} = "{made.key}"'
        file = folder / name
        file.write_text(SECRETS[name.removesuffix("_file")])
        return f'{name} = "{file}"'

    return re.sub(r'^(\w+_file) = "[^"]+"', place, text, flags=re.MULTILINE)


def is_whole(text: str) -> bool:
    """Tell an example that is meant to start by itself: it has an account."""
    return "accounts" in tomllib.loads(text)


@pytest.mark.parametrize(
    "block", [b for b in blocks("toml") if is_whole(b.text)], ids=lambda b: b.page.name
)
def test_every_whole_example_of_the_configuration_loads(block: Block, tmp_path: Path) -> None:
    file = tmp_path / "ackgate.toml"
    file.write_text(with_files(block.text, tmp_path))
    settings = load(file, {})
    assert settings.accounts
    assert not settings.open_to_loopback_only


def test_the_readme_shows_a_whole_example_of_either_api_the_cloud_api_first() -> None:
    shown = [b.text for b in blocks("toml") if b.page.name == "README.md" and is_whole(b.text)]
    kinds = [
        account.get("kind", "onprem")
        for text in shown
        for account in tomllib.loads(text)["accounts"].values()
    ]
    assert kinds == ["cloud", "onprem"]


def test_the_version_of_the_graph_api_that_is_the_default_is_told_with_its_end() -> None:
    default = CloudAccountSettings.model_fields["base_url"].default
    rows = table(read("docs/cloud.md"), "version", "in force")
    (told,) = [row for row in rows if "the default" in row[1]]
    assert default == f"https://graph.facebook.com/{told[0]}"
    assert "until" in told[1]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_line_of_prose_is_too_long(page: Path) -> None:
    lines = prose(page.read_text(encoding="utf-8")).splitlines()
    assert not [line for line in lines if len(line) > 120 and not line.startswith("|")]
