"""A receiver as FastAPI's and SQLAlchemy's tutorials have it: a session and a commit per request.

WAL and FULL, BEGIN IMMEDIATE; the callback is kept, and the user's identity inserted or updated.
"""

import os
import sys
import time
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sqlalchemy import LargeBinary, create_engine, event
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker


class Base(DeclarativeBase):
    """What the tables have in common."""


class Callback(Base):
    """A callback as it came."""

    __tablename__ = "callbacks"
    id: Mapped[int] = mapped_column(primary_key=True)
    received_at: Mapped[int]
    body: Mapped[bytes] = mapped_column(LargeBinary)


class Identity(Base):
    """The latest identity of a user."""

    __tablename__ = "identities"
    wa_id: Mapped[str] = mapped_column(primary_key=True)
    hash: Mapped[str]
    changed_at: Mapped[int]


class System(BaseModel):
    """The notice."""

    identity: str
    user: str


class Message(BaseModel):
    """The message that has the notice."""

    timestamp: str
    system: System


class Notification(BaseModel):
    """A notification of changed identities."""

    messages: list[Message]


engine = create_engine(f"sqlite:///{os.environ['DATABASE']}", connect_args={"timeout": 30})


@event.listens_for(engine, "connect")
def _connect(connection: Any, _: Any) -> None:
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")


@event.listens_for(engine, "begin")
def _begin(connection: Any) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


Base.metadata.create_all(engine)
sessions = sessionmaker(engine)
app = FastAPI()


@app.post("/")
def take(notification: Notification) -> dict[str, str]:
    """Keep a notification, and let it take effect."""
    with sessions.begin() as session:
        body = notification.model_dump_json().encode()
        session.add(Callback(received_at=time.time_ns() // 1_000_000, body=body))
        for message in notification.messages:
            _see(session, message)
    return {}


def _see(session: Session, message: Message) -> None:
    known = session.get(Identity, message.system.user)
    if known is None:
        known = Identity(wa_id=message.system.user)
        session.add(known)
    known.hash = message.system.identity
    known.changed_at = int(message.timestamp)


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False)
