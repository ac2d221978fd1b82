"""``attribeam import``: scores that others computed become a run's folder, without a model.

What needs no model works on it as on any run: queries, the report, comparisons of methods, and
publishing. Curves need the model that the scores are of (``attribeam run --scores``).
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b, sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from attribeam.analysis import load_manifest
from attribeam.pipeline.corpus.foreign import (
    Foreign,
    FormError,
    Found,
    Key,
    Record,
    check_names,
    is_run,
    key_of,
    read_foreign,
    records_of,
)
from attribeam.pipeline.corpus.staging import shard_size_for
from attribeam.pipeline.importing.instances import Described, InstanceError, describe
from attribeam.pipeline.running.identity import described_method
from attribeam.pipeline.running.indexing import index_run
from attribeam.pipeline.running.manifest import write_manifest
from attribeam.pipeline.running.tables import failures_table, with_metadata
from attribeam.pipeline.store.files import join, write_parquet
from attribeam.schemas import Failure, Unit, UsageError, failures_path, table_schema, unit_path
from attribeam.schemas.errors import one_line
from attribeam.schemas.layout import FORMAT, MANIFEST
from attribeam.schemas.manifest import IMPORTED_TASK, Manifest
from attribeam.transforms import choose
from attribeam.transforms.inputs.given_scores import Given, UnalignedError

# What a record has of an attribution beside its scores, where it is of a run.
_OF_RUN = ("layer", "delta", "scale", "bias", "seconds", "pixels", "unattributed", "steps", "error")
_LIBRARIES = ("attribeam", "pyarrow", "numpy")


@dataclass(frozen=True)
class ImportOptions:
    """What is imported, and what is said of it.

    Attributes:
        output: A new folder, or one that the same call has made.
        scores: Files by the names that their scores are to have as methods.
        corpus: A file of records that say of each instance what it is made of; None without one.
        labels: Names of the classes; None for those that files name, in the order of their names.
        model: What the model was called, for people.
        pad: The vocabulary id that is padding where it ends a row.
    """

    output: str
    scores: Mapping[str, str]
    corpus: str | None = None
    labels: Sequence[str] | None = None
    model: str | None = None
    pad: int | None = None


class Imported(NamedTuple):
    """What was imported: numbers of instances, of failures, and whether it was there already."""

    instances: int
    failures: int
    there: bool


@dataclass
class _Row:
    """All that files say of an instance: records of the corpus, and scores by method."""

    name: str
    described: list[Found] = field(default_factory=list)
    scores: dict[str, list[Found]] = field(default_factory=dict)


@dataclass
class _Tables:
    """What becomes of rows: those of each table, and what failed."""

    instances: list[Described] = field(default_factory=list)
    attributions: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    failures: dict[Unit, list[Failure]] = field(default_factory=dict)


def import_scores(options: ImportOptions, tell: Callable[[str], None]) -> Imported:
    """Imports scores into a folder, which is there whole or not at all.

    Args:
        options: What is imported.
        tell: Is given sentences on what was guessed and left out.

    Raises:
        UsageError: If a file can't be read, nothing in them says what scores are of, or the folder
            has something else.
    """
    if not options.scores:
        raise UsageError("--scores: give at least one NAME=FILE")
    if "://" in options.output:
        raise UsageError(f"--output {options.output}: name a folder of this machine")
    check_names(options.scores)
    try:
        labels = _labels(options, tell)
        foreign = [read_foreign(n, p, labels, whole=True) for n, p in options.scores.items()]
        corpus = _corpus(options)
        rows = [*_rows(foreign, corpus, options, tell).values()]
        _check_padding(foreign, options, tell)
        found = [_tables([row], foreign, labels, options.pad) for row in rows]
    except FormError as error:
        raise UsageError(f"--scores: {error}") from error
    if not any(one.instances for one in found):
        (reason,) = found[0].failures[Unit("instances")]
        raise UsageError(f"nothing can be imported: {reason.instance_id}: {reason.message}")
    manifest = _manifest(options, foreign, corpus, labels, found)
    failures = sum(len(each) for one in found for each in one.failures.values())
    done = Imported(sum(len(one.instances) for one in found), failures, False)
    if _is_there(options.output, manifest):
        return done._replace(there=True)
    _write(options.output, manifest, found)
    return done


# What files say --------------------------------------------------------------------------------


def _labels(options: ImportOptions, tell: Callable[[str], None]) -> list[str] | None:
    """Names of the classes: as given, as runs have them, or as files name them.

    Raises:
        UsageError: If runs have different ones.
    """
    if options.labels:
        return list(options.labels)
    places = [place.partition("#")[0] for place in options.scores.values()]
    runs = [place for place in places if is_run(place) and Path(place).exists()]
    of_runs = [load_manifest(run)["identity"]["model"]["labels"] for run in runs]
    if any(labels != of_runs[0] for labels in of_runs):
        raise UsageError(f"--labels: the classes of {runs[0]} are not those of all runs: name them")
    if of_runs and of_runs[0]:
        return of_runs[0]
    files = [place for place in places if not is_run(place)]
    names: set[str] = set()
    for place in [*files, *([options.corpus] if options.corpus else [])]:
        for record in _read(place):
            values = (record.get(name) for name in ("target", "label", "prediction"))
            of_eraser = record.get("classification") if "annotation_id" in record else None
            names |= {value for value in (*values, of_eraser) if isinstance(value, str)}
    names = {name for name in names if not name.lstrip("-").isdigit()}
    if not names:
        return None
    found = sorted(names)
    numbered = ", ".join(f"{number} {name!r}" for number, name in enumerate(found))
    tell(f"classes in the order of their names: {numbered} (--labels)")
    return found


def _read(place: str) -> list[Record]:
    """The records of a file.

    Raises:
        UsageError: If it can't be read.
    """
    try:
        return [*records_of(place, Path(place).read_bytes())]
    except (FormError, OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"{place} can't be read ({said})") from error


def _corpus(options: ImportOptions) -> list[Found]:
    """What ``--corpus`` says of each instance; empty without one."""
    if options.corpus is None:
        return []
    found = []
    for number, record in enumerate(_read(options.corpus)):
        keyed = {"row": number, **record}
        named = record.get("words") or record.get("tokens")
        unit = "word" if record.get("words") else "token"
        given = Given((), unit=unit, tokens=named, input_ids=record.get("input_ids"))  # type: ignore[arg-type]
        found.append(Found(key_of(number, keyed), given, keyed))
    return found


def _rows(
    foreign: Sequence[Foreign],
    corpus: Sequence[Found],
    options: ImportOptions,
    tell: Callable[[str], None],
) -> dict[str, _Row]:
    """What all files say, by instance: those of the corpus, or of all files together.

    Raises:
        UsageError: If nothing says which scores of two files belong together.
    """
    rows: dict[str, _Row] = {}
    ids: dict[Key, str] = {}
    for one in corpus:
        name = _name(one.key)
        if name in rows:
            raise UsageError(f"--corpus {options.corpus}: two rows have the id {name!r}")
        rows[name] = _Row(name, [one])
        ids |= dict.fromkeys(_keys(one), name)
    for each in foreign:
        left = []
        for one in each.found:
            known = next((ids[key] for key in _keys(one) if key in ids), None)
            if known is None and corpus:
                left.append(one)
                continue
            name = _name(one.key) if known is None else known
            ids |= {key: name for key in _keys(one) if key not in ids}
            rows.setdefault(name, _Row(name)).scores.setdefault(each.name, []).append(one)
        if left:
            told = f"{len(left)} of {len(each.found)} in {each.source} are of no row of the corpus"
            if len(left) == len(each.found):
                raise UsageError(f"--scores {each.name}: {told}: the first is of {left[0].key}")
            tell(f"scores {each.name}: {told} and left out, such as {left[0].key}")
    kinds = {each.name: {one.key[0] for one in each.found} for each in foreign}
    first, *others = kinds
    for other in () if corpus else others:
        if not any(first in row.scores and other in row.scores for row in rows.values()):
            by = {each: " or ".join(sorted(kinds[each])) for each in (first, other)}
            raise UsageError(
                f"--scores: {first} is by {by[first]} and {other} by {by[other]}, and none is of "
                "the same instance: --corpus FILE has the rows that they are of"
            )
    return rows


def _keys(one: Found) -> Iterator[Key]:
    """All that a record may be found by."""
    yield one.key
    record = one.record or {}
    if "instance" in record or "failed" in record:
        return
    for name in ("instance_id", "id", "row_id"):
        if record.get(name) is not None:
            yield "id", str(record[name])
    for name in ("corpus_row", "row", "idx"):
        if record.get(name) is not None:
            yield "row", int(record[name])
    if isinstance(record.get("text"), str) and record.get("text_pair") is None:
        yield "text", record["text"]


def _name(key: Key) -> str:
    """The id of an instance that is known by a key."""
    kind, value = key
    if kind == "id":
        return str(value)
    if kind == "row":
        return f"row-{value}"
    return f"text-{blake2b(str(value).encode(), digest_size=8).hexdigest()}"


def _check_padding(
    foreign: Sequence[Foreign], options: ImportOptions, tell: Callable[[str], None]
) -> None:
    """Says so where rows of ids end in what may be padding."""
    if options.pad is not None:
        return
    ends = [ids[-1] for f in foreign for one in f.found if (ids := one.given.input_ids)]
    twice = [
        ids[-1]
        for each in foreign
        for one in each.found
        if (ids := one.given.input_ids) and len(ids) > 1 and ids[-1] == ids[-2]
    ]
    if twice:
        tell(
            f"{len(twice)} of {len(ends)} rows of input_ids end in the same id twice or more, such "
            f"as {twice[0]}: they are taken for tokens (--pad-id {twice[0]} takes them off)"
        )


# Rows to tables --------------------------------------------------------------------------------


def _tables(
    rows: Sequence[_Row],
    foreign: Sequence[Foreign],
    labels: Sequence[str] | None,
    pad: int | None,
) -> _Tables:
    """What becomes of some rows."""
    tables = _Tables()
    for row in rows:
        every = [*row.described, *(one for each in row.scores.values() for one in each)]
        try:
            own = describe(row.name, every, labels, pad)
        except InstanceError as error:
            of = next((one.record for one in every if one.record and "failed" in one.record), {})
            said = row.name, "encode", None, "InstanceError", one_line(str(error))
            failure = Failure(*said, of.get("row_id"), of.get("corpus_row"))
            tables.failures.setdefault(Unit("instances"), []).append(failure)
            continue
        tables.instances.append(own)
        for each in foreign:
            try:
                found = _only(row.scores.get(each.name, []))
                attribution = _attribution(own, found, each.name, labels)
                tables.attributions.setdefault(each.name, []).append(attribution)
            except UnalignedError as error:
                failure = _failure(own, each.name, error)
                tables.failures.setdefault(Unit("attributions", each.name), []).append(failure)
    return tables


def _failure(own: Described, method: str, error: Exception) -> Failure:
    name, row, number = (own.columns[key] for key in ("instance_id", "row_id", "corpus_row"))
    said = one_line(str(error))
    return Failure(name, "attribute", method, type(error).__name__, said, row, number)


def _only(found: Sequence[Found]) -> Found:
    """The one set of scores that an instance has under a method.

    Raises:
        UnalignedError: If there is none, or several.
    """
    if len(found) != 1:
        what = "no scores were given" if not found else f"{len(found)} sets of scores were given"
        raise UnalignedError(f"{what} for it")
    return found[0]


def _attribution(
    own: Described, found: Found, method: str, labels: Sequence[str] | None
) -> dict[str, Any]:
    """A row of ``attributions``."""
    given = found.given
    classes = len(labels or own.columns["logits"] or ())
    if classes and given.target is not None and not 0 <= given.target < classes:
        raise UnalignedError(f"explains class {given.target}, and there are {classes}")
    record = (found.record or {}).get("attribution", {})
    return {
        **{name: record.get(name) for name in _OF_RUN},
        "instance_id": own.columns["instance_id"],
        "method": method,
        "target": given.target,
        "scores": own.scores(given).tolist(),
    }


# Writing ---------------------------------------------------------------------------------------


def _manifest(
    options: ImportOptions,
    foreign: Sequence[Foreign],
    corpus: Sequence[Found],
    labels: list[str] | None,
    found: Sequence[_Tables],
) -> Manifest:
    """``run.json``: nothing is known of the model but its name."""
    size = shard_size_for(len(found))
    rows = {own.columns["row_id"] for one in found for own in one.instances} | {
        failure.row_id or failure.instance_id
        for one in found
        for failure in one.failures.get(Unit("instances"), [])
    }
    content = "\0".join(each.digest for each in foreign)
    if options.corpus is not None:
        content = f"{content}\0{sha256(Path(options.corpus).read_bytes()).hexdigest()}"
    names = [each.source.partition("#")[0] for each in foreign]
    source = Path(options.corpus).name if options.corpus else ", ".join(dict.fromkeys(names))
    return {
        "format": FORMAT,
        "identity": {
            "model": {
                "source": options.model or "unknown",
                "architecture": "",
                "task": IMPORTED_TASK,
                "labels": labels,
                "num_layers": 0,
                "num_heads": 0,
                "weights_sha256": "",
            },
            "tokenizer": None,
            "corpus": {
                "source": source,
                "fingerprint": sha256(content.encode()).hexdigest(),
                "split": None,
                "limit": None,
                "rows": len(rows),
            },
            "settings": {
                "target": "given",
                "output": "given",
                "dtype": "float32" if _is_single(found) else "float64",
                "shard_size": size,
                "num_shards": -(-len(found) // size),
            },
        },
        "methods": {
            choice.name: described_method(choice, ["attributions"], [])
            for choice in choose(
                [each.name for each in foreign], {each.name: each.params for each in foreign}
            )
        },
        "evaluation": None,
        "executions": [
            {
                "started": datetime.now(UTC).isoformat(timespec="seconds"),
                "methods": [each.name for each in foreign],
                "versions": {name: version(name) for name in _LIBRARIES},
            }
        ],
    }


def _is_single(found: Sequence[_Tables]) -> bool:
    """Whether float32 holds all that was given as it is."""
    for one in found:
        given = [row["scores"] for rows in one.attributions.values() for row in rows]
        given += [own.columns["logits"] or [] for own in one.instances]
        for values in given:
            exact = np.array(values, np.float64)
            if not np.array_equal(exact.astype(np.float32).astype(np.float64), exact):
                return False
    return True


def _is_there(output: str, manifest: Manifest) -> bool:
    """Whether the folder has all that is to be imported.

    Raises:
        UsageError: If it has something else.
    """
    folder = Path(output)
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    if (folder / MANIFEST).is_file():
        there = load_manifest(folder)
        if all(there[key] == manifest[key] for key in ("identity", "methods")):
            return True
    raise UsageError(f"--output {output} holds something else: name a new folder")


def _write(output: str, manifest: Manifest, found: Sequence[_Tables]) -> None:
    """Writes the folder, whole or not at all."""
    target = Path(output).absolute()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".attribeam-") as beside:
            root = str(Path(beside) / "run")
            settings = manifest["identity"]["settings"]
            size, shards = settings["shard_size"], settings["num_shards"]
            for shard in range(shards):
                part = found[shard * size : (shard + 1) * size]
                _write_shard(root, manifest, part, shard, shards)
            write_manifest(root, manifest)
            index_run(root, manifest, read=True)
            if target.exists():
                target.rmdir()
            shutil.move(root, target)
    except OSError as error:
        raise UsageError(f"--output {output} can't be written: {error}") from error


def _write_shard(
    root: str, manifest: Manifest, found: Sequence[_Tables], shard: int, shards: int
) -> None:
    """Writes the tables of a shard."""
    double = manifest["identity"]["settings"]["dtype"] == "float64"
    units = [Unit("instances"), *(Unit("attributions", name) for name in manifest["methods"])]
    for unit in units:
        failures = [failure for one in found for failure in one.failures.get(unit, [])]
        if failures:
            write_parquet(join(root, failures_path(unit, shard, shards)), failures_table(failures))
        if unit.method is None:
            rows = [own.columns for one in found for own in one.instances]
        else:
            rows = [row for one in found for row in one.attributions.get(unit.method, [])]
        schema = table_schema(unit.table, double=double)
        table = pa.Table.from_pylist(rows, pa.schema([_plain(field) for field in schema]))
        metadata = {"attribeam.unit": str(unit)}
        table = with_metadata(table.cast(schema), metadata)
        write_parquet(join(root, unit_path(unit, shard, shards)), table)


def _plain(column: pa.Field) -> pa.Field:
    """A column without a dictionary, which Python's values are cast to later."""
    kind = column.type
    return column.with_type(kind.value_type if pa.types.is_dictionary(kind) else kind)
