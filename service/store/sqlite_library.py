"""The SQLite library itself, as the whole process uses it."""

import _sqlite3
import ctypes

_OK = 0
_CONFIG_MEMSTATUS = 9


def stop_counting_memory() -> bool:
    """Have SQLite no longer count its memory, under a lock, at each allocation: nobody asks for it.

    The first of SQLite's own recommendations (sqlite.org/compile.html), which Debian's library
    leaves to the program, and Python's driver has no word for. To be called before the first
    connection is opened. False where the library can't be told: it counts on.
    """
    try:
        # The driver's symbols, and with them those of the library that it is linked with.
        library = ctypes.CDLL(_sqlite3.__file__)
        # The others vary: on some processors they are passed another way.
        library.sqlite3_config.argtypes = [ctypes.c_int]
        library.sqlite3_shutdown()
        told: int = library.sqlite3_config(_CONFIG_MEMSTATUS, ctypes.c_int(0))
        begun: int = library.sqlite3_initialize()
    except (OSError, AttributeError):
        return False
    return told == begun == _OK
