"""The card of a published run: ``README.md``, whose YAML tells the hub what the files are.

Names come from a corpus, a model and a command line, so the template escapes every value that it
is given, but for what ``Markdown`` marks as Markdown already.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal, NamedTuple

import jinja2
import pyarrow as pa
import yaml

from attribeam.analysis.opening.database import _METHOD_COMMENTS as METHOD_COMMENTS
from attribeam.analysis.opening.manifest import devices, of_pictures, rows_of, stretched, versions
from attribeam.analysis.publish.example import Example
from attribeam.analysis.publish.reproduce import is_hub_id, requirements
from attribeam.schemas import TABLES, VIEWS, table_schema
from attribeam.schemas.layout import WIDE
from attribeam.schemas.manifest import Manifest, ModelIdentity, is_imported
from attribeam.schemas.papers import papers_in
from attribeam.schemas.tables import EVALUATIONS, IMAGE

# What a row of `wide` is, of pictures.
_PICTURED = (
    "a picture with the map of each method over it, to be looked at: scores of patches over the "
    "map's largest, blue for the class and orange against it, or red where there is no sign; a "
    "white line is the mask's"
)
# What a row of each table is. The columns speak for themselves: their comments are in the schemas.
ROWS = {
    "wide": "an instance with the scores of every method",
    "instances": "an instance and what the model says of it",
    "attributions": "the scores of a method for an instance",
    "layers": "the scores of a method for an instance, of one encoder layer",
    "information": "what a bottleneck after one layer lets through, in bits per token",
    "heads": "what is kept of an attention head's attributions",
    "interactions": "the strongest pairs of tokens in a layer",
    "tree_edges": "an edge of an attribution tree",
    "tree_nodes": "a token under an attribution tree",
    "patterns": "the path through the layers that most of a token's influence takes",
    "pattern_ablation": "the output with some nodes of the paths alone",
    "masks": "what a method left out of an instance at once, and what the model said of the rest",
    "localisation": "how well a method's map of a picture finds what a mask shows",
    "curves": "the prediction at one point of a perturbation curve",
    "failures": "an instance that failed: for all methods (method is null) or for one",
    "pruning": "what the model gets right without its least important heads",
    "attacks": "what an adversarial trigger does to the instances of a gold class",
    "randomised": "scores of a method for an instance under a model of which parts are randomised",
    "noised": "scores of a method for an instance with noise on its input",
    "subsets": "the prediction without a random subset of an instance's tokens",
    "repeats": "scores of a stochastic method for an instance under another seed",
    "methods": "a method, its parameters and its properties",
    "run": "the run: model, corpus and settings",
}
METRICS = (
    "comprehensiveness",
    "sufficiency",
    "aopc",
    "log_odds",
    "auc_difference",
    "decision_flip_fraction",
)
# Columns with the number of a class.
_CLASSES = {
    "instances": ("label", "prediction"),
    "attributions": ("target",),
    "information": ("target",),
    "heads": ("target",),
    "interactions": ("target",),
    "localisation": ("target",),
    "curves": ("prediction",),
    "attacks": ("explained", "gold"),
    "wide": ("label", "prediction", "target"),
}
_SIZES = {
    name: 10**power
    for power, name in enumerate(
        ("1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T"), start=3
    )
}
_TASKS = {
    "classification": "text-classification",
    "multi_label": "text-classification",
    "regression": "text-classification",
    "token_classification": "token-classification",
    "span": "question-answering",
    "masked_lm": "fill-mask",
    "causal_lm": "text-generation",
}
_MARKS = re.compile(r"[\\`*_{}\[\]#|~!$@]")


class Markdown(str):
    """Text that is Markdown already, and not escaped again."""


class _Quoted(str):
    """A text that YAML quotes: not all of its readers agree on which plain ones are numbers."""


class Config(NamedTuple):
    """A part of the data set that is loaded on its own: a table, or a method's part of it.

    ``path`` is the glob of its files in the data set, ``size`` their bytes and ``memory`` their
    bytes once decompressed.
    """

    name: str
    table: str
    path: str
    schema: pa.Schema
    rows: int
    size: int
    memory: int


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a data set is said to be by who publishes it, beside what its run knows.

    Attributes:
        repo_id: The data set's name on the hub: ``user/name``.
        license: Its id on the hub; None if unknown.
        corpus_license: That of the texts or pictures, in words; None if unknown.
        model_license: That of the model, in words; None if unknown.
        languages: Codes of the corpus's languages.
        creators: Who made it.
        title: The name that people read; None takes the repository's.
    """

    repo_id: str
    license: str | None = None
    corpus_license: str | None = None
    model_license: str | None = None
    languages: Sequence[str] = ()
    creators: Sequence[str] = ()
    title: str | None = None


@dataclass(frozen=True, kw_only=True)
class Card(Said):
    """What a card says.

    Attributes:
        manifest: The manifest as it is published.
        split: Name of the only split.
        configs: What can be loaded; the first is the default.
        metrics: Rows of the view ``faithfulness``, by column.
        costs: Mean seconds an instance, by method.
        counts: Numbers of rows, instances, failures and texts that were cut.
        left_out: What failed, by stage, method and error: how often, and a message.
        example: An instance to be shown; None for none.
        incomplete: What the run lacked, to be read after "the run was"; empty if nothing.
        report: Name of the report's file beside it; None without one.
    """

    manifest: Manifest
    split: str
    configs: Sequence[Config]
    metrics: Sequence[Mapping[str, Any]]
    costs: Mapping[str, float]
    counts: Mapping[str, int]
    left_out: Sequence[Mapping[str, Any]] = ()
    example: Example | None = None
    incomplete: str = ""
    report: str | None = None

    @property
    def model(self) -> ModelIdentity:
        """What identifies the model."""
        return self.manifest["identity"]["model"]

    @property
    def pretty_name(self) -> str:
        """The name that people read, in one line."""
        return _line(self.title or "") or self.repo_id.split("/")[1]

    @property
    def year(self) -> str:
        """The year of the last call that added to the run; empty if unknown."""
        started = [call["started"] for call in self.manifest["executions"] if "started" in call]
        return max(started, default="")[:4]


def render(card: Card) -> str:
    """Returns the content of ``README.md``."""
    body = _template().render(
        card=card,
        corpus=card.manifest["identity"]["corpus"],
        settings=card.manifest["identity"]["settings"],
        versions=versions(card.manifest),
        devices=devices(card.manifest),
        pictures=of_pictures(card.manifest),
        stretched=stretched(card.manifest),
        imported=is_imported(card.manifest),
        tables=_tables(card),
        metrics=list(_metrics(card)),
        meanings=_meanings(),
        repo=Markdown(card.repo_id),
        split=Markdown(card.split),
        default=Markdown(card.configs[0].name),
        scored=any(config.table == "attributions" for config in card.configs),
        key=Markdown(re.sub(r"\W", "_", card.repo_id)),
        counts=card.counts,
        left_out=card.left_out,
        versions_of=card.manifest.get("versions", []),
        example=card.example,
        papers=papers_in(method.get("paper") or "" for method in card.manifest["methods"].values()),
        links=_links(card),
        requirements=requirements(card.manifest),
        unknown=_unknown(card),
    )
    # Nothing about the text depends on how many of the template's conditions were false.
    body = re.sub(r"\n{3,}", "\n\n", body).strip() + "\n"
    return f"---\n{front_matter(card)}---\n\n{body}"


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        finalize=_finalized,
    )
    environment.filters |= {"code": _code, "params": _params, "count": _count, "rows_of": rows_of}
    environment.filters |= {"markdown": Markdown, "bibtex": _bibtex}
    source = (files("attribeam.analysis") / "templates" / "card.md.jinja").read_text(
        encoding="utf-8"
    )
    return environment.from_string(source)


# YAML -----------------------------------------------------------------------------------------


def front_matter(card: Card) -> str:
    """Returns the YAML at the head of a card, without its dashes."""
    content: dict[str, Any] = {"pretty_name": _Quoted(card.pretty_name)}
    content["license"] = card.license or "unknown"
    if card.languages:
        # Norwegian is "no".
        content["language"] = [_Quoted(code) for code in card.languages]
    task = _TASKS.get(card.model.get("task", ""))
    if of_pictures(card.manifest):
        task = "image-classification"
    if card.model.get("prompts") or card.model.get("towers"):
        task = "zero-shot-image-classification"
    if task:
        content["task_categories"] = [task]
    if is_hub_id(source := _source(card, "corpus")):
        content["source_datasets"] = [_Quoted(source)]
    content["size_categories"] = [size_category(card.configs[0].rows)]
    content["tags"] = ["attribeam", "explainability", "feature-attribution", "interpretability"]
    content["configs"] = [
        {
            "config_name": config.name,
            **({"default": True} if number == 0 else {}),
            "data_files": [{"split": card.split, "path": config.path}],
        }
        for number, config in enumerate(card.configs)
    ]
    content["dataset_info"] = [_info(card, config) for config in card.configs]
    return yaml.dump(
        content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=float("inf")
    )


def size_category(rows: int) -> str:
    """Returns the hub's name for a number of rows."""
    names = [name for name, size in _SIZES.items() if size <= rows]
    above = [name for name, size in _SIZES.items() if size > rows]
    if not names:
        return f"n<{above[0]}"
    return f"{names[-1]}<n<{above[0]}" if above else f"n>{names[-1]}"


class _Dumper(yaml.SafeDumper):
    """Writes equal parts again instead of referring to them, as the hub's parser wants it."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_quoted(dumper: yaml.SafeDumper, text: _Quoted) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style="'")


_Dumper.add_representer(_Quoted, _represent_quoted)


def _info(card: Card, config: Config) -> dict[str, Any]:
    classes = _CLASSES.get(config.table, ())
    pictures = of_pictures(card.manifest)
    labels = class_names(card.model.get("labels"))
    return {
        "config_name": config.name,
        "features": [
            _feature(field, labels if field.name in classes else None, pictures=pictures)
            for field in config.schema
        ],
        "splits": [
            {"name": card.split, "num_bytes": config.memory, "num_examples": config.rows},
        ],
        "download_size": config.size,
        "dataset_size": config.memory,
    }


def class_names(labels: Sequence[str] | None) -> list[str] | None:
    """Returns the names of the classes; None where they can't name them, being absent or alike."""
    if not labels or len(set(labels)) < len(labels):
        return None
    return list(labels)


def _feature(field: pa.Field, labels: Sequence[str] | None, *, pictures: bool) -> dict[str, Any]:
    """A column as YAML says it. Where there are no pictures, the hub is not told of any."""
    if pa.types.is_struct(field.type) and not pictures:
        return {"name": field.name, "struct": _parts(field.type)}
    if labels is not None:
        names = {_Quoted(number): _Quoted(name) for number, name in enumerate(labels)}
        return {"name": field.name, "dtype": {"class_label": {"names": names}}}
    if pa.types.is_list(field.type):
        of = field.type.value_type
        return {"name": field.name, "list": _parts(of) if pa.types.is_struct(of) else _dtype(of)}
    return {"name": field.name, "dtype": _dtype(field.type)}


def _parts(kind: pa.DataType) -> list[dict[str, Any]]:
    """The parts of a structure."""
    return [{"name": part.name, "dtype": _dtype(part.type)} for part in kind]


def _dtype(kind: pa.DataType) -> str:
    """The name that ``datasets`` has for a type."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if kind == IMAGE:
        return "image"
    # Arrow's own names but for the floats (float, double).
    return {pa.float32(): "float32", pa.float64(): "float64"}.get(kind, str(kind))


# Markdown -------------------------------------------------------------------------------------


def escaped(text: str) -> Markdown:
    """Returns a text as Markdown that shows it as it is, in one line."""
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in _line(text))
    line = _MARKS.sub(r"\\\g<0>", line.replace("&", "&amp;"))
    return Markdown(line.replace("<", "&lt;").replace(">", "&gt;"))


def _line(text: str) -> str:
    return " ".join(text.split())


def _finalized(value: object) -> str:
    if isinstance(value, Markdown):
        return value
    if isinstance(value, float):
        return f"{value:.4g}"
    return escaped(str(value))


def _code(text: object) -> Markdown:
    """A text as code: between more backticks than it has; a bar would end a table's cell."""
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in _line(str(text)))
    line = line.replace("|", r"\|")
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    space = " " if "`" in line else ""
    return Markdown(f"{fence}{space}{line}{space}{fence}" if line else "")


def _bibtex(text: object) -> Markdown:
    """A text as a value of BibTeX in a block of code: without what would end either."""
    return Markdown(re.sub(r"[{}\\`]", "", _line(str(text))))


def _links(card: Card) -> dict[str, Markdown]:
    """Where model and corpus are, after their names; nothing where that isn't known."""
    places = {"model": "https://huggingface.co/", "corpus": "https://huggingface.co/datasets/"}
    sources = {"model": _source(card, "model"), "corpus": _source(card, "corpus")}
    return {
        name: Markdown(f", {place}{sources[name]}" if is_hub_id(sources[name]) else "")
        for name, place in places.items()
    }


def _unknown(card: Card) -> list[str]:
    """Which of model and corpus nobody else finds by its name."""
    names: tuple[Literal["model", "corpus"], ...] = ("model", "corpus")
    return [name for name in names if not is_hub_id(_source(card, name))]


def _source(card: Card, name: Literal["model", "corpus"]) -> str:
    """The name of the model's or the corpus's repository."""
    return card.manifest["identity"][name]["source"].partition(":")[0]


def _params(params: Mapping[str, Any]) -> Markdown:
    texts = [
        f"{name}={value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for name, value in params.items()
    ]
    return Markdown(", ".join(_code(text) for text in texts))


def _count(number: int) -> Markdown:
    return Markdown(f"{number:,}")


class _Table(NamedTuple):
    """A table as the card describes it: its sentence, its configs and its columns' sentences."""

    name: str
    row: str
    configs: list[Config]
    columns: list[tuple[str, str, str]]


def _tables(card: Card) -> list[_Table]:
    tables: dict[str, _Table] = {}
    for config in card.configs:
        columns = [(f.name, _shown_type(f.type), _comment(config, f)) for f in config.schema]
        if not any(comment for _, _, comment in columns):
            columns = []
        row = ROWS.get(config.table, "")
        if config.table == WIDE and of_pictures(card.manifest):
            row = _PICTURED
        table = _Table(config.table, row, [], columns)
        tables.setdefault(config.table, table).configs.append(config)
    return list(tables.values())


def _comment(config: Config, field: pa.Field) -> str:
    if config.table == WIDE:
        told: bytes = (field.metadata or {}).get(b"comment", b"")
        return told.decode()
    if config.table == "methods":
        return METHOD_COMMENTS.get(field.name, "")
    # What an incomplete run has may be of another version.
    if config.table in (*TABLES, *EVALUATIONS) and field.name in table_schema(config.table).names:
        comment: bytes = table_schema(config.table).field(field.name).metadata[b"comment"]
        return comment.decode()
    return ""


def _shown_type(kind: pa.DataType) -> str:
    return f"list of {_dtype(kind.value_type)}" if pa.types.is_list(kind) else _dtype(kind)


def _meanings() -> dict[str, str]:
    (view,) = (view for view in VIEWS if view.name == "faithfulness")
    return {name: view.columns[name] for name in METRICS}


class _Metrics(NamedTuple):
    """A table of metrics: of one protocol and operation, best first."""

    protocol: str
    operation: str
    left_out: int
    heads: list[str]
    rows: list[list[Markdown]]


def _metrics(card: Card) -> Iterator[_Metrics]:
    keys = dict.fromkeys((row["protocol"], row["operation"]) for row in card.metrics)
    arrows = {
        name: "↑" if "higher is better" in text else "↓" for name, text in _meanings().items()
    }
    for protocol, operation in keys:
        rows = [r for r in card.metrics if (r["protocol"], r["operation"]) == (protocol, operation)]
        names = [name for name in METRICS if any(row[name] is not None for row in rows)]
        rows.sort(key=lambda row: -(row["comprehensiveness"] or 0))
        yield _Metrics(
            protocol,
            operation,
            min(row["left_out"] for row in rows),
            [f"{name.replace('_', ' ')} {arrows[name]}" for name in names],
            [
                [
                    _code(row["method"]),
                    *(_number(row[name]) for name in names),
                    _number(card.costs.get(row["method"])),
                    _count(row["n"]),
                ]
                for row in rows
            ],
        )


def _number(value: float | None) -> Markdown:
    return Markdown("" if value is None else f"{value:.3f}")
