"""The configuration for litestream is the one that the documentation shows, for the same file."""

from pathlib import Path

import yaml

from tests.docs.conftest import blocks

FILE = Path(__file__).parents[2] / "deploy/litestream.yml"
UNIT = Path(__file__).parents[2] / "deploy/systemd/ackgate.service"


def test_it_is_what_the_documentation_shows() -> None:
    (shown,) = [block.text for block in blocks("yaml") if "litestream.yml" in block.text]
    assert yaml.safe_load(FILE.read_text(encoding="utf-8")) == yaml.safe_load(shown)


def test_it_copies_one_database_in_the_folder_of_the_unit_to_one_place() -> None:
    (database,) = yaml.safe_load(FILE.read_text(encoding="utf-8"))["dbs"]
    assert database.keys() == {"path", "replica"}
    assert database["replica"].keys() == {"url"}
    folder = str(Path(database["path"]).parent)
    assert f"WorkingDirectory={folder}\n" in UNIT.read_text(encoding="utf-8")
