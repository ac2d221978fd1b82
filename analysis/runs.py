"""Opening a run's folder: its manifest, and a DuckDB connection with its tables and views."""

import json
from collections.abc import Mapping
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
from analysis.manifest import misshapen
from analysis.readonly import LocalFiles, ReadOnlyFiles
from analysis.remote import RemoteFiles, is_remote
from schemas import UsageError
from schemas.layout import (
    CARD,
    DATABASE,
    FORMAT,
    GLOBS,
    MANIFEST,
    PUBLISHED,
    PUBLISHED_GLOBS,
    UNFINISHED,
)


def load_manifest(folder: str | Path) -> dict[str, Any]:
    """Reads ``run.json`` of a run's folder.

    Raises:
        UsageError: If the folder is no run folder or not on this machine, or its manifest can't be
            read.
    """
    if is_remote(folder):
        raise UsageError(
            f"{folder} is not on this machine: `attribeam query` reads it where it is, and all "
            "else needs a copy of it."
        )
    path = Path(folder) / MANIFEST
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"{folder} is no run folder: {_lacking(Path(folder))}") from None
    except OSError as error:
        raise _unreadable(path, error) from error
    return parse_manifest(text, path)


def open_run(folder: str | Path, *, external_access: bool = False) -> duckdb.DuckDBPyConnection:
    """Opens a run as an in-memory database over its Parquet files.

    The tables of ``schemas.tables`` are views over the committed files, empty but typed where there
    are none yet; ``methods`` has a row per method of the manifest and ``run`` one row with what
    identifies the run; on them lie the views and macros of ``schemas.views``. Every view and column
    is commented: ``select * from duckdb_columns()`` shows it. Files that a run in progress commits
    later are seen by the next query, if the table had any when it was opened.

    What was published is a run too: the folder that ``attribeam publish --dry-run`` wrote, or the
    data set. Addresses are read through fsspec (``huggingface_hub`` for ``hf``, which is there;
    ``s3fs`` for ``s3``), logged in as these are. They are read-only and seen as they are when they
    are opened; a data set that may change is best named with its revision.

    Args:
        folder: The run's folder; or, as a text, an address: ``hf://datasets/user/name``, perhaps
            with ``@revision``, or ``s3://bucket/path``.
        external_access: Let queries read and write any file. Otherwise they reach nothing outside
            the run's folder, and the settings are locked. Of a run elsewhere, that is nothing but
            its own address: no file of this machine, and no other address. Even with access, what
            is elsewhere can't be written, and of its protocol only the run can be read.

    Raises:
        UsageError: If it is no run folder, or a file of it is damaged, or an address can't be read.
    """
    if is_remote(folder):
        return _open_remote(str(folder), external_access)
    manifest = load_manifest(folder)
    root = Path(folder).resolve()
    if external_access:
        connection = duckdb.connect()
        _fill(connection, str(root), manifest, f"{escape_glob(str(root))}/")
        return connection
    return _connected(LocalFiles(root), str(root), manifest, locked=True)


def _open_remote(address: str, external_access: bool) -> duckdb.DuckDBPyConnection:
    files = RemoteFiles(address)
    manifest = parse_manifest(files.manifest, f"{address.rstrip('/')}/{MANIFEST}")
    return _connected(files, address, manifest, locked=not external_access)


def _connected(
    files: ReadOnlyFiles, folder: str, manifest: Mapping[str, Any], *, locked: bool
) -> duckdb.DuckDBPyConnection:
    """A connection that reads a run through a file system, and perhaps nothing else."""
    connection = duckdb.connect()
    connection.register_filesystem(files)
    _fill(connection, folder, manifest, escape_glob(files.root))
    if locked:
        lock(connection, files.root)
    return connection


def write_database(folder: str | Path) -> Path:
    """Writes a database of a run into its folder, for the plain ``duckdb`` command.

    It holds no data but the views over the Parquet files beside it, by relative paths: the folder
    can be moved, and ``duckdb`` is to be started in it. A published folder will do.

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
            _fill(connection, str(root), manifest, "")
        temporary.replace(path)
    except (OSError, duckdb.IOException) as error:
        raise UsageError(f"{path} can't be written: {error}") from error
    return path


def parse_manifest(text: bytes, path: str | Path) -> dict[str, Any]:
    """Reads a manifest, which lies at the path.

    Raises:
        UsageError: If it is none that this version can read.
    """
    try:
        manifest = json.loads(text.decode("utf-8"))
    except ValueError as error:
        raise _unreadable(path, error) from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise UsageError(
            f"{path} is not of format {FORMAT}: it was written by another version of attribeam. "
            "Read the folder with that version."
        )
    if wrong := misshapen(manifest):
        raise UsageError(f"{path} is damaged, or no run of attribeam's: {wrong}.")
    return manifest


def _lacking(folder: Path) -> str:
    """What to do about a folder that has no manifest."""
    if (folder / UNFINISHED).exists():
        return f"its upload had not finished ({UNFINISHED}). Download it again when it has."
    if (folder / PUBLISHED).is_dir() and (folder / CARD).exists():
        return f"it has no {MANIFEST}. Of a published run, download that too."
    return f"it has no {MANIFEST}. Give the folder that `attribeam run --output` wrote."


def _unreadable(path: str | Path, error: Exception) -> UsageError:
    return UsageError(
        f"{path} can't be read ({error}). Run the `attribeam run` command of this folder again "
        "with another output folder."
    )


def _fill(
    connection: duckdb.DuckDBPyConnection,
    folder: str,
    manifest: Mapping[str, Any],
    prefix: str,
) -> None:
    """Adds the tables of a run, whose paths begin with the prefix, and the views over them."""
    double = manifest["identity"]["settings"]["dtype"] == "float64"
    globs = PUBLISHED_GLOBS if manifest.get("layout") == PUBLISHED else GLOBS
    try:
        for table, pattern in globs.items():
            add_table(connection, table, [f"{prefix}{pattern}"], double=double)
        add_manifest(connection, manifest)
        add_views(connection)
        add_comments(connection)
    except duckdb.Error as error:
        connection.close()
        raise UsageError(
            f"The files of {folder} can't be read: {said(error)}. {_remedy(folder)}"
        ) from error


def said(error: Exception) -> str:
    """What an error says in a line; for an exception that passed through DuckDB, its own."""
    first, *others = str(error).strip().splitlines() or [type(error).__name__]
    if first.startswith("Traceback"):
        # Where it was raised is indented.
        first = next((line for line in others if not line.startswith(" ")), first)
    return first.rstrip(".")


def _remedy(folder: str) -> str:
    if is_remote(folder):
        return "Is the network there, and did all of the run come to be there?"
    return f"`attribeam verify {folder}` finds the damaged ones."
