"""Plots of attention heads: what is left of a model as they are pruned."""

from collections.abc import Callable

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from attribeam.analysis.plots.figures import COLOURS, Plot, Row, styled


def pruning(rows: list[Row]) -> go.Figure:
    """Accuracy and loss as the least important heads are pruned (Hao et al. 2021).

    A line per measure of importance; of random orders the mean, over a band from the worst to the
    best of them.
    """
    figure = make_subplots(cols=2, subplot_titles=("accuracy", "loss"), horizontal_spacing=0.09)
    known = ("attattr", "taylor_loss", "taylor_logits", "attention", "random")
    names = [name for name in known if any(row["importance"] == name for row in rows)]
    for column, measure in enumerate(("accuracy", "loss"), 1):
        for name in names:
            colour = COLOURS[known.index(name)]
            own = [row for row in rows if row["importance"] == name]
            if name == "random":
                _add_band(figure, own, measure, colour, column)
            means = _by_rate(own, measure, lambda values: sum(values) / len(values))
            seeds = len({row["seed"] for row in own})
            figure.add_scatter(
                x=list(means),
                y=list(means.values()),
                name=f"{name} (mean of {seeds})" if seeds > 1 else name,
                legendgroup=name,
                showlegend=column == 1,
                mode="lines+markers",
                line={"color": colour, "dash": "dot" if name == "random" else "solid"},
                hovertemplate="%{y:.1%}" if measure == "accuracy" else "%{y:.3f}",
                col=column,
                row=1,
            )
    figure.update_xaxes(title="share of the heads pruned", tickformat=".0%")
    figure.update_yaxes(tickformat=".0%", col=1)
    figure.update_yaxes(rangemode="tozero", col=2)
    first = rows[0]
    corpus, split = first["corpus"], first["split"]
    of = corpus if split is None or split in corpus else f"{corpus}, {split}"
    others = f"; {first['evaluations'] - 1} more not shown" if first["evaluations"] > 1 else ""
    title = f"Pruning: {first['method']}, {first['n']} texts of {of}{others}"
    return styled(figure, title)


def _add_band(figure: go.Figure, rows: list[Row], measure: str, colour: str, column: int) -> None:
    """Fills what lies between the lowest and the highest of several rows a rate."""
    for edge, fill in ((min, None), (max, "tonexty")):
        line = _by_rate(rows, measure, edge)
        figure.add_scatter(
            x=list(line),
            y=list(line.values()),
            legendgroup=rows[0]["importance"],
            showlegend=False,
            hoverinfo="skip",
            mode="lines",
            line={"width": 0, "color": colour},
            fill=fill,
            fillcolor=_faint(colour),
            col=column,
            row=1,
        )


def _by_rate(
    rows: list[Row], measure: str, reduce: Callable[[list[float]], float]
) -> dict[float, float]:
    """What the rows of each rate are reduced to, from the least rate to the largest."""
    rates = sorted({row["rate"] for row in rows})
    return {rate: reduce([row[measure] for row in rows if row["rate"] == rate]) for rate in rates}


def _faint(colour: str) -> str:
    """A colour of ``COLOURS``, to be seen through."""
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, 0.15)"


HEAD_PLOTS = {
    "pruning": Plot(
        """
        with asked as (from pruning where method = coalesce($method, method)),
        chosen as (
            select evaluation
            from asked
            group by evaluation
            order by max(n) desc, count(*) desc, evaluation
            limit 1
        )
        select a.*, (select count(distinct evaluation) from asked) as evaluations
        from asked as a
        semi join chosen using (evaluation)
        order by importance, seed, rate
        """,
        pruning,
        "run `attribeam prune` on it first",
    ),
}
