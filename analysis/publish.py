"""Publishing a finished run as a data set of the Hugging Face hub.

::

    README.md                                            the card (``analysis.card``)
    run.json                                             the manifest, without anything local
    data/instances/train-00000-of-00100.parquet
    data/attributions/saliency/train-00000-of-00100.parquet
    data/curves/saliency/train-00000-of-00100.parquet    and so the other tables
    data/failures/train-00000-of-00001.parquet
    data/methods/train-00000-of-00001.parquet
    data/run/train-00000-of-00001.parquet

The same run and options make the same files, so that an upload that was cut short continues.
"""

import json
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from huggingface_hub import get_token

from analysis.card import Card, Config, render
from analysis.database import add_manifest, add_table, add_views, escape_glob, literal
from analysis.files import survey
from analysis.hub import CARD, check_token, upload
from analysis.runs import load_manifest
from analysis.verify import verify
from schemas import TABLES, UsageError
from schemas.layout import (
    FAILURES,
    GLOBS,
    MANIFEST,
    PUBLISHED,
    PUBLISHED_GLOBS,
    parse_unit_path,
)
from schemas.tables import EVALUATIONS

# The viewer reads a row group at a time; files of a unit are joined beyond this many, since the hub
# holds 100,000 and is slow with many.
_MOST_GROUP_BYTES = 100 << 20
_GROUP_BYTES = 32 << 20
_MOST_FILES = 100

_REPO = re.compile(r"[A-Za-z0-9][\w-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]+)*|code|multilingual")
_SPLIT = re.compile(r"\w+(\.\w+)*", re.ASCII)
_METHOD = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?(:[\w.-]+)?", re.ASCII)
# Paths in messages of errors: those from the root with two parts, from home, of Windows, and URLs.
_PATHS = re.compile(
    r"\b(?!https?:)[a-z][a-z0-9+]*://[^\s'\"]+"
    r"|(?<![\w/.:])~?(?:/[^\s/'\":,;()]+){2,}/?"
    r"|(?<![\w/.])~/[^\s'\":,;()]*"
    r"|\b[A-Za-z]:\\[^\s'\"]+"
    r"|\\\\[\w.-]+\\[^\s'\"]+"
)
_LOCAL = "<local>"
# What a call of a run is published with: hardware and versions explain `seconds`.
_EXECUTION = ("methods", "device", "device_name", "token_budget", "workers", "processors", "runner")


@dataclass(frozen=True)
class Published:
    """What was published.

    Attributes:
        repo_id: The data set's name on the hub.
        folder: Where a dry run wrote it; else None.
        url: Where it is on the hub; None after a dry run.
        configs: What can be loaded; the first is the default.
        files: Number of files.
        size: Their bytes.
        warnings: What should be known before others use it, a sentence each.
    """

    repo_id: str
    folder: Path | None
    url: str | None
    configs: tuple[str, ...]
    files: int
    size: int
    warnings: tuple[str, ...]


def publish(
    folder: str | Path,
    repo_id: str,
    *,
    methods: Sequence[str] | None = None,
    license: str | None = None,
    languages: Sequence[str] = (),
    title: str | None = None,
    private: bool = False,
    allow_incomplete: bool = False,
    dry_run: str | Path | None = None,
    endpoint: str | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Published:
    """Publishes a finished run as a data set.

    Args:
        folder: The run's folder.
        repo_id: The data set: ``user/name``. It is made if there is none; a former publication is
            replaced, and anything else refused.
        methods: The methods to publish; None for all.
        license: Id of the data set's licence on the hub (``apache-2.0``); None says it is unknown.
        languages: Codes of the corpus's languages (``en``).
        title: A name for people; None takes the repository's.
        private: Make the data set private. One that is public already is refused.
        allow_incomplete: Publish the whole shards of a run that isn't finished or sound.
        dry_run: Write what would be uploaded to this folder, which must not exist or be empty.
        endpoint: Address of the hub; None for the usual one.
        tell: Is given warnings, before anything is uploaded.

    Raises:
        UsageError: If an option can't be, the run isn't finished and sound, there is no token, or
            the hub refuses or can't be reached.
    """
    _check_options(repo_id, license, languages)
    if dry_run is None:
        check_token(endpoint)
    elif Path(dry_run).exists() and (not Path(dry_run).is_dir() or any(Path(dry_run).iterdir())):
        raise UsageError(f"{dry_run} is not empty: --dry-run takes a new or an empty folder.")
    run = _open(folder, methods, allow_incomplete)
    warnings = _warnings(run, license)
    for warning in warnings:
        tell(warning)
    with _stage(dry_run) as stage:
        card = _write(run, stage, repo_id, license, languages, title, link=dry_run is None)
        found = [path for path in stage.rglob("*") if path.is_file()]
        published = Published(
            repo_id,
            None if dry_run is None else Path(dry_run),
            None if dry_run is not None else upload(stage, repo_id, private, endpoint),
            tuple(config.name for config in card.configs),
            len(found),
            sum(path.stat().st_size for path in found),
            tuple(warnings),
        )
    return published


# What is asked for ----------------------------------------------------------------------------


def _check_options(repo_id: str, license: str | None, languages: Sequence[str]) -> None:
    sound = _REPO.fullmatch(repo_id) and not re.search(r"--|\.\.|\.git$|[-.]$", repo_id)
    if not sound or len(repo_id) > 96:
        raise UsageError(
            f"{repo_id!r} can't be the name of a data set: it is user/name, of letters, digits, "
            "-, _ and ., 96 at most."
        )
    if license is not None and not _LICENSE.fullmatch(license):
        raise UsageError(
            f"--license {license!r} is no licence id of the hub, such as apache-2.0, cc-by-4.0 or "
            "other (https://huggingface.co/docs/hub/repositories-licenses lists them)."
        )
    for language in languages:
        if not _LANGUAGE.fullmatch(language):
            raise UsageError(f"--language {language!r} is no language code, such as en or pt-BR.")


def _warnings(run: "_Run", license: str | None) -> list[str]:
    warnings = []
    if license is None:
        warnings.append(
            "the licence is unknown, and the card says so: publish the texts of a corpus only if "
            "its licence and the consent of those who wrote it allow that, and name the licence "
            "with --license."
        )
    if run.problems:
        warnings.append(f"the run is incomplete, and the card says so: {run.problems[0]}")
    return warnings


# The run --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Run:
    """What of a run is published.

    ``files`` has the files by table and method; ``manifest`` is without anything local, ``split``
    the name of the only split, and ``problems`` what is wrong with the run, if that was allowed.
    """

    root: Path
    manifest: dict[str, Any]
    split: str
    files: dict[tuple[str, str | None], list[Path]]
    problems: list[str]


def _open(folder: str | Path, methods: Sequence[str] | None, allow_incomplete: bool) -> _Run:
    manifest = load_manifest(folder)
    chosen = _chosen(manifest, methods)
    report = verify(folder)
    if report.problems and not allow_incomplete:
        others = f" ({len(report.problems) - 1} more)" if len(report.problems) > 1 else ""
        raise UsageError(
            f"{folder} is not finished and sound: {report.problems[0].rstrip('.')}{others}. "
            f"`attribeam verify {folder}` says it all, and --allow-incomplete publishes the shards "
            "that are whole."
        )
    if report.problems:
        sound = survey(report.folder, manifest).sound
    else:
        sound = {table: _committed(report.folder, table) for table in TABLES}
    files = _files(report.folder, sound, chosen)
    if not files.get(("instances", None)):
        raise UsageError(f"{folder} has no instances to publish: run `attribeam run` first.")
    split = _split(manifest, files["instances", None])
    clean = published_manifest(manifest, chosen)
    return _Run(report.folder, clean, split, files, report.problems)


def _chosen(manifest: Mapping[str, Any], methods: Sequence[str] | None) -> list[str]:
    there = list(manifest["methods"])
    chosen = there if methods is None else [name for name in there if name in methods]
    unknown = [name for name in methods or () if name not in there]
    if unknown or not chosen:
        raise UsageError(
            f"--methods: the run has no {', '.join(unknown) or 'method'}; it has {', '.join(there)}"
        )
    for name in chosen:
        if not _METHOD.fullmatch(name):
            raise UsageError(f"a method called {name!r} can't be published: its name is no name.")
    return chosen


def _committed(root: Path, table: str) -> list[str]:
    return [path.relative_to(root).as_posix() for path in root.glob(GLOBS[table])]


def _files(
    root: Path, sound: Mapping[str, Sequence[str]], methods: Sequence[str]
) -> dict[tuple[str, str | None], list[Path]]:
    """Files with rows, by table and method, in the order of tables, methods and shards."""
    files: dict[tuple[str, str | None], list[Path]] = {("instances", None): []}
    for table in TABLES:
        for path in sorted(sound[table]):
            parsed = parse_unit_path(path)
            method = None if parsed is None else parsed[0].method
            if method is None or method in methods:
                files.setdefault((table, method), []).append(root / path)
    for table in EVALUATIONS:
        for file in sorted(root.glob(GLOBS[table])):
            files.setdefault((table, None), []).append(file)
    order = {name: number for number, name in enumerate([*TABLES, *EVALUATIONS, *methods])}
    with_rows = {key: [file for file in found if _rows(file)] for key, found in files.items()}
    kept = sorted(with_rows, key=lambda key: (order[key[0]], order.get(key[1] or "", -1)))
    return {key: with_rows[key] for key in kept if with_rows[key]}


def _rows(file: Path) -> int:
    try:
        return int(pq.read_metadata(file).num_rows)
    except (pa.ArrowException, OSError):
        return 0  # A damaged evaluation; verify has said so.


def _split(manifest: Mapping[str, Any], instances: Iterable[Path]) -> str:
    """The corpus's split, if all instances are of one and it can be a name of a split."""
    found = {manifest["identity"]["corpus"].get("split")}
    for file in instances:
        found.update(pc.unique(pq.read_table(file, columns=["split"])["split"]).to_pylist())
    found.discard(None)
    name = str(found.pop()) if len(found) == 1 else ""
    # "all" is how datasets asks for every split.
    return name if _SPLIT.fullmatch(name) and name != "all" else "train"


def published_manifest(manifest: Mapping[str, Any], methods: Sequence[str]) -> dict[str, Any]:
    """Returns what of a manifest is published: all that numbers depend on, and nothing local.

    Models and corpora keep the last part of their paths, calls their hardware, versions and day.
    """
    identity = dict(manifest["identity"])
    for section in ("model", "corpus"):
        source = identity[section]["source"]
        identity[section] = {**identity[section], "source": _published_name(source)}
    identity["settings"] = _cleaned(identity["settings"])
    return {
        "format": manifest["format"],
        "layout": PUBLISHED,
        "identity": identity,
        "methods": {
            name: {**record, "params": _cleaned(record["params"])}
            for name, record in manifest["methods"].items()
            if name in methods
        },
        "evaluation": _cleaned(manifest["evaluation"]),
        "executions": [_execution(call, methods) for call in manifest["executions"]],
    }


def _execution(call: Mapping[str, Any], methods: Sequence[str]) -> dict[str, Any]:
    kept = {key: _cleaned(call[key]) for key in _EXECUTION if key in call}
    if "methods" in kept:
        kept["methods"] = [name for name in kept["methods"] if name in methods]
    if "started" in call:
        kept["started"] = str(call["started"])[: len("2026-01-31")]
    if "versions" in call:
        kept["versions"] = dict(call["versions"])
    return kept


def _published_name(source: str) -> str:
    """A source's name: a hub id, or the last part of a path."""
    is_id = _HUB_ID.fullmatch(source) and not source.startswith(".")
    return source if is_id else re.split(r"[/\\]", source.rstrip("/\\"))[-1]


def _cleaned(value: Any) -> Any:
    """A value of JSON without the paths in its texts."""
    match value:
        case str():
            return without_paths(value)
        case Mapping():
            return {key: _cleaned(entry) for key, entry in value.items()}
        case list() | tuple():
            return [_cleaned(entry) for entry in value]
        case _:
            return value


def without_paths(text: str) -> str:
    """Returns a text with ``<local>`` for what tells of the machine that it was written on."""
    for name in _local_names():
        text = text.replace(name, _LOCAL)
    text = _PATHS.sub(_LOCAL, text)
    host = socket.gethostname()
    # A short name may be anything.
    return re.sub(rf"\b{re.escape(host)}\b", _LOCAL, text) if len(host) > 4 else text


def _local_names() -> list[str]:
    """Folders of this machine, longest first; they may have spaces, which patterns can't know."""
    names = {str(Path.cwd()), os.path.expanduser("~"), tempfile.gettempdir()}  # noqa: PTH111
    return sorted((name for name in names if name.count("/") > 1), key=len, reverse=True)


# Files ----------------------------------------------------------------------------------------


@contextmanager
def _stage(dry_run: str | Path | None) -> Iterator[Path]:
    """Yields a new folder, which becomes that of a dry run if nothing goes wrong."""
    if dry_run is None:
        with tempfile.TemporaryDirectory(prefix="attribeam-publish-") as name:
            yield Path(name)
        return
    target = Path(dry_run).absolute()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise UsageError(f"{dry_run} can't be written: {error.strerror}.") from error
    try:
        yield stage
        stage.chmod(0o755)
        if target.exists():
            target.rmdir()
        stage.rename(target)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _write(
    run: _Run,
    stage: Path,
    repo_id: str,
    license: str | None,
    languages: Sequence[str],
    title: str | None,
    *,
    link: bool,
) -> Card:
    """Writes all files of the data set to a folder; returns what the card says."""
    _write_data(run, stage, link=link)
    (stage / MANIFEST).write_text(_json(run.manifest), encoding="utf-8")
    with _connect(stage, run.manifest) as connection:
        for table in ("methods", "run"):
            _write_small(connection, table, _target(stage, table, None, run.split, 0, 1))
        metrics = _dictionaries(connection, "from faithfulness")
        costs = _dictionaries(connection, "select method, seconds_per_instance from cost")
    card = Card(
        repo_id=repo_id,
        manifest=run.manifest,
        split=run.split,
        configs=_configs(stage, run),
        metrics=metrics,
        costs={row["method"]: row["seconds_per_instance"] for row in costs},
        license=license,
        languages=languages,
        title=title,
        incomplete=bool(run.problems),
    )
    (stage / CARD).write_text(render(card), encoding="utf-8")
    _check_local(stage, run.root)
    return card


def _write_data(run: _Run, stage: Path, *, link: bool) -> None:
    """Writes the tables; with ``link`` for the time being, while the run stays where it is."""
    try:
        for (table, method), files in run.files.items():
            if table in (FAILURES, *EVALUATIONS):
                _write_cleaned(run, files, stage, table)
            else:
                _write_unit(files, stage, table, method, run.split, link=link)
    except (pa.ArrowException, OSError) as error:
        raise UsageError(
            f"{run.root} can't be published: {str(error).splitlines()[0]}. Is there room on the "
            f"disk, and does `attribeam verify {run.root}` find all files sound?"
        ) from error


def _target(stage: Path, table: str, method: str | None, split: str, part: int, of: int) -> Path:
    folder = stage / PUBLISHED / table / (method or "")
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{split}-{part:05d}-of-{of:05d}.parquet"


def _write_unit(
    files: Sequence[Path], stage: Path, table: str, method: str | None, split: str, *, link: bool
) -> None:
    """Writes the shards of a table and method: as they are, where that suits the viewer."""
    size = -(-len(files) // _MOST_FILES)
    parts = [files[start : start + size] for start in range(0, len(files), size)]
    for number, part in enumerate(parts):
        target = _target(stage, table, method, split, number, len(parts))
        if len(part) == 1 and _suits(part[0]):
            _place(part[0], target, link=link)
        else:
            rewrite(part, target)


def _suits(file: Path) -> bool:
    """Whether a file can be published as it is."""
    footer = pq.read_metadata(file)
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    metadata = (footer.metadata or {}).items()
    # The schema in there is encoded, and has no texts but ours.
    texts = [value.decode("utf-8", "replace") for key, value in metadata if key != b"ARROW:schema"]
    return all(group.total_byte_size <= _MOST_GROUP_BYTES for group in groups) and all(
        without_paths(text) == text for text in texts
    )


def _place(file: Path, target: Path, *, link: bool) -> None:
    """Puts a file in its place, without a copy if it can be."""
    try:
        if link:
            target.symlink_to(file)
        else:
            target.hardlink_to(file)
    except OSError:  # Another disk, or one that has no links.
        shutil.copyfile(file, target)


def rewrite(files: Sequence[Path], target: Path) -> None:
    """Writes the rows of some files, one after another, in row groups that suit the viewer.

    Args:
        files: Parquet files with the same columns.
        target: The file to write, encoded as the pipeline does.
    """
    footers = [pq.read_metadata(file) for file in files]
    rows = sum(footer.num_rows for footer in footers)
    size = sum(f.row_group(n).total_byte_size for f in footers for n in range(f.num_row_groups))
    most = max(1, min(rows, rows * _GROUP_BYTES // max(size, 1)))
    schema = pq.read_schema(files[0])
    metadata = {
        key: without_paths(value.decode("utf-8", "replace"))
        for key, value in (schema.metadata or {}).items()
    }
    schema = schema.with_metadata(metadata)
    with pq.ParquetWriter(target, schema, **_encodings(schema)) as writer:
        held: list[pa.RecordBatch] = []
        for batch in _batches(files, most):
            # Batches are of so many rows at most: what is held is never more than two groups.
            held.append(batch)
            if sum(map(len, held)) >= most:
                held = [*_write_group(writer, schema, held, most)]
        if held:
            _write_group(writer, schema, held, most)


def _batches(files: Sequence[Path], most: int) -> Iterator[pa.RecordBatch]:
    for file in files:
        with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
            yield from parquet.iter_batches(min(most, 8192))


def _write_group(
    writer: pq.ParquetWriter, schema: pa.Schema, held: Sequence[pa.RecordBatch], most: int
) -> list[pa.RecordBatch]:
    """Writes a row group; returns what is too much for it."""
    table = pa.Table.from_batches(held).unify_dictionaries()
    table = table.replace_schema_metadata(schema.metadata)
    writer.write_table(table.slice(0, most), row_group_size=most)
    return list(table.slice(most).to_batches())


def _encodings(schema: pa.Schema) -> dict[str, Any]:
    """How the pipeline writes: floats split by bytes, which don't repeat; checksums of pages."""
    split: list[str] = []
    plain: list[str] = []
    for field in schema:
        is_list = pa.types.is_list(field.type)
        kind = field.type.value_type if is_list else field.type
        path = f"{field.name}.list.element" if is_list else field.name
        (split if pa.types.is_floating(kind) else plain).append(path)
    return {
        "compression": "zstd",
        "use_dictionary": plain,
        "column_encoding": dict.fromkeys(split, "BYTE_STREAM_SPLIT"),
        "write_page_checksum": True,
        "write_page_index": True,
    }


def _write_cleaned(run: _Run, files: Sequence[Path], stage: Path, table_name: str) -> None:
    """Writes a small table whose texts may name local files, of the chosen methods."""
    table = pa.concat_tables(pq.ParquetFile(file).read() for file in files).unify_dictionaries()
    table = table.replace_schema_metadata(None)
    chosen = [None, *run.manifest["methods"]]
    table = table.filter(
        pa.array([method in chosen for method in table["method"].to_pylist()], pa.bool_())
    )
    for name, clean in (("message", without_paths), ("corpus", _published_name)):
        if name in table.column_names:
            kind = table.schema.field(name)
            texts = [None if text is None else clean(text) for text in table[name].to_pylist()]
            column = pa.array(texts, pa.string()).cast(kind.type)
            table = table.set_column(table.column_names.index(name), kind, column)
    if len(table):
        target = _target(stage, table_name, None, run.split, 0, 1)
        pq.write_table(table, target, **_encodings(table.schema))


def _write_small(connection: duckdb.DuckDBPyConnection, table: str, target: Path) -> None:
    """Writes a table of the manifest; JSON is text to those who don't know it."""
    described = connection.execute(f"select column_name, column_type from (describe {table})")
    columns = ", ".join(
        f'"{name}"::varchar as "{name}"' if kind == "JSON" else f'"{name}"'
        for name, kind in described.fetchall()
    )
    rows = _asked(connection, f"select {columns} from {table}")
    pq.write_table(rows.replace_schema_metadata(None), target, **_encodings(rows.schema))


def _connect(stage: Path, manifest: Mapping[str, Any]) -> duckdb.DuckDBPyConnection:
    """The views over what is published, so that the card says nothing of anything else."""
    connection = duckdb.connect()
    # Not locked: links lead out of the folder, and nobody else's SQL runs here.
    spill = Path(tempfile.gettempdir()) / f"attribeam-spill-{os.getpid()}"
    connection.execute(f"set temp_directory = {literal(str(spill))}")
    double = manifest["identity"]["settings"]["dtype"] == "float64"
    for table, pattern in PUBLISHED_GLOBS.items():
        found = any(stage.glob(pattern))
        patterns = [f"{escape_glob(str(stage))}/{pattern}"] if found else []
        add_table(connection, table, patterns, double=double)
    try:
        add_manifest(connection, manifest)
        add_views(connection)
    except duckdb.Error as error:
        connection.close()
        raise UsageError(
            f"the run can't be read ({str(error).splitlines()[0]}): publish it with the version of "
            "attribeam that wrote it."
        ) from error
    return connection


def _dictionaries(connection: duckdb.DuckDBPyConnection, sql: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = _asked(connection, sql).to_pylist()
    return rows


def _asked(connection: duckdb.DuckDBPyConnection, sql: str) -> pa.Table:
    return connection.sql(sql).to_arrow_table()


def _configs(stage: Path, run: _Run) -> list[Config]:
    """A config per table with rows and one per method with scores; the scores come first."""
    configs = []
    for table in (*TABLES, *EVALUATIONS, "methods", "run"):
        files = sorted((stage / PUBLISHED / table).rglob("*.parquet"))
        if not files:
            continue
        nested = files[0].parent.name != table
        path = f"{PUBLISHED}/{table}/{'*/' if nested else ''}*.parquet"
        configs.append(_config(table, table, path, files))
    for method in run.manifest["methods"]:
        files = sorted((stage / PUBLISHED / "attributions" / method).glob("*.parquet"))
        if files:
            path = f"{PUBLISHED}/attributions/{method}/*.parquet"
            configs.append(_config(f"attributions--{method}", "attributions", path, files))
    return sorted(configs, key=lambda config: config.name != "attributions")


def _config(name: str, table: str, path: str, files: Sequence[Path]) -> Config:
    footers = [pq.read_metadata(file) for file in files]
    memory = sum(f.row_group(n).total_byte_size for f in footers for n in range(f.num_row_groups))
    return Config(
        name,
        table,
        path,
        pq.read_schema(files[0]),
        sum(footer.num_rows for footer in footers),
        sum(file.stat().st_size for file in files),
        memory,
    )


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _check_local(stage: Path, root: Path) -> None:
    """Refuses to publish texts that name this machine's folders or hold the hub's token."""
    names = [str(root), *_local_names(), *filter(None, [get_token()])]
    # Parts of a data set's paths may have the same names: run/data/heads is not /data/heads.
    pattern = "|".join(rf"(?<![\w.-]){re.escape(name)}" for name in names)
    for name in (CARD, MANIFEST):
        if re.search(pattern, (stage / name).read_text(encoding="utf-8")):
            raise UsageError(
                f"{name} would name a folder of this machine or its token: look for it in "
                f"{MANIFEST} of the run, in names of columns or labels, and run with others."
            )
