"""The corpus of a run, and its normalised copy in the run's folder.

Whatever the source, a run first copies the columns it needs to ``corpus/rows-NNNNN.parquet``, one
file a shard. Workers then need nothing but the run's folder, a shard's rows are one read, and a
source that moves or changes under a long run does no harm.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from attribeam.pipeline.corpus.columns import GUESSED, choose_columns, path_column, said
from attribeam.pipeline.corpus.fields import find
from attribeam.pipeline.corpus.labels import Labels, read_labels
from attribeam.pipeline.corpus.sources import Record, Source, open_source
from attribeam.pipeline.corpus.values import Normaliser, schema_of
from attribeam.pipeline.store.files import (
    DamagedError,
    discard_folder,
    join,
    list_checked,
    list_files,
    read_parquet,
    write_parquet,
)
from attribeam.pipeline.store.joined import each_shard
from attribeam.schemas import UsageError, parse_unit_path
from attribeam.schemas.layout import CORPUS, Unit, corpus_path
from attribeam.transforms import Model, Row

_INSTANCES = Unit("instances").folder


@dataclass(frozen=True)
class Corpus:
    """A corpus that is understood.

    Attributes:
        source: Where its rows come from.
        columns: Column by role.
        labels: How its labels become numbers of classes.
        limit: Most rows that are taken; None for all.
    """

    source: Source
    columns: Mapping[str, str]
    labels: Labels
    limit: int | None = None

    @property
    def notes(self) -> list[str]:
        """Sentences on what was guessed and left out; the first says which column is what."""
        return [*said(self.source, self.columns), *self.labels.notes]

    def records(self) -> Iterator[Record]:
        """Its rows as they stand in the source, with the columns that are needed."""
        columns = {*self.columns.values(), *self._paths.values()}
        return islice(self.source.records(columns), self.limit)

    @property
    def _paths(self) -> dict[str, str]:
        """Columns of paths by role, beside those of bytes."""
        found = {role: path_column(self.source, name) for role, name in self.columns.items()}
        return {role: path for role, path in found.items() if path is not None}

    @property
    def normaliser(self) -> Normaliser:
        """What makes rows of its records."""
        subset = self.columns.get("subset")
        subsets = [find(part.fields, subset) for part in self.source.parts] if subset else []
        places = [part.places for part in self.source.parts]
        return Normaliser(self.columns, self.labels, subsets, self._paths, places)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Its rows, normalised."""
        normaliser = self.normaliser
        return (normaliser.row(at, record) for at, record in enumerate(self.records()))


def open_corpus(
    corpus: str,
    model: Model,
    *,
    split: str | None = None,
    limit: int | None = None,
    columns: Mapping[str, str | None] | None = None,
    delimiter: str | None = None,
    begun: Mapping[str, Any] | None = None,
) -> Corpus:
    """Opens a corpus for a model.

    Args:
        corpus: What ``sources.open_source`` takes.
        model: The model.
        split: Split to take.
        limit: Most rows to take; None for all.
        columns: Columns named by the user by role (``columns.ROLES``); ``none`` for no column.
        delimiter: What separates the fields of CSV and TSV.
        begun: What ``run.json`` says of the corpus, if a run goes on: columns that aren't named
            are those of the run, whatever would be guessed now.

    Raises:
        UsageError: If there is nothing there that can be read, a column is missing, or labels can
            be read in two ways.
    """
    given: dict[str, str | None] = dict(columns or {})
    source = open_source(corpus, split, delimiter=delimiter, split_column=given.get("split"))
    told = source.split_column is not None and "split" not in given
    if begun is not None and told and "split" not in begun["columns"]:
        as_begun = open_source(corpus, split, delimiter=delimiter, split_column="none")
        source = as_begun if as_begun.fingerprint == begun["fingerprint"] else source
    if begun is not None and source.fingerprint == begun["fingerprint"]:
        given = {**dict.fromkeys((*GUESSED, "pair"), "none"), **begun["columns"], **given}
    return understood(source, given, model, limit)


def understood(
    source: Source, given: Mapping[str, str | None], model: Model, limit: int | None = None
) -> Corpus:
    """Decides what the columns and labels of a source are (``open_corpus``)."""
    columns = choose_columns(source, given, model)
    labels = read_labels(source, columns.get("label"), model.labels, limit)
    return Corpus(source, columns, labels, limit)


# Staging --------------------------------------------------------------------------------------


# Rows a shard: few enough that a crash costs little, however slow the methods are, and so many that
# there are no more than about a thousand files of a table.
_FEWEST, _MOST, _SHARDS = 512, 8192, 1000


def shard_size_for(rows: int) -> int:
    """Rows a shard of a corpus of so many rows, where nobody says how many.

    About a thousand shards; but a shard is what a crash costs, so it has no more rows than are
    attributed within ten minutes at 70 ms each.
    """
    return min(max(-(-rows // _SHARDS), _FEWEST), _MOST)


class Staged(NamedTuple):
    """A corpus in the run's folder: its number of rows, and rows a shard."""

    rows: int
    shard_size: int


def stage(
    corpus: Corpus,
    root: str,
    *,
    shard_size: int | None,
    windows: bool = False,
    questions: bool = False,
    pairs: bool = False,
    anew: bool = True,
) -> Staged:
    """Copies a corpus into the run's folder, normalised, one file a shard.

    Args:
        corpus: The corpus.
        root: The run's folder.
        shard_size: Rows a shard; None for what suits the corpus (``shard_size_for``).
        windows: Whether long texts are to become windows, which have ids too.
        questions: Whether rows are asked several questions, which have ids too.
        pairs: Whether rows have two sides, which have ids too.
        anew: Whether it may be another corpus than what is there. Else files are replaced one by
            one, since other parts of the run may be reading them.

    Raises:
        UsageError: If the corpus is empty or two rows have the same id, or one has the id that a
            window of another would have.
    """
    if anew:
        discard_folder(join(root, CORPUS))
    most = None if shard_size is not None else _FEWEST * _SHARDS
    count, hashes = _copy(corpus, root, shard_size or _FEWEST, most)
    if most is not None and count > most:
        # It is read as far as the smallest shards suit it, and then again from its beginning.
        shard_size = shard_size_for(sum(1 for _ in corpus.records()))
        discard_folder(join(root, CORPUS))
        count, hashes = _copy(corpus, root, shard_size, None)
    if not count:
        raise UsageError(f"{corpus.source.name} has no rows")
    _check_unique(corpus, root, hashes)
    if windows:
        _check_derived(corpus, root, hashes, "window")
    if questions:
        _check_derived(corpus, root, hashes, "question")
    if pairs:
        _check_derived(corpus, root, hashes, "side")
    return Staged(count, shard_size or _FEWEST)


def _copy(
    corpus: Corpus, root: str, shard_size: int, most: int | None
) -> tuple[int, list[np.ndarray]]:
    """Writes the rows of a corpus, or those until there are more than so many.

    Returns:
        Number of rows, and hashes of the ids of each shard.
    """
    rows, kept = corpus.rows(), schema_of(corpus.columns)
    count = shard = 0
    hashes: list[np.ndarray] = []
    while (most is None or count <= most) and (chunk := list(islice(rows, shard_size))):
        write_parquet(join(root, corpus_path(shard)), pa.Table.from_pylist(chunk, kept))
        hashes.append(np.array([_hash(row["instance_id"]) for row in chunk], np.uint64))
        count, shard = count + len(chunk), shard + 1
    return count, hashes


def check_again(root: str, num_shards: int) -> None:
    """Checks that a corpus that was copied again is the one that the run's tables are of.

    Raises:
        UsageError: If a row has another id, label or split: an earlier version read it otherwise.
    """
    for name in list_files(join(root, _INSTANCES)):
        place = parse_unit_path(f"{_INSTANCES}/{name}")
        if place is None or place.num_shards != num_shards:
            continue
        columns = ["row_id", "label", "split"]
        # What is damaged will be made again as well.
        with suppress(DamagedError):
            for shard, known in each_shard(root, f"{_INSTANCES}/{name}", place, columns):
                _check_rows(root, shard, known.to_pylist())


def _check_rows(root: str, shard: int, known: Sequence[Mapping[str, Any]]) -> None:
    """Checks that the rows of a shard are those that are known of it."""
    rows = {row.instance_id: (row.label, row.split) for row in read_rows(root, shard)}
    for row in known:
        if rows.get(row["row_id"]) != (row["label"], row["split"]):
            raise UsageError(
                f"the copy of the corpus in {root} is gone or damaged, and made again it has "
                f"another row than {row['row_id']!r} in the run's tables, since an earlier "
                "version made it: use another --output"
            )


def staged(root: str, num_shards: int) -> bool:
    """Whether the rows of every shard are there, and none of these files is cut short."""
    there = {f"{CORPUS}/{path}" for path, whole in list_checked(join(root, CORPUS)) if whole}
    return there.issuperset(corpus_path(shard) for shard in range(num_shards))


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


def _check_unique(corpus: Corpus, root: str, hashes: list[np.ndarray]) -> None:
    """Two rows of one id would be one row in every join, so they are refused."""
    values, counts = np.unique(np.concatenate(hashes), return_counts=True)
    repeated = set(values[counts > 1].tolist())
    for shard in range(len(hashes) if repeated else 0):
        for row in read_rows(root, shard):
            if _hash(row.instance_id) in repeated:
                raise UsageError(
                    f"{corpus.source.name} has more than one row with the id {row.instance_id!r} "
                    f"(column {corpus.columns.get('id')!r}); --id-column names another, or none"
                )


# An id that a window, a question or a side of a pair could have, and that of its row.
_WINDOW = re.compile(r"(.*)/(0|[1-9]\d*)", re.DOTALL)
_QUESTION = re.compile(r"(.*?)(?:/(0|[1-9]\d*))?#(0|[1-9]\d*|all)", re.DOTALL)
_SIDE = re.compile(r"(.*)/(image|text)", re.DOTALL)


def _check_derived(corpus: Corpus, root: str, hashes: list[np.ndarray], kind: str) -> None:
    """Whether the row would have such a part isn't known yet; nobody should have to wonder.

    Args:
        corpus: The corpus.
        root: Folder of the run.
        hashes: Of the ids of each shard.
        kind: ``window``, ``question`` or ``side``.
    """
    pattern = {"window": _WINDOW, "question": _QUESTION, "side": _SIDE}[kind]
    under = " under --overflow stride" if kind == "window" else ""
    every = np.unique(np.concatenate(hashes))
    for shard in range(len(hashes)):
        found = [pattern.fullmatch(row.instance_id) for row in read_rows(root, shard)]
        parents = [match for match in found if match]
        taken = np.isin(np.array([_hash(match[1]) for match in parents], np.uint64), every)
        for match in (match for match, hit in zip(parents, taken, strict=True) if hit):
            raise UsageError(
                f"{corpus.source.name} has rows with the ids {match[1]!r} and {match[0]!r} "
                f"(column {corpus.columns.get('id')!r}), and{under} the second could be a {kind} "
                "of the first; --id-column names another column, or none"
            )


def read_rows(root: str, shard: int) -> Iterator[Row]:
    """The rows of a shard."""
    table = read_parquet(join(root, corpus_path(shard)))
    for values in table.to_pylist():
        yield _row_of(values)


def _row_of(values: dict[str, Any]) -> Row:
    """A normalised row as encoding takes it."""
    if values["input_ids"] is not None:
        # Words to contrast are vocabulary ids where texts are.
        for role in ("good", "bad"):
            word = values[role]
            values[role] = int(word) if word is not None and word.isdecimal() else word
    return Row(**values)


def sample_rows(corpus: Corpus, *, most: int) -> tuple[int, list[Row]]:
    """Reads a corpus once, for its number of rows and some of them at even distances.

    Args:
        corpus: The corpus.
        most: Most rows of the sample; it has at least half as many, or all.
    """
    normaliser = corpus.normaliser
    kept: list[tuple[int, Record]] = []
    count, step = 0, 1
    for position, record in enumerate(corpus.records()):
        count += 1
        if position % step == 0:
            kept.append((position, record))
        if len(kept) > most:
            step *= 2
            kept = kept[::2]
    return count, [_row_of(normaliser.row(position, record)) for position, record in kept]
