"""Opening a corpus: files of any known format, folders and globs of them, and data sets.

A source yields records one after another, in a fixed order, with bounded memory. A record that
can't be read is not skipped: it comes out with a sentence that says what is wrong with it.
"""

import csv
import json
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import pyarrow as pa
from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems

from attribeam.pipeline.corpus.fields import (
    Field,
    Fields,
    ReadRow,
    class_name,
    find,
    guess,
    of_schema,
)
from attribeam.pipeline.corpus.hub_layout import in_dataset
from attribeam.pipeline.corpus.listing import (
    SPLITS,
    DataFile,
    Listing,
    check_formats,
    is_of,
    matching,
    of_split,
)
from attribeam.pipeline.corpus.picture_folder import (
    Metadata,
    class_field,
    labelled,
    labelling,
    metadata_of,
    notes_on,
    picture_fields,
    picture_rows,
)
from attribeam.pipeline.corpus.pictures import is_picture
from attribeam.pipeline.corpus.readers import READ_ROWS, Reader, arrow_rows, format_of, reader_of
from attribeam.pipeline.corpus.streams import suffixes
from attribeam.pipeline.places import no_corpus
from attribeam.pipeline.store.files import is_local
from attribeam.schemas import UsageError

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?(:[\w.-]+)?")
_UNREADABLE = (
    *(OSError, EOFError, ValueError, zlib.error, csv.Error, lzma.LZMAError, zipfile.BadZipFile),
    *(pa.ArrowException, BeamIOError, RecursionError),
)


class Record(NamedTuple):
    """A row as it stands in the source, and what is wrong with it if anything.

    Attributes:
        values: Values by column, of the columns that were asked for.
        split: The split that it is of, if that is known.
        problem: What is wrong with it.
        part: The part of the source that it is in, by number.
    """

    values: dict[str, Any]
    split: str | None
    problem: str | None = None
    part: int = 0


@dataclass(frozen=True)
class Part:
    """A file of a source, or a data set.

    Attributes:
        name: What messages call it.
        fields: Its columns; empty if it has no rows to tell them by.
        split: The split that it is of, if that is known.
        rows: Reads its rows, with the values of some columns.
        places: Folders that relative paths in it may start at.
    """

    name: str
    fields: Fields
    split: str | None
    rows: Callable[[Collection[str]], Iterator[ReadRow]]
    places: tuple[str, ...] = ("",)


@dataclass(frozen=True)
class Source:
    """An opened corpus.

    Attributes:
        name: As the user named it.
        fingerprint: Changes when the content does.
        parts: What it is made of, in order.
        split_column: The column that tells each row's split, if there is one.
        split: The only split whose rows are taken, by that column; None for all rows.
        notes: Sentences on what was left out.
    """

    name: str
    fingerprint: str
    parts: tuple[Part, ...]
    split_column: str | None = None
    split: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of all parts."""
        return tuple(dict.fromkeys(name for part in self.parts for name in part.fields))

    def field(self, name: str) -> Field:
        """What is known of a column, from all parts that have it.

        Raises:
            KeyError: If none has it.
        """
        found = [each for part in self.parts if (each := find(part.fields, name)) is not None]
        if not found:
            raise KeyError(name)
        return replace(found[0], kinds=frozenset[str]().union(*(each.kinds for each in found)))

    def records(self, columns: Collection[str] | None = None) -> Iterator[Record]:
        """Reads the rows from the start.

        Args:
            columns: Columns, or fields of objects by dotted names; None for all columns.

        Raises:
            UsageError: If a file turns out to be unreadable, or no row is of the split.
        """
        wanted = {*(self.columns if columns is None else columns)} - {""}
        read = wanted if self.split_column is None else wanted | {self.split_column}
        seen: set[str] = set()
        found = False
        for number, part in enumerate(self.parts):
            for values, problem in part.rows([name for name in read if find(part.fields, name)]):
                split = self._split_of(part, values)
                if self.split is None or split == self.split or (problem and split is None):
                    found = True
                    yield Record(values, split, problem, number)
                elif split is not None and len(seen) < 8:
                    seen.add(split)
        if self.split is not None and not found:
            listed = ", ".join(sorted(seen)) or "none"
            raise UsageError(
                f"{self.name} has no row of the split {self.split!r}; its column "
                f"{self.split_column!r} has {listed} (--split-column names another, or none)"
            )

    def _split_of(self, part: Part, values: Mapping[str, Any]) -> str | None:
        """The split that a row says it is of, or else that of its part."""
        if self.split_column is None:
            return part.split
        own = class_name(find(part.fields, self.split_column), values.get(self.split_column))
        return part.split if own is None or own == "" else str(own)


def open_source(
    corpus: str,
    split: str | None,
    *,
    delimiter: str | None = None,
    split_column: str | None = None,
) -> Source:
    """Opens a corpus.

    Args:
        corpus: A file, folder or glob (local or at a URL) of Parquet, Arrow, JSON lines, CSV or
            TSV; a folder written by ``save_to_disk`` or cloned from the hub; or the id of a data
            set on the hub. Of several configurations, the one after a colon.
        split: Split to take: the files whose paths speak of it, the rows that say so, or that of a
            data set.
        delimiter: What separates the fields of CSV and TSV; None for what their names say.
        split_column: The column that tells each row's split; ``none`` for none, None to guess.

    Raises:
        UsageError: If there is nothing there, or nothing that can be read as a corpus.
    """
    given = None if delimiter is None else _character(delimiter)
    with readable(corpus):
        if is_local(corpus) and Path(corpus).is_dir() and _is_saved(Path(corpus)):
            return _saved_source(corpus, split, split_column)
        listing, named = _listed(corpus)
    if listing.files:
        name = corpus + listing.chosen
        return _file_source(name, listing, split, given or named, split_column)
    looks_like_file = format_of(corpus) or suffixes(corpus)[1] or corpus.startswith((".", "/"))
    if is_local(corpus) and not looks_like_file and _HUB_ID.fullmatch(corpus):
        return _hub_source(corpus, split, split_column)
    raise UsageError(no_corpus(corpus))


def _character(delimiter: str) -> str:
    """The character that a delimiter is written as."""
    character = {"\\t": "\t", "tab": "\t"}.get(delimiter, delimiter)
    if len(character) != 1 or character in '"\r\n':
        raise UsageError(f"--delimiter is one character, or \\t, not {delimiter!r}")
    return character


def _listed(corpus: str) -> tuple[Listing, str | None]:
    """The files of a corpus, and the delimiter that the card of a data set names."""
    if is_local(corpus):
        folder, _, configuration = corpus.rpartition(":")
        if Path(corpus).is_dir():
            listing, named = in_dataset(Path(corpus), None)
            return listing, named and _character(named)
        if folder and Path(folder).is_dir() and not Path(corpus).exists():
            listing, named = in_dataset(Path(folder), configuration)
            return listing, named and _character(named)
    return matching(corpus), None


@contextmanager
def readable(path: str) -> Iterator[None]:
    """Names the file that turns out to be damaged or of another format than its name says."""
    try:
        yield
    except UsageError:
        raise
    except _UNREADABLE as error:
        raise UsageError(f"{path} can't be read: {error}") from error


def _assembled(
    corpus: str,
    fingerprint: str,
    parts: Iterable[Part],
    split: str | None,
    split_column: str | None,
    notes: Iterable[str] = (),
) -> Source:
    """A source of parts; ``split`` is what rows are taken by if they say it themselves."""
    source = Source(corpus, fingerprint, tuple(parts), notes=tuple(notes))
    if split_column == "none":
        return source
    if split_column is None:
        split_column = guess(corpus, "split", source.columns, ("split",))
    elif all(find(part.fields, split_column) is None for part in source.parts):
        raise UsageError(
            f"{corpus} has no column {split_column!r} (--split-column); its columns are "
            f"{', '.join(source.columns)}"
        )
    if split_column is None:
        return source
    return replace(source, split_column=split_column, split=split)


# Files ----------------------------------------------------------------------------------------


def _file_source(
    corpus: str,
    listing: Listing,
    split: str | None,
    delimiter: str | None,
    split_column: str | None,
) -> Source:
    if all(is_picture(each.path) for each in listing.files):
        return _picture_source(corpus, listing, split, split_column)
    check_formats(listing.files)
    found = [_part(each, delimiter) for each in listing.files]
    pairs = list(zip(listing.files, (part for part, _ in found), strict=True))
    notes = [*listing.notes, *notes_on([each for _, each in found if each is not None])]
    source = _assembled(corpus, "", (p for _, p in pairs), split, split_column, notes)
    if split is not None:
        pairs = _taken(corpus, pairs, split, source.split_column)
    with readable(corpus):
        fingerprint = _fingerprint([file for file, _ in pairs])
    return replace(source, fingerprint=fingerprint, parts=tuple(part for _, part in pairs))


def _taken(
    corpus: str, pairs: list[tuple[DataFile, Part]], split: str, column: str | None
) -> list[tuple[DataFile, Part]]:
    """The files of a split, and all those whose rows tell theirs (in a column)."""
    told = [column is not None and find(part.fields, column) is not None for _, part in pairs]
    silent = [file for (file, _), by_row in zip(pairs, told, strict=True) if not by_row]
    if any(told):
        taken = {file.path for file in silent if is_of(file, split)}
    else:
        taken = {file.path for file in of_split(corpus, silent, split)}
    return [
        (file, part if by_row else replace(part, split=split))
        for (file, part), by_row in zip(pairs, told, strict=True)
        if by_row or file.path in taken
    ]


def _picture_source(
    corpus: str, listing: Listing, split: str | None, split_column: str | None
) -> Source:
    """A source of pictures without data of their own, a part for each split."""
    listing = labelled(listing)
    files = listing.files if split is None else of_split(corpus, listing.files, split)
    parts = []
    for name in dict.fromkeys(file.split for file in files):
        own = [file for file in files if file.split == name]
        rows = partial(picture_rows, own)
        parts.append(Part(corpus, picture_fields(own), name, rows))
    with readable(corpus):
        fingerprint = _fingerprint(files, named=True)
    return _assembled(corpus, fingerprint, parts, None, split_column, listing.notes)


def _part(file: DataFile, delimiter: str | None) -> tuple[Part, Metadata | None]:
    """A file as a part, and what it tells of pictures."""
    reader = reader_of(file.path, delimiter)
    assert reader is not None
    with readable(file.path):
        fields = dict(reader.fields(file.path))
    for name, given in file.classes.items():
        if name in fields and fields[name].classes is None and isinstance(given, tuple):
            fields[name] = replace(fields[name], classes=given)
    with readable(file.path):
        metadata = metadata_of(file, fields, reader)
    if metadata is not None and metadata.classes:
        fields["label"] = class_field(metadata.classes)
        reader = labelling(reader)
    if fields:
        fields = {name: Field(frozenset({"text"})) for name in file.columns} | fields

    def rows(columns: Collection[str]) -> Iterator[ReadRow]:
        with readable(file.path):
            yield from _rows(file, reader, columns)

    return Part(file.name, fields, file.split, rows, _places(file.path, file.name)), metadata


def _places(path: str, name: str) -> tuple[str, ...]:
    """Where relative paths in a file may start: at its own folder, and at the one that was named.

    Args:
        path: The file.
        name: Its path below what the user named.
    """
    named = path.removesuffix(name).rstrip("/")
    if not is_local(path):
        return path.rpartition("/")[0], named
    return str(Path(path).parent), named or ("/" if path.startswith("/") else "")


def _rows(file: DataFile, reader: Reader, columns: Collection[str]) -> Iterator[ReadRow]:
    """The rows of a file, with what its path says of all of them."""
    given = {name: value for name, value in file.columns.items() if name in columns}
    for values, problem in reader.rows(file.path, columns):
        own = {name: value for name, value in values.items() if value is not None}
        differ = [name for name in given if str(own.get(name, given[name])) != str(given[name])]
        said = [f"{n} is {own[n]} in the file and {given[n]} in its path" for n in differ]
        yield {**values, **given, **own}, problem or next(iter(said), None)


def _fingerprint(files: Iterable[DataFile], *, named: bool = False) -> str:
    """Hash of the files' content; of their sizes and checksums where they are remote.

    Of their paths only what the rows depend on: the format and what they speak of, or if they are
    ``named`` by them the paths below what the user named.
    """
    digest = blake2b(digest_size=16)
    for file in files:
        if named:
            digest.update(f"{file.name}\0".encode(errors="surrogateescape"))
        word = re.split(r"[-_.]", Path(file.path).name)[0]
        digest.update(f"{format_of(file.path)} {word if word in SPLITS else None}\0".encode())
        if file.columns or "/" in file.name:
            digest.update(f"{file.split} {sorted(file.columns.items())}\0".encode())
        _add_content(digest, file.path)
    return digest.hexdigest()


def _add_content(digest: Any, path: str) -> None:
    if not is_local(path):
        digest.update(f"{FileSystems.checksum(path)}".encode())
        return
    with Path(path).open("rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)


# Data sets ------------------------------------------------------------------------------------


def _is_saved(folder: Path) -> bool:
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def _saved_source(corpus: str, split: str | None, split_column: str | None) -> Source:
    loaded = datasets.load_from_disk(corpus)
    own = None
    if isinstance(loaded, datasets.DatasetDict):
        loaded, own = _one_split(corpus, loaded, split), split or next(iter(loaded))
    digest = blake2b(digest_size=16)
    for path in sorted(map(str, Path(corpus).rglob("*.arrow"))):
        digest.update(b"None None\0")
        _add_content(digest, path)
    return _dataset_source(corpus, loaded, own, digest.hexdigest(), split, split_column)


def _hub_source(corpus: str, split: str | None, split_column: str | None) -> Source:
    name, _, configuration = corpus.partition(":")
    try:
        loaded = datasets.load_dataset(name, configuration or None, split=split)
    except Exception as error:  # The library raises a dozen kinds; all mean that it isn't there.
        raise UsageError(
            f"there is no file {corpus}, and the data set {corpus} can't be loaded from the hub: "
            f"{type(error).__name__}: {error}"
        ) from error
    own = split
    if isinstance(loaded, datasets.DatasetDict):
        loaded, own = _one_split(corpus, loaded, split), split or next(iter(loaded))
    return _dataset_source(corpus, loaded, own, loaded._fingerprint, split, split_column)


def _one_split(corpus: str, splits: Any, split: str | None) -> Any:
    if split is None and len(splits) == 1:
        return next(iter(splits.values()))
    if split not in splits:
        what = "name one" if split is None else f"{split!r} is not one of them"
        raise UsageError(f"{corpus} has the splits {', '.join(splits)}: {what} with --split")
    return splits[split]


def _dataset_source(
    corpus: str,
    dataset: Any,
    own: str | None,
    fingerprint: str,
    split: str | None,
    split_column: str | None,
) -> Source:
    """A source of a data set.

    Args:
        corpus: As the user named it.
        dataset: The data set.
        own: The split that it is, as one of several.
        fingerprint: Changes when the content does.
        split: The split that was asked for.
        split_column: The column that tells each row's split, as ``open_source`` takes it.
    """
    schema = dataset.features.arrow_schema

    def rows(columns: Collection[str]) -> Iterator[ReadRow]:
        tops = [name for name in dataset.column_names if _leads_to(name, columns)]
        with readable(corpus):
            # Without a column it would have no rows.
            tops = tops or dataset.column_names[:1]
            for batch in dataset.select_columns(tops).with_format("arrow").iter(READ_ROWS):
                yield from arrow_rows(batch, columns)

    said = _said_split(corpus) if dataset.split is None else str(dataset.split)
    part = Part(corpus, of_schema(schema), own or said, rows, (corpus,))
    source = _assembled(corpus, fingerprint, [part], None if own else split, split_column)
    if own is not None or split is None or source.split_column is not None:
        return source
    if said not in (None, split):
        raise UsageError(f"{corpus} is of the split {said!r}, not {split!r}")
    return replace(source, parts=(replace(part, split=split),))


def _said_split(corpus: str) -> str | None:
    """The split that a saved data set is, by the data set of several that it lies in."""
    folder = Path(corpus).resolve()
    try:
        splits = json.loads((folder.parent / "dataset_dict.json").read_text())["splits"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return folder.name if folder.name in splits else None


def _leads_to(column: str, names: Collection[str]) -> bool:
    return any(name == column or name.startswith(f"{column}.") for name in names)
