"""What becomes of a corpus's values: a row whose columns have the types that encoding takes."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from typing import Any

import pyarrow as pa

from attribeam.pipeline.corpus.fields import Field, class_name
from attribeam.pipeline.corpus.labels import LabelError, Labels
from attribeam.pipeline.corpus.pictures import PictureError, picture_file
from attribeam.pipeline.corpus.sources import Record

_EXTENT = pa.struct([("kind", pa.string()), ("start", pa.int64()), ("end", pa.int64())])
SCHEMA = pa.schema(
    [
        ("instance_id", pa.string()),
        ("corpus_row", pa.int64()),
        ("text", pa.string()),
        ("text_pair", pa.string()),
        ("split", pa.string()),
        ("label", pa.int64()),
        ("rationale", pa.list_(pa.int8())),
        ("rationale_pair", pa.list_(pa.int8())),
        ("roles", pa.list_(pa.string())),
        ("subset", pa.string()),
        ("input_ids", pa.list_(pa.int32())),
        ("token_type_ids", pa.list_(pa.int32())),
        ("attention_mask", pa.list_(pa.int8())),
        ("special_tokens_mask", pa.list_(pa.int8())),
        ("good", pa.string()),
        ("bad", pa.string()),
        ("continuation", pa.string()),
        ("continuation_ids", pa.list_(pa.int32())),
        ("foil", pa.string()),
        ("foil_ids", pa.list_(pa.int32())),
        ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("segments", pa.list_(_EXTENT)),
        ("pixel_values", pa.list_(pa.float64())),
        ("image", pa.binary()),
        ("mask", pa.list_(pa.binary())),
        ("mask_label", pa.list_(pa.int64())),
        ("other_mask", pa.list_(pa.binary())),
        ("other_label", pa.list_(pa.int64())),
        ("files", pa.string()),
        ("problem", pa.string()),
    ]
)
_NAMES = {"pair": "text_pair", "id": "instance_id"}
# Columns that are there only where a corpus has them: of pairs, of prompts, and of pictures.
_OF_PAIRS = ("rationale_pair",)
_OF_PROMPTS = (
    *("continuation", "continuation_ids", "foil", "foil_ids"),
    *("messages", "segments"),
)
_OF_IMAGES = ("pixel_values", "image", "mask", "mask_label", "other_mask", "other_label", "files")
_FILES = ("image", "mask", "other_mask")


def schema_of(columns: Mapping[str, str]) -> pa.Schema:
    """The schema of rows of a corpus whose columns have these roles."""
    there = {*columns, "files"} if not columns.keys().isdisjoint(_FILES) else {*columns}
    some = (*_OF_PAIRS, *_OF_PROMPTS, *_OF_IMAGES)
    return pa.schema([each for each in SCHEMA if each.name not in some or each.name in there])


class _Unreadable(ValueError):
    """A value that isn't what its column should hold."""


@dataclass(frozen=True)
class Normaliser:
    """Turns records into rows of ``SCHEMA``.

    Attributes:
        columns: Column by role.
        labels: How labels are read.
        subsets: What is known of the column of subsets, by part.
        paths: Column of paths by role, of files whose bytes are in a column if they are there.
        places: Folders that relative paths may start at, by part.
    """

    columns: Mapping[str, str]
    labels: Labels
    subsets: Sequence[Field | None] = ()
    paths: Mapping[str, str] = field(default_factory=dict)
    places: Sequence[Sequence[str]] = ()

    def row(self, position: int, record: Record) -> dict[str, Any]:
        """The normalised row of a record; ``problem`` says what is wrong with it if anything."""
        row: dict[str, Any] = dict.fromkeys(SCHEMA.names)
        row["corpus_row"], row["problem"] = position, record.problem
        record = self._with_paths(record)
        row["files"] = self._files(record)
        for role, column in self.columns.items():
            value = record.values.get(column)
            if role == "subset" and self.subsets:
                value = class_name(self.subsets[record.part], value)
            if role == "split" or _is_nothing(role, value):
                continue
            read = self._file if role in _FILES else self._value
            try:
                row[_NAMES.get(role, role)] = read(role, value, record.part)
            except (_Unreadable, LabelError, PictureError) as error:
                row["problem"] = row["problem"] or str(error)
        try:
            row["split"] = None if record.split is None else _string(record.split, "split")
        except _Unreadable as error:
            row["problem"] = row["problem"] or str(error)
        row["instance_id"] = row["instance_id"] or _content_id(position, record)
        return row

    def _value(self, role: str, value: Any, part: int) -> Any:
        if role in _READ:
            return _READ[role](value)
        if role in ("id", "subset"):
            return _string(value if isinstance(value, bytes) else str(value), role)
        if role == "label":
            return self.labels.readings[part](value)
        if role in ("mask_label", "other_label"):
            every = value if isinstance(value, list) else [value]
            return [self.labels.readings[part](each) for each in every]
        if role in ("good", "bad"):
            text = value if isinstance(value, bytes) else str(value)
            return _string(text, role).strip()
        return _integers(value, role)

    def _with_paths(self, record: Record) -> Record:
        """The record, with paths in the place of bytes that are not there, and nowhere else."""
        beside = {*self.paths.values()} - {*self.columns.values()}
        values = {name: value for name, value in record.values.items() if name not in beside}
        for role, column in self.paths.items():
            if values.get(self.columns[role]) is None:
                values[self.columns[role]] = record.values.get(column)
        return record._replace(values=values)

    def _files(self, record: Record) -> str | None:
        """The files that a record names, for messages."""
        named = [
            f"{role} {path}"
            for role in _FILES
            for path in _paths_in(record.values.get(self.columns.get(role, "")))
        ]
        return ", ".join(named) or None

    def _file(self, role: str, value: Any, part: int) -> bytes | list[bytes]:
        """The content of a picture's file, or of several masks'."""
        if role == "image":
            return self._content(role, value, part)
        every = value if isinstance(value, list) else [value]
        return [self._content(role, each, part) for each in every]

    def _content(self, role: str, value: Any, part: int) -> bytes:
        """The content of a file, which is given itself, by path, or as ``datasets`` has it."""
        if isinstance(value, dict):
            value = value.get("path") if value.get("bytes") is None else value["bytes"]
        if isinstance(value, str):
            return picture_file(_string(value, role), self.places[part])
        if not isinstance(value, bytes):
            what = "nothing" if value is None else f"a {type(value).__name__}"
            raise _Unreadable(f"the {role} is {what}, not the bytes or the path of a file")
        return value


def _paths_in(value: Any) -> list[str]:
    """The paths that a column of files holds in a row."""
    if isinstance(value, list):
        return [path for each in value for path in _paths_in(each)]
    if isinstance(value, dict):
        value = value.get("path") if value.get("bytes") is None else None
    return [value] if isinstance(value, str) and value.strip() else []


def _is_nothing(role: str, value: Any) -> bool:
    """Whether a value stands for none: null, NaN, or a cell that is left blank."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return True
    if not isinstance(value, str):
        return False
    return value == "" if role in ("text", "pair", "continuation", "foil") else not value.strip()


def _text(value: Any, role: str) -> str:
    """A text; of a list of words, these with blanks between them."""
    if not isinstance(value, list):
        return _string(value, role)
    words = []
    for number, item in enumerate(value, 1):
        word = _string(item, f"word {number} of the {role}")
        if word.split() != [word]:
            raise _Unreadable(
                f"the {role} is a list, and each of it has to be one word, but number {number} is "
                f"{word[:40]!r}"
            )
        words.append(word)
    return " ".join(words)


def _string(value: Any, what: str) -> str:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise _Unreadable(
                f"the {what} is not valid UTF-8: {error.reason} at byte {error.start}"
            ) from error
    if not isinstance(value, str):
        raise _Unreadable(f"the {what} is a {type(value).__name__}, not a string")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise _Unreadable(f"the {what} holds a lone surrogate: {error.reason}") from error
    return value


def _roles(value: Any) -> list[str | None]:
    words = value.split() if isinstance(value, str) else value
    if not isinstance(words, list):
        raise _Unreadable(f"the roles are a {type(value).__name__}, not a list of names")
    return [None if word is None else _string(word, "roles") for word in words]


def _integers(value: Any, role: str) -> list[int]:
    if isinstance(value, str):
        value = value.replace(",", " ").strip("[] ").split()
    try:
        numbers = [int(item) for item in value]
        if any(isinstance(item, float) and not item.is_integer() for item in value):
            raise ValueError("some have decimals")
        pa.array(numbers, SCHEMA.field(role).type.value_type)
    except (TypeError, ValueError, OverflowError, pa.ArrowException) as error:
        raise _Unreadable(f"{role} is not a list of small integers: {error}") from error
    return numbers


def _messages(value: Any) -> list[dict[str, str]]:
    """Messages; their keys may be those of other collections."""
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise _Unreadable("the messages are no list of objects with a role and a content")
    found = []
    for number, each in enumerate(value):
        role, content = each.get("role", each.get("from")), each.get("content", each.get("value"))
        if role is None or content is None:
            raise _Unreadable(f"message {number} has no role or no content")
        what = f"message {number}"
        found.append({"role": _string(role, what), "content": _string(content, what)})
    return found


def _extents(value: Any) -> list[dict[str, Any]]:
    """Segments of a prompt."""
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise _Unreadable("the segments are no list of objects with a kind, a start and an end")
    found = []
    for number, each in enumerate(value):
        start, end = _integers([each.get("start"), each.get("end")], "input_ids")
        kind = each.get("kind")
        name = None if kind is None else _string(kind, f"kind of segment {number}")
        found.append({"kind": name, "start": start, "end": end})
    return found


def _foils(value: Any) -> list[int | None]:
    """Ids of tokens; null for those that have no foil."""
    if not isinstance(value, list):
        return [*_integers(value, "foil_ids")]
    there = iter(_integers([item for item in value if item is not None], "foil_ids"))
    return [None if item is None else next(there) for item in value]


def _content_id(position: int, record: Record) -> str:
    """Identity of a row without one: a hash of its position and of the columns that are read."""
    content = repr(sorted(record.values.items(), key=lambda item: str(item[0])))
    digest = blake2b(f"{position}\0{content}".encode(errors="surrogatepass"), digest_size=8)
    return f"row-{position}-{digest.hexdigest()}"


def _pixels(value: Any) -> list[float]:
    if not isinstance(value, list):
        raise _Unreadable(f"pixel_values is a {type(value).__name__}, not a list of numbers")
    try:
        return [float(item) for item in value]
    except (TypeError, ValueError) as error:
        raise _Unreadable(f"pixel_values is not a list of numbers: {error}") from error


# Roles whose values are read alike in all parts; others are lists of whole numbers, and labels.
_READ: dict[str, Callable[[Any], Any]] = {
    "text": partial(_text, role="text"),
    "pair": partial(_text, role="pair"),
    "continuation": partial(_string, what="continuation"),
    "foil": partial(_string, what="foil"),
    "foil_ids": _foils,
    "messages": _messages,
    "segments": _extents,
    "roles": _roles,
    "pixel_values": _pixels,
}
