"""Errors in the shape of the APIs that are sent through."""

import pytest
from pywa.errors import WhatsAppError

from service.api import schemas
from service.api.wire import Refusal, graph_error, onprem_error, shape_of, status_of

PENDING: schemas.Reason = {
    "code": "identity_pending",
    "since": "2026-11-23T05:21:52.660Z",
    "of": "16315567001",
    "clears_when": "a person acknowledges the identity",
}
BLOCKED: schemas.Reason = {**PENDING, "code": "blocked", "detail": "asked not to be written to"}


@pytest.mark.parametrize(
    "path",
    ["/graph/v25.0/1/messages", "/graph/", "/graph/v25.0/1/settings", "/graph/x/contacts/y"],
)
def test_below_graph_every_error_is_graphs(path: str) -> None:
    assert shape_of(path) is graph_error


@pytest.mark.parametrize("path", ["/compat/main/v1/messages", "/compat/main/v1/users/login"])
def test_below_compat_errors_are_the_clients(path: str) -> None:
    assert shape_of(path) is onprem_error


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/status",
        "/compat/main/v1/contacts/1/identity",
        "/compat/main/v1/contacts",
        "/webhooks/graph/",
        "/graphs",
        "/",
    ],
)
def test_every_other_error_is_a_problem(path: str) -> None:
    assert shape_of(path) is None


def test_pywa_reads_an_error_with_its_reasons_and_the_id_of_the_request() -> None:
    refusal = Refusal(409, "the gate is closed: identity_pending", [PENDING])
    error = WhatsAppError.from_dict(dict(graph_error(refusal, "order-4711")["error"]))
    assert (error.code, error.type, error.fbtrace_id) == (409, "AckgateException", "order-4711")
    assert error.details == "the gate is closed: identity_pending"
    assert error.raw["error_data"]["reasons"] == [PENDING]


def test_on_premises_there_is_an_error_for_each_reason() -> None:
    errors = onprem_error(Refusal(409, "the gate is closed", [PENDING, BLOCKED]), "x")["errors"]
    assert [error["reason"] for error in errors] == [PENDING, BLOCKED]
    assert [error["details"] for error in errors] == [PENDING["clears_when"], BLOCKED["detail"]]
    assert {error["code"] for error in errors} == {409}


AGAIN_ON_GRAPH = {1, 2, 4, 17, 32, 341, 613, 80007, 130429, 131000, 131016, 131056, 133004}
AGAIN_ON_PREMISES = {1000, 1011, 1014, 1015, 1016, 1017, 1018, 1023}


@pytest.mark.parametrize("status", [500, 502, 504])
def test_where_the_outcome_is_open_no_code_says_that_it_may_be_tried_again(status: int) -> None:
    refusal = Refusal(status, "x")
    assert graph_error(refusal, "x")["error"]["code"] not in AGAIN_ON_GRAPH
    codes = {error["code"] for error in onprem_error(refusal, "x")["errors"]}
    assert not codes & AGAIN_ON_PREMISES


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 409, 413, 422, 500, 502, 503, 504])
def test_an_error_of_ackgates_says_that_it_is_one(status: int) -> None:
    refusal = Refusal(status, "why")
    error = graph_error(refusal, "x")["error"]
    assert error["type"] == "AckgateException"
    assert "why" in error["message"]
    assert all(e["title"].startswith("Ackgate:") for e in onprem_error(refusal, "x")["errors"])
    assert status_of(status) == (400 if status == 422 else status)
