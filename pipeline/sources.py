"""Opening a corpus: Parquet, JSON lines, CSV, TSV, folders and globs of them, and datasets.

A source yields records one after another, in a fixed order, with bounded memory. A record that
can't be read is not skipped: it comes out with a sentence that says what is wrong with it.
"""

import codecs
import csv
import gzip
import io
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems

from pipeline.files import is_local, open_read
from schemas import UsageError

_SPLITS = ("train", "validation", "valid", "val", "dev", "test")
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?(:[\w.-]+)?")
_READ_ROWS = 1024
_UNREADABLE = (
    *(OSError, EOFError, ValueError, zlib.error, csv.Error),
    *(pa.ArrowException, BeamIOError),
)


# Values by column, and what is wrong with them if anything.
_Row = tuple[dict[str, Any], str | None]


class Record(NamedTuple):
    """A row as it stands in the source, and what is wrong with it if anything."""

    values: dict[str, Any]
    split: str | None
    problem: str | None = None


@dataclass(frozen=True)
class Source:
    """An opened corpus.

    Attributes:
        name: As the user named it.
        fingerprint: Changes when the content does.
        columns: Names of its columns.
        records: Reads it from the start.
    """

    name: str
    fingerprint: str
    columns: tuple[str, ...]
    records: Callable[[], Iterator[Record]]


def open_source(corpus: str, split: str | None) -> Source:
    """Opens a corpus.

    Args:
        corpus: A file, folder or glob (local or at a URL) of Parquet, JSON lines, CSV or TSV; a
            folder written by ``save_to_disk``; or the id of a data set on the hub, with its
            configuration after a colon if it has several.
        split: Split to take, from a folder with a file per split or a data set.

    Raises:
        UsageError: If there is nothing there, or nothing that can be read as a corpus.
    """
    with _readable(corpus):
        if is_local(corpus) and Path(corpus).is_dir() and _is_saved(Path(corpus)):
            return _saved_source(corpus, split)
        paths = _matching(corpus)
    if paths:
        return _file_source(corpus, paths, split)
    looks_like_file = Path(corpus).suffix in (".gz", *_READERS) or corpus.startswith((".", "/"))
    if is_local(corpus) and not looks_like_file and _HUB_ID.fullmatch(corpus):
        return _hub_source(corpus, split)
    raise UsageError(f"there is no corpus at {corpus}: no such file, folder or match of a glob")


# Files ----------------------------------------------------------------------------------------


def _matching(corpus: str) -> list[str]:
    """Data files that a path, folder or glob names, sorted."""
    if is_local(corpus) and Path(corpus).is_file():
        return [corpus]
    if is_local(corpus) and Path(corpus).is_dir():
        paths = [str(path) for path in sorted(Path(corpus).iterdir())]
        found = [path for path in paths if _format(path) and not Path(path).name.startswith(".")]
        if not found:
            raise UsageError(
                f"the folder {corpus} holds no Parquet, JSON lines, CSV or TSV file and is no "
                "data set written by save_to_disk"
            )
        return found
    try:
        matches = FileSystems.match([corpus])[0].metadata_list
        if not matches and not is_local(corpus):
            matches = FileSystems.match([corpus.rstrip("/") + "/*"])[0].metadata_list
    except (BeamIOError, ValueError) as error:
        raise UsageError(f"{corpus} can't be listed: {error}") from error
    return sorted(m.path for m in matches if not is_local(m.path) or Path(m.path).is_file())


def _format(path: str) -> str | None:
    """The key of ``_READERS`` for a file by its name, compressed or not; None if there is none."""
    suffix = Path(path.removesuffix(".gz")).suffix.lower()
    return suffix if suffix in _READERS else None


def _file_source(corpus: str, paths: list[str], split: str | None) -> Source:
    if len(paths) > 1 and split is not None:
        paths = _of_split(corpus, paths, split)
    for path in paths:
        if _format(path) is None:
            raise UsageError(
                f"{path} is of no known format; a corpus is .parquet, .jsonl, .csv or .tsv"
            )
    first = paths[0]
    with _readable(first):
        columns = _READERS[str(_format(first))].columns(first)
        fingerprint = _content_hash(paths)

    def records() -> Iterator[Record]:
        for path in paths:
            name = split or _split_of(path)
            with _readable(path):
                for values, problem in _READERS[str(_format(path))].rows(path):
                    yield Record(values, name, problem)

    return Source(corpus, fingerprint, tuple(columns), records)


@contextmanager
def _readable(path: str) -> Iterator[None]:
    """Names the file that turns out to be damaged or of another format than its name says."""
    try:
        yield
    except UsageError:
        raise
    except _UNREADABLE as error:
        raise UsageError(f"{path} can't be read: {error}") from error


@contextmanager
def _opened(path: str) -> Iterator[IO[bytes]]:
    """A file's content, decompressed if its name says so."""
    with open_read(path) as handle:
        if path.endswith(".gz"):
            with gzip.open(handle) as content:
                yield content  # type: ignore[misc]
        else:
            yield handle


def _of_split(corpus: str, paths: list[str], split: str) -> list[str]:
    pattern = re.compile(rf"{re.escape(split)}([-_.].*)?")
    chosen = [path for path in paths if pattern.fullmatch(Path(path).name)]
    if not chosen:
        names = ", ".join(Path(path).name for path in paths[:8])
        raise UsageError(f"{corpus} has no file of the split {split!r}; it has {names}")
    return chosen


def _split_of(path: str) -> str | None:
    """The split that a file's name speaks of (``dev.parquet``, ``test-00000-of-00002.jsonl``)."""
    stem = re.split(r"[-_.]", Path(path).name)[0]
    return stem if stem in _SPLITS else None


def _content_hash(paths: Iterable[str]) -> str:
    """Hash of the files' content; of their sizes and checksums where they are remote.

    Of their names only what the rows depend on: the format and the split they speak of.
    """
    digest = blake2b(digest_size=16)
    for path in paths:
        digest.update(f"{_format(path)} {_split_of(path)}\0".encode())
        if is_local(path):
            with Path(path).open("rb") as handle:
                while block := handle.read(1 << 20):
                    digest.update(block)
        else:
            digest.update(f"{FileSystems.checksum(path)}".encode())
    return digest.hexdigest()


def _parquet_columns(path: str) -> list[str]:
    with _opened(path) as handle:
        return list(pq.ParquetFile(handle).schema_arrow.names)


def _parquet_rows(path: str) -> Iterator[_Row]:
    with _opened(path) as handle:
        for batch in pq.ParquetFile(handle).iter_batches(_READ_ROWS):
            yield from _arrow_rows(batch)


def _arrow_rows(batch: pa.RecordBatch | pa.Table) -> Iterator[_Row]:
    try:
        yield from ((row, None) for row in batch.to_pylist())
    except UnicodeDecodeError:
        yield from (_undecoded_row(batch.slice(at, 1)) for at in range(len(batch)))


def _undecoded_row(row: pa.RecordBatch | pa.Table) -> _Row:
    """A row of a batch in which some string is not UTF-8."""
    values, problem = {}, None
    for name, column in zip(row.schema.names, row.columns, strict=True):
        try:
            values[name] = column[0].as_py()
        except UnicodeDecodeError as error:
            values[name] = None
            problem = f"{name} is not valid UTF-8: {error.reason} at byte {error.start}"
    return values, problem


def _json_rows(path: str) -> Iterator[_Row]:
    for number, line in enumerate(_lines(path), 1):
        try:
            values = json.loads(line.decode())
        except UnicodeDecodeError as error:
            yield {}, f"line {number} is not valid UTF-8: {error.reason} at byte {error.start}"
        except (ValueError, RecursionError) as error:
            yield {}, f"line {number} is not JSON: {error}"
        else:
            if isinstance(values, dict):
                yield values, None
            else:
                yield {}, f"line {number} is JSON but not an object"


def _lines(path: str) -> Iterator[bytes]:
    with _opened(path) as handle:
        for number, line in enumerate(handle):
            content = line.removeprefix(codecs.BOM_UTF8) if number == 0 else line
            if content.strip():
                yield content


def _json_columns(path: str) -> list[str]:
    if next(_lines(path), b"").lstrip().startswith(b"["):
        raise UsageError(
            f"{path} holds one JSON array; write one object a line instead (jq -c '.[]' does that)"
        )
    names: dict[str, None] = {}
    for count, (values, _) in enumerate(_json_rows(path)):
        names.update(dict.fromkeys(values))
        if count >= _READ_ROWS:
            break
    return list(names)


@dataclass(frozen=True)
class _Delimited:
    """CSV or TSV. CSV has quotes; TSV has none, so that a stray quote can't swallow lines."""

    delimiter: str
    quoting: Literal[0, 3]

    def _reader(self, handle: Any) -> Iterator[list[str]]:
        csv.field_size_limit(sys.maxsize)
        # Bytes that are not UTF-8 become lone surrogates, which ``_row`` then finds.
        text = io.TextIOWrapper(handle, "utf-8-sig", errors="surrogateescape", newline="")
        return csv.reader(text, delimiter=self.delimiter, quoting=self.quoting)

    def columns(self, path: str) -> list[str]:
        """Names in the header line."""
        with _opened(path) as handle:
            return self._header(self._reader(handle))

    def rows(self, path: str) -> Iterator[_Row]:
        """Rows after the header line."""
        with _opened(path) as handle:
            reader = self._reader(handle)
            header = self._header(reader)
            for number, fields in enumerate(reader, 1):
                if fields:
                    yield self._row(header, fields, number)

    @staticmethod
    def _header(reader: Iterator[list[str]]) -> list[str]:
        names = next(reader, [])
        return [name.encode(errors="surrogateescape").decode(errors="replace") for name in names]

    @staticmethod
    def _row(header: list[str], fields: list[str], number: int) -> _Row:
        values: dict[str, Any] = dict(zip(header, fields, strict=False))
        undecoded = [name for name, value in values.items() if not _is_text(value)]
        values |= dict.fromkeys(undecoded)
        if len(fields) != len(header):
            return values, f"row {number} has {len(fields)} fields, the header has {len(header)}"
        return values, f"{undecoded[0]} is not valid UTF-8" if undecoded else None


def _is_text(value: str) -> bool:
    """Whether a string is without the lone surrogates that stand for undecoded bytes."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


class _Reader(NamedTuple):
    columns: Callable[[str], list[str]]
    rows: Callable[[str], Iterator[_Row]]


_CSV = _Delimited(",", csv.QUOTE_MINIMAL)
_TSV = _Delimited("\t", csv.QUOTE_NONE)
_JSON = _Reader(_json_columns, _json_rows)
_READERS = {
    ".parquet": _Reader(_parquet_columns, _parquet_rows),
    ".jsonl": _JSON,
    ".ndjson": _JSON,
    ".json": _JSON,
    ".csv": _Reader(_CSV.columns, _CSV.rows),
    ".tsv": _Reader(_TSV.columns, _TSV.rows),
}


# Data sets ------------------------------------------------------------------------------------


def _is_saved(folder: Path) -> bool:
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def _saved_source(corpus: str, split: str | None) -> Source:
    loaded = datasets.load_from_disk(corpus)
    if isinstance(loaded, datasets.DatasetDict):
        loaded, split = _one_split(corpus, loaded, split), split or next(iter(loaded))
    files = sorted(str(path) for path in Path(corpus).rglob("*.arrow"))
    return _dataset_source(corpus, loaded, split, _content_hash(files))


def _hub_source(corpus: str, split: str | None) -> Source:
    name, _, configuration = corpus.partition(":")
    try:
        loaded = datasets.load_dataset(name, configuration or None, split=split)
    except Exception as error:  # The library raises a dozen kinds; all mean that it isn't there.
        raise UsageError(
            f"there is no file {corpus}, and the data set {corpus} can't be loaded from the hub: "
            f"{type(error).__name__}: {error}"
        ) from error
    if isinstance(loaded, datasets.DatasetDict):
        loaded, split = _one_split(corpus, loaded, split), split or next(iter(loaded))
    return _dataset_source(corpus, loaded, split, loaded._fingerprint)


def _one_split(corpus: str, splits: Any, split: str | None) -> Any:
    if split is None and len(splits) == 1:
        return next(iter(splits.values()))
    if split not in splits:
        what = "name one" if split is None else f"{split!r} is not one of them"
        raise UsageError(f"{corpus} has the splits {', '.join(splits)}: {what} with --split")
    return splits[split]


def _dataset_source(corpus: str, dataset: Any, split: str | None, fingerprint: str) -> Source:
    names = tuple(dataset.column_names)

    def records() -> Iterator[Record]:
        with _readable(corpus):
            for batch in dataset.with_format("arrow").iter(_READ_ROWS):
                for values, problem in _arrow_rows(batch):
                    yield Record(values, split, problem)

    return Source(corpus, fingerprint, names, records)
