"""The report's sections with figures: which there are, of which rows, as the page takes them."""

import json
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import duckdb
import plotly.graph_objects as go

from attribeam.analysis.plots.cost import COSTS, cost_scatter
from attribeam.analysis.plots.figures import COLOURS, Plot, Row, escaped, without_templates
from attribeam.analysis.plots.names import WIDTHS, has_names, names_placed
from attribeam.analysis.plots.plots import PLOTS, rows_of
from attribeam.analysis.report.plots import (
    AGREEMENTS,
    HEIGHT,
    agreement_map,
    head_map,
    receptive_field,
)
from attribeam.analysis.report.values import (
    finite,
    has_view,
    query_column,
    query_count,
    query_rows,
    settled,
)

_MOST_SUBSETS = 20
_HEAD_MEASURES = {
    "importance": "mean of the largest attribution",
    "attention": "mean of the largest attention",
    "taylor_loss": "Taylor expansion of the loss",
}


class Choice(NamedTuple):
    """A figure, as plotly's JSON, with the name that it is chosen by."""

    name: str
    figure: dict[str, Any]

    @property
    def height(self) -> int:
        """Height in pixels."""
        return int(self.figure["layout"].get("height", HEIGHT))


class Section(NamedTuple):
    """A part of the page with a figure, or with several to choose from."""

    key: str
    title: str
    note: str
    figures: list[Choice]


def figure_sections(connection: duckdb.DuckDBPyConnection) -> Iterator[Section]:
    """The figures that the run has rows for."""
    made = (
        _degradation(connection),
        cost_section(connection),
        _agreement(connection),
        _heads(connection),
        _plotted(connection, "pruning", "Pruned heads", "What is left as heads are pruned."),
        _receptive_field(connection),
        _information_flow(connection),
        *_patterns(connection),
        _plotted(
            connection,
            "pattern_ablation",
            "Ablated patterns",
            "Accuracy with nothing but the nodes of some patterns or paths.",
        ),
    )
    yield from (section for section in made if section.figures)


def _patterns(connection: duckdb.DuckDBPyConnection) -> list[Section]:
    """What compares words of one role over the corpus; nothing where words have no roles."""
    if not query_count(connection, "select count(*) from instances where len(roles) > 0"):
        return []
    return [
        _pattern_flow(connection),
        _plotted(
            connection,
            "pattern_consistency",
            "Consistency of patterns",
            "Whether the model is right where the patterns of a word are alike.",
        ),
    ]


def _degradation(connection: duckdb.DuckDBPyConnection) -> Section:
    """The curves, as many methods at a time as there are colours."""
    plot = PLOTS["degradation"]
    rows = [settled(row) for row in rows_of(connection, plot)]
    # Of equals the first in the alphabet, whatever their last digits are.
    rows.sort(key=lambda row: (-_or_least(row["degradation"]), row["method"]))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    parts = [methods[at : at + len(COLOURS)] for at in range(0, len(methods), len(COLOURS))]
    return Section(
        "degradation",
        "Degradation curves",
        "Mean probability of the explained class as tokens are removed, normalised over the "
        "instances that all methods have. A good method's most relevant tokens bring it down at "
        "once, its least relevant ones hardly; the area between is its score.",
        [
            chosen(_span(methods, part), plot.draw, [r for r in rows if r["method"] in part])
            for part in parts
        ],
    )


def _span(methods: list[str], part: list[str]) -> str:
    """How a group of ranked methods is called."""
    first, last = methods.index(part[0]) + 1, methods.index(part[-1]) + 1
    place = f"{first} to {last}" if last > first else str(first)
    return f"methods {place} of {len(methods)} by degradation"


def cost_section(connection: duckdb.DuckDBPyConnection) -> Section:
    """Seconds an instance against each measure of faithfulness."""
    rows = query_rows(connection, COSTS)
    measures = {
        "degradation": "degradation",
        "comprehensiveness": "comprehensiveness",
        "sufficiency": "-sufficiency",
        "auc_difference": "AUC difference",
    }
    return Section(
        "cost-faithfulness",
        "Cost against faithfulness",
        "Up and to the left is better. Joined are the methods that no other is at once as cheap "
        "as and more faithful than.",
        [
            chosen(name, partial(cost_scatter, measure=measure, name=name), own)
            for measure, name in measures.items()
            if (own := [row for row in rows if finite(row[measure]) is not None])
        ],
    )


def _agreement(connection: duckdb.DuckDBPyConnection) -> Section:
    rows = query_rows(connection, "from agreement") if has_view("agreement") else []
    return Section(
        "agreement",
        "Agreement of methods",
        "Means over the instances that all methods have, between the scores of the tokens that are "
        "not special. Methods that agree stand together.",
        [
            chosen(name, partial(agreement_map, measure=measure, name=name), own)
            for measure, (name, _) in AGREEMENTS.items()
            if (own := [row for row in rows if finite(row[measure]) is not None])
        ],
    )


def _heads(connection: duckdb.DuckDBPyConnection) -> Section:
    rows = query_rows(connection, "from head_importance")
    methods = sorted({row["method"] for row in rows})
    return Section(
        "heads",
        "Attention heads",
        "How much each head matters to the predictions, averaged over the instances.",
        [
            chosen(
                f"{method}: {name}" if len(methods) > 1 else name,
                partial(head_map, measure=measure, name=name),
                own,
            )
            for method in methods
            for measure, name in _HEAD_MEASURES.items()
            if (
                own := [
                    row
                    for row in rows
                    if row["method"] == method and finite(row[measure]) is not None
                ]
            )
        ],
    )


def _receptive_field(connection: duckdb.DuckDBPyConnection) -> Section:
    rows = query_rows(connection, "from receptive_field")
    return Section(
        "trees",
        "Attribution trees",
        "How far the edges of the trees reach, in tokens, layer by layer: mean, and a bar from a "
        "quarter of the edges to three quarters. The tree of an instance is with it below.",
        [chosen("", receptive_field, rows)] if rows else [],
    )


def _information_flow(connection: duckdb.DuckDBPyConnection) -> Section:
    plot = PLOTS["information_flow"]
    methods = query_column(
        connection, "select distinct method from information_flow order by method"
    )
    return Section(
        "information",
        "Information flow by layer",
        "How much of what the prediction needs is at which tokens, after each layer.",
        [chosen(method, plot.draw, rows_of(connection, plot, method)) for method in methods],
    )


def _pattern_flow(connection: duckdb.DuckDBPyConnection) -> Section:
    """A figure per method and subset, of the first so many."""
    found = connection.execute(
        "select distinct method, subset from pattern_consistency where level = 'attention'"
        " order by method, subset nulls first limit ?",
        [_MOST_SUBSETS],
    ).fetchall()
    plot = PLOTS["pattern_flow"]
    choices = []
    for method, subset in found:
        rows = rows_of(connection, plot, method, subset)
        # Where no subset is named, the first one is shown: that is another choice's.
        if rows and rows[0]["subset"] == subset:
            name = method if subset is None else f"{method}, {subset}"
            choices.append(chosen(name, plot.draw, rows))
    return Section(
        "patterns",
        "Pattern flow",
        "The most frequent path of each word's influence through the layers, by attention heads "
        "or past them.",
        choices,
    )


def _plotted(connection: duckdb.DuckDBPyConnection, name: str, title: str, note: str) -> Section:
    """A section with a plot of ``PLOTS`` as it is."""
    plot: Plot = PLOTS[name]
    rows = rows_of(connection, plot)
    figures = [chosen("", plot.draw, rows)] if rows else []
    return Section(name.replace("_", "-"), title, note, figures)


def chosen(name: str, draw: Callable[[list[Row]], go.Figure], rows: list[Row]) -> Choice:
    """A figure whose texts are shown as they are: plotly takes some markup in them."""
    with without_templates():  # The page has its own, light and dark.
        figure = json.loads(draw([escaped(settled(row)) for row in rows]).to_json())
    layout = figure["layout"]
    layout.pop("template", None)
    shown = {"data": figure["data"], "layout": layout}
    if has_names(layout):  # What of the layout is otherwise below a width, in pixels.
        shown["narrower"] = [
            {"below": widths[1], **names_placed(layout, *widths)} for widths in WIDTHS[:-1]
        ]
    return Choice(name, shown)


def _or_least(value: float | None) -> float:
    return -math.inf if value is None or math.isnan(value) else value
