"""What PostgreSQL's errors mean for whoever asked, by their SQLSTATE.

https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from service.store.database import UNIQUE_VIOLATION, ConflictError, NoRoomError, UnavailableError

SERIALIZATION_FAILURE, DEADLOCK = "40001", "40P01"
AGAIN = frozenset({UNIQUE_VIOLATION, SERIALIZATION_FAILURE, DEADLOCK})
"""Another transaction was first: what was read is out of date, and the same may succeed."""

FAILURES = (
    DBAPIError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # so it says where the server has just ended the connection
    OSError,
    TimeoutError,
)
"""What the driver, SQLAlchemy or the system raise where something of the database fails."""

NO_ROOM = frozenset({"53100"})
DATA_EXCEPTION, INTEGRITY_VIOLATION = "22", "23"
_FAULTS_OF_THE_WORK = (DATA_EXCEPTION, INTEGRITY_VIOLATION)
"""Classes of errors where not the database fails but what it was asked."""

LOST_ALIAS = "lost alias"
LOCKED = "locked"
OVERTAKEN = "overtaken"
"""What else makes a transaction run again."""


@contextmanager
def translated() -> Iterator[None]:
    """Turn what the driver or the system raises into the store's own errors.

    What they say in detail is left out: it may hold what was to be stored.
    """
    try:
        yield
    except PoolTimeoutError:
        raise UnavailableError("too many queries wait for the database") from None
    except FAILURES as error:
        cause = cause_of(error)
        state = sqlstate(cause)
        if state in AGAIN:
            raise ConflictError(state) from None
        # The driver tells by a ValueError what it can't write at all.
        if state[:2] in _FAULTS_OF_THE_WORK or isinstance(cause, ValueError):
            raise ValueError(f"PostgreSQL refuses what was to be stored ({state})") from None
        kind = NoRoomError if state in NO_ROOM else UnavailableError
        raise kind(described(cause)) from None


def cause_of(error: BaseException) -> BaseException:
    """Return what the driver raised: SQLAlchemy's text would add statement and parameters."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        return error.orig.__cause__ or error.orig
    return error


def sqlstate(error: BaseException) -> str:
    """Return the SQLSTATE of an error; empty where it is no error of the server's."""
    return getattr(error, "sqlstate", None) or ""


def described(error: BaseException) -> str:
    """Say what an error is, in one line. The server's details may hold what was to be stored."""
    if isinstance(error, asyncpg.PostgresError):
        return f"PostgreSQL: {error.args[0] if error.args else type(error).__name__}"
    if isinstance(error, OSError) and (said := error.strerror or str(error)):
        return f"PostgreSQL: {said}"
    return f"PostgreSQL: no answer ({type(error).__name__})"
