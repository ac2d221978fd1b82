"""Opening a run's folder: its manifest, and a DuckDB connection with its tables and views."""

import os
import re
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import NamedTuple

import duckdb

from attribeam.analysis.opening.copied import copy_views
from attribeam.analysis.opening.database import (
    add_comments,
    add_manifest,
    add_table,
    add_views,
    escape_glob,
    identifier,
    literal,
    lock,
    named_views,
    silence,
)
from attribeam.analysis.opening.readonly import LOCAL, LocalFiles, ReadOnlyFiles, RenamedFiles
from attribeam.analysis.opening.remote import PROTOCOLS, RemoteFiles, is_remote
from attribeam.analysis.opening.replacing import replace_file, unwritable
from attribeam.schemas import UsageError
from attribeam.schemas.layout import (
    CARD,
    DATABASE,
    FORMATS,
    GLOBS,
    MANIFEST,
    PUBLISHED,
    PUBLISHED_GLOBS,
    UNFINISHED,
)
from attribeam.schemas.manifest import (
    FormatError,
    Manifest,
    ShapeError,
    is_double,
    is_published,
    parse,
)

_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
# DuckDB's own databases and schemas, and protocols of addresses.
RESERVED = {
    *("memory", "main", "temp", "system", "information_schema", "pg_catalog"),
    *(LOCAL, *PROTOCOLS, "file", "http", "https"),
}


def load_manifest(folder: str | Path) -> Manifest:
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


def linked_folders(root: Path) -> list[str]:
    """Folders of a run, and of methods in them, that are links: nobody follows these.

    What is in them is neither found when a run goes on nor by queries, which reach nothing outside
    the run's folder.
    """
    within: list[str | Path] = [root, *_folders(root), *_folders(root / PUBLISHED)]
    return sorted(
        Path(entry.path).relative_to(root).as_posix()
        for folder in within
        for entry in _entries(folder)
        if entry.is_symlink() and Path(entry.path).is_dir()
    )


def _folders(parent: Path) -> list[str]:
    """The folders in one, of which nothing is asked file by file."""
    return [
        entry.path
        for entry in _entries(parent)
        if entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and Path(entry.path).is_dir())
    ]


def _entries(folder: str | Path) -> Iterator[os.DirEntry[str]]:
    """What is in a folder, if it is one and can be read."""
    with (
        suppress(FileNotFoundError, NotADirectoryError, PermissionError),
        os.scandir(folder) as found,
    ):
        yield from found


def _check_folders(root: Path) -> None:
    """Refuses a run whose tables queries would not find, and take for empty."""
    folders = {*GLOBS, PUBLISHED}
    links = [path for path in linked_folders(root) if path.split("/")[0] in folders]
    if links:
        raise UsageError(
            f"{root} has folders that are links ({', '.join(links[:3])}), which queries don't "
            f"follow: put the folders themselves there, or make {root} as a whole a link."
        )


class _Run(NamedTuple):
    """A run to be opened.

    Attributes:
        folder: Its folder or address.
        manifest: Its manifest.
        files: What reads its files; None for DuckDB itself.
        prefix: What the paths of its files begin with, as a glob.
    """

    folder: str
    manifest: Manifest
    files: ReadOnlyFiles | None
    prefix: str


def open_run(
    folder: str | Path,
    *,
    external_access: bool = False,
    others: Mapping[str, str | Path] | None = None,
    settings: Mapping[str, str | int | float | bool] | None = None,
    commented: bool = True,
    asked: str | None = None,
) -> duckdb.DuckDBPyConnection:
    """Opens a run as an in-memory database over its Parquet files.

    The tables of ``attribeam.schemas.tables`` are views over the committed files, empty but typed
    where there are none yet; ``methods`` has a row per method of the manifest and ``run`` one row
    with what identifies the run; on them lie the views and macros of ``attribeam.schemas.views``.
    Every view and column is commented: ``select * from duckdb_columns()`` shows it. What a run in
    progress adds (files, tables, methods) is seen by the next query; a query, and a relation that
    was made of one, has the files that there were when it began.

    What was published is a run too: the folder that ``attribeam publish --dry-run`` wrote, or the
    data set. Addresses are read through fsspec (``huggingface_hub`` for ``hf``, which is there;
    ``s3fs`` for ``s3``), logged in as these are. They are read-only and seen as they are when they
    are opened; a data set that may change is best named with its revision.

    Args:
        folder: The run's folder; or, as a text, an address: ``hf://datasets/user/name``, perhaps
            with ``@revision``, or ``s3://bucket/path``.
        external_access: Let queries read and write any file. Otherwise they read the files of the
            runs alone and write none, and the settings are locked. Even with access, what is
            elsewhere can't be written, and of its protocol only the run can be read.
        others: Other runs, each with a name: the tables and views of ``{"other": FOLDER}`` are
            ``other.attributions`` and so on. Table macros are those of the main one.
        settings: DuckDB's settings, such as ``threads`` and ``memory_limit``.
        commented: Whether views and columns are commented. Without, the first run that a process
            opens is opened in a third of the time.
        asked: SQL of all that will be asked, if that is known: no views and macros are there but
            those that it names and what these read, without comments. None for all.

    Raises:
        UsageError: If it is no run folder, or a folder of it is a link, or a file damaged, or an
            address can't be read, or a name or a setting can't be given.
    """
    others = others or {}
    _check_names(list(others))
    run = _found(folder, LOCAL, external_access)
    named = {name: _found(other, name, external_access) for name, other in others.items()}
    try:
        connection = duckdb.connect(config=dict(settings or {}))
        silence(connection)
    except duckdb.Error as error:
        raise UsageError(f"settings: {said(error)}") from error
    for each in (run, *named.values()):
        if each.files is not None:
            connection.register_filesystem(each.files)
    views = None if asked is None else named_views(asked)
    _fill(connection, run, commented=commented, only=views)
    for name, other in named.items():
        connection.execute(f"attach ':memory:' as {identifier(name)}; use {identifier(name)}")
        _fill(connection, other, main=False, commented=False, only=views)
    connection.execute("use memory")
    if not external_access:
        lock(connection, [each.files.root for each in (run, *named.values()) if each.files])
    return connection


@contextmanager
def reading(folder: str | Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Opens a run for a command's own queries, which no comment is asked of.

    Raises:
        UsageError: As ``open_run`` does, and where a query meets a damaged file.
    """
    with open_run(folder, commented=False) as connection:
        try:
            yield connection
        except duckdb.Error as error:
            raise UsageError(
                f"{folder} can't be read: {said(error)}. {_remedy(str(folder))}"
            ) from error


def _check_names(names: Sequence[str]) -> None:
    """Refuses names of other runs that queries could not tell from something else."""
    taken = set(RESERVED)
    for name in names:
        if not _NAME.fullmatch(name) or name.lower() in taken:
            raise UsageError(
                f"{name!r} can't be the name of another run: it is made of letters, digits and _, "
                f"unlike those of all others, and none of {', '.join(sorted(RESERVED))}."
            )
        taken.add(name.lower())


def _found(folder: str | Path, name: str, external_access: bool) -> _Run:
    """A run whose files have a protocol by a name, if they don't have their own."""
    if is_remote(folder):
        remote = RemoteFiles(str(folder))
        manifest = parse_manifest(remote.manifest, f"{str(folder).rstrip('/')}/{MANIFEST}")
        files: ReadOnlyFiles = remote if name == LOCAL else RenamedFiles(remote, name)
        return _Run(str(folder), manifest, files, escape_glob(files.root))
    manifest = load_manifest(folder)
    root = Path(folder).resolve()
    _check_folders(root)
    if external_access:
        return _Run(str(root), manifest, None, f"{escape_glob(str(root))}/")
    local = LocalFiles(root, name)
    return _Run(str(root), manifest, local, local.root)


def write_database(folder: str | Path) -> Path:
    """Writes a database of a run into its folder, for the plain ``duckdb`` command.

    It holds no data but the views over the files beside it, by relative paths: the folder can be
    moved, and ``duckdb`` is to be started in it. What is added to the run, be it methods or tables,
    it shows as well. A published folder will do.

    Returns:
        The file, ``attribeam.duckdb``.

    Raises:
        UsageError: If it is no run folder, a file of it is damaged, or it can't be written to.
    """
    manifest = load_manifest(folder)
    root = Path(folder).resolve()
    _check_folders(root)
    path = root / DATABASE
    try:
        with tempfile.TemporaryDirectory(prefix="attribeam-open-") as elsewhere:
            made = Path(elsewhere) / DATABASE
            with duckdb.connect(str(made)) as connection:
                # Views are bound once when they are made, and then again wherever they are asked.
                connection.execute(f"set file_search_path = {literal(str(root))}")
                _fill(connection, _Run(str(root), manifest, None, ""))
            content = made.read_bytes()
        # Earlier versions left it where they were interrupted.
        (root / f"{DATABASE}.tmp").unlink(missing_ok=True)
    except (OSError, duckdb.IOException) as error:
        raise unwritable(path, error) from error
    replace_file(path, content)
    return path


def parse_manifest(text: bytes, path: str | Path) -> Manifest:
    """Reads a manifest, which lies at the path.

    Raises:
        UsageError: If it is none that this version can read.
    """
    try:
        return parse(text)
    except FormatError as error:
        if error.newer:
            raise UsageError(f"{path} {error}") from error
        raise UsageError(
            f"{path} is not of format {' or '.join(map(str, FORMATS))}: it was written by another "
            "version of attribeam. Read the folder with that version."
        ) from error
    except ShapeError as error:
        raise UsageError(f"{path} is damaged, or no run of attribeam's: {error}.") from error
    except ValueError as error:
        raise _unreadable(path, error) from error


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
    run: _Run,
    *,
    main: bool = True,
    commented: bool = True,
    only: Collection[str] | None = None,
) -> None:
    """Adds the tables of a run, the views over them (or some alone), and perhaps what they mean."""
    double = is_double(run.manifest)
    globs = PUBLISHED_GLOBS if is_published(run.manifest) else GLOBS
    try:
        with run.files.only_first() if run.files else nullcontext():
            for table, pattern in globs.items():
                add_table(connection, table, [f"{run.prefix}{pattern}"], double=double)
            add_manifest(connection, run.manifest, f"{run.prefix}{MANIFEST}")
            if only is not None:
                add_views(connection, main=main, only=only)
                return
            copy_views(connection, main=main, double=double, commented=commented)
            if commented:
                add_comments(connection, views=False)
    except duckdb.Error as error:
        connection.close()
        raise UsageError(
            f"The files of {run.folder} can't be read: {said(error)}. {_remedy(run.folder)}"
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
