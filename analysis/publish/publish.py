"""Publishing a finished run as a data set of the Hugging Face hub.

::

    README.md                                            the card
    reproduce.yaml                                       what `run --config` takes
    report.html                                          if it is asked for
    run.json                                             the manifest, without anything local
    data/instances/train-00000-of-00001.parquet          files of about 128 MB
    data/attributions/saliency/train-00000-of-00001.parquet
    data/curves/saliency/train-00000-of-00001.parquet    and so the other tables
    data/failures/train-00000-of-00001.parquet
    data/wide/train-00000-of-00001.parquet               a row of each instance, for people
    data/methods/train-00000-of-00001.parquet
    data/run/train-00000-of-00001.parquet

The same run and options make the same files, so that an upload that was cut short continues.
"""

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import get_token

from attribeam.analysis.local import local_names
from attribeam.analysis.opening.database import (
    add_manifest,
    add_table,
    add_views,
    escape_glob,
    silence,
)
from attribeam.analysis.opening.manifest import of_pictures
from attribeam.analysis.opening.spill import spill_to_temporary
from attribeam.analysis.publish.card import Card, Config, Said, render
from attribeam.analysis.publish.example import example_of
from attribeam.analysis.publish.hub import check_token, upload
from attribeam.analysis.publish.overlays import write_overlays
from attribeam.analysis.publish.publishable import Publishable, open_publishable
from attribeam.analysis.publish.reproduce import reproduction
from attribeam.analysis.publish.tables import (
    file_records,
    table_path,
    write_query,
    write_tables,
)
from attribeam.analysis.publish.wide import write_wide
from attribeam.schemas import TABLES, UsageError
from attribeam.schemas.layout import (
    CARD,
    MANIFEST,
    PUBLISHED,
    PUBLISHED_GLOBS,
    REPORT,
    REPRODUCE,
    WIDE,
)
from attribeam.schemas.manifest import Manifest, VersionRecord, encode, is_double, is_imported
from attribeam.schemas.tables import EVALUATIONS

_REPO = re.compile(r"[A-Za-z0-9][\w-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]+)*|code|multilingual")
# What the card asks, and what it reads: to add all views would take longer than to write the files.
_VIEWS = ("compared", "compared_curves", "degradation", "faithfulness", "cost_faithfulness")

# The most instances that the report beside a card shows one by one.
_REPORTED = 500
_COUNTS = (
    "select count(*) as instances, count(*) filter (truncated) as truncated,"
    " (select count(*) from failures) as failures from instances"
)
# The reasons that are met most often; a message of each.
_LEFT_OUT = (
    "select stage, method, error, count(*) as times, left(min(message), 120) as message"
    " from failures group by all order by times desc, stage, method, error limit 20"
)


@dataclass(frozen=True)
class Published:
    """What was published.

    Attributes:
        repo_id: The data set's name on the hub.
        folder: Where a dry run wrote it; else None.
        url: Where it is on the hub; None after a dry run.
        version: The tag of its version there, such as v2; None likewise.
        configs: What can be loaded; the first is the default.
        files: Number of files.
        size: Their bytes.
        warnings: What should be known before others use it, a sentence each.
    """

    repo_id: str
    folder: Path | None
    url: str | None
    version: str | None
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
    corpus_license: str | None = None,
    model_license: str | None = None,
    languages: Sequence[str] = (),
    creators: Sequence[str] = (),
    title: str | None = None,
    private: bool = False,
    allow_incomplete: bool = False,
    dry_run: str | Path | None = None,
    endpoint: str | None = None,
    collection: str | None = None,
    report: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> Published:
    """Publishes a finished run as a data set.

    Args:
        folder: The run's folder.
        repo_id: The data set: ``user/name``. It is made if there is none; a former publication is
            replaced, and anything else refused.
        methods: The methods to publish; None for all.
        license: Id of the data set's licence on the hub (``apache-2.0``); None says it is unknown.
        corpus_license: The licence of the texts or pictures, in words; None says it is unknown.
        model_license: That of the model, which is its output's too, likewise.
        languages: Codes of the corpus's languages (``en``).
        creators: Names of those who made it.
        title: A name for people; None takes the repository's.
        private: Make the data set private. One that is public already is refused.
        allow_incomplete: Publish the whole shards of a run that isn't finished or sound.
        dry_run: Write what would be uploaded to this folder, which must not exist or be empty.
        endpoint: Address of the hub; None for the usual one.
        collection: A collection of the hub that it is added to: its slug, or a title, of which one
            is made if there is none.
        report: Put the run's report beside the card.
        tell: Is given warnings, before anything is uploaded.

    Raises:
        UsageError: If an option can't be, the run isn't finished and sound, there is no token, or
            the hub refuses or can't be reached.
    """
    _check_options(repo_id, license, languages)
    said = Said(
        repo_id=repo_id,
        license=license,
        corpus_license=corpus_license,
        model_license=model_license,
        languages=languages,
        creators=creators,
        title=title,
    )
    if dry_run is not None and collection is not None:
        raise UsageError("--collection is of the hub, where a dry run puts nothing: leave it out")
    if dry_run is None:
        check_token(endpoint)
    elif Path(dry_run).exists() and (not Path(dry_run).is_dir() or any(Path(dry_run).iterdir())):
        raise UsageError(f"{dry_run} is not empty: --dry-run takes a new or an empty folder.")
    run = open_publishable(folder, methods, allow_incomplete)
    warnings = _warnings(run, license)
    for warning in warnings:
        tell(warning)
    with _stage(dry_run) as stage:
        card = _write(run, stage, said, link=dry_run is None, report=report)
        finish = partial(_finish, run, stage, card)
        uploaded = (
            upload(stage, repo_id, private, endpoint, finish=finish, collection=collection)
            if dry_run is None
            else None
        )
        found = [path for path in stage.rglob("*") if path.is_file()]
        published = Published(
            repo_id=repo_id,
            folder=None if dry_run is None else Path(dry_run),
            url=None if uploaded is None else uploaded.url,
            version=None if uploaded is None else uploaded.version,
            configs=tuple(config.name for config in card.configs),
            files=len(found),
            size=sum(path.stat().st_size for path in found),
            warnings=tuple(warnings),
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


def _warnings(run: "Publishable", license: str | None) -> list[str]:
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


def _write(run: Publishable, stage: Path, said: Said, *, link: bool, report: bool) -> Card:
    """Writes all files of the data set to a folder; returns what the card says."""
    write_tables(run, stage, link=link)
    found = _write_summaries(run, stage)
    if not of_pictures(run.manifest):
        write_wide(
            [*run.manifest["methods"]],
            *(stage, run.split),
            double=is_double(run.manifest),
            sound=not run.problems,
        )
    run.manifest["files"] = file_records(stage)
    if not is_imported(run.manifest):
        (stage / REPRODUCE).write_text(reproduction(run.manifest), encoding="utf-8")
    if report:
        _write_report(run, stage)
    card = Card(
        **vars(said),
        **found,
        manifest=run.manifest,
        split=run.split,
        configs=_configs(stage),
        example=example_of(stage, run.manifest),
        incomplete=run.incomplete,
        report=REPORT if report else None,
    )
    _finish(run, stage, card, [])
    return card


def _write_report(run: Publishable, stage: Path) -> None:
    """Writes the report of what is published."""
    # plotly takes a while.
    from attribeam.analysis.report.report import page_of  # noqa: PLC0415

    with _connect(stage, run.manifest, only=None) as connection:
        try:
            page = page_of(connection, run.manifest, _REPORTED, run.incomplete or None)
        except duckdb.Error as error:
            raise _unreadable(error) from error
    (stage / REPORT).write_text(page, encoding="utf-8")


def _finish(run: Publishable, stage: Path, card: Card, versions: list[VersionRecord]) -> None:
    """Writes manifest and card, with what versions of the data set after the first one changed."""
    run.manifest.pop("versions", None)
    if versions:
        run.manifest["versions"] = versions
    (stage / MANIFEST).write_bytes(encode(run.manifest))
    (stage / CARD).write_text(render(card), encoding="utf-8")
    _check_local(stage, run.root)


def _write_summaries(run: Publishable, stage: Path) -> dict[str, Any]:
    """Writes what is made of the tables; returns what the card says of them."""
    with _connect(stage, run.manifest) as connection:
        for table in ("methods", "run"):
            write_query(connection, table, table_path(stage, table, None, run.split, 0, 1))
        if of_pictures(run.manifest):
            write_overlays(connection, [*run.manifest["methods"]], stage, run.split)
        metrics = _dictionaries(connection, "from faithfulness")
        (counts,) = _dictionaries(connection, _COUNTS)
        left_out = _dictionaries(connection, _LEFT_OUT)
        # On the same instances as the metrics.
        costs = _dictionaries(
            connection,
            "select method, any_value(seconds_per_instance) as seconds_per_instance"
            " from cost_faithfulness group by method",
        )
    return {
        "metrics": metrics,
        "costs": {row["method"]: row["seconds_per_instance"] for row in costs},
        "counts": {"rows": int(run.manifest["identity"]["corpus"]["rows"]), **counts},
        "left_out": left_out,
    }


def _connect(
    stage: Path, manifest: Manifest, only: Sequence[str] | None = _VIEWS
) -> duckdb.DuckDBPyConnection:
    """The views over what is published, so that the card says nothing of anything else."""
    connection = duckdb.connect()
    silence(connection)
    # Not locked: links lead out of the folder, and nobody else's SQL runs here.
    spill_to_temporary(connection)
    double = is_double(manifest)
    for table, pattern in PUBLISHED_GLOBS.items():
        add_table(connection, table, [f"{escape_glob(str(stage))}/{pattern}"], double=double)
    try:
        add_manifest(connection, manifest)
        add_views(connection, only=only)
    except duckdb.Error as error:
        connection.close()
        raise _unreadable(error) from error
    return connection


def _unreadable(error: duckdb.Error) -> UsageError:
    return UsageError(
        f"the run can't be read ({str(error).splitlines()[0]}): publish it with the version of "
        "attribeam that wrote it."
    )


def _dictionaries(connection: duckdb.DuckDBPyConnection, sql: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = _asked(connection, sql).to_pylist()
    return rows


def _asked(connection: duckdb.DuckDBPyConnection, sql: str) -> pa.Table:
    try:
        return connection.sql(sql).to_arrow_table()
    except duckdb.Error as error:
        raise _unreadable(error) from error


def _configs(stage: Path) -> list[Config]:
    """A config per table with rows; what people look at comes first."""
    configs: list[Config] = []
    for table in (WIDE, "attributions", *TABLES, *EVALUATIONS, "methods", "run"):
        if table in (config.name for config in configs):
            continue
        files = sorted((stage / PUBLISHED / table).rglob("*.parquet"))
        if not files:
            continue
        nested = files[0].parent.name != table
        path = f"{PUBLISHED}/{table}/{'*/' if nested else ''}*.parquet"
        configs.append(_config(table, table, path, files))
    return configs


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


def _check_local(stage: Path, root: Path) -> None:
    """Refuses to publish texts that name this machine's folders or hold the hub's token."""
    names = [str(root), *local_names(), *filter(None, [get_token()])]
    # Parts of a data set's paths may have the same names: run/data/heads is not /data/heads.
    pattern = "|".join(rf"(?<![\w.-]){re.escape(name)}" for name in names)
    for name in (name for name in (CARD, MANIFEST, REPRODUCE) if (stage / name).exists()):
        if re.search(pattern, (stage / name).read_text(encoding="utf-8")):
            raise UsageError(
                f"{name} would name a folder of this machine or its token: look for it in "
                f"{MANIFEST} of the run, in names of columns or labels, and run with others."
            )
