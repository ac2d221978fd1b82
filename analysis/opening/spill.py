"""Where connections put what they have no memory for: below the system's temporary folder.

Only this user may look into the folder, and it goes with the process. One that a signal ends does
not do what Python does at its end: `remove_spilled` is for it.
"""

import atexit
import itertools
import os
import shutil
import tempfile
from pathlib import Path

import duckdb

_NUMBERS = itertools.count()  # Of connections.
_FOLDERS: dict[int, str] = {}  # By process, for a fork has what its parent has.


def spill_to_temporary(connection: duckdb.DuckDBPyConnection) -> None:
    """Lets a connection spill to a folder of its own."""
    process = os.getpid()
    if process not in _FOLDERS:
        _FOLDERS[process] = tempfile.mkdtemp(prefix="attribeam-spill-")
        atexit.register(remove_spilled)
    folder = Path(_FOLDERS[process]) / str(next(_NUMBERS))
    connection.execute("set temp_directory = ?", [str(folder)])


def remove_spilled() -> None:
    """Removes what this process has spilled; connections that are open can't spill any more."""
    if (folder := _FOLDERS.pop(os.getpid(), None)) is not None:
        shutil.rmtree(folder, ignore_errors=True)
