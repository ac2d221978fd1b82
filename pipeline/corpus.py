"""The corpus of a run: which columns mean what, and its normalised copy in the run's folder.

Whatever the source, a run first copies the columns it needs to ``corpus/rows-NNNNN.parquet``, one
file a shard. Workers then need nothing but the run's folder, a shard's rows are one read, and a
source that moves or changes under a long run does no harm.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.files import discard_folder, join, list_checked, read_parquet, write_parquet
from pipeline.sources import Record, Source
from schemas import UsageError
from schemas.layout import CORPUS, corpus_path
from transforms import Model, Row

# The names that columns go by in the data sets people have, most telling first.
_GUESSES: dict[str, tuple[str, ...]] = {
    "text": (
        *("text", "premise", "sentence1", "question1", "question", "sentence", "content"),
        *("review", "document", "query", "tweet", "comment", "body"),
    ),
    "label": ("label", "labels", "gold_label", "class", "target"),
    "id": ("id", "instance_id", "idx", "guid", "uid"),
    "rationale": ("rationale", "rationales"),
    "roles": ("roles",),
    "subset": ("subset", "subtask"),
    "good": ("good",),
    "bad": ("bad",),
    "input_ids": ("input_ids",),
    "token_type_ids": ("token_type_ids",),
    "attention_mask": ("attention_mask",),
    "special_tokens_mask": ("special_tokens_mask",),
}
_PAIRS = {
    "text": ("text_pair", "text2"),
    "premise": ("hypothesis",),
    "sentence1": ("sentence2",),
    "question1": ("question2",),
    "question": ("sentence", "context", "passage"),
    "sentence": ("sentence_pair", "text_pair"),
}
ROLES = ("text", "pair", "label", "id", "rationale", "roles", "subset", "good", "bad")

_SCHEMA = pa.schema(
    [
        ("instance_id", pa.string()),
        ("text", pa.string()),
        ("text_pair", pa.string()),
        ("split", pa.string()),
        ("label", pa.int64()),
        ("rationale", pa.list_(pa.int8())),
        ("roles", pa.list_(pa.string())),
        ("subset", pa.string()),
        ("input_ids", pa.list_(pa.int32())),
        ("token_type_ids", pa.list_(pa.int32())),
        ("attention_mask", pa.list_(pa.int8())),
        ("special_tokens_mask", pa.list_(pa.int8())),
        ("good", pa.string()),
        ("bad", pa.string()),
        ("problem", pa.string()),
    ]
)


def choose_columns(source: Source, given: Mapping[str, str | None], model: Model) -> dict[str, str]:
    """Decides which column of a source plays which role.

    Args:
        source: The source.
        given: Columns named by the user by role (``ROLES``); ``none`` for no column.
        model: The model, which says whether words to contrast and a tokenizer are there.

    Returns:
        Column by role, for the roles that are played.

    Raises:
        UsageError: If a named column isn't there, or a needed role has no column.
    """
    columns: dict[str, str] = {}
    for role, guesses in _GUESSES.items():
        found = _column(source, role, given.get(role), guesses)
        if found:
            columns[role] = found
    if "text" in columns:
        pair = _column(source, "pair", given.get("pair"), _PAIRS.get(columns["text"], ()))
        if pair:
            columns["pair"] = pair
    return _checked(source, columns, given, model)


def _column(source: Source, role: str, given: str | None, guesses: Iterable[str]) -> str | None:
    if given == "none":
        return None
    if given is not None:
        if given not in source.columns:
            raise UsageError(
                f"{source.name} has no column {given!r} (--{role}-column); "
                f"its columns are {', '.join(source.columns)}"
            )
        return given
    return next((name for name in guesses if name in source.columns), None)


def _checked(
    source: Source, columns: dict[str, str], given: Mapping[str, str | None], model: Model
) -> dict[str, str]:
    listed = ", ".join(source.columns) or "none that could be read"
    # A text that was named wins over ids that happen to be there, and so does one that can be read.
    of_ids = ("input_ids", "token_type_ids", "attention_mask", "special_tokens_mask")
    if "input_ids" not in columns or given.get("text") or ("text" in columns and model.tokenizer):
        columns = {k: v for k, v in columns.items() if k not in of_ids}
    if "input_ids" in columns:
        of_texts = ("text", "pair", "rationale", "roles")
        columns = {k: v for k, v in columns.items() if k not in of_texts}
    elif "text" not in columns:
        raise UsageError(
            f"{source.name} has no text column that could be guessed; its columns are {listed}: "
            "name one with --text-column"
        )
    elif model.tokenizer is None:
        raise UsageError(f"{model.no_tokenizer}; its columns are {listed}")
    if model.task == "masked_lm":
        for role in ("good", "bad"):
            if role not in columns:
                raise UsageError(
                    f"a masked LM is explained by the contrast of two words, but {source.name} has "
                    f"no column {role!r}; its columns are {listed}: name one with --{role}-column"
                )
        return {k: v for k, v in columns.items() if k != "label"}
    return {k: v for k, v in columns.items() if k not in ("good", "bad")}


# Normalising ----------------------------------------------------------------------------------


# A class's number as text; that of a column with gaps has become a float on its way (pandas).
_NUMBER = re.compile(r"(-?\d{1,18})(\.0+)?")


class _Unreadable(ValueError):
    """A value that isn't what its column should hold."""


@dataclass(frozen=True)
class _Normaliser:
    """Turns records into rows of ``_SCHEMA``."""

    columns: Mapping[str, str]
    labels: tuple[str, ...]

    def row(self, position: int, record: Record) -> dict[str, Any]:
        """The normalised row of a record; ``problem`` says what is wrong with it if anything."""
        row: dict[str, Any] = dict.fromkeys(_SCHEMA.names)
        row |= {"split": record.split, "problem": record.problem}
        for role, column in self.columns.items():
            value = record.values.get(column)
            if value is None:
                continue
            try:
                row[{"pair": "text_pair", "id": "instance_id"}.get(role, role)] = self._value(
                    role, value
                )
            except _Unreadable as error:
                row["problem"] = row["problem"] or str(error)
        row["instance_id"] = row["instance_id"] or _content_id(position, record)
        return row

    def _value(self, role: str, value: Any) -> Any:
        if role in ("text", "pair"):
            return _string(value, role)
        if role in ("id", "subset"):
            return _string(str(value), role)
        if role == "roles":
            words = value.split() if isinstance(value, str) else value
            return [None if word is None else _string(word, role) for word in words]
        if role == "label":
            return self._label(value)
        if role in ("good", "bad"):
            return _string(str(value).strip(), role)
        return _integers(value, role)

    def _label(self, value: Any) -> int | None:
        """A label as the number of a class; None for -1, the usual mark of a missing label."""
        if isinstance(value, bool | int | np.integer):
            return None if value == -1 else _int64(int(value))
        if isinstance(value, float):
            if math.isnan(value):
                return None
            if value.is_integer():
                return self._label(int(value))
        text = str(value).strip()
        if not text:
            return None
        if number := _NUMBER.fullmatch(text):
            return self._label(int(number[1]))
        names = [label.lower() for label in self.labels]
        if text.lower() in names:
            return names.index(text.lower())
        raise _Unreadable(f"the label {text!r} is none of the model's ({', '.join(self.labels)})")


def _string(value: Any, role: str) -> str:
    if not isinstance(value, str):
        raise _Unreadable(f"the {role} is a {type(value).__name__}, not a string")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise _Unreadable(f"the {role} holds a lone surrogate: {error.reason}") from error
    return value


def _int64(number: int) -> int:
    if not -(2**63) <= number < 2**63:
        raise _Unreadable(f"the label {number} is not the number of a class")
    return number


def _integers(value: Any, role: str) -> list[int]:
    if isinstance(value, str):
        value = value.replace(",", " ").strip("[] ").split()
    try:
        numbers = [int(item) for item in value]
        if any(isinstance(item, float) and not item.is_integer() for item in value):
            raise ValueError("some have decimals")
        pa.array(numbers, _SCHEMA.field(role).type.value_type)
    except (TypeError, ValueError, OverflowError, pa.ArrowException) as error:
        raise _Unreadable(f"{role} is not a list of small integers: {error}") from error
    return numbers


def _content_id(position: int, record: Record) -> str:
    """Identity of a row without one: a hash of its content and its position."""
    content = repr(sorted(record.values.items(), key=lambda item: str(item[0])))
    digest = blake2b(f"{position}\0{content}".encode(errors="surrogatepass"), digest_size=8)
    return f"row-{position}-{digest.hexdigest()}"


# Staging --------------------------------------------------------------------------------------


def stage(
    source: Source,
    columns: Mapping[str, str],
    model: Model,
    root: str,
    *,
    shard_size: int,
    limit: int | None,
    windows: bool = False,
) -> int:
    """Copies a corpus into the run's folder, normalised, one file a shard.

    Args:
        source: The corpus.
        columns: Column by role.
        model: The model, for the names of its labels.
        root: The run's folder.
        shard_size: Rows a shard.
        limit: Most rows to take; None for all.
        windows: Whether long texts are to become windows, which have ids too.

    Returns:
        Number of rows.

    Raises:
        UsageError: If the corpus is empty or two rows have the same id, or one has the id that a
            window of another would have.
    """
    discard_folder(join(root, CORPUS))
    normaliser = _Normaliser(columns, tuple(model.labels))
    records = islice(source.records(), limit)
    rows = (normaliser.row(position, record) for position, record in enumerate(records))
    count = shard = 0
    hashes: list[np.ndarray] = []
    while chunk := list(islice(rows, shard_size)):
        write_parquet(join(root, corpus_path(shard)), pa.Table.from_pylist(chunk, _SCHEMA))
        hashes.append(np.array([_hash(row["instance_id"]) for row in chunk], np.uint64))
        count, shard = count + len(chunk), shard + 1
    if not count:
        raise UsageError(f"{source.name} has no rows")
    _check_unique(source, columns, root, hashes)
    if windows:
        _check_windows(source, columns, root, hashes)
    return count


def staged(root: str, num_shards: int) -> bool:
    """Whether the rows of every shard are there, and none of these files is cut short."""
    there = {f"{CORPUS}/{path}" for path, whole in list_checked(join(root, CORPUS)) if whole}
    return there.issuperset(corpus_path(shard) for shard in range(num_shards))


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


def _check_unique(
    source: Source, columns: Mapping[str, str], root: str, hashes: list[np.ndarray]
) -> None:
    """Two rows of one id would be one row in every join, so they are refused."""
    values, counts = np.unique(np.concatenate(hashes), return_counts=True)
    repeated = set(values[counts > 1].tolist())
    for shard in range(len(hashes) if repeated else 0):
        for row in read_rows(root, shard):
            if _hash(row.instance_id) in repeated:
                raise UsageError(
                    f"{source.name} has more than one row with the id {row.instance_id!r} "
                    f"(column {columns.get('id')!r}); --id-column names another, or none"
                )


# An id that a window could have, and the id of the row it would be of.
_WINDOW = re.compile(r"(.*)/(0|[1-9]\d*)", re.DOTALL)


def _check_windows(
    source: Source, columns: Mapping[str, str], root: str, hashes: list[np.ndarray]
) -> None:
    """Whether the row would have such a window isn't known yet; nobody should have to wonder."""
    every = np.unique(np.concatenate(hashes))
    for shard in range(len(hashes)):
        found = [_WINDOW.fullmatch(row.instance_id) for row in read_rows(root, shard)]
        parents = [match for match in found if match]
        taken = np.isin(np.array([_hash(match[1]) for match in parents], np.uint64), every)
        for match in (match for match, hit in zip(parents, taken, strict=True) if hit):
            raise UsageError(
                f"{source.name} has rows with the ids {match[1]!r} and {match[0]!r} "
                f"(column {columns.get('id')!r}), and under --overflow stride the second could be "
                "a window of the first; --id-column names another column, or none"
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


def sample_rows(
    source: Source, columns: Mapping[str, str], model: Model, *, limit: int | None, most: int
) -> tuple[int, list[Row]]:
    """Reads a corpus once, for its number of rows and some of them at even distances.

    Args:
        source: The corpus.
        columns: Column by role.
        model: The model, for the names of its labels.
        limit: Most rows to take; None for all.
        most: Most rows of the sample; it has at least half as many, or all.
    """
    normaliser = _Normaliser(columns, tuple(model.labels))
    kept: list[tuple[int, Record]] = []
    count, step = 0, 1
    for position, record in enumerate(islice(source.records(), limit)):
        count += 1
        if position % step == 0:
            kept.append((position, record))
        if len(kept) > most:
            step *= 2
            kept = kept[::2]
    return count, [_row_of(normaliser.row(position, record)) for position, record in kept]
