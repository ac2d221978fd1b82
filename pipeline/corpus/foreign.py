"""Scores that others computed, as they lie in files: read into one form, and nothing guessed.

Known are Parquet files and JSON lines of ours and of Thermostat, ERASER's JSON lines, inseq's JSON,
captum's tensors in an ``.npz`` file, and runs and published data sets of attribeam. A file says of
which row each set of scores is by its id, its number in the corpus or its text.
"""

import base64
import gzip
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from attribeam.analysis import open_run
from attribeam.analysis.opening.remote import is_remote
from attribeam.schemas import UsageError
from attribeam.schemas.layout import MANIFEST
from attribeam.schemas.manifest import METHOD_NAME
from attribeam.transforms.inputs.given_scores import Given, GivenUnit
from attribeam.transforms.registry import IMPORTED, methods

Key = tuple[Literal["id", "row", "text"], str | int]
Record = Mapping[str, Any]
_IDS, _ROWS = ("instance_id", "id", "row_id"), ("corpus_row", "row", "idx")
_KNOWN = ".parquet, .jsonl, .json, .npz, or the folder or address of a run"


# The scores of a method of a run, and all its instances with them or why they are not there.
_SCORED = """
select instance_id, i.row_id = instance_id, i.tokens, a.target, a.scores, a.delta
from attributions as a
join instances as i using (instance_id)
where a.method = $method
order by instance_id
"""
_OF_EACH = """
select i, case when a.method is not null then a end, f.message
from instances as i
left join (from attributions where method = $method) as a using (instance_id)
left join (
    select instance_id, min(message) as message
    from failures
    where method = $method and stage = 'attribute'
    group by instance_id
) as f using (instance_id)
order by corpus_row, instance_id
"""
_LOST = """
select instance_id, row_id, corpus_row, message
from failures
where method is null
order by instance_id
"""


class Found(NamedTuple):
    """A set of scores, and what it is of.

    ``record`` is what the file, or the run, says beside it, if that was asked for: of a run the row
    of its ``instances`` and that of its ``attributions``.
    """

    key: Key
    given: Given
    record: Record | None = None


@dataclass(frozen=True)
class Foreign:
    """Scores that others computed, under the name of a method.

    Attributes:
        name: Its name.
        source: The file's name, for people.
        digest: Checksum of the file, or of what was read of a run.
        found: The sets of scores.
        facts: Whether they are signed, additive and of a class, as far as the file knows.
    """

    name: str
    source: str
    digest: str
    found: list[Found]
    facts: Mapping[str, bool]

    @property
    def params(self) -> dict[str, Any]:
        """What the run keeps of them; they are the same as long as this is."""
        signed = any(score < 0 for one in self.found for score in one.given.scores)
        targets = any(one.given.target is not None for one in self.found)
        facts = {"signed": signed, "additive": False, "class_dependent": targets}
        return {IMPORTED: self.digest, "source": self.source, **facts, **self.facts}


class FormError(ValueError):
    """Something in a file that can't be scores; the message says what."""


def check_names(names: Iterable[str]) -> None:
    """Checks that names can be those of methods whose scores are given.

    Raises:
        UsageError: If one can't, or is that of a method that is computed.
    """
    for name in names:
        if name in methods():
            raise UsageError(f"--scores {name}: there is a method of that name: give another")
        if not METHOD_NAME.fullmatch(name):
            raise UsageError(f"--scores {name}: a name is made of letters, digits, _, . and -")


def is_run(path: str) -> bool:
    """Whether scores at a path are those of a run, or of a published one."""
    return is_remote(path) or (Path(path) / MANIFEST).is_file()


def read_foreign(
    name: str, place: str, labels: Sequence[str] | None, *, whole: bool = False
) -> Foreign:
    """Reads scores that others computed.

    Args:
        name: The name that they are to have as a method.
        place: Their file, or the folder or address of a run; what follows a ``#`` is the name that
            the method has there, if it isn't the same.
        labels: Names of the model's classes, by which files may call them.
        whole: Whether what is said beside the scores is kept (``Found.record``).

    Raises:
        UsageError: If it can't be read, or is of no form that is known.
    """
    path, _, other = place.partition("#")
    try:
        if is_run(path):
            return _of_run(name, path, other or name, whole=whole)
        content = Path(path).read_bytes()
        records = [*records_of(path, content, other or name)]
        found = [_found(number, record, labels) for number, record in enumerate(records)]
        if whole:
            found = [one._replace(record=of) for one, of in zip(found, records, strict=True)]
    except FormError as error:
        raise UsageError(f"--scores {name}: {path}: {error}") from error
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"--scores {name}: {path} can't be read ({said})") from error
    if not found:
        raise UsageError(f"--scores {name}: {path} has no scores of {other or name}")
    return Foreign(name, Path(path).name, sha256(content).hexdigest(), found, {})


def _of_run(name: str, folder: str, method: str, *, whole: bool) -> Foreign:
    """The scores of a method of a run, or of a published one."""
    columns = ["signed", "additive", "class_dependent"]
    with open_run(folder, commented=False) as connection:
        record = connection.execute(
            f"select {', '.join(columns)} from methods where method = $method", {"method": method}
        ).fetchone()
        if record is None:
            raise FormError(f"the run has no method {method}")
        rows = connection.execute(_SCORED, {"method": method}).fetchall()
        rest = _of_each(connection, method) if whole else []
    digest = sha256()
    found = []
    for instance, of_row, tokens, target, scores, delta in rows:
        digest.update(json.dumps([instance, target, scores]).encode())
        of = None if of_row else instance
        given = Given(scores, tokens=tokens, target=target, instance_id=of, delta=delta)
        found.append(Found(("id", instance), given))
    if not found:
        raise FormError(f"the run has no scores of {method}")
    facts = {column: bool(fact) for column, fact in zip(columns, record, strict=True)}
    source = f"{folder.rstrip('/').rpartition('/')[2]}#{method}"
    return Foreign(name, source, digest.hexdigest(), rest or found, facts)


def _of_each(connection: duckdb.DuckDBPyConnection, method: str) -> list[Found]:
    """All instances of a run with their scores under a method, or with why there are none."""
    found = []
    for one, scores, message in connection.execute(_OF_EACH, {"method": method}).fetchall():
        problem = (message or "the run has no scores of it") if scores is None else None
        given = Given(
            scores["scores"] if scores else (),
            tokens=one["tokens"],
            target=scores["target"] if scores else None,
            problem=problem,
        )
        record = {"instance": one, "attribution": scores or {}}
        found.append(Found(("id", one["instance_id"]), given, record))
    for name, row, number, message in connection.execute(_LOST).fetchall():
        record = {"failed": message, "row_id": row, "corpus_row": number}
        found.append(Found(("id", name), Given((), problem=message), record))
    return found


# Files to records --------------------------------------------------------------------------------


def records_of(path: str, content: bytes, method: str | None = None) -> Iterator[Record]:
    """Yields the records of a file; of one with several methods, those of one of them.

    Raises:
        FormError: If it is of no form that is known, or a record is no object.
    """
    readers: dict[str, Callable[[bytes], Iterator[Record]]] = {
        ".parquet": _of_parquet,
        ".jsonl": _of_lines,
        ".json": _of_json,
        ".npz": _of_arrays,
    }
    reader = readers.get(Path(path).suffix.lower())
    if reader is None:
        raise FormError(f"scores are read from {_KNOWN}")
    for record in reader(content):
        if not isinstance(record, Mapping):
            raise FormError(f"a record is {str(record)[:40]!r}, and no object")
        if method is None or record.get("method") in (None, method):
            yield record


def _of_parquet(content: bytes) -> Iterator[Record]:
    for batch in pq.ParquetFile(pa.BufferReader(content)).iter_batches(4096):
        yield from batch.to_pylist()


def _of_lines(content: bytes) -> Iterator[Record]:
    for line in content.decode().splitlines():
        if line.strip():
            yield json.loads(line)


def _of_json(content: bytes) -> Iterator[Record]:
    """A list of records, JSON lines by another name, or what inseq has saved."""
    try:
        read = json.loads(content)
    except json.JSONDecodeError:
        yield from _of_lines(content)
        return
    attributes = read.get("attributes", read) if isinstance(read, dict) else {}
    if "sequence_attributions" in attributes:
        for number, sequence in enumerate(attributes["sequence_attributions"]):
            yield _of_inseq(number, sequence.get("attributes", sequence))
    else:
        yield from read if isinstance(read, list) else [read]


def _of_inseq(number: int, sequence: Record) -> Record:
    """A sequence of inseq's: of the one token that was explained, the scores of those before it."""
    source = sequence.get("source_attributions") is not None
    side = "source" if source else "target"
    tokens = [_plain(token)["token"] for token in sequence[side]]
    scores = _array(sequence[f"{side}_attributions"])
    if scores.ndim != 2:
        raise FormError(
            f"sequence {number} has scores of {scores.ndim} dimensions: aggregate them to one of "
            "each token before they are saved"
        )
    if scores.shape[1] != 1:
        raise FormError(f"sequence {number} explains {scores.shape[1]} tokens: save one step of it")
    column = scores[:, 0]
    # What comes after what was explained has no score.
    last = len(column) - int(np.isnan(column[::-1]).argmin()) if np.isnan(column).any() else None
    return {"row": number, "scores": column[:last].tolist(), "tokens": tokens[:last]}


def _plain(value: Record) -> Record:
    """An object of inseq's without what it says of its class."""
    plain: Record = value.get("attributes", value)
    return plain


def _array(value: Any) -> Any:
    """An array as inseq writes it: a list, or one in a wrapping, perhaps packed."""
    if not isinstance(value, Mapping):
        return np.asarray(value, np.float64)
    data = value["__ndarray__"]
    if not isinstance(data, str):
        return np.asarray(data, np.float64)
    packed, _, text = data.partition(":")
    raw = base64.b64decode(text)
    raw = gzip.decompress(raw) if packed.endswith("gz") else raw
    order: Literal["C", "F"] = "C" if value.get("Corder", True) else "F"
    flat = np.frombuffer(raw, np.dtype(str(value["dtype"])))
    return flat.reshape(value["shape"], order=order).astype(np.float64)


def _of_arrays(content: bytes) -> Iterator[Record]:
    """Captum's attributions, [N, T], with what tells padding and rows apart, if that is there."""
    with np.load(pa.BufferReader(content), allow_pickle=False) as arrays:
        every = {name: arrays[name] for name in arrays.files}
    scores = every.get("attributions", every.get("scores"))
    if scores is None or scores.ndim != 2:
        shape = "none" if scores is None else f"of {scores.ndim} dimensions"
        raise FormError(
            f"`attributions` is {shape}: it is [rows, tokens], summed over the embeddings"
        )
    lengths = every.get("lengths")
    if lengths is None and "attention_mask" in every:
        lengths = every["attention_mask"].sum(1)
    for row, own in enumerate(scores):
        record: dict[str, Any] = {"row": row, "scores": own.tolist()}
        if "ids" in every:
            record["id"] = str(every["ids"][row])
        length = None if lengths is None else int(lengths[row])
        record["scores"] = record["scores"][:length]
        for name in ("input_ids", "tokens"):
            if name in every:
                record[name] = every[name][row].tolist()[:length]
        if "targets" in every:
            record["target"] = int(every["targets"][row])
        yield record


# Records to scores -------------------------------------------------------------------------------


def _found(number: int, record: Record, labels: Sequence[str] | None) -> Found:
    """The scores of a record, which says what they are of."""
    if "rationales" in record and "annotation_id" in record:
        return _of_eraser(record, labels)
    scores = record.get("scores", record.get("attributions"))
    if not isinstance(scores, list):
        raise FormError(f"record {number} has no list `scores` or `attributions`")
    target = record.get("target")
    if target is None and "attributions" in record and record.get("predictions"):
        # Thermostat explains the largest logit.
        target = int(np.argmax(record["predictions"]))
    spans = record.get("spans")
    named = record.get("words") or record.get("tokens")
    unit: Any = record.get("unit") or (
        "span" if spans is not None else "word" if record.get("words") else "token"
    )
    if unit not in get_args(GivenUnit):
        raise FormError(f"record {number}: unit is token, word or span, not {unit!r}")
    given = Given(
        [_number(score) for score in scores],
        unit=unit,
        tokens=named,
        input_ids=record.get("input_ids"),
        spans=None if spans is None else [(int(start), int(end)) for start, end in spans],
        target=class_of(target, labels),
    )
    return Found(key_of(number, record), _checked(given))


def _of_eraser(record: Record, labels: Sequence[str] | None) -> Found:
    """A line of ERASER's predictions: soft scores of the words of one document."""
    name, rationales = str(record["annotation_id"]), record["rationales"]
    soft = [one.get("soft_rationale_predictions") for one in rationales]
    given = Given((), unit="word", target=class_of(record.get("classification"), labels))
    if len(soft) != 1 or soft[0] is None:
        why = f"has soft_rationale_predictions of {sum(s is not None for s in soft)} documents"
        return Found(("id", name), replace(given, problem=f"{why}, not of one"))
    scores = [_number(score) for score in soft[0]]
    return Found(("id", name), _checked(replace(given, scores=scores)))


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _checked(given: Given) -> Given:
    """The same, with what is wrong with its numbers."""
    bad = sum(not math.isfinite(score) for score in given.scores)
    if not bad:
        return given
    return replace(given, problem=f"{bad} of its {len(given.scores)} scores are no numbers")


def class_of(value: Any, labels: Sequence[str] | None) -> int | None:
    """The number of a class that a file names."""
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, str) and labels and value in labels:
        return list(labels).index(value)
    try:
        return int(value)
    except ValueError:
        raise FormError(f"the model has no class {value!r}; it has {labels}") from None


def key_of(number: int, record: Record) -> Key:
    """By what a record says which row it is of: an id, a number or the text."""
    for name in _IDS:
        if record.get(name) is not None:
            return "id", str(record[name])
    for name in _ROWS:
        if record.get(name) is not None:
            return "row", int(record[name])
    if isinstance(record.get("text"), str):
        return "text", str(record["text"])
    raise FormError(
        f"record {number} doesn't say what it is of: {', '.join((*_IDS, *_ROWS))} or text"
    )
