"""The views of every run, made once in a process and copied into each database that is opened.

DuckDB takes half a second to read the statements of all views and two for their comments; to copy
what it made of them takes a hundredth of that.
"""

import tempfile
from functools import cache
from pathlib import Path

import duckdb

from attribeam.analysis.opening.database import (
    add_comments,
    add_empty,
    add_views,
    identifier,
    literal,
)

# No run can have this name, which begins with none of a name's characters.
_ATTACHED = "views of attribeam"


def copy_views(
    connection: duckdb.DuckDBPyConnection, *, main: bool, double: bool, commented: bool
) -> None:
    """Adds the views and macros of ``attribeam.schemas.views`` to the current database.

    Args:
        connection: Where to; its tables are there.
        main: Whether this is the database that queries begin in (``add_views``).
        double: Whether its scores are float64.
        commented: Whether they are commented.
    """
    try:
        path = _template(main, double, commented)
    except OSError:  # Nowhere to put it.
        add_views(connection, main=main)
        if commented:
            add_comments(connection, tables=False)
        return
    ((current,),) = connection.execute("select current_database()").fetchall()
    attached = identifier(_ATTACHED)
    connection.execute(f"attach {literal(str(path))} as {attached} (read_only)")
    connection.execute(f"copy from database {attached} to {identifier(current)}")
    connection.execute(f"detach {attached}")


def _template(main: bool, double: bool, commented: bool) -> Path:
    """A database with the views, and nothing that they read.

    Views that are commented are bound, so that they remember the types of their columns.
    """
    folder = Path(_folder().name)
    path = folder / f"{main:d}{double:d}{commented:d}.duckdb"
    if path.exists():
        return path
    folder.mkdir(exist_ok=True)  # Someone may have tidied up.
    with tempfile.TemporaryDirectory(dir=folder) as elsewhere:
        made = Path(elsewhere) / path.name
        with duckdb.connect(str(made)) as connection:
            read = add_empty(connection, double=double)
            add_views(connection, main=main)
            if commented:
                add_comments(connection, tables=False)
            for name in read:
                connection.execute(f"drop view {name}")
        made.replace(path)
    return path


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Where they lie until the process ends."""
    return tempfile.TemporaryDirectory(prefix="attribeam-views-", ignore_cleanup_errors=True)
