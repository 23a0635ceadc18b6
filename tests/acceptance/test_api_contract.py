"""What a program can rely on: problems that say what they are, parameters, cursors, the pages."""

import re
from typing import Any

import pytest

from service.api.openapi import Route
from service.api.routes import API, OPEN
from tests.acceptance.conftest import (
    HASH_A,
    OTHER_ID,
    WA_ID,
    Install,
    Installation,
    digest_of,
    hour_ago,
    notice,
)

IDENTITY = f"/accounts/main/identities/{WA_ID}"
LOOKUP = "/accounts/main/recipients/lookup"


def path_of(route: Route) -> str:
    values = {"account": "main", "user": WA_ID, "code": "x", "id": "1", "relay": "crm"}
    return re.sub(r"{(\w+)}", lambda found: values[found[1]], route.path)


@pytest.fixture
async def keyed(install: Install) -> Installation:
    keys = {role: {"role": role, "sha256": digest_of(role)} for role in ("gate", "admin")}
    made = await install(api={"keys": keys})
    made.key = "admin"
    return made


# Problems


async def test_a_problem_has_a_type_of_its_own_that_leads_to_its_explanation(
    keyed: Installation,
) -> None:
    await keyed.change()
    asked: list[tuple[str, str, Any, str, str]] = [
        ("GET", "/status", None, "nobody", "no_key"),
        ("GET", "/status", None, "gate", "role_too_low"),
        ("POST", LOOKUP, b"{", "admin", "not_json"),
        ("GET", "/identities?limit=0", None, "admin", "not_valid"),
        ("GET", "/nothing", None, "admin", "nothing_here"),
        ("GET", "/accounts/nobody", None, "admin", "no_such_account"),
        ("GET", f"/accounts/main/identities/{OTHER_ID}", None, "admin", "no_identity"),
        ("DELETE", f"/accounts/main/recipients/{WA_ID}/block", None, "admin", "not_blocked"),
        ("DELETE", "/issues/unknown_number", None, "admin", "no_such_issue"),
        ("GET", "/journal/99", None, "admin", "no_such_entry"),
        ("DELETE", "/status", None, "admin", "wrong_method"),
        ("POST", f"{IDENTITY}/acknowledge", {"hash": "x"}, "admin", "another_hash"),
        ("POST", LOOKUP, b" " * 1_100_000, "admin", "too_large"),
    ]
    keyed.key = None
    _, explained = await keyed.api("GET", "/docs/problems")
    for method, path, body, key, kind in asked:
        _, problem = await keyed.api(method, path, body, key=key)
        page, _, anchor = problem["type"].partition("#")
        assert (page, anchor) == ("/docs/problems", kind), (path, problem)
        assert f'id="{anchor}"' in explained


async def test_a_webhook_that_is_refused_says_so_in_a_problem_of_its_own_type(
    shop: Installation,
) -> None:
    async with shop.http.post(f"{shop.base}/webhooks/meta", json={}) as response:
        problem = await response.json()
        assert (response.status, response.headers["WWW-Authenticate"]) == (
            401,
            "X-Hub-Signature-256",
        )
    assert problem["type"] == "/docs/problems#wrong_signature"
    assert problem["request_id"]


async def test_a_problem_has_the_id_of_its_request(keyed: Installation) -> None:
    headers = {"X-Request-ID": "order-4711.a_b"}
    _, problem, sent = await keyed.call("GET", "/nothing", headers=headers)
    assert problem["request_id"] == sent["X-Request-ID"] == "order-4711.a_b"
    made = set()
    for wrong in ({}, {"X-Request-ID": "a b"}, {"X-Request-ID": "x" * 65}):
        _, problem = await keyed.api("GET", "/nothing", headers=wrong)
        assert re.fullmatch(r"[a-z]{20}", problem["request_id"])
        made.add(problem["request_id"])
    assert len(made) == 3


async def test_all_fields_at_fault_are_named_at_once_and_in_words(keyed: Installation) -> None:
    body = {"hash": 5, "note": "", "colour": "red", "evidence": {"method": "x" * 2001}}
    status, problem = await keyed.api("POST", f"{IDENTITY}/acknowledge?wait=61&wiat=1", body)
    assert (status, problem["status"]) == (422, 422)
    assert {error["field"]: error["message"] for error in problem["errors"]} == {
        "wait": "must be at most 60",
        "wiat": "is not known here",
        "hash": "must be text",
        "note": "must have at least 1 characters",
        "colour": "is not known here",
        "evidence.method": "must have at most 2000 characters",
        "evidence.reference": "is missing",
    }
    _, problem = await keyed.api("GET", "/identities?limit=0&state=asleep&updated_since=x")
    told = {error["field"]: error["message"] for error in problem["errors"]}
    assert told["limit"] == "must be at least 1"
    assert told["updated_since"] == "must be a time as in RFC 3339"
    assert "must be 'pending'" in told["state"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("until", 5), ("until", "1893456000"), ("until", "2100-01-01"), ("until", "2100-01-01T00:00")],
)
async def test_a_time_in_a_body_is_written_as_in_rfc_3339_with_an_offset(
    keyed: Installation, field: str, value: Any
) -> None:
    path = f"/accounts/main/recipients/{WA_ID}/block"
    status, problem = await keyed.api("PUT", path, {"reason": "x", field: value})
    assert (status, [error["field"] for error in problem["errors"]]) == (422, [field])
    assert (await keyed.gate())["sendable"] is True


# Parameters


@pytest.mark.parametrize("route", API, ids=lambda route: f"{route.method} {route.path}")
async def test_an_unknown_query_parameter_is_422_and_named(install: Install, route: Route) -> None:
    relays = {"crm": {"url": "http://127.0.0.1:9"}} if "{relay}" in route.path else {}
    made = await install(relays=relays)
    path = f"{path_of(route)}?colour=red"
    status, problem = await made.api(route.method, path, None if route.body is None else {})
    assert status == 422, problem
    assert {"field": "colour", "message": "is not known here"} in problem["errors"]


async def test_a_parameter_that_may_not_be_repeated_is_422_where_it_is(
    manual: Installation,
) -> None:
    for query in ("limit=1&limit=2", "account=main&account=shop", "cursor=a&cursor=b"):
        status, problem = await manual.api("GET", f"/identities?{query}")
        named = {error["field"] for error in problem["errors"]}
        assert (status, named) == (422, {query.partition("=")[0]})
    assert (await manual.api("GET", "/identities?state=held&state=pending"))[0] == 200


async def test_any_query_is_taken_in_the_on_premises_shape(manual: Installation) -> None:
    await manual.change()
    path = f"/compat/main/v1/contacts/{WA_ID}/identity?any=thing"
    async with manual.http.get(manual.base + path) as response:
        assert response.status == 200


# Cursors


async def test_a_cursor_is_good_only_for_its_list_and_its_filters(manual: Installation) -> None:
    for number in range(3):
        await manual.deliver(notice(f"1631{number}", HASH_A, hour_ago(number)))
    lists = [
        "/identities?limit=1",
        "/identities?limit=1&state=pending",
        "/identities?limit=1&updated_since=2020-01-01T00:00:00Z",
        "/journal?limit=1",
        "/journal?limit=1&account=main",
        "/audit?limit=1",
    ]
    cursors = {path: (await manual.api("GET", path))[1]["next_cursor"] for path in lists}
    for path in lists:
        for of, cursor in cursors.items():
            status, answer = await manual.api("GET", f"{path}&cursor={cursor}")
            assert status == (200 if of == path else 422), (of, path)
            if of != path:
                assert [error["field"] for error in answer["errors"]] == ["cursor"]


async def test_a_cursor_stays_good_with_another_limit_and_the_filters_in_another_order(
    manual: Installation,
) -> None:
    for number in range(3):
        await manual.deliver(notice(f"1631{number}", HASH_A, hour_ago(number)))
    _, first = await manual.api("GET", "/identities?state=pending,held&account=main&limit=1")
    query = f"limit=5&account=main&state=held&state=pending&cursor={first['next_cursor']}"
    status, rest = await manual.api("GET", f"/identities?{query}")
    assert (status, [item["wa_id"] for item in rest["items"]]) == (200, ["16311", "16312"])


# The gate


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT"])
async def test_lookup_is_no_user_and_takes_post_alone(keyed: Installation, method: str) -> None:
    status, problem, headers = await keyed.call(method, LOOKUP)
    assert (status, headers["Allow"]) == (405, "POST")
    assert problem["type"] == "/docs/problems#wrong_method"
    keyed.key = "nobody"
    assert (await keyed.api(method, LOOKUP))[0] == 401


async def test_no_cache_may_keep_an_answer_of_the_gate(keyed: Installation) -> None:
    user = f"/accounts/main/recipients/{WA_ID}"
    for method, path, body in (
        ("GET", user, None),
        ("GET", f"{user}?wait=0.01", None),
        ("POST", LOOKUP, {"recipients": [WA_ID]}),
        ("PUT", f"{user}/block", {"reason": "x"}),
        ("DELETE", f"{user}/block", None),
        ("GET", "/accounts/nobody/recipients/1", None),
    ):
        _, _, headers = await keyed.call(method, path, body)
        assert headers["Cache-Control"] == "no-store", path


# The pages


async def test_the_pages_need_no_key_and_no_script(keyed: Installation) -> None:
    keyed.key = None
    for path in ("/docs", "/docs/problems"):
        status, page, headers = await keyed.call("GET", path)
        assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; style-src 'sha256-")
        assert "unsafe" not in policy
        assert "<script" not in page
        assert not re.search(r'(src|href)="(?!#|/)', page)
    _, page, _ = await keyed.call("GET", "/docs")
    for route in (*API, *OPEN):
        assert f'id="{route.operation_id}"' in page


async def test_without_a_key_the_pages_too_are_for_this_machine_alone(
    manual: Installation,
) -> None:
    headers = {"X-Forwarded-For": "192.0.2.1"}
    for path in ("/docs", "/docs/problems"):
        assert (await manual.api("GET", path))[0] == 200
        status, problem = await manual.api("GET", path, headers=headers)
        assert (status, problem["type"]) == (403, "/docs/problems#not_local")


async def test_with_an_internal_address_the_pages_are_there_and_not_outside(
    install: Install,
) -> None:
    made = await install(server={"internal": {"port": 0}})
    for path in ("/docs", "/docs/problems"):
        assert (await made.api("GET", path))[0] == 200
        async with made.http.get(made.base + path) as response:
            assert response.status == 404
