"""Logs: one line an event, with its request id, and without anything that names a person.

No phone number, hash, token, key or body belongs in a log line. Whoever writes a line leaves them
out; what stands here is the last line of defence, and for what libraries write the only one.
"""

import logging
import random
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache, partial
from traceback import walk_tb
from typing import Any, Literal, Protocol, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from service.observability.writer import LineWriter

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "json", "console"]

# By the last word of a key: `webhook_token` and `token`, but not `body_bytes`. A path or a URL is
# here because a webhook's holds its token, and an identity's the user.
_DENIED = {
    "alias",
    "aliases",
    "authorization",
    "body",
    "bodies",
    "challenge",
    "contact",
    "contacts",
    "content",
    "cookie",
    "cookies",
    "digest",
    "evidence",
    "from",
    "hash",
    "hashes",
    "headers",
    "input",
    "inputs",
    "key",
    "keys",
    "note",
    "params",
    "password",
    "path",
    "payload",
    "phone",
    "phones",
    "query",
    "raw",
    "recipient",
    "recipients",
    "secret",
    "secrets",
    "sha256",
    "signature",
    "token",
    "tokens",
    "url",
    "urls",
    "user",
    "username",
    "users",
}
_DENIED_ENDS = ("wa_id", "wa_ids", "user_id", "user_ids", "phone_number", "phone_numbers")
_REQUEST_ID = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9._-]{1,64}")
_MANY_DIGITS = re.compile(r"\d{8}")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9a-fA-F]{32}")
"""With hyphens or without; trace ids of W3C and OpenTelemetry have the second form."""
_LETTERS = bytes(ord("a") + byte % 26 for byte in range(256))
_CHANCE = random.Random()  # noqa: S311  an id is no secret, and the system's chance is a call to it
_NESTED = (dict, list, tuple)
_MAX_FRAMES = 40
_MAX_CHAIN = 8


class Lines(Protocol):
    """What lines are written to."""

    def write(self, line: str) -> None:
        """Write a line."""

    def flush(self) -> None:
        """Have what was written reach its reader, if there is one."""


class _Stream:
    """Standard error in memory: nobody reads it who could stall."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, line: str) -> None:
        with suppress(ValueError):  # it was closed
            self._stream.write(f"{line}\n")

    def flush(self) -> None:
        """Do nothing: what was written is there."""


class _Logger:
    """What structlog hands a rendered line to, whatever its level. `name` is the module's."""

    def __init__(self, lines: Lines, name: str = "") -> None:
        self.name = name
        self.debug = self.info = self.warning = self.error = self.critical = lines.write


class _Handler(logging.Handler):
    """Writes what libraries log beside our own lines."""

    def __init__(self, lines: Lines) -> None:
        super().__init__()
        self.lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.lines.write(self.format(record))
        except Exception:  # noqa: BLE001  a line that can't be formatted harms nobody
            self.handleError(record)


def configure(level: Level, format: Format) -> None:  # noqa: A002 -- named as in the configuration
    """Send every line, of ours and of the libraries, through one pipeline to standard error.

    `auto` is `console` in a terminal, else `json`. Libraries log from `warning` up.
    """
    threshold = logging.getLevelNamesMapping()[level.upper()]
    lines, renderer = _lines(), _renderer(format)
    structlog.configure(
        processors=[*_common(), _safely(renderer)],
        logger_factory=partial(_Logger, lines),
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        cache_logger_on_first_use=False,
    )
    handler = _Handler(lines)
    formatter = structlog.stdlib.ProcessorFormatter
    handler.setFormatter(
        formatter(
            foreign_pre_chain=[_with_bare_message, *_common()],
            processors=[formatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    for former in [h for h in root.handlers if isinstance(h, _Handler)]:
        root.removeHandler(former)
    root.addHandler(handler)
    root.setLevel(max(threshold, logging.WARNING))
    logging.getLogger("service").setLevel(threshold)
    # Else a line that can't be written is printed with all its arguments.
    logging.raiseExceptions = False


def _lines() -> Lines:
    """Return what writes the lines: a thread of its own, for standard error may be a pipe."""
    try:
        return LineWriter(sys.stderr.fileno())
    except OSError:
        return _Stream(sys.stderr)


def _writers() -> Iterator[Lines]:
    return (h.lines for h in logging.getLogger().handlers if isinstance(h, _Handler))


def count_dropped_lines(count: Callable[[], None]) -> None:
    """Have each line counted that is dropped because nobody reads the log."""
    for lines in _writers():
        if isinstance(lines, LineWriter):
            lines.on_drop = count


def flush() -> None:
    """Let the lines so far be written, if somebody reads them within a second."""
    for lines in _writers():
        lines.flush()


def new_request_id() -> str:
    """Return an id that is new, and of letters alone: it can't be taken for a phone number."""
    return _CHANCE.randbytes(20).translate(_LETTERS).decode()


def request_id(incoming: str | None) -> str:
    """Return the X-Request-ID that came in if it is one, else a new one.

    One that could hold a phone number isn't taken: without any letter, or with many digits in a
    row, unless it is a UUID.
    """
    if not incoming or not _REQUEST_ID.fullmatch(incoming):
        return new_request_id()
    if _MANY_DIGITS.search(incoming) and not _UUID.fullmatch(incoming):
        return new_request_id()
    return incoming


def _common() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _with_bare_exception,
        _without_denied_keys,
    ]


def _renderer(format: Format) -> Processor:  # noqa: A002 -- named as in the configuration
    if format == "console" or (format == "auto" and sys.stderr.isatty()):
        return structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    return structlog.processors.JSONRenderer()


def _safely(render: Processor) -> Processor:
    """Return what renders a line, and drops one that can't be: it harms nobody who logs."""

    def rendered(logger: WrappedLogger, name: str, event: EventDict) -> Any:
        try:
            return render(logger, name, event)
        except Exception:  # noqa: BLE001  whatever a value does as it is shown
            raise structlog.DropEvent from None

    return rendered


def _with_bare_message(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Keep of a library's message the first line, before values are put in."""
    message = str(event["_record"].msg)
    return {**event, "event": message.partition("\n")[0]}


def _with_bare_exception(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Replace an exception by the types and the places it went through, without its message."""
    raised = event.pop("exc_info", None)
    if raised is True:
        raised = sys.exc_info()
    if isinstance(raised, tuple):
        raised = raised[1]
    if isinstance(raised, BaseException):
        event["exception"] = "\n".join(_bare(raised))
    return event


def _bare(raised: BaseException) -> Iterator[str]:
    for number, link in enumerate(_chain(raised)):
        yield f"{'from ' if number else ''}{type(link).__module__}.{type(link).__qualname__}"
        frames = walk_tb(link.__traceback__)
        places = [f"  {f.f_code.co_filename}:{line} {f.f_code.co_name}" for f, line in frames]
        yield from places[-_MAX_FRAMES:]


def _chain(raised: BaseException) -> list[BaseException]:
    """Return the exception, its causes, and what a group holds, each once."""
    chain = [raised]
    for link in chain:
        hidden = link.__suppress_context__ or link.__context__ is None
        before = link.__cause__ or (None if hidden else link.__context__)
        within = link.exceptions if isinstance(link, BaseExceptionGroup) else ()
        found = [e for e in (*within, before) if e is not None and e not in chain]
        chain.extend(found[: _MAX_CHAIN - len(chain)])
    return chain


def _without_denied_keys(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Remove what could name a person or admit somebody, and name the keys that were removed."""
    removed = sorted(set(_denied(event)))
    if not removed:
        return event
    kept: EventDict = _pruned(event)
    return {**kept, "removed": removed}


def _denied(value: Any) -> Iterator[str]:
    """Yield the denied keys in a dict, list or tuple, and in those within it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if _is_denied(str(key)):
                yield str(key)
            elif isinstance(inner, _NESTED):
                yield from _denied(inner)
    else:
        for inner in value:
            if isinstance(inner, _NESTED):
                yield from _denied(inner)


def _pruned(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _pruned(inner) for k, inner in value.items() if not _is_denied(str(k))}
    if isinstance(value, list | tuple):
        return [_pruned(inner) for inner in value]
    return value


@lru_cache(maxsize=1024)
def _is_denied(key: str) -> bool:
    name = key.lower().replace("-", "_")
    return name.rpartition("_")[2] in _DENIED or name.endswith(_DENIED_ENDS)
