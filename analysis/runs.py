"""Opening a run's folder: its manifest, and a DuckDB connection with its tables and views."""

import json
from pathlib import Path
from typing import Any

import duckdb

from analysis.database import add_comments, add_manifest, add_table, add_views, escape_glob, lock
from schemas import TABLES, UsageError
from schemas.layout import FORMAT, GLOBS, MANIFEST
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
    root = str(Path(folder).resolve())
    connection = duckdb.connect()
    double = manifest["identity"]["settings"]["dtype"] == "float64"
    try:
        for table in (*TABLES, *EVALUATIONS):
            found = any(Path(root).glob(GLOBS[table]))
            pattern = f"{escape_glob(root)}/{GLOBS[table]}"
            add_table(connection, table, [pattern] if found else [], double=double)
        add_manifest(connection, manifest)
        add_views(connection)
        add_comments(connection)
    except duckdb.Error as error:
        connection.close()
        raise UsageError(
            f"The files of {folder} can't be read: {str(error).splitlines()[0]}. "
            f"`attribeam verify {folder}` finds the damaged ones."
        ) from error
    if not external_access:
        lock(connection, root)
    return connection
