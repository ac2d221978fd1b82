"""Verifying a run: are all files there and whole, and do their rows add up?"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

import duckdb
import pyarrow as pa

from attribeam.analysis.opening.database import (
    add_manifest,
    add_table,
    add_views,
    escape_glob,
    silence,
)
from attribeam.analysis.opening.files import Survey, not_finished, survey
from attribeam.analysis.opening.manifest import rows_of
from attribeam.analysis.opening.reading import content_problems
from attribeam.analysis.opening.runs import load_manifest
from attribeam.analysis.opening.spill import spill_to_temporary
from attribeam.analysis.query.terminal import harmless, print_rows
from attribeam.analysis.verifying.checks import (
    ACCOUNTS,
    ATTRIBUTED,
    CHECKS,
    CURVE_KEYS,
    DENSE,
    DETAIL_KEYS,
    DETAILED,
    GRID,
    ROWS,
    UNACCOUNTED,
    UNDETAILED,
    UNEVALUATED,
)
from attribeam.analysis.verifying.published_files import survey_published
from attribeam.schemas import TABLES, UsageError, table_schema
from attribeam.schemas.layout import GLOBS, MANIFEST, PUBLISHED_GLOBS
from attribeam.schemas.manifest import CorpusIdentity, Manifest, is_double, is_published
from attribeam.schemas.tables import EVALUATIONS

# The view that ``checks.ACCOUNTS`` asks, and what it reads.
_VIEWS = ("compared", "completeness")
# Bytes of a table's files below which it is held in memory while its rows are counted.
_SMALL = 1 << 20
# So is a table of many files, each of which takes a while to be opened, unless it is larger.
_MANY, _LARGE = 256, 1 << 30


class Fact(NamedTuple):
    """What became of the instances under one method; gaps are those of the view ``completeness``.

    ``instances`` = ``attributed`` + ``failed``, and where there is an evaluation ``attributed`` =
    ``evaluated`` + ``not_evaluated``; else both are None. So it is with the other tables that the
    method fills, ``detailed`` and ``not_detailed``.
    """

    method: str
    instances: int
    attributed: int
    failed: int
    evaluated: int | None
    not_evaluated: int | None
    detailed: int | None
    not_detailed: int | None
    median_gap: float | None
    median_relative_gap: float | None


@dataclass(frozen=True)
class Report:
    """What is wrong with a run, and what was counted in it.

    Attributes:
        folder: The run's folder.
        problems: A sentence per problem; empty if the run is sound.
        facts: A row per method.
        summary: Sentences on the files and the corpus.
    """

    folder: Path
    problems: list[str] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)
    summary: list[str] = field(default_factory=list)


def verify(folder: str | Path, *, processes: int = 1) -> Report:
    """Verifies a run.

    Every file that ``run.json`` leads to expect must be there, readable to its last page (their
    checksums are compared) and of the table's columns. Over the shards of which nothing is missing
    or damaged, the rows must then add up: every row of the corpus is an instance or a failure,
    every instance under each method an attribution or a failure, every attribution evaluated (and
    in the method's other tables) or a failure, nothing twice, and every number finite.
    ``attribeam.analysis.verifying.checks`` lists the rules.

    So it is with what was published, whose tables have as many files as their names say; its rows
    are only counted where all of them are sound.

    Files that the run's index has are compared with what was written, byte for byte.

    Memory is bounded: files are read one at a time in batches, and DuckDB counts.

    Args:
        folder: The run's folder.
        processes: How many processes read the files of a run that has many.

    Raises:
        UsageError: If the folder is no run folder.
    """
    root = Path(folder).resolve()
    try:
        manifest = load_manifest(folder)
    except UsageError as error:
        if (root / MANIFEST).is_file():
            return Report(root, [str(error)])
        raise
    published = is_published(manifest)
    found = survey_published(root, manifest) if published else survey(root, manifest, processes)
    report = Report(root, list(found.problems))
    report.summary.append(f"{found.there} of {found.expected} files are there")
    if published and found.problems:
        return report
    if sentence := not_finished(found.there, found.expected):
        report.problems.append(sentence)
    with duckdb.connect() as connection:
        silence(connection)
        try:
            _load(connection, root, manifest, found, report)
            _check_rows(connection, report)
            _account(connection, manifest, found, report)
        except duckdb.Error as error:
            report.problems.extend(_unreadable(root, found, error))
    return report


def print_report(report: Report, out: IO[str], *, width: int | None = None) -> None:
    """Prints a report: the counts, a row per method, the problems, and a line with the verdict."""
    print(report.folder, file=out)
    for line in report.summary:
        print(line, file=out)
    if report.facts:
        rows = [list(fact) for fact in report.facts]
        # A column that no method has anything to say in tells only that there was no evaluation.
        kept = [i for i in range(len(Fact._fields)) if any(row[i] is not None for row in rows)]
        print(file=out)
        print_rows(
            [Fact._fields[i] for i in kept],
            [[row[i] for i in kept] for row in rows],
            out,
            width=width,
        )
    print(file=out)
    for problem in report.problems:
        print(f"- {harmless(problem)}", file=out)
    number = len(report.problems)
    verdict = f"{number} problem{'s' * (number > 1)}" if number else "sound: everything adds up"
    print(verdict, file=out)


def _load(
    connection: duckdb.DuckDBPyConnection,
    root: Path,
    manifest: Manifest,
    found: Survey,
    report: Report,
) -> None:
    double = is_double(manifest)
    # Not locked: links may lead out of the folder, and nobody else's SQL runs here.
    spill_to_temporary(connection)
    for table in TABLES:
        sound = [root / path for path in found.sound[table]]
        add_table(connection, table, [escape_glob(str(path)) for path in sound], double=double)
        size = sum(path.stat().st_size for path in sound)
        if sound and (size < _SMALL or (len(sound) > _MANY and size < _LARGE)):
            # Once for all rules, each of which else has DuckDB open and bind the files again.
            connection.execute(f"create temp table {table} as from {table}")
    for table in EVALUATIONS:
        globs = PUBLISHED_GLOBS if is_published(manifest) else GLOBS
        schema = table_schema(table, double=double)
        found_files = _evaluations(root, globs[table], schema, report)
        paths = [escape_glob(str(path)) for path in found_files]
        add_table(connection, table, paths, double=double)
    add_manifest(connection, manifest)
    add_views(connection, only=_VIEWS)
    connection.execute(CURVE_KEYS)
    connection.execute(DETAIL_KEYS)
    connection.execute(DETAILED)
    connection.execute(ATTRIBUTED)
    evaluation: Mapping[str, Any] = manifest["evaluation"] or {}
    connection.execute(
        GRID,
        [
            [evaluation[key] for key in ("protocol", "text_protocol") if evaluation.get(key)],
            evaluation.get("orders", []),
            evaluation.get("operations", []),
            sorted({0.0, 1.0, *evaluation.get("fractions", [])}),
            evaluation.get("each") or False,
        ],
    )


def _unreadable(root: Path, found: Survey, error: duckdb.Error) -> Iterator[str]:
    """Yields the files that Arrow can read and DuckDB, which is stricter, can't."""
    named = False
    with duckdb.connect() as connection:
        silence(connection)
        for path in (path for table in TABLES for path in found.sound[table]):
            try:
                given = [escape_glob(str(root / path))]
                reader = connection.execute("from read_parquet(?)", given)
                while reader.fetchmany(10_000):
                    pass
            except duckdb.Error as own:
                named = True
                reason = str(own).splitlines()[0]
                yield f"{path}: damaged ({reason}). Delete it and run the same command again"
    if not named:
        yield f"the rows can't be counted: {str(error).splitlines()[0]}"


def _evaluations(root: Path, pattern: str, schema: pa.Schema, report: Report) -> Iterator[Path]:
    """Yields the files of a table of ``EVALUATIONS`` that are sound; reports the others."""
    for path in sorted(root.glob(pattern)):
        try:
            problems = list(content_problems(path, None, schema))
        except (pa.ArrowException, OSError) as error:
            problems = [f"damaged ({str(error).splitlines()[0]}). Delete it and make it again"]
        relative = path.relative_to(root).as_posix()
        report.problems.extend(f"{relative}: {problem}" for problem in problems)
        if not problems:
            yield path


def _check_rows(connection: duckdb.DuckDBPyConnection, report: Report) -> None:
    for check in CHECKS:
        count, example = _one(connection, check.sql)
        if count:
            report.problems.append(check.problem.format(count=count, example=example))


def _account(
    connection: duckdb.DuckDBPyConnection,
    manifest: Manifest,
    found: Survey,
    report: Report,
) -> None:
    num_shards = manifest["identity"]["settings"]["num_shards"]
    _account_corpus(connection, manifest["identity"]["corpus"], found.shards == num_shards, report)
    if found.shards < num_shards:
        report.summary.append(
            f"counted are the {found.shards} of {num_shards} shards that are whole"
        )
    for row in connection.execute(ACCOUNTS).fetchall():
        fact = Fact(*row)
        tables = set(manifest["methods"][fact.method]["tables"])
        if "curves" not in tables:
            fact = fact._replace(evaluated=None, not_evaluated=None)
        # Without scores, what is attributed is what is in the method's tables.
        if not tables & set(DENSE) or "attributions" not in tables:
            fact = fact._replace(detailed=None, not_detailed=None)
        report.facts.append(fact)
        report.problems.extend(_lost(connection, fact))


def _lost(connection: duckdb.DuckDBPyConnection, fact: Fact) -> Iterator[str]:
    """Yields where the numbers of a method don't add up."""
    if fact.instances != fact.attributed + fact.failed:
        count, example = _one(connection, UNACCOUNTED, method=fact.method)
        yield (
            f"{fact.method}: {fact.instances} instances, but {fact.attributed} attributed and "
            f"{fact.failed} failed: {count} are missing, such as {example}"
        )
    for what, done, failed, missing in (
        ("curves", fact.evaluated, fact.not_evaluated, UNEVALUATED),
        ("further rows", fact.detailed, fact.not_detailed, UNDETAILED),
    ):
        if done is not None and failed is not None and fact.attributed != done + failed:
            count, example = _one(connection, missing, method=fact.method)
            yield (
                f"{fact.method}: {fact.attributed} attributed, but {done} have {what} "
                f"and {failed} failed: {count} are missing, such as {example}"
            )


def _account_corpus(
    connection: duckdb.DuckDBPyConnection, corpus: CorpusIdentity, whole: bool, report: Report
) -> None:
    instances, attributed, failed, lost = _one(connection, ROWS)
    rows = corpus["rows"] if corpus["limit"] is None else min(corpus["rows"], corpus["limit"])
    found = f"{instances} instances"
    if attributed != instances or lost:
        found += f" of {attributed} rows"
    windows = f", and so have {lost} windows of the others" if lost else ""
    report.summary.append(f"{rows_of(corpus)} of the corpus: {found}, {failed} failed{windows}")
    if whole and rows != attributed + failed:
        report.problems.append(f"corpus: {rows} rows, but {found} and {failed} failed")


def _one(connection: duckdb.DuckDBPyConnection, sql: str, **parameters: object) -> tuple[Any, ...]:
    row = connection.execute(sql, parameters or None).fetchone()
    assert row is not None
    return row
