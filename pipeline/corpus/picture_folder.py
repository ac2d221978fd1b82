"""Folders of pictures as corpora: what their paths say, and files of metadata beside them.

As ``datasets`` lays them out: ``train/cat/1.png`` is a cat of the split ``train``, and a file
called ``metadata`` tells more of the pictures that its column ``file_name`` names.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from attribeam.pipeline.corpus.fields import Field, Fields, ReadRow
from attribeam.pipeline.corpus.listing import (
    SPLITS,
    DataFile,
    Listing,
    data_file,
    files_below,
    is_data,
)
from attribeam.pipeline.corpus.pictures import is_picture
from attribeam.pipeline.corpus.readers import Reader
from attribeam.pipeline.store.files import is_local

# What columns of labels are called, most telling first.
LABEL_NAMES = ("label", "labels", "gold_label", "class", "target")
_METADATA, _FILE_NAME = "metadata", "file_name"
_MOST_SAID = 8
_TEXT = Field(frozenset({"text"}))


def pictures_in(folder: Path) -> Listing | None:
    """The pictures in a folder and those below it; None if it has none, or data as well."""
    inside = files_below(folder)
    pictures = [path for path in inside if is_picture(path.name)]
    if not pictures or any(map(is_data, inside)):
        return None
    files = [data_file(str(path), path.relative_to(folder).as_posix()) for path in pictures]
    others = [path for path in inside if not is_picture(path.name) and path.name != "README.md"]
    if not others:
        return Listing(files)
    first = others[0].relative_to(folder)
    return Listing(files, [f"left out: {len(others)} files of other kinds, such as {first}"])


def labelled(listing: Listing) -> Listing:
    """Pictures with the labels that the folders are called by which they lie in.

    The folder that a picture is in is its label, if there are several of these, all as deep.
    """
    found = [_class_of(file.name) for file in listing.files]
    classes, notes = _classes(found)
    files = list(listing.files)
    if classes:
        files = [
            replace(file, columns={**file.columns, "label": name}, classes={"label": classes})
            for file, (name, _) in zip(files, found, strict=True)
        ]
    return replace(listing, files=files, notes=[*listing.notes, *notes])


def _classes(named: Iterable[tuple[str | None, int]]) -> tuple[tuple[str, ...], list[str]]:
    """Classes by the folders that pictures are in, and a sentence on them, or why there are none.

    Args:
        named: The folder that each is in, and how deep that lies.
    """
    different = set(named)
    names = sorted({name for name, _ in different if name is not None})
    if not names:
        return (), []
    if len({depth for _, depth in different}) > 1:
        return (), ["no labels by folder: some pictures lie deeper than others"]
    if len(names) == 1:
        return (), [f"no labels by folder: all pictures are in {names[0]}"]
    more = ", ..." if len(names) > _MOST_SAID else ""
    return tuple(names), [f"labels by folder: {', '.join(names[:_MOST_SAID])}{more}"]


def _class_of(name: str) -> tuple[str | None, int]:
    """The folder that a picture is in, unless that is a split's; and how deep it lies.

    Folders that give columns (``year=2020``) are neither.
    """
    folders = [each for each in PurePosixPath(name).parts[:-1] if "=" not in each]
    if not folders or folders[-1].lower() in SPLITS:
        return None, 0
    return folders[-1], sum(each.lower() not in SPLITS for each in folders)


# Reading --------------------------------------------------------------------------------------


def picture_fields(files: Sequence[DataFile]) -> Fields:
    """The columns of pictures without data of their own: their paths, and what these say."""
    fields = {"id": _TEXT, "image": _TEXT}
    classes = files[0].classes.get("label")
    if isinstance(classes, tuple):
        fields["label"] = class_field(classes)
    return fields | {name: _TEXT for file in files for name in file.columns if name not in fields}


def class_field(classes: tuple[str, ...]) -> Field:
    """A column of labels that are names of folders."""
    return Field(frozenset({"text"}), classes, numbered=False)


def picture_rows(files: Sequence[DataFile], columns: Collection[str]) -> Iterator[ReadRow]:
    """A row for each picture, called by its path below what the user named."""
    for file in files:
        values = {"id": file.name, "image": file.path, **file.columns}
        yield {name: value for name, value in values.items() if name in columns}, None


# Metadata -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Metadata:
    """A file that tells of the pictures beside it and below.

    Attributes:
        folder: Where it lies.
        pictures: The pictures that it tells of, and other files of them.
        classes: The folders that these lie in, if they are labels: if it has none itself.
        notes: Sentences on these.
    """

    folder: Path
    pictures: frozenset[str]
    classes: tuple[str, ...]
    notes: Sequence[str]


def metadata_of(file: DataFile, fields: Fields, reader: Reader) -> Metadata | None:
    """What a file of metadata tells of pictures; None if it is none."""
    name = PurePosixPath(file.path).name
    if name.split(".")[0] != _METADATA or _FILE_NAME not in fields or not is_local(file.path):
        return None
    columns = [column for column in fields if column.endswith(_FILE_NAME)]
    pictures: set[str] = set()
    classes: set[tuple[str | None, int]] = set()
    for values, _ in reader.rows(file.path, columns):
        pictures |= {value for value in values.values() if isinstance(value, str)}
        if isinstance(values.get(_FILE_NAME), str):
            classes.add(_class_of(values[_FILE_NAME]))
    labels = any(column.casefold() in LABEL_NAMES for column in fields)
    found, notes = ((), ()) if labels else _classes(classes)
    return Metadata(Path(file.path).parent, frozenset(pictures), found, notes)


def labelling(reader: Reader) -> Reader:
    """The same rows of metadata with a column more: the folder that the picture is in."""

    def rows(path: str, columns: Collection[str]) -> Iterator[ReadRow]:
        for values, problem in reader.rows(path, {*columns} - {"label"} | {_FILE_NAME}):
            name = values.get(_FILE_NAME)
            label = _class_of(name)[0] if isinstance(name, str) else None
            yield {**values, "label": label}, problem

    return Reader(reader.fields, rows)


def notes_on(files: Sequence[Metadata]) -> list[str]:
    """Sentences on labels, and on pictures beside files of metadata that none of these names."""
    notes = list(dict.fromkeys(note for each in files for note in each.notes))
    named = {(each.folder / name).resolve() for each in files for name in each.pictures}
    folders = {each.folder for each in files}
    there = {path for folder in folders for path in files_below(folder) if is_picture(path.name)}
    left = sorted(path for path in there if path.resolve() not in named)
    if not left:
        return notes
    return [*notes, f"left out: {len(left)} pictures that no metadata names, such as {left[0]}"]
