"""What a log line says, and what it never says."""

import io
import json
import logging
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from service.observability.logging import Format, configure, new_request_id, request_id

PERSON = "16315551000"


@pytest.fixture(autouse=True)
def untouched() -> Iterator[None]:
    """Leaves logging as it was."""
    root, ours = logging.getLogger(), logging.getLogger("service")
    before = root.handlers[:], root.level, ours.level, logging.raiseExceptions
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])
    logging.raiseExceptions = before[3]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def logger() -> Any:
    return structlog.get_logger("service.test")


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_line_is_json_with_utc_time_level_and_logger(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "auto")
    logger().info("stored", callbacks=3)
    (line,) = lines(capsys)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line.pop("timestamp"))
    assert line == {
        "event": "stored",
        "callbacks": 3,
        "level": "info",
        "logger": "service.test",
    }


@pytest.mark.parametrize("format_", ["auto", "console"])
def test_a_terminal_gets_lines_for_people(monkeypatch: pytest.MonkeyPatch, format_: Format) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    configure("info", format_)
    logger().info("stored", callbacks=3)
    assert "stored" in terminal.getvalue()
    assert not terminal.getvalue().startswith("{")


def test_a_terminal_gets_json_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    configure("info", "json")
    logger().info("stored")
    assert json.loads(terminal.getvalue())["event"] == "stored"


def test_lines_below_the_level_are_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    configure("warning", "json")
    logger().info("quiet")
    logger().warning("loud")
    logging.getLogger("service.stdlib").info("quiet")
    assert [line["event"] for line in lines(capsys)] == ["loud"]


def test_configuring_twice_writes_each_line_once(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    configure("debug", "json")
    logger().debug("once")
    assert len(lines(capsys)) == 1


def test_the_request_id_of_the_context_is_on_every_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure("info", "json")
    with structlog.contextvars.bound_contextvars(request_id="abc"):
        logger().info("ours")
        logging.getLogger("aiohttp.server").warning("theirs")
    assert [line["request_id"] for line in lines(capsys)] == ["abc", "abc"]


def test_a_librarys_line_keeps_its_template_and_loses_its_values(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure("debug", "json")
    logging.getLogger("aiohttp.server").error("Error handling request from %s", PERSON)
    logging.getLogger("asyncio").error(f"Task was destroyed\ntask: <Task {PERSON}>")  # noqa: G004 -- as asyncio does
    logging.getLogger("aiosqlite").debug("executing %s", PERSON)
    text = capsys.readouterr().err
    assert PERSON not in text
    assert [json.loads(line)["event"] for line in text.splitlines()] == [
        "Error handling request from %s",
        "Task was destroyed",
    ]


def wrapped() -> None:
    try:
        {}.pop(PERSON)
    except KeyError as error:
        raise RuntimeError(PERSON) from error


@pytest.mark.parametrize("format_", ["json", "console"])
def test_an_exception_shows_types_and_places_and_not_what_it_says(
    capsys: pytest.CaptureFixture[str], format_: Format
) -> None:
    configure("info", format_)
    hidden = PERSON
    try:
        wrapped()
    except RuntimeError as error:
        logger().exception("failed")
        logger().error("failed", exc_info=error)
        logging.getLogger("asyncio").exception("failed %s", hidden)
    text = capsys.readouterr().err
    assert PERSON not in text
    assert text.count("builtins.RuntimeError") == 3
    assert text.count("from builtins.KeyError") == 3
    assert re.search(r"test_logging\.py:\d+ wrapped", text)


def test_an_exception_shows_what_it_came_from(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    errors: list[Exception] = [ValueError(PERSON), TypeError(PERSON)]
    try:
        try:
            raise ExceptionGroup(PERSON, errors)
        finally:
            raise OSError(PERSON)
    except OSError:
        logger().exception("failed")
    (line,) = lines(capsys)
    types = re.findall(r"builtins\.(\w+)", line["exception"])
    assert types == ["OSError", "ExceptionGroup", "ValueError", "TypeError"]


def test_a_context_that_was_hidden_stays_hidden(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    try:
        try:
            {}.pop(PERSON)
        except KeyError:
            raise OSError(PERSON) from None
    except OSError:
        logger().exception("failed")
    assert "KeyError" not in lines(capsys)[0]["exception"]


def test_an_endless_chain_and_a_deep_stack_are_cut(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")

    def deep(depth: int) -> None:
        if not depth:
            errors = [ValueError() for _ in range(100)]
            raise ExceptionGroup("many", errors)
        deep(depth - 1)

    try:
        deep(200)
    except ExceptionGroup as group:
        group.exceptions[0].__context__ = group
        logger().exception("failed")
    assert lines(capsys)[0]["exception"].count("\n") < 60


def test_no_exception_under_way_is_no_exception(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    logger().info("fine", exc_info=True)
    assert "exception" not in lines(capsys)[0]


@pytest.mark.parametrize(
    "key",
    [
        "wa_id",
        "wa_ids",
        "linked_wa_id",
        "user",
        "user_id",
        "hash",
        "old_hash",
        "token",
        "webhook_token",
        "password",
        "body",
        "key",
        "authorization",
        "Authorization",
        "phone_number",
        "input",
        "path",
        "url",
        "api-key",
    ],
)
def test_a_key_that_could_name_a_person_is_taken_away_and_the_line_says_so(
    capsys: pytest.CaptureFixture[str], key: str
) -> None:
    configure("info", "json")
    logger().info("stored", **{key: PERSON}, nested={"deep": [{key: PERSON, "kept": 1}]})
    text = capsys.readouterr().err
    assert PERSON not in text
    line = json.loads(text)
    assert line["removed"] == [key]
    assert line["nested"] == {"deep": [{"kept": 1}]}


@pytest.mark.parametrize(
    "key", ["account", "state", "attempts", "body_bytes", "key_name", "request_id", "users_loaded"]
)
def test_other_keys_stay(capsys: pytest.CaptureFixture[str], key: str) -> None:
    configure("info", "json")
    logger().info("stored", **{key: 5})
    (line,) = lines(capsys)
    assert line[key] == 5
    assert "removed" not in line


def test_a_line_break_starts_no_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    logger().info('stored\n{"event": "forged"}', more="\n\ud800")
    assert len(lines(capsys)) == 1


def test_a_line_that_cannot_be_written_is_not_printed_elsewhere(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = io.StringIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", closed)
        configure("info", "json")
    closed.close()
    logging.getLogger("aiohttp.server").error("from %s", PERSON)
    assert PERSON not in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    "incoming",
    [
        "a",
        "0f-3.b_Z",
        "x" * 64,
        "4bf92f3577b34da6a3ce929d0e0e4736",
        "4bf92f12345678901a3ce929d0e0e473",
    ],
)
def test_a_request_id_that_came_in_is_kept(incoming: str) -> None:
    assert request_id(incoming) == incoming


@pytest.mark.parametrize(
    "incoming",
    [None, "", "x" * 65, "a b", "a\n", "é", "a/b", PERSON, "1", "1.631.555-1000", "1_631"],
)
def test_what_is_none_or_could_be_a_phone_number_is_replaced(incoming: str | None) -> None:
    fresh = request_id(incoming)
    assert fresh != incoming
    assert re.fullmatch("[a-z]{20}", fresh)


def test_request_ids_are_new_each_time() -> None:
    assert len({new_request_id() for _ in range(1_000)}) == 1_000


def test_a_value_that_can_not_be_shown_costs_its_line_and_nothing_else(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Odd:
        def __repr__(self) -> str:
            raise RuntimeError(PERSON)

    configure("info", "json")
    logger().info("odd", value=Odd())
    logging.getLogger("aiohttp.server").error("theirs", extra={"value": Odd()})
    logger().info("after it")
    assert [line["event"] for line in lines(capsys)] == ["theirs", "after it"]
