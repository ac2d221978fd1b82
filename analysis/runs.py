"""Opening a run's folder: its manifest, and a DuckDB connection with its tables and views."""

import json
from pathlib import Path
from typing import Any

import duckdb

from analysis.database import (
    add_comments,
    add_manifest,
    add_table,
    add_views,
    escape_glob,
    literal,
    lock,
)
from schemas import TABLES, UsageError
from schemas.layout import DATABASE, FORMAT, GLOBS, MANIFEST
from schemas.tables import EVALUATIONS


def load_manifest(folder: str | Path) -> dict[str, Any]:
    """Reads ``run.json`` of a run's folder.

    Raises:
        UsageError: If the folder is no run folder, or its manifest can't be read.
    """
    path = Path(folder) / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(
            f"{folder} is no run folder: it has no {MANIFEST}. "
            "Give the folder that `attribeam run --output` wrote."
        ) from None
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path} can't be read ({error}). Run the `attribeam run` command of this folder again "
            "with another output folder."
        ) from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise UsageError(
            f"{path} is not of format {FORMAT}: it was written by another version of attribeam. "
            "Read the folder with that version."
        )
    return manifest


def open_run(folder: str | Path, *, external_access: bool = False) -> duckdb.DuckDBPyConnection:
    """Opens a run as an in-memory database over its Parquet files.

    The tables of ``schemas.tables`` are views over the committed files, empty but typed where there
    are none yet; ``methods`` has a row per method of the manifest and ``run`` one row with what
    identifies the run; on them lie the views and macros of ``schemas.views``. Every view and column
    is commented: ``select * from duckdb_columns()`` shows it. Files that a run in progress commits
    later are seen by the next query, if the table had any when it was opened.

    Args:
        folder: The run's folder.
        external_access: Let queries read and write any file. Otherwise they reach nothing outside
            the run's folder, and the settings are locked.

    Raises:
        UsageError: If it is no run folder, or a file of it is damaged.
    """
    manifest = load_manifest(folder)
    root = Path(folder).resolve()
    connection = duckdb.connect()
    _fill(connection, root, manifest, f"{escape_glob(str(root))}/")
    if not external_access:
        lock(connection, str(root))
    return connection


def write_database(folder: str | Path) -> Path:
    """Writes a database of a run into its folder, for the plain ``duckdb`` command.

    It holds no data but the views over the Parquet files beside it, by relative paths: the folder
    can be moved, and ``duckdb`` is to be started in it.

    Returns:
        The file, ``attribeam.duckdb``.

    Raises:
        UsageError: If it is no run folder, a file of it is damaged, or it can't be written to.
    """
    manifest = load_manifest(folder)
    root = Path(folder).resolve()
    path = root / DATABASE
    temporary = root / f"{DATABASE}.tmp"
    try:
        temporary.unlink(missing_ok=True)
        with duckdb.connect(str(temporary)) as connection:
            # Views are bound once when they are made, and then again wherever they are asked.
            connection.execute(f"set file_search_path = {literal(str(root))}")
            _fill(connection, root, manifest, "")
        temporary.replace(path)
    except (OSError, duckdb.IOException) as error:
        raise UsageError(f"{path} can't be written: {error}") from error
    return path


def _fill(
    connection: duckdb.DuckDBPyConnection, root: Path, manifest: dict[str, Any], prefix: str
) -> None:
    """Adds the tables of a run, whose paths begin with the prefix, and the views over them."""
    double = manifest["identity"]["settings"]["dtype"] == "float64"
    try:
        for table in (*TABLES, *EVALUATIONS):
            found = any(root.glob(GLOBS[table]))
            add_table(
                connection, table, [f"{prefix}{GLOBS[table]}"] if found else [], double=double
            )
        add_manifest(connection, manifest)
        add_views(connection)
        add_comments(connection)
    except duckdb.Error as error:
        connection.close()
        raise UsageError(
            f"The files of {root} can't be read: {str(error).splitlines()[0]}. "
            f"`attribeam verify {root}` finds the damaged ones."
        ) from error
