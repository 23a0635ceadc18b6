"""The page of the API names every route, field, state, reason and event, and nothing else."""

import ast
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import web

from service.api import health, serializers
from service.api.auth import ROLES
from service.api.journal import STATES as JOURNAL_STATES
from service.api.openapi import Route
from service.api.params import MAX_BODY_BYTES, MAX_LIMIT
from service.api.routes import API, COMPAT, OPEN, PREFIX, SENDING
from service.model.account_checks import CURES, NOTICES
from service.model.contacts import Contact
from service.model.gate import CLEARS_WHEN
from service.model.timeline import Change, Moment
from service.model.users import AuditEntry, State, User
from service.webhooks.handler import WebhookHandler
from tests.docs.conftest import ROOT, Block, bare, blocks, read, sections, spans, table

PAGE = read("docs/api.md")
SECTIONS = sections(PAGE, 3)


async def _never(_: web.Request) -> web.Response:
    raise AssertionError


def webhooks() -> set[str]:
    app = web.Application()
    handler = SimpleNamespace(post=_never, verify_subscription=_never)
    WebhookHandler.add_routes(cast("WebhookHandler", handler), app)
    routes = {(route.method, route.resource) for route in app.router.routes()}
    return {f"{method} {resource.canonical}" for method, resource in routes if resource}


def routes() -> dict[str, str]:
    roles: dict[str, str] = {f"{r.method} {PREFIX}{r.path}": r.role or "—" for r in API}
    roles |= {f"{r.method} {r.path}": r.role or "—" for r in (*COMPAT, *SENDING)}
    roles |= {f"{r.method} {r.path}": "—" for r in OPEN}
    return roles | dict.fromkeys(webhooks(), "—")


def test_the_webhooks_are_looked_at_as_the_service_adds_them() -> None:
    assert "POST /webhooks/{account}/{token}" in webhooks()


def test_the_table_of_routes_names_each_with_its_role() -> None:
    assert {bare(row[0]): row[1] for row in table(PAGE, "route", "role")} == routes()


def test_each_route_has_its_section() -> None:
    assert {bare(head) for head in SECTIONS if head.startswith("`")} == set(routes())


@pytest.mark.parametrize("route", API, ids=lambda r: f"{r.method} {r.path}")
def test_each_section_names_the_parameters_and_fields(route: Route) -> None:
    section = SECTIONS[f"`{route.method} {PREFIX}{route.path}`"]
    known = route.body.model_fields.items() if route.body else ()
    fields = {field.alias or name for name, field in known}
    if route.path.endswith("/hold"):
        assert "The same body" in section
        fields = set()
    query = set(route.query.model_fields) if route.query else set()
    assert not [name for name in query | fields if name not in section]


def test_the_roles_are_those_that_there_are() -> None:
    assert [bare(row[0]) for row in table(PAGE, "role", "may")] == list(ROLES)


def test_every_state_is_documented_and_no_other() -> None:
    named = [bare(row[0]) for row in table(PAGE, "state", "meaning", "what comes next")]
    assert set(named) == {state.value for state in State}


def test_every_reason_of_the_gate_is_documented_with_what_clears_it() -> None:
    named = {bare(row[0]): row[2] for row in table(PAGE, "code", "kind", "clears when")}
    assert named == CLEARS_WHEN


def test_the_fields_of_an_identity_are_documented() -> None:
    named = [bare(row[0]) for row in table(PAGE, "field", "meaning")]
    assert named == list(serializers.identity(User(1, "main", "16315553601", 0)))


def test_the_fields_of_history_audit_and_contacts_are_documented() -> None:
    text = sections(PAGE, 3)["History and audit trail"]
    fields = {
        *serializers.change(Change("x", Moment(0), 0)),
        *serializers.audit_entry(AuditEntry(0, "x")),
    }
    assert not fields - set(spans(text))
    shown = set(serializers.contact(Contact("main", "1", "valid", "1", 0)))
    examples = [json.loads(b.text) for b in blocks("json") if "checked_at" in b.text]
    assert [set(example["items"][0]) for example in examples] == [shown]


def of_rows() -> Iterator[str]:
    """The events of rows that the store writes into the audit trail without an AuditEntry."""
    for file in (ROOT / "service/store").glob("*.py"):
        for row in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(row, ast.Dict):
                for key, value in zip(row.keys, row.values, strict=True):
                    if isinstance(key, ast.Constant) and key.value == "event":
                        assert isinstance(value, ast.Constant | ast.Attribute)
                        yield from [str(value.value)] if isinstance(value, ast.Constant) else []


def events() -> Iterator[str]:
    """The events that the code writes into the audit trail, wherever it makes an entry."""
    for file in (ROOT / "service").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            match node.func:
                case ast.Name(id="AuditEntry" | "_note"):
                    at = 1
                case ast.Name(id="_entry") | ast.Attribute(attr="entry"):
                    at = 0
                case _:
                    continue
            if len(node.args) <= at:
                continue
            match node.args[at]:
                case ast.Constant(value=str(event)):
                    yield event
                case ast.Name(id="event"):
                    assert file.name in {"decisions.py", "users.py", "relays.py"}, (
                        "an event that can't be read off"
                    )
                case ast.Attribute(attr="event"):
                    assert file.name == "users.py", "an event that can't be read off"


def test_every_event_of_the_audit_trail_is_documented_and_no_other() -> None:
    known = {*events(), *of_rows()}
    assert {"changed", "decided", "held", "acknowledged"} <= known
    assert {bare(row[0]) for row in table(PAGE, "event", "meaning")} == known


def test_every_issue_is_documented_with_its_cure_and_no_other() -> None:
    named = {bare(row[0]): bare(row[2]) for row in table(PAGE, "issue", "means", "cure")}
    assert named == CURES
    notices = {bare(r[0]) for r in table(PAGE, "issue", "means", "cure") if "a notice" in r[1]}
    assert notices == NOTICES


def test_every_state_of_the_journal_is_documented() -> None:
    text = SECTIONS["`GET /api/v1/journal`"]
    assert not [state for state in JOURNAL_STATES if f"`{state}`" not in text]


def test_the_checks_of_readiness_are_documented() -> None:
    named = [bare(row[0]) for row in table(PAGE, "check", "fails when")]
    text = ast.parse((ROOT / "service/api/health.py").read_text(encoding="utf-8"))
    store = next(n for n in ast.walk(text) if getattr(n, "name", "") == "_store_checks")
    keys = next(n.keys for n in ast.walk(store) if isinstance(n, ast.Dict))
    assert named == [k.value for k in keys if isinstance(k, ast.Constant)]
    assert f"more than {health.OVERDUE_MS // 1000} s" in " ".join(PAGE.split())


def test_the_limits_are_as_documented() -> None:
    assert f"1 to {MAX_LIMIT:,}" in PAGE
    assert MAX_BODY_BYTES == 1024 * 1024
    assert "1 MiB" in PAGE


@pytest.mark.parametrize("block", blocks("json"), ids=lambda b: b.page.name)
def test_every_example_is_json(block: Block) -> None:
    json.loads(block.text)


def dicts(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value:
        if isinstance(inner, dict | list):
            yield from dicts(inner)


def test_every_identity_in_an_example_has_the_fields_of_one() -> None:
    wanted = set(serializers.identity(User(1, "main", "16315553601", 0)))
    found = [
        d for block in blocks("json") for d in dicts(json.loads(block.text)) if "blocking" in d
    ]
    assert found
    assert all(set(one) - {"history", "audit"} == wanted for one in found)
