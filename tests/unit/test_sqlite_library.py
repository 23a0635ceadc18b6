"""SQLite counts its memory no more, once it was told before the first connection."""

import subprocess
import sys

import pytest

TOLD = "assert stop_counting_memory()"
UNTOLD = ""
USE = """
import _sqlite3, ctypes, sqlite3
raw = sqlite3.connect(":memory:")
raw.execute("CREATE TABLE kept (text TEXT)")
raw.executemany("INSERT INTO kept VALUES (?)", [("x" * 1000,)] * 1000)
assert raw.execute("SELECT sum(length(text)) FROM kept").fetchone() == (1_000_000,)
library = ctypes.CDLL(_sqlite3.__file__)
library.sqlite3_memory_used.restype = ctypes.c_int64
print(library.sqlite3_memory_used())
"""


@pytest.mark.parametrize(("first", "counts"), [(UNTOLD, True), (TOLD, False)])
def test_it_counts_unless_it_was_told_not_to(first: str, counts: bool) -> None:
    importing = "from service.store.sqlite_library import stop_counting_memory"
    program = f"{importing}\n{first}\n{USE}"
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert (int(done.stdout) > 0) is counts


def test_where_the_library_can_not_be_told_all_goes_on() -> None:
    program = (
        "import _sqlite3, sqlite3\n"
        "_sqlite3.__file__ = '/nowhere/to/be/found.so'\n"
        "from service.store.sqlite_library import stop_counting_memory\n"
        "assert not stop_counting_memory()\n"
        "assert sqlite3.connect(':memory:').execute('SELECT 1').fetchone() == (1,)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
