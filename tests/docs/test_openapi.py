"""The description of the API: checked in as it is made, and whole."""

import json
import re
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest

from service.api.kinds import KINDS, USUAL
from service.api.pages import HEADERS, make
from service.api.routes import description
from tests.docs.conftest import ROOT, bare, read, table

DESCRIBED: dict[str, Any] = description()
OPERATIONS = [
    (f"{method.upper()} {path}", operation)
    for path, operations in DESCRIBED["paths"].items()
    for method, operation in operations.items()
]
EXAMPLES = DESCRIBED["components"]["examples"]
each_operation = pytest.mark.parametrize(
    "operation", [one for _, one in OPERATIONS], ids=[name for name, _ in OPERATIONS]
)


def test_the_description_that_is_checked_in_is_the_one_that_is_made() -> None:
    file = ROOT / "docs/openapi.json"
    assert json.loads(file.read_text(encoding="utf-8")) == DESCRIBED, "run 'make openapi'"


def test_schemathesis_lets_pass_only_what_the_description_lists() -> None:
    """What isn't said of an operation there is a failure, of valid data as of any other."""
    text = (ROOT / "tests/clients/schemathesis.toml").read_text(encoding="utf-8")
    config = tomllib.loads(text)
    of = {operation["operationId"]: operation for _, operation in OPERATIONS}
    usual = set(config["checks"]["positive_data_acceptance"]["expected-statuses"])
    assert not usual & {"422", "429"}
    for one in config["operations"]:
        named = one["include-operation-id"]
        expected = one["checks"]["positive_data_acceptance"]["expected-statuses"]
        for name in [named] if isinstance(named, str) else named:
            assert {"422", "429"} & {*expected} <= of[name]["responses"].keys(), name


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_every_reference_in_the_description_leads_somewhere() -> None:
    for reference in set(references(DESCRIBED)):
        place = DESCRIBED
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]


def test_each_operation_has_a_name_of_its_own_and_a_known_tag() -> None:
    names = [operation["operationId"] for _, operation in OPERATIONS]
    assert len(set(names)) == len(names)
    known = {tag["name"] for tag in DESCRIBED["tags"]}
    assert {tag for _, operation in OPERATIONS for tag in operation["tags"]} == known


@each_operation
def test_each_parameter_has_its_meaning_and_its_type_and_a_number_its_bounds(
    operation: dict[str, Any],
) -> None:
    for one in operation["parameters"]:
        assert one["description"], one
        assert one["schema"]["type"], one
        if one["schema"]["type"] in {"integer", "number"}:
            assert {"minimum", "maximum"} <= one["schema"].keys(), one


@each_operation
def test_each_answer_and_each_problem_has_a_schema_and_an_example(
    operation: dict[str, Any],
) -> None:
    assert any(status.startswith("2") for status in operation["responses"])
    for status, answer in operation["responses"].items():
        for media, content in answer["content"].items():
            assert content["schema"], status
            if media.endswith("json"):
                assert "example" in content or content["examples"], status
            for kind in content.get("examples", {}):
                assert str(KINDS[kind].status) == status
                assert EXAMPLES[kind]["value"]["status"] == KINDS[kind].status


@each_operation
def test_an_operation_with_a_role_says_what_it_answers_without_a_key(
    operation: dict[str, Any],
) -> None:
    if "x-role" in operation:
        assert {"401", "403", "500", "503"} <= operation["responses"].keys()
        assert operation["security"] == [{"key": []}]


def test_every_kind_of_problem_is_explained_in_the_docs_and_no_other() -> None:
    rows = table(read("docs/problems.md"), "type", "status", "means", "what to do")
    told = {bare(row[0]): (int(row[1]), row[2], row[3]) for row in rows}
    assert told == {name: tuple(kind) for name, kind in KINDS.items()}


def test_every_kind_of_problem_has_an_example_in_the_description() -> None:
    assert EXAMPLES.keys() == KINDS.keys()
    shown = {
        kind
        for _, operation in OPERATIONS
        for answer in operation["responses"].values()
        for content in answer["content"].values()
        for kind in content.get("examples", {})
    }
    # These come where no operation is met.
    assert KINDS.keys() - shown == {"wrong_method", "unknown_expectation"}


def test_the_usual_kind_of_each_status_has_that_status() -> None:
    assert all(KINDS[kind].status == status for status, kind in USUAL.items())


def test_the_page_tells_the_length_of_a_text_in_characters_and_the_bounds_of_a_number() -> None:
    page = make(DESCRIBED).docs
    assert "<td>string, 1 to 2000 characters or null</td>" in page
    assert "<td>number, from 0, to 60</td>" in page
    assert not re.search("string, at (least|most) [0-9]+", page)


def test_the_page_shows_every_operation_and_schema_and_needs_nothing_from_elsewhere() -> None:
    page = make(DESCRIBED).docs
    for _, operation in OPERATIONS:
        assert f'id="{operation["operationId"]}"' in page
    for name in DESCRIBED["components"]["schemas"]:
        assert f'id="{name}"' in page
    assert not re.search(r"<(script|link|img|iframe|object|embed)\b|@import|url\(", page)
    assert not re.search(r'\b(src|href|action)="(?!#|/(?!/))', page)
    assert "script-src" not in HEADERS["Content-Security-Policy"]
    assert "unsafe" not in HEADERS["Content-Security-Policy"]
