"""What the commands print for people."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

PUT_KEYS = ("wa_id", "hash", "outcome", "status", "request_id")
CLOUD_USER_KEYS = ("wa_id", "user_id", "hash", "username")
CLOUD_NUMBER_KEYS = ("phone_number_id", "waba_id", "identity_check", "webhook_url")
CLOUD_MESSAGE_KEYS = ("to", "outcome", "hash", "id")
MESSAGE_KEYS = ("to", "accepted", "code", "id")


def _print(title: str, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(escape("" if cell is None else str(cell)) for cell in row))
    if table.row_count:
        Console().print(table)


def _print_keys(title: str, keys: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    _print(title, keys, ([row[key] for key in keys] for row in rows))


def print_pairs(title: str, pairs: Mapping[str, object]) -> None:
    """Print names and values."""
    _print(title, ("name", "value"), pairs.items())


def print_faults(faults: list[dict[str, Any]]) -> None:
    """Print the faults that are switched on."""
    rows = (
        (
            fault["id"],
            fault["operation"],
            "without end" if fault["left"] is None else fault["left"],
            " ".join(
                f"{key}={value}"
                for key, value in fault.items()
                if key not in ("id", "operation", "left", "times")
            ),
        )
        for fault in faults
    )
    _print("Faults", ("id", "operation", "times left", "what"), rows)


def print_state(state: dict[str, Any]) -> None:
    """Print everything that a simulator knows."""
    users = state["users"].values()
    _print(
        "Users",
        ("wa_id", "hash", "acknowledged", "since"),
        ((u["wa_id"], u["hash"], u["acknowledged"], _time(u["created_timestamp"])) for u in users),
    )
    print_pairs("Calls", state["calls"])
    _print_keys("Acknowledgements that came in", PUT_KEYS, state["puts"])
    _print_keys("Messages", MESSAGE_KEYS, state["messages"])
    counts = {key: count for key, count in state["callbacks"].items() if key != "pending"}
    print_pairs("Callbacks", {**counts, "pending": len(state["callbacks"]["pending"])})
    print_pairs("Contact checks", state["contacts"]["counts"])
    print_pairs("Logins", state["logins"])
    print_faults(state["faults"])


def print_cloud_state(state: dict[str, Any]) -> None:
    """Print everything that the Cloud API of a simulator knows."""
    _print_keys("Users", CLOUD_USER_KEYS, state["users"])
    _print_keys("Numbers", CLOUD_NUMBER_KEYS, list(state["numbers"].values()))
    print_pairs("Calls", state["calls"])
    _print_keys("Latest messages", CLOUD_MESSAGE_KEYS, state["messages"].pop("latest"))
    print_pairs("Messages", state["messages"])
    callbacks = state["callbacks"]
    pending, answers = len(callbacks.pop("pending")), callbacks.pop("answers")
    print_pairs("Callbacks", {**callbacks, "pending": pending})
    print_pairs("Answers to callbacks", answers)
    print_faults(state["faults"])


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(" ", "seconds")
