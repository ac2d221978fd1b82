"""The files that a path, folder or glob names, and what their paths say of them.

Paths tell the split that a file is of (``test.csv``, ``data/train-00000-of-00002.parquet``,
``dev/0000.parquet``), and columns (``label=1/part.parquet``, as Spark and others write them).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems

from attribeam.pipeline.corpus.pictures import is_picture
from attribeam.pipeline.corpus.readers import NAMES, format_of
from attribeam.pipeline.store.files import is_local
from attribeam.schemas import UsageError

SPLITS = ("train", "validation", "valid", "val", "dev", "test")
_SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}")
_COLUMN = re.compile(r"([^=/]+)=([^/]*)")
_NULL = "__HIVE_DEFAULT_PARTITION__"
_WORDS = re.compile(r"[-_. ]+")
# What lies beside data sets and is none.
_BESIDE = {
    *("config.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json"),
    *("state.json", "package.json", "dummy_data.zip"),
}
# Formats that people have corpora in and that are not read.
_OTHER_FORMATS = {
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "a spreadsheet: save it as CSV (UTF-8)"),
    **dict.fromkeys(
        (".pkl", ".pickle", ".pt"), "a pickle, which could run code: save it as Parquet"
    ),
    **dict.fromkeys((".db", ".sqlite", ".sqlite3", ".duckdb"), "a database: export it as Parquet"),
    **dict.fromkeys((".zip", ".rar", ".7z", ".tar", ".tgz"), "an archive: unpack it into a folder"),
}


@dataclass(frozen=True)
class DataFile:
    """A file of a corpus.

    Attributes:
        path: Where it is.
        name: Its path below what the user named.
        split: The split that its path speaks of; None if of none.
        columns: Columns that its path gives all rows of it.
        classes: Names of classes by column (``fields.classes_in``), told beside the file.
    """

    path: str
    name: str
    split: str | None = None
    columns: Mapping[str, str | None] = field(default_factory=dict)
    classes: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Listing:
    """The files of a corpus.

    Attributes:
        files: The files, in order.
        notes: Sentences on what was left out.
        chosen: Which of its configurations they are, for messages; empty if there are no others.
    """

    files: Sequence[DataFile]
    notes: Sequence[str] = ()
    chosen: str = ""


def matching(corpus: str) -> Listing:
    """The data files that a path, folder or glob names.

    Raises:
        UsageError: If it can't be listed, or is a folder without a data file.
    """
    path = Path(corpus)
    if not is_local(corpus):
        return Listing(_remote(corpus))
    if path.is_dir():
        return in_folder(path)
    if path.is_file():
        return Listing([data_file(corpus, path.name)])
    if path.exists():
        raise UsageError(f"{corpus} is no file, but {_kind(path)}")
    found = [match for match in _matches(corpus) if Path(match).is_file()]
    start = _fixed(corpus)
    return Listing([data_file(match, match.removeprefix(start)) for match in found])


def _remote(corpus: str) -> list[DataFile]:
    found = _matches(corpus)
    start = _fixed(corpus)
    # Data goes first: beside it pictures are what its rows are of.
    for wanted, below in product((format_of, is_picture), ("/*", "/**")):
        if not found:
            start = corpus.rstrip("/") + "/"
            found = [path for path in _matches(corpus.rstrip("/") + below) if wanted(path)]
    return [data_file(path, path.removeprefix(start)) for path in found]


def _matches(pattern: str) -> list[str]:
    try:
        return sorted(m.path for m in FileSystems.match([pattern])[0].metadata_list)
    except (BeamIOError, ValueError) as error:
        raise UsageError(f"{pattern} can't be listed: {error}") from error


def _fixed(pattern: str) -> str:
    """The folder that all matches of a pattern are in."""
    return re.split(r"[*?\[]", pattern)[0].rpartition("/")[0] + "/" if "/" in pattern else ""


# Folders --------------------------------------------------------------------------------------


def in_folder(folder: Path) -> Listing:
    """The data files in a folder; those in folders below it where it has none itself.

    Raises:
        UsageError: If there are none.
    """
    entries = _entries(folder)
    found = [path for path in entries if path.is_file() and is_data(path)]
    odd = [path for path in entries if not (path.is_file() or path.is_dir())]
    odd = [path for path in odd if path.exists() or format_of(path.name)]
    below = [
        path for path in _walk([each for each in entries if each.is_dir()], set()) if is_data(path)
    ]
    notes = [f"left out: {path.name}, which is {_kind(path)}" for path in odd]
    if found and below:
        first = below[0].relative_to(folder)
        notes.append(f"left out: {_counted(len(below))} in folders below, such as {first}")
    chosen = found or below
    if not chosen:
        raise UsageError(_nothing(folder, entries, notes))
    files = [data_file(str(path), path.relative_to(folder).as_posix()) for path in chosen]
    return Listing(files, notes)


def files_below(folder: Path) -> list[Path]:
    """All files in a folder and in folders below it."""
    inside = _entries(folder)
    folders = [path for path in inside if path.is_dir()]
    return [*(path for path in inside if path.is_file()), *_walk(folders, set())]


def _entries(folder: Path) -> list[Path]:
    """What is in a folder, sorted, but for what is hidden."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith((".", "__MACOSX")))


def is_data(path: Path) -> bool:
    """Whether a file's name is that of data in a format that is read."""
    return format_of(path.name) is not None and path.name not in _BESIDE


def _walk(folders: Sequence[Path], seen: set[tuple[int, int]]) -> Iterator[Path]:
    """The files below folders; links to folders are followed once.

    Folders whose names begin with ``_`` hold logs and what isn't finished (Spark, Delta Lake).
    """
    for folder in folders:
        if folder.name.startswith("_"):
            continue
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        entries = _entries(folder)
        yield from (path for path in entries if path.is_file())
        yield from _walk([path for path in entries if path.is_dir()], seen)


def _nothing(folder: Path, entries: Sequence[Path], notes: Sequence[str]) -> str:
    said = f"the folder {folder} holds no Parquet, JSON lines, CSV or TSV file, and no picture"
    others = [path for path in entries if path.suffix.lower() in _OTHER_FORMATS]
    if others:
        return f"{said}; {others[0].name} is {_OTHER_FORMATS[others[0].suffix.lower()]}"
    if notes:
        return f"{said} ({notes[0]})"
    return f"{said} and is no data set written by save_to_disk"


def _kind(path: Path) -> str:
    if path.is_symlink() and not path.exists():
        return "a link to nothing"
    kinds = {
        "a pipe": path.is_fifo(),
        "a socket": path.is_socket(),
        "a device": path.is_char_device() or path.is_block_device(),
    }
    return next((name for name, true in kinds.items() if true), "something else")


def _counted(number: int) -> str:
    return "1 data file" if number == 1 else f"{number} data files"


# What paths say -------------------------------------------------------------------------------


def data_file(path: str, name: str) -> DataFile:
    """A file, with what its path says.

    Args:
        path: Where it is.
        name: Its path below what the user named.
    """
    columns = {
        unquote(match[1]): None if match[2] == _NULL else unquote(match[2])
        for match in map(_COLUMN.fullmatch, PurePosixPath(path).parts[:-1])
        if match
    }
    return DataFile(path, name, split_of(name), columns)


def split_of(name: str) -> str | None:
    """The split that a path speaks of: in the file's name, or else in that of a folder.

    The name of a picture speaks of what it shows.
    """
    *folders, last = PurePosixPath(name).parts
    if is_picture(last):
        return next((f.lower() for f in reversed(folders) if f.lower() in SPLITS), None)
    stem = _bare(last)
    if shard := _SHARD.fullmatch(stem):
        stem = shard[1]
        if folders[-1:] == ["data"] or _WORDS.split(stem)[0].lower() in SPLITS:
            return stem
    words = [word.lower() for word in _WORDS.split(stem) if not word.isdecimal()]
    found = [word for word in (*words[:1], *words[-1:]) if word in SPLITS]
    found += [folder.lower() for folder in reversed(folders) if folder.lower() in SPLITS]
    return found[0] if found else None


def _bare(name: str) -> str:
    """A file's name without the suffixes of its format and compression."""
    path = PurePosixPath(name)
    while path.suffix and (format_of(path.name) or format_of(path.stem)):
        path = PurePosixPath(path.stem)
    return path.name


def of_split(corpus: str, files: Sequence[DataFile], split: str) -> list[DataFile]:
    """The files of a split, or all if no path speaks of any split.

    Raises:
        UsageError: If there is none.
    """
    chosen = [each for each in files if is_of(each, split)]
    if not chosen and all(each.split is None for each in files):
        # They say nothing, so they may be called what the user calls them.
        chosen = list(files)
    if not chosen:
        names = ", ".join(each.name for each in files[:8])
        raise UsageError(f"{corpus} has no file of the split {split!r}; it has {names}")
    return [replace(each, split=split) for each in chosen]


def is_of(file: DataFile, split: str) -> bool:
    """Whether a file's path speaks of a split."""
    if file.split == split:
        return True
    if split in SPLITS:
        return False
    # Some have splits of their own: eval.csv, train-clean-100.csv.
    *folders, name = PurePosixPath(file.name).parts
    return split in folders or bool(re.fullmatch(rf"{re.escape(split)}([-_.].*)?", name))


def check_formats(files: Sequence[DataFile]) -> None:
    """Checks that every file is of a format that is read.

    Raises:
        UsageError: If one isn't.
    """
    for each in files:
        if format_of(each.path) is None:
            other = _OTHER_FORMATS.get(PurePosixPath(each.path).suffix.lower())
            raise UsageError(
                f"{each.path} is of no known format; a corpus is {NAMES}, or pictures alone"
                + (f"; this is {other}" if other else "")
            )
