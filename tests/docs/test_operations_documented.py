"""What an operator is promised about disk and database is what the service goes by."""

import re

from service.api.context import LOW_DISK_BYTES
from service.api.health import MEBIBYTE
from service.store.sqlite_checkpoints import LOG_BYTES
from service.store.sqlite_faults import CURE, DAMAGED
from tests.docs.conftest import read, sections, tables

OPERATIONS = "docs/operations.md"


def test_the_least_disk_is_told_and_holds_the_write_ahead_log_at_its_bound() -> None:
    told = sections(read(OPERATIONS), 3)["How much disk it needs"]
    least = re.search(r"at least (\d+) MiB free", told)
    assert least is not None
    assert int(least[1]) * MEBIBYTE >= LOG_BYTES + LOW_DISK_BYTES
    assert f"log grows to {LOG_BYTES // MEBIBYTE} MiB" in told
    assert f"to {LOG_BYTES // 2 // MEBIBYTE} MiB then" in " ".join(told.split())
    assert f"Below {LOW_DISK_BYTES // MEBIBYTE} MiB" in told


def test_a_damaged_database_has_its_cure_in_the_table_of_what_goes_wrong() -> None:
    [cure] = [
        row[-1]
        for rows in tables(read(OPERATIONS))
        for row in rows
        if any(f"`{DAMAGED}`" in cell for cell in row)
    ]
    assert "`ackgate db check`" in cure
    assert "(#restore)" in cure
    restore = sections(read(OPERATIONS), 3)["Restore"]
    for command in re.findall(r"ackgate db [a-z]+", CURE):
        assert command in cure + restore
