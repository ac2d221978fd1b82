"""The report's account of what was run: of which model and corpus, how, and what failed."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import duckdb

from attribeam.analysis.local import without_paths
from attribeam.analysis.opening.manifest import devices, of_pictures, rows_of, versions
from attribeam.analysis.report.values import counted, plural, query_count, query_rows
from attribeam.schemas.manifest import EvaluationRecord, Manifest, SettingsIdentity, is_imported


class Fact(NamedTuple):
    """A value with its name."""

    name: str
    value: str


class Group(NamedTuple):
    """A plain table: headings, and rows of texts."""

    title: str
    names: list[str]
    rows: list[list[str]]


def run_tiles(connection: duckdb.DuckDBPyConnection, total: int) -> list[Fact]:
    """The numbers at the top of the page."""
    labelled, accuracy = connection.execute(
        "select count(label), avg(correct::int) from instances"
    ).fetchall()[0]
    methods = query_count(connection, "select count(*) from methods")
    failures = query_count(connection, "select count(*) from failures")
    tiles = [
        Fact(plural(total, "instance"), f"{total:,}"),
        Fact(plural(methods, "method"), str(methods)),
    ]
    if labelled and accuracy is not None:
        of = "" if labelled == total else f" of the {labelled:,} with a label"
        tiles.append(Fact(f"accuracy{of}", f"{accuracy:.1%}"))
    return [*tiles, Fact(plural(failures, "failure"), f"{failures:,}")]


def run_facts(connection: duckdb.DuckDBPyConnection, manifest: Manifest) -> Iterator[Fact]:
    """What was explained, of which model and corpus, and how."""
    model, corpus = manifest["identity"]["model"], manifest["identity"]["corpus"]
    settings = manifest["identity"]["settings"]
    numbers = {"layers": model["num_layers"], "heads": model["num_heads"]}
    size = [f"{number} {what}" for what, number in numbers.items() if number]
    known = [model["source"], *filter(None, [model.get("architecture")]), *size]
    yield Fact("model", ", ".join(known))
    if is_imported(manifest):
        yield Fact("scores", "of others: imported without the model, so that there are no curves")
    else:
        yield Fact("weights", f"sha256 {model['weights_sha256'][:16]}…")
    speaks = model.get("task") == "causal_lm"  # What is asked for is any token.
    asked = [] if speaks else [name for (name,) in connection.execute(_ASKED).fetchall()]
    if names := asked or (model["labels"] if not speaks else None):
        yield Fact(_NAMES.get(model.get("task") or "", "classes"), ", ".join(names))
    split = f", split {corpus['split']}" if corpus.get("split") else ""
    yield Fact("corpus", f"{corpus['source']}{split}: {rows_of(corpus)}")
    tokens, longest, truncated, rationales = connection.execute(
        "select avg(len(tokens)), max(len(tokens)), count(*) filter (truncated), count(rationale)"
        " from instances"
    ).fetchall()[0]
    if tokens is not None:
        units, whole = ("patches", "picture") if of_pictures(manifest) else ("tokens", "text")
        yield Fact(units, f"{tokens:.1f} a {whole} on average, {longest:,} at most")
    if truncated:
        yield Fact("truncated", counted(truncated, "instance"))
    if rationales:
        yield Fact("rationales", f"of {counted(rationales, 'instance')}")
    if not is_imported(manifest):
        yield Fact("explained", _explained(model.get("task") or "", settings))
    seed = f", seed {settings['seed']}" if "seed" in settings else ""
    yield Fact("numbers", f"{settings['dtype']}{seed}")
    if evaluation := manifest.get("evaluation"):
        yield Fact("evaluated", _evaluated(evaluation))
    if names := devices(manifest):
        yield Fact("computed on", ", ".join(names))
    if found := versions(manifest):
        yield Fact("versions", "; ".join(f"{name} {text}" for name, text in found.items()))


def _evaluated(evaluation: EvaluationRecord) -> str:
    """What is perturbed, and how."""
    orders, operations = ", ".join(evaluation["orders"]), ", ".join(evaluation["operations"])
    units = f"a {evaluation['protocol']} at a time"
    if of_texts := evaluation.get("text_protocol"):
        units += f", of texts a {of_texts}"
    if dtype := evaluation.get("dtype"):
        units += f"; in {dtype}"
    if imputer := evaluation.get("imputer"):
        draws = evaluation.get("draws")
        units += f"; filled by {imputer.get('source', 'a masked LM')}, {draws} draws of each"
    return f"{orders}; by {operations}; {units}"


# What is asked of a row, by the model's task, where it isn't the row's class.
_KINDS = {
    "multi_label": "label",
    "regression": "value",
    "span": "end of the answer",
    "similarity": "likeness of a picture and a text",
}
_NAMES = {"multi_label": "labels", "regression": "values", "span": "asked of the answer"}
# Of a language model, by the target.
_FOLLOWING = {
    "each": "each token that follows, and all of them at once",
    "tokens": "each token that follows",
    "all": "all that follows at once",
}
_ASKED = (
    "select outputs[1] from instances where outputs is not null group by all"
    " order by min(question), 1"
)


def _explained(task: str, settings: SettingsIdentity) -> str:
    """Which output is explained, and which scalar of it."""
    target, scalar = settings["target"], settings["output"]
    if given := settings.get("target_from"):
        target = f"{given.get('source', 'another run')}'s"
    if task == "masked_lm":
        return f"{target} word, its {scalar}"
    if task in _KINDS:
        what = f"each {_KINDS[task]}" if target == "each" else f"one {_KINDS[task]}"
        if task == "span" and target == "each":
            what = "start and end of the answer"
        return f"{what}, its {scalar}" if task == "multi_label" else what
    if task == "causal_lm":
        return f"{_FOLLOWING.get(str(target), f'token {target} that follows')}; a token's {scalar}"
    of = " of each word" if task == "token_classification" else ""
    return f"{target} class{of}, its {scalar}"


def run_groups(connection: duckdb.DuckDBPyConnection, manifest: Manifest) -> Iterator[Group]:
    """Tables that few people open."""
    yield Group(
        "Methods and their parameters",
        ["method", "from", "scores", "parameters"],
        [
            [name, method.get("paper") or "", _kind(method), _params(method)]
            for name, method in sorted(manifest["methods"].items())
        ],
    )
    classes = manifest["identity"]["model"].get("labels") or []
    for column, title in (
        ("label", "By label"),
        ("prediction", "By prediction"),
        ("subset", "By subset"),
    ):
        rows = query_rows(
            connection,
            f"select {column} as value, count(*) as n, avg(correct::int) as accuracy,"
            f" avg(list_max(probabilities)) as sure from instances where {column} is not null"
            f" group by all order by {column}",
        )
        if any(row["accuracy"] is not None for row in rows):
            yield Group(
                title,
                [column, "instances", "right", "mean probability of the prediction"],
                [
                    [
                        row["value"] if column == "subset" else _class_name(classes, row["value"]),
                        f"{row['n']:,}",
                        "" if row["accuracy"] is None else f"{row['accuracy']:.1%}",
                        "" if row["sure"] is None else f"{row['sure']:.3f}",
                    ]
                    for row in rows
                ],
            )


def _kind(method: Mapping[str, Any]) -> str:
    facts = {name: method.get(name) for name in ("signed", "additive", "stochastic")}
    return ", ".join(name for name, true in facts.items() if true)


def _params(method: Mapping[str, Any]) -> str:
    """Parameters; of pairs with what each side has in place of ``auto``."""
    said = [f"{name}={value}" for name, value in method["params"].items()]
    for side, own in method.get("sides", {}).items():
        said += [f"{side}: {name}={value}" for name, value in own.items()]
    return ", ".join(said)


def _class_name(classes: Sequence[Any], number: int) -> str:
    return str(classes[number]) if 0 <= number < len(classes) else str(number)


def failure_table(connection: duckdb.DuckDBPyConnection) -> Group | None:
    """What went wrong, a row per kind of failure; None if nothing did."""
    rows = connection.execute(
        "select stage, method, error, count, example, message from failure_summary"
        " order by count desc, stage, method, error"
    ).fetchall()
    names = ["stage", "method", "error", "instances", "for example", "message"]
    texts = [["all" if cell is None else str(cell) for cell in row] for row in rows]
    for row in texts:
        row[-1] = without_paths(row[-1])  # A report is shown to others.
    return Group("Failures", names, texts) if rows else None
