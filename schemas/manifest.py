"""``run.json``: what a run's numbers depend on, and who has added to it when.

Manifests are JSON objects with the keys below, and perhaps others: what a later version of the same
format has added is kept wherever a manifest is written back. ``parse`` reads all ``FORMATS`` and
gives what this version would have written, as far as that is known.
"""

import json
import re
from collections.abc import Iterator, Mapping
from types import UnionType
from typing import (
    Any,
    Literal,
    NotRequired,
    TypedDict,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from attribeam.schemas.layout import FORMAT, FORMATS, PUBLISHED
from attribeam.schemas.tables import TABLES

# A method's name is a part of paths.
METHOD_NAME = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)
# A manifest may come from anyone, and what it names is to be installed.
_VERSION = re.compile(r"\d[\w.+!-]{0,40}", re.ASCII)
# What stands for a model's task where scores were imported without it, and what is said then.
IMPORTED_TASK = "imported"
NO_MODEL = (
    "holds scores that were imported without a model, and this needs it: give the model, the "
    "corpus and their files to `attribeam run --model M --corpus C --scores NAME=FILE --output "
    "FOLDER`, which makes a run of them"
)
_MOST_SHARDS = 10_000_000


class ModelHashes(TypedDict):
    """Hashes of a model's weights and configuration; the first is all that early runs have."""

    weights_sha256: str
    weights_read_sha256: NotRequired[str]
    config_sha256: NotRequired[str]
    config_content_sha256: NotRequired[str]


class ModelIdentity(ModelHashes):
    """What makes a model the same: its weights, its configuration and what it predicts."""

    source: str
    architecture: str
    task: str
    labels: list[str] | None
    num_layers: int
    num_heads: int
    pooling: NotRequired[str]
    prompts: NotRequired[dict[str, Any]]
    towers: NotRequired[dict[str, Any]]
    processor: NotRequired[dict[str, Any]]
    patches: NotRequired[dict[str, int]]


class TokenizerIdentity(TypedDict, total=False):
    """Hashes of a tokenizer; the first is all that early runs of format 4 have."""

    sha256: str
    files_sha256: str
    content_sha256: str | None


class CorpusIdentity(TypedDict):
    """What makes a corpus the same: its content, and what is read of it."""

    source: str
    fingerprint: NotRequired[str]
    split: str | None
    limit: int | None
    rows: int
    columns: NotRequired[dict[str, str]]
    delimiter: NotRequired[str]
    labels: NotRequired[dict[str, int | None]]
    padding: NotRequired[dict[str, int] | None]


class SettingsIdentity(TypedDict):
    """The options that numbers depend on."""

    target: NotRequired[str | int]
    target_from: NotRequired[dict[str, str]]
    output: NotRequired[str]
    dtype: str
    seed: NotRequired[int]
    max_length: NotRequired[int | None]
    overflow: NotRequired[Literal["truncate", "fail", "stride"]]
    stride: NotRequired[int | None]
    words: NotRequired[Literal["whitespace", "tokenizer"]]
    token_types: NotRequired[str | None]
    mask_token_id: NotRequired[int | None]
    shard_size: NotRequired[int]
    num_shards: int
    pixels: NotRequired[bool]
    max_new_tokens: NotRequired[int]
    segments: NotRequired[str]


class Identity(TypedDict):
    """What all numbers of a run depend on."""

    model: ModelIdentity
    tokenizer: TokenizerIdentity | None
    corpus: CorpusIdentity
    settings: SettingsIdentity


class MethodRecord(TypedDict):
    """A method of a run; its version is 1 where there is none.

    Where there is no ``word_score``, the method was begun before there was a choice: words were
    ranked by their largest token, and its curves followed the class of the run.
    """

    params: dict[str, Any]
    tables: list[str]
    version: NotRequired[int]
    family: NotRequired[str]
    signed: NotRequired[bool]
    class_dependent: NotRequired[bool]
    additive: NotRequired[bool]
    stochastic: NotRequired[bool]
    word_score: NotRequired[str]
    target: NotRequired[str | None]
    passes: NotRequired[list[str]]
    sides: NotRequired[dict[str, dict[str, Any]]]
    not_of_all: NotRequired[str]
    cost: NotRequired[str]
    paper: NotRequired[str]
    equation: NotRequired[str]


class EvaluationRecord(TypedDict):
    """What is perturbed, in all curves of a run.

    ``each`` says that every number of units is removed, beside the fractions, and ``dtype`` which
    type perturbed inputs are run in, if that isn't the run's; ``imputer`` which masked LM fills
    what is removed under ``impute``, ``draws`` times.
    """

    protocol: str
    text_protocol: NotRequired[str]
    orders: NotRequired[list[str]]
    operations: NotRequired[list[str]]
    fractions: NotRequired[list[float]]
    each: NotRequired[bool]
    dtype: NotRequired[str]
    draws: NotRequired[int]
    imputer: NotRequired[dict[str, str]]


class Execution(TypedDict, total=False):
    """What a call ran with that its numbers don't depend on."""

    started: str
    methods: list[str]
    left_out: dict[str, str]
    device: str
    device_name: str | None
    token_budget: int | None
    workers: int
    processors: int | None
    part: str
    perturb_dtype: dict[str, float]
    runner: str
    versions: dict[str, str]


class FileRecord(TypedDict):
    """A file of a published run, as it was when it was published."""

    rows: int
    bytes: int
    sha256: str


class VersionRecord(TypedDict):
    """A version of a published run after the first: its tag, and what it changed."""

    version: str
    changes: list[str]


class Manifest(TypedDict):
    """``run.json``; ``layout``, ``files`` by path and ``incomplete`` has that of a published run.

    So it is with ``versions``, what versions after the first one changed.

    ``incomplete`` says what the run lacked when it was published, if it did. ``left`` has what a
    published folder, which has become a run, is yet to lose.
    """

    format: int
    layout: NotRequired[str]
    files: NotRequired[dict[str, FileRecord]]
    incomplete: NotRequired[str]
    versions: NotRequired[list[VersionRecord]]
    left: NotRequired[list[str]]
    identity: Identity
    methods: dict[str, MethodRecord]
    evaluation: EvaluationRecord | None
    executions: list[Execution]


class FormatError(ValueError):
    """A manifest is of a format that this version doesn't read.

    Attributes:
        found: What stands there for the format.
        newer: Whether it is a later one.
    """

    def __init__(self, manifest: Mapping[str, Any]) -> None:
        self.found = manifest.get("format")
        self.newer = type(self.found) is int and self.found > FORMAT
        wrote, remedy = "another version of attribeam", "read it with that version"
        if self.newer:
            version = _last_version(manifest)
            wrote = f"attribeam {version}" if version else "a newer attribeam"
            remedy = f"pip install 'attribeam>={version}'" if version else "install the newest"
        reads = " and ".join(map(str, FORMATS))
        super().__init__(
            f"has format {self.found}, which {wrote} wrote, and this version reads {reads}: "
            f"{remedy}"
        )


class ShapeError(ValueError):
    """A manifest lacks what is relied on, or has something else there."""


def parse(content: bytes) -> Manifest:
    """Reads a manifest.

    Raises:
        FormatError: If it is of a format that this version doesn't read.
        ShapeError: If it has the format, but can be no run's.
        ValueError: If it is no JSON object.
    """
    found = json.loads(content.decode("utf-8"))
    if not isinstance(found, dict):
        raise ValueError("it is no object")
    if type(found.get("format")) is not int or found["format"] not in FORMATS:
        raise FormatError(found)
    translated = found if found["format"] == FORMAT else _translated(found)
    if translated.get("layout") == PUBLISHED:
        translated = _known(translated)
    if wrong := misshapen(translated):
        raise ShapeError(wrong)
    return cast(Manifest, translated)


def encode(manifest: Manifest) -> bytes:
    """A manifest as it is stored."""
    content = {"format": FORMAT, **{k: v for k, v in manifest.items() if k != "format"}}
    return f"{json.dumps(content, indent=2, ensure_ascii=False)}\n".encode()


def is_published(manifest: Manifest) -> bool:
    """Whether the files beside a manifest lie as those of a published run do."""
    return manifest.get("layout") == PUBLISHED


def is_imported(manifest: Manifest) -> bool:
    """Whether a run's scores were imported without a model, which nothing then is known of."""
    return manifest["identity"]["model"]["task"] == IMPORTED_TASK


def is_double(manifest: Manifest) -> bool:
    """Whether real numbers of a run are stored in float64 (``table_schema``)."""
    return manifest["identity"]["settings"]["dtype"] == "float64"


def misshapen(manifest: Mapping[str, Any]) -> str | None:
    """What is wrong with a manifest, as a run may come from anyone; None if nothing is."""
    return next(_problems(manifest), None)


def _translated(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest of format 4 as one of format 5, which always says whether there is an evaluation.

    What format 4 came to say in its time (``version``, ``word_score``) stays unsaid, since it tells
    how a run was begun.
    """
    return {"evaluation": None, **manifest, "format": FORMAT}


def _last_version(manifest: Mapping[str, Any]) -> str | None:
    """The version of attribeam that added to a run last, whatever the shape of its manifest."""
    calls = manifest.get("executions")
    call = calls[-1] if isinstance(calls, list) and calls else None
    versions = call.get("versions") if isinstance(call, dict) else None
    version = versions.get("attribeam") if isinstance(versions, dict) else None
    return version if isinstance(version, str) and _VERSION.fullmatch(version) else None


def _known(manifest: dict[str, Any]) -> dict[str, Any]:
    """A published manifest without the tables that a later version has added: nobody asks them."""
    methods = manifest.get("methods")
    if not isinstance(methods, dict):
        return manifest

    def trimmed(record: Any) -> Any:
        tables = record.get("tables") if isinstance(record, dict) else None
        if not isinstance(tables, list):
            return record
        names = [n for n in tables if not (isinstance(n, str) and METHOD_NAME.fullmatch(n))]
        return {**record, "tables": [n for n in tables if n in TABLES or n in names]}

    return {**manifest, "methods": {name: trimmed(record) for name, record in methods.items()}}


# The shape --------------------------------------------------------------------------------------


def _problems(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Yields what can't be; from the first problem on, nothing is relied on."""
    yield from _wrong("", manifest, Manifest)
    if not 0 <= (shards := manifest["identity"]["settings"]["num_shards"]) <= _MOST_SHARDS:
        yield f"identity.settings.num_shards is {shards}"
    for name, method in manifest["methods"].items():
        if not METHOD_NAME.fullmatch(name):
            yield f"a method is called {name!r}"
        for table in method["tables"]:
            if table not in TABLES:
                yield f"methods.{name}.tables has {_short(table)}"


def _wrong(name: str, value: object, kind: Any) -> Iterator[str]:
    """Yields which parts of a value are of other types than they should, by their names."""
    inner = get_args(kind)
    if isinstance(kind, UnionType):
        if all(any(_wrong(name, value, one)) for one in inner):
            yield from _wrong(name, value, inner[0])
    elif is_typeddict(kind) or get_origin(kind) in (dict, list):
        outer = list if get_origin(kind) is list else dict
        if isinstance(value, outer):
            for part, entry, own in _parts(value, kind, inner):
                yield from _wrong(f"{name}.{part}".lstrip("."), entry, own)
        else:
            yield f"{name} is {_short(value)}"
    elif get_origin(kind) is Literal:
        if value not in inner:
            yield f"{name} is {_short(value)}"
    # To isinstance, true is a number.
    elif kind is not Any and type(value) not in ((int, float) if kind is float else (kind,)):
        yield f"{name} is {_short(value)}"


def _parts(value: Any, kind: Any, inner: tuple[Any, ...]) -> Iterator[tuple[str, object, Any]]:
    """Yields the parts of an object or a list: name, value and type."""
    if is_typeddict(kind):
        for key, own in get_type_hints(kind).items():
            needed = key in kind.__required_keys__
            # Null is as good as nothing where a key may be lacking, but not the other way round:
            # nothing is of the type object itself.
            if needed or value.get(key) is not None:
                yield key, value.get(key), own if key in value else object
    elif get_origin(kind) is dict:
        for key, entry in value.items():
            yield key if METHOD_NAME.fullmatch(key) else _short(key), entry, inner[1]
    else:
        for number, entry in enumerate(value):
            yield str(number), entry, inner[0]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
